//! What a build leaves behind: the flags for outputs, annotations, metadata.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use outcrop::error::{Context as _, Error, Result};
use outcrop::image::{Descriptor, Digest, Platform, Reference};
use outcrop::output::{self, Annotation};
use outcrop::verb::build::{Built, Results};

#[derive(clap::Args)]
pub(super) struct OutputArgs {
    /// Where the result goes: a directory, `-` for a tar, or type=image|registry|local|tar|oci|docker[,dest=..]; may be given several times
    #[arg(short, long = "output", value_name = "DEST|type=KIND,..")]
    outputs: Vec<String>,
    /// Annotate the image: [manifest|index|manifest-descriptor|index-descriptor[PLATFORM]:]KEY=VALUE
    #[arg(long = "annotation", value_name = "KEY=VALUE")]
    annotations: Vec<String>,
    /// Make one layer of all that is built on the base image
    #[arg(long)]
    squash: bool,
    /// Keep the image in the store, besides other outputs
    #[arg(long)]
    load: bool,
    /// Push the image to the registry of each of its names, as -o type=registry does
    #[arg(long)]
    push: bool,
    /// Write what was built to a file, as JSON
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// Write the image's id to a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
}

impl OutputArgs {
    pub(super) fn results(&self, more_platforms: Vec<Platform>, may_delete: bool) -> Result<Results> {
        let said = self.outputs.iter().filter(|text| !text.is_empty());
        let mut outputs = said.map(|text| output::parse(text)).collect::<Result<Vec<_>>>()?;
        if self.push && outputs.iter().all(|output| output.pushes_to().is_none()) {
            outputs.push(output::parse("type=registry")?);
        }
        if self.load && !outputs.is_empty() {
            outputs.push(output::store());
        }
        if !may_delete {
            outputs.iter().filter_map(|output| output.deletes()).try_for_each(is_below_here)?;
        }
        let annotations = self.annotations.iter().filter(|text| !text.is_empty());
        let annotations = annotations.map(|text| Annotation::of_flag(text)).collect::<Result<Vec<_>>>()?;
        let stream = match outputs.iter().find(|output| output.is_stream()) {
            None => None,
            Some(output) if io::stdout().is_terminal() => {
                return Err(Error::invalid(format!(
                    "refusing to write {} which is a terminal",
                    output.describe()
                ))
                .hint("add dest=FILE, or send the output elsewhere"));
            }
            Some(_) => Some(File::from(rustix::io::dup(io::stdout()).context(|| "opening standard output")?)),
        };
        Ok(Results {
            outputs,
            annotations: annotations.into_iter().flatten().collect(),
            more_platforms,
            squash: self.squash,
            stream,
        })
    }

    /// Standard output belongs to an output.
    pub(super) fn streams(results: &Results) -> bool {
        results.outputs.iter().any(|output| output.is_stream())
    }

    /// The files about the result.
    pub(super) fn tell(&self, built: &Built) -> Result<()> {
        if let Some(file) = &self.iidfile {
            std::fs::write(file, id(built).to_string())
                .context(|| format!("writing the image's id to `{}`", file.display()))?;
        }
        if let Some(file) = &self.metadata_file {
            write_metadata(file, built)
                .context(|| format!("writing the metadata to `{}`", file.display()))?;
        }
        Ok(())
    }
}

/// As buildx: a directory below this one may be emptied by name, any other needs a word of its own.
fn is_below_here(dir: &Path) -> Result<()> {
    let here =
        std::env::current_dir().and_then(|here| here.canonicalize()).context(|| "finding this directory")?;
    // What is not there yet is where its nearest directory is.
    let mut standing = here.join(dir);
    let mut rest = PathBuf::new();
    let real = loop {
        if let Ok(real) = standing.canonicalize() {
            break Some(real.join(rest));
        }
        // Without a name it climbs out of what is not there.
        let Some(name) = standing.file_name() else { break None };
        rest = Path::new(name).join(rest);
        standing.pop();
    };
    match real.as_deref().and_then(|real| real.strip_prefix(&here).ok()) {
        Some(below) if !below.as_os_str().is_empty() => Ok(()),
        _ => Err(Error::invalid(format!(
            "`mode=delete` would delete in `{}`, which is not below this directory",
            dir.display()
        ))
        .hint("to allow it: --allow buildx.local.delete")),
    }
}

/// What the result is known by: the image, or the index of several.
pub(super) fn id(built: &Built) -> Digest {
    let top = built.written.iter().find_map(|written| written.descriptor.as_ref());
    top.filter(|top| top.media_type.is_index()).map_or(*built.image.digest(), |top| top.digest)
}

/// The keys are those of buildx.
fn write_metadata(file: &Path, built: &Built) -> Result<()> {
    let mut said = serde_json::Map::new();
    said.insert("buildx.build.ref".into(), format!("outcrop/store/{}", built.build).into());
    let images =
        built.written.iter().filter(|written| written.descriptor.is_some() || written.keep.is_some());
    // Where several outputs say it, the last one counts.
    for written in images {
        let index = written.descriptor.as_ref().is_some_and(|top| top.media_type.is_index());
        if !index {
            said.insert("containerimage.config.digest".into(), built.image.to_string().into());
        }
        match &written.descriptor {
            Some(top) => {
                said.insert("containerimage.descriptor".into(), descriptor(top)?);
                said.insert("containerimage.digest".into(), top.digest.to_string().into());
            }
            // An image without a manifest is known by its config, as in Docker.
            None => {
                said.entry("containerimage.digest").or_insert_with(|| built.image.to_string().into());
            }
        }
        if !written.names.is_empty() {
            let names: Vec<String> = written.names.iter().map(Reference::to_string).collect();
            said.insert("image.name".into(), names.join(",").into());
        }
    }
    let mut text = serde_json::to_string_pretty(&said).context(|| "it is no JSON")?;
    text.push('\n');
    std::fs::write(file, text).context(|| "it cannot be written")
}

fn descriptor(top: &Descriptor) -> Result<serde_json::Value> {
    serde_json::to_value(top).context(|| "a descriptor is no JSON")
}
