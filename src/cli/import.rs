//! `import`: a tar of a root filesystem becomes an image.

use std::fs::File;
use std::process::ExitCode;

use outcrop::db::Origin;
use outcrop::error::{Context as _, Result};
use outcrop::image::{Platform, Reference, RunConfig};
use outcrop::verb::import::{self, Options};

use super::progress::{Mode, Progress};
use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    /// A comment for the image's history
    #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    message: String,
    /// What the files are for
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// The tar, compressed or not
    file: String,
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<Reference>,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["import", "image import"];
    const ABOUT: &'static str = "Make an image from a tar of a root filesystem";
    const EXAMPLE: &'static str = "outcrop import rootfs.tar.gz base:1";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let file = File::open(&self.file).context(|| format!("opening `{}`", self.file))?;
        let options = Options {
            name: self.name,
            config: RunConfig::default(),
            message: self.message,
            platform: self.platform.unwrap_or_else(Platform::host),
            origin: Origin::Imported,
            verb: "import",
            created_by: None,
        };
        let progress = Progress::aside(Mode::Auto);
        let job = context.job(progress.report());
        let image = import::import(context.engine()?, file, &options, &job)
            .context(|| format!("importing `{}`", self.file))?;
        drop(progress);
        let mut out = context.out();
        out.line(image)?;
        out.done()?;
        Ok(ExitCode::SUCCESS)
    }
}
