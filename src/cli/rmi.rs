//! `rmi`: removes images, or names of them.

use std::process::ExitCode;

use outcrop::error::Result;
use outcrop::verb::rmi::{self, Options, Removed};

use super::images::is_missing;
use super::{Context, Verb, complain};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Also images with several names, or with stopped containers
    #[arg(short, long)]
    force: bool,
    /// Keep images without a name that these were made from
    #[arg(long)]
    no_prune: bool,
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["rmi", "image rm", "image remove"];
    const ABOUT: &'static str = "Remove images";
    const EXAMPLE: &'static str = "outcrop rmi site:1.0\noutcrop rmi -f 3f2a1b9c0d4e";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let engine = context.engine()?;
        let options = Options { force: self.force, keep_parents: self.no_prune };
        let mut out = context.out();
        let mut code = ExitCode::SUCCESS;
        for image in &self.images {
            match rmi::rmi(engine, image, options) {
                Ok(removed) => {
                    for gone in &removed {
                        match gone {
                            Removed::Name(name) => out.line(format_args!("Untagged: {name}"))?,
                            Removed::Image(id) => out.line(format_args!("Deleted: {id}"))?,
                            Removed::Layer(chain) => out.line(format_args!("Deleted: {chain}"))?,
                        }
                    }
                }
                Err(error) => {
                    // With --force what is gone already is fine, and still said.
                    if !(self.force && is_missing(&error)) {
                        code = ExitCode::FAILURE;
                    }
                    complain(&error);
                }
            }
        }
        out.done()?;
        Ok(code)
    }
}
