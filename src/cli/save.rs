//! `save`: images into an archive.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use outcrop::error::{Context as _, Error, Result};
use outcrop::image::Compression;
use outcrop::output::Destination;
use outcrop::verb::save;

use super::progress::{Mode, Progress};
use super::registry::{self, Kind};
use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The file to write, in place of standard output; compressed where its name ends in .gz, .tgz, .zst or .tzst
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// docker-archive: an OCI layout that `docker load` reads as well; oci-archive: without what is Docker's; oci-dir: a
    /// directory
    #[arg(long, value_name = "FORMAT", default_value = "docker-archive", hide_default_value = true)]
    format: Format,
    /// How the archive is compressed, whatever its name is: gzip, zstd or none
    #[arg(long, value_name = "KIND")]
    compression: Option<Kind>,
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    DockerArchive,
    OciArchive,
    OciDir,
}

/// As the end of its name says.
fn compression_of(path: &Path) -> Compression {
    match path.extension().and_then(|end| end.to_str()) {
        Some("gz" | "tgz") => Compression::Gzip,
        Some("zst" | "tzst") => Compression::Zstd,
        _ => Compression::None,
    }
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["save", "image save"];
    const ABOUT: &'static str = "Write images to an archive";
    const EXAMPLE: &'static str =
        "outcrop save -o site.tar.zst site:1.0 site:1.1\noutcrop save --format oci-dir -o layout site:1.0";

    fn run(self, context: &Context) -> Result<ExitCode> {
        if self.format == Format::OciDir {
            return self.directory(context);
        }
        let named = self.output.as_deref().map_or(Compression::None, compression_of);
        let compression = self.compression.map_or(named, Kind::compression);
        let to = self.output.map_or(Destination::Stream, Destination::File);
        if to == Destination::Stream && io::stdout().is_terminal() {
            return Err(Error::invalid("cowardly refusing to save to a terminal")
                .hint("use --output FILE, or send standard output elsewhere"));
        }
        let engine = context.engine()?;
        let progress = Progress::aside(Mode::Quiet);
        let job = context.job(progress.report());
        let stream = File::from(rustix::io::dup(io::stdout()).context(|| "opening standard output")?);
        let format = match self.format {
            Format::OciArchive => save::Format::Oci,
            Format::DockerArchive | Format::OciDir => save::Format::Docker,
        };
        let registry = registry::options();
        to.write(Some(&stream), |out| match compression {
            Compression::None => save::save(engine, &self.images, &registry, out, format, &job),
            other => save::save_compressed(engine, &self.images, &registry, out, format, other, &job),
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Args {
    fn directory(self, context: &Context) -> Result<ExitCode> {
        let dir = self.output.ok_or_else(|| {
            Error::invalid("--format oci-dir writes a directory, and none is named").hint("add --output DIR")
        })?;
        if self.compression.is_some() {
            return Err(Error::invalid("a directory is not compressed")
                .hint("leave out --compression, or write --format oci-archive"));
        }
        let progress = Progress::aside(Mode::Quiet);
        let job = context.job(progress.report());
        save::save_directory(context.engine()?, &self.images, &registry::options(), &dir, &job)
            .context(|| format!("saving to `{}`", dir.display()))?;
        Ok(ExitCode::SUCCESS)
    }
}
