//! `push`: images to a registry.

use std::process::ExitCode;

use outcrop::error::{Context as _, Error, Result};
use outcrop::image::Reference;
use outcrop::verb::push::{self, Options};

use super::progress::{Mode, Progress};
use super::registry::{Kind, TransferArgs};
use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Push all tags of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// How layers are compressed there: gzip, zstd or none; as they are unless given, and gzip for what is not yet
    #[arg(long, value_name = "KIND")]
    compression: Option<Kind>,
    /// 0 to 9 with gzip, 0 to 22 with zstd
    #[arg(long, value_name = "N", requires = "compression", value_parser = clap::value_parser!(u32).range(0..=22))]
    compression_level: Option<u32>,
    /// Layers at once
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u16).range(1..=64))]
    max_concurrent: u16,
    #[command(flatten)]
    transfer: TransferArgs,
    #[arg(value_name = "NAME[:TAG]")]
    name: String,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["push", "image push"];
    const ABOUT: &'static str = "Upload an image to a registry";
    const EXAMPLE: &'static str = "outcrop push registry.example.com/app:1.0\noutcrop push --compression zstd --all-tags localhost:5000/app";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let (name, selected) = Reference::parse_loose(&self.name)?;
        if self.all_tags && selected {
            return Err(Error::invalid("tag can't be used with --all-tags/-a")
                .hint("leave out what stands behind the name"));
        }
        let engine = context.engine()?;
        let mode = self.transfer.mode();
        if !selected && !self.all_tags {
            self.transfer.say_default_tag(context)?;
        }
        let progress = Progress::of(mode);
        let mut job = context.job(progress.report());
        job.budget.transfers = self.max_concurrent.into();
        let options = Options {
            registry: self.transfer.registry.options(),
            compression: self.compression.map(Kind::compression),
            level: self.compression_level,
        };
        let pushed = match self.all_tags {
            true => push::push_all(engine, &name, &options, &job),
            false => push::push(engine, &name, &options, &job).map(|pushed| vec![pushed]),
        };
        let pushed = pushed.context(|| format!("pushing `{}`", name.familiar()))?;
        drop(progress);
        let mut out = context.out();
        if mode == Mode::Quiet {
            for pushed in pushed {
                out.line(&pushed.name)?;
            }
        }
        out.done()?;
        Ok(ExitCode::SUCCESS)
    }
}
