//! `commit`: a container's changes become an image.

use std::process::ExitCode;

use outcrop::container;
use outcrop::error::{Error, Result};
use outcrop::image::Reference;
use outcrop::verb::commit::{self, Options};

use super::progress::{Mode, Progress};
use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Who made it: `Jane <jane@example.com>`
    #[arg(short, long, value_name = "TEXT")]
    author: Option<String>,
    /// What was done, for the image's history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// An instruction of a Dockerfile that changes how the image runs: `CMD ["/serve"]`
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Stop the container while its files are copied
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true",
          default_missing_value = "true", hide_default_value = true, action = clap::ArgAction::Set)]
    pause: bool,
    #[arg(value_name = "CONTAINER")]
    container: String,
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<Reference>,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["commit", "container commit"];
    const ABOUT: &'static str = "Make an image of a container's changes";
    const EXAMPLE: &'static str = "outcrop commit -m 'tools added' -c 'CMD [\"sh\"]' box tools:1";

    fn run(self, context: &Context) -> Result<ExitCode> {
        if let Some(name) = self.name.as_ref().filter(|name| name.digest().is_some()) {
            return Err(Error::invalid(format!(
                "`{}` names a digest; an image is committed under a tag",
                name.familiar()
            )));
        }
        let engine = context.engine()?;
        engine.sweep()?;
        let row = container::resolve(engine, &self.container)?;
        let options = Options {
            name: self.name,
            author: self.author,
            message: self.message,
            changes: self.change,
            pause: self.pause,
        };
        let progress = Progress::aside(Mode::Auto);
        let id = commit::commit(engine, &row, &options, &context.job(progress.report()))?;
        drop(progress);
        let mut out = context.out();
        out.line(id)?;
        out.done()?;
        Ok(ExitCode::SUCCESS)
    }
}
