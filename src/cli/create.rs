//! `create`: a container that does not run yet.

use std::path::Path;
use std::process::ExitCode;

use outcrop::db::ContainerRow;
use outcrop::error::{Context as _, Result};
use outcrop::verb::create;

use super::container::Flags;
use super::progress::{Mode, Progress};
use super::{Context, Verb};

#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(super) struct Args {
    #[command(flatten)]
    flags: Flags,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["create", "container create"];
    const ABOUT: &'static str = "Create a container";
    const EXAMPLE: &'static str = "outcrop create --name web -v /srv:/srv:ro site\noutcrop start -a web";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let mut options = self.flags.options()?;
        options.new.config.storage_size = context.container_size()?;
        let progress = Progress::aside(if self.flags.quiet { Mode::Quiet } else { Mode::Auto });
        let row = create::create(context.engine()?, &options, None, &context.job(progress.report()))?;
        drop(progress);
        note(self.flags.cidfile.as_deref(), &row)?;
        let mut out = context.out();
        out.line(&row.id)?;
        out.done()?;
        Ok(ExitCode::SUCCESS)
    }
}

/// `--cidfile`
pub(super) fn note(file: Option<&Path>, row: &ContainerRow) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    std::fs::write(file, row.id.as_str())
        .context(|| format!("writing the container's id to `{}`", file.display()))
}
