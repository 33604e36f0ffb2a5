//! `system adopt`: images and volumes out of Docker's data root.

use std::path::PathBuf;
use std::process::ExitCode;

use outcrop::error::{Context as _, Result};
use outcrop::verb::adopt::{self, Adopted, AdoptedImage};

use super::format::size;
use super::progress::{Mode, Progress};
use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Docker's data root, as `docker info` names it (Docker Root Dir); nothing in it is changed
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Say what would be taken, and take nothing
    #[arg(long)]
    dry_run: bool,
    /// Say nothing but what was taken
    #[arg(short, long)]
    quiet: bool,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["system adopt"];
    const ABOUT: &'static str = "Take over the images and volumes of a Docker data root";
    const EXAMPLE: &'static str =
        "outcrop system adopt --dry-run /var/lib/docker\noutcrop system adopt /var/lib/docker";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let engine = context.engine()?;
        let progress = Progress::aside(if self.quiet { Mode::Quiet } else { Mode::Auto });
        let job = context.job(progress.report());
        let done = adopt::adopt(engine, &self.dir, self.dry_run, &job)
            .context(|| format!("adopting `{}`", self.dir.display()))?;
        drop(progress);
        let mut out = context.out();
        for line in lines(&done, self.dry_run) {
            out.line(line)?;
        }
        out.done()?;
        Ok(ExitCode::from(u8::from(!done.refused.is_empty())))
    }
}

fn lines(done: &Adopted, dry_run: bool) -> Vec<String> {
    let verb = if dry_run { "Would adopt" } else { "Adopted" };
    let mut lines: Vec<String> = done
        .images
        .iter()
        .flat_map(named)
        .map(|(known, what)| format!("{}: {what}", if known { "Already here" } else { verb }))
        .collect();
    lines.extend(done.volumes.iter().map(|name| format!("{verb}: volume {name}")));
    lines.extend(done.left.iter().map(|what| format!("Not taken: {what}")));
    lines.extend(done.refused.iter().map(|what| format!("Refused: {what}")));
    let fresh = done.images.iter().filter(|image| !image.known).count();
    let plural = |number: usize| if number == 1 { "" } else { "s" };
    lines.push(format!(
        "{verb} {fresh} image{} with {} layer{} of {}",
        plural(fresh),
        done.layers,
        plural(done.layers),
        size(done.bytes)
    ));
    lines
}

/// An image by its names; those between two instructions, which have none, are counted alone.
fn named(image: &AdoptedImage) -> Vec<(bool, String)> {
    image
        .names
        .iter()
        .map(|name| (image.known, format!("{} ({})", name.familiar(), image.id.short())))
        .collect()
}
