//! `rollback`: a name moves back.

use std::process::ExitCode;

use outcrop::error::Result;
use outcrop::verb::rollback::{self, Moved, To};

use super::history::one_line;
use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The state after instruction N (1 is the oldest), a layer, an image, or @{N}: where it pointed N moves ago
    #[arg(long, value_name = "IMAGE|LAYER|N|@{N}")]
    to: Option<String>,
    #[arg(value_name = "NAME[:TAG]")]
    name: String,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["rollback", "image rollback"];
    const ABOUT: &'static str = "Move a name back to what it pointed at before, or down its own layers";
    const EXAMPLE: &'static str = "outcrop rollback site\noutcrop rollback site --to 3\noutcrop undo site";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let to = self.to.as_deref().map_or(Ok(To::Before), To::parse)?;
        say(context, &rollback::rollback(context.engine()?, &self.name.parse()?, &to)?)
    }
}

/// From where to where, and what stands there.
pub(super) fn say(context: &Context, moved: &Moved) -> Result<ExitCode> {
    let name = moved.name.familiar();
    let from = moved.from.map_or_else(|| "nothing".to_owned(), |image| image.short());
    let mut out = context.out();
    match moved.from == Some(moved.to) {
        true => out.line(format_args!("{name}: is at {from} already"))?,
        false => {
            let after = moved.after.as_deref().map(one_line).unwrap_or_default();
            let after = if after.is_empty() { after } else { format!(" ({after})") };
            out.line(format_args!("{name}: {from} -> {}{after}", moved.to.short()))?;
        }
    }
    out.done()?;
    Ok(ExitCode::SUCCESS)
}
