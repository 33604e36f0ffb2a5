//! `rm`: containers go.

use std::process::ExitCode;

use outcrop::container::RemoveOptions;
use outcrop::error::Result;
use outcrop::verb::rm;

use super::{Context, Verb, complain};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Kill those that run first; what is not there is no error
    #[arg(short, long)]
    force: bool,
    /// With their nameless volumes
    #[arg(short, long)]
    volumes: bool,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["rm", "container rm", "container remove"];
    const ABOUT: &'static str = "Remove containers";
    const EXAMPLE: &'static str = "outcrop rm web\noutcrop rm -f -v web db";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let options = RemoveOptions { force: self.force, volumes: self.volumes };
        let mut out = context.out();
        let mut code = ExitCode::SUCCESS;
        for (name, removed) in rm::rm(context.engine()?, &self.containers, options)? {
            match removed {
                Ok(()) => out.line(name)?,
                Err(error) => {
                    complain(&error);
                    code = ExitCode::FAILURE;
                }
            }
        }
        out.done()?;
        Ok(code)
    }
}
