//! `tag`: one more name for an image.

use std::process::ExitCode;

use outcrop::error::Result;
use outcrop::verb::tag;

use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    #[arg(value_name = "SOURCE_IMAGE[:TAG]")]
    source: String,
    #[arg(value_name = "TARGET_IMAGE[:TAG]")]
    target: String,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["tag", "image tag"];
    const ABOUT: &'static str = "Give an image one more name";
    const EXAMPLE: &'static str = "outcrop tag site site:1.0";

    fn run(self, context: &Context) -> Result<ExitCode> {
        tag::tag(context.engine()?, &self.source, &self.target.parse()?)?;
        Ok(ExitCode::SUCCESS)
    }
}
