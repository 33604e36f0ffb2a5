//! What a build leaves behind: one file for each kind, and `TABLE` lists them.
//!
//! [`parse`] reads what `--output` says; [`Output::check`] tells before anything runs whether it can be written;
//! [`Output::write`] does it. A file output is there under its name only when it is whole.

pub(crate) mod again;
mod annotation;
pub(crate) mod bundle;
mod cacheonly;
pub(crate) mod csv;
mod destination;
mod docker;
mod elsewhere;
mod fields;
mod files;
pub(crate) mod form;
mod image;
mod local;
mod oci;
mod progress;
mod registry;
mod send;
mod tar;

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use crate::engine::Engine;
use crate::error::{Context as _, Error, Result, did_you_mean};
use crate::image::{Descriptor, Digest, ImageConfig, ImageId, Platform, Reference};
use crate::job::Job;
use crate::rootfs::Stack;

pub use annotation::Annotation;
pub use destination::Destination;
pub use elsewhere::{Distant, Elsewhere};
use fields::Fields;
pub(crate) use form::Form;
pub(crate) use send::{Beat, Piece, Target, compress};

/// What a build came to, and what was asked for with it.
pub struct Product<'p> {
    pub engine: &'p Engine,
    /// One for each platform, in the order asked for.
    pub images: &'p [Image],
    /// The result is an index, even of one image.
    pub index: bool,
    /// `--tag`
    pub names: &'p [Reference],
    /// `--annotation`
    pub annotations: &'p [Annotation],
    /// SOURCE_DATE_EPOCH in seconds.
    pub epoch: Option<i64>,
    /// Where `dest=-` goes.
    pub stream: Option<&'p File>,
    /// How registries are spoken to.
    pub registry: &'p crate::registry::Options,
    /// Knows of the layers that are not here. There are such ones where every output takes them alone.
    pub elsewhere: &'p dyn Elsewhere,
    pub job: &'p Job,
}

impl Product<'_> {
    /// Not all of it is in the store.
    fn is_distant(&self) -> bool {
        let mut layers = self.images.iter().flat_map(|image| image.stack.layers());
        layers.any(|layer| self.elsewhere.distant(layer).is_some())
    }
}

/// One image of a product.
pub struct Image {
    /// As asked for.
    pub platform: Platform,
    pub id: ImageId,
    pub config: ImageConfig,
    pub stack: Stack,
}

/// What an output left.
#[derive(Debug, Default)]
pub struct Written {
    /// The manifest or the index.
    pub descriptor: Option<Descriptor>,
    /// The image's names there, in full.
    pub names: Vec<Reference>,
    /// The image is to have these names in the store, by way of this manifest or index if there is one.
    pub keep: Option<Keep>,
}

#[derive(Debug)]
pub struct Keep {
    pub names: Vec<Reference>,
    pub target: Option<Digest>,
}

/// A kind of output with all that was said of it. May be written more often than once, to the same effect.
pub trait Output: std::fmt::Debug + Send + Sync {
    /// For people: `oci archive image.tar`.
    fn describe(&self) -> String;
    /// Whether it can be written, before anything runs: its destination, and that so many platforms fit into it.
    fn check(&self, platforms: usize) -> Result<()>;
    /// It writes to the caller's standard output.
    fn is_stream(&self) -> bool {
        false
    }
    /// It is pushed, and says itself to which names; `None`: it is not pushed.
    fn pushes_to(&self) -> Option<&[Reference]> {
        None
    }
    /// Whether a layer may be as this in it, without being here; `None`: as bytes that nobody has.
    fn takes(&self, _: Option<&Distant>) -> bool {
        false
    }
    /// What it writes to, for telling two of them apart.
    fn path(&self) -> Option<&Path> {
        None
    }
    /// A directory in which it deletes what is not in the result.
    fn deletes(&self) -> Option<&Path> {
        None
    }
    fn write(&self, product: &Product<'_>) -> Result<Written>;
}

/// A kind by its name in `type=`.
pub(crate) struct Entry {
    name: &'static str,
    read: fn(Fields) -> Result<Box<dyn Output>>,
}

const TABLE: &[Entry] =
    &[image::ENTRY, local::ENTRY, tar::ENTRY, oci::ENTRY, docker::ENTRY, registry::ENTRY, cacheonly::ENTRY];

/// What `--output` says: `type=KIND[,KEY=VALUE]...`, a directory, or `-` for a tar on standard output.
pub fn parse(text: &str) -> Result<Box<dyn Output>> {
    let (kind, fields) = fields::read(text)?;
    match TABLE.iter().find(|entry| entry.name == kind) {
        Some(entry) => (entry.read)(fields),
        None => {
            let error = Error::invalid(format!("unknown output type `{kind}`"));
            let names = TABLE.iter().map(|entry| entry.name);
            Err(match did_you_mean(&kind, names.clone()) {
                Some(hint) => error.hint(hint),
                None => error.hint(format!("there are {}", names.collect::<Vec<_>>().join(", "))),
            })
        }
    }
}

/// The image in the store, under the names of `--tag`: what a build leaves where nothing is said.
pub fn store() -> Box<dyn Output> {
    parse("type=image").expect("it is well formed")
}

/// `Invalid` where two outputs would write to one place, or one has nowhere to go. `names`: the result's own.
pub fn check(outputs: &[Box<dyn Output>], names: &[Reference], platforms: usize) -> Result<()> {
    let mut pushed = outputs.iter().filter_map(|output| output.pushes_to());
    if names.is_empty() && pushed.any(<[Reference]>::is_empty) {
        return Err(Error::invalid("an image is to be pushed and has no name")
            .hint("give it one: -t REGISTRY/NAME:TAG, or name=REGISTRY/NAME:TAG with the output"));
    }
    if outputs.iter().filter(|output| output.is_stream()).count() > 1 {
        return Err(Error::invalid("two outputs go to standard output")
            .hint("give all but one of them a file: dest=FILE"));
    }
    for (n, output) in outputs.iter().enumerate() {
        output.check(platforms)?;
        let path = output.path();
        if path.is_some() && outputs[..n].iter().any(|other| other.path() == path) {
            return Err(Error::invalid(format!("two outputs go to the same place: {}", output.describe())));
        }
    }
    Ok(())
}

/// What BuildKit takes with every image: what asks for nothing new here, and what is not supported.
fn common(fields: &mut Fields) -> Result<()> {
    // Times are never later than SOURCE_DATE_EPOCH, from the layer on; the others are obsolete and say nothing.
    fields.flag("rewrite-timestamp")?;
    fields.flag("buildinfo")?;
    fields.flag("buildinfo-attrs")?;
    fields.refuse(&["attestation-inline", "attestation-prefix", "prefer-nondist-layers"])
}

/// Docker's media types have no place for annotations.
fn with_annotations(product: &Product<'_>, form: &Form) -> Result<Form> {
    if !product.annotations.is_empty() && !form.oci {
        product.job.warn("Docker's media types have no annotations; the OCI ones are written");
        return Ok(Form { oci: true, ..form.clone() });
    }
    Ok(form.clone())
}

/// A directory that is written into: there, or to be made.
fn check_directory(dir: &Path) -> Result<()> {
    let mut standing = dir;
    loop {
        match std::fs::metadata(standing) {
            Ok(found) if found.is_dir() => break,
            Ok(_) => {
                return Err(Error::conflict(format!("`{}` is no directory", standing.display()))
                    .hint("name a directory; one that is not there is made"));
            }
            Err(cause) if matches!(cause.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(cause) => return Err(cause).context(|| format!("looking at `{}`", standing.display())),
        }
        standing = match standing.parent() {
            Some(above) if !above.as_os_str().is_empty() => above,
            _ => Path::new("."),
        };
    }
    rustix::fs::access(standing, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
        .context(|| format!("writing into `{}`", standing.display()))
}

/// `--tag`'s names and the output's own, each once.
fn all_names(product: &Product<'_>, own: &[Reference]) -> Vec<Reference> {
    let mut names = product.names.to_vec();
    for name in own {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        match parse(text) {
            Ok(output) => output.describe(),
            Err(error) => format!("{}; {}", error.message(), error.hint_text().unwrap_or_default()),
        }
    }

    #[test]
    fn outputs_read_as_buildx_reads_them() {
        for (text, expected) in [
            ("out", "the directory `out`"),
            ("-", "a tar to standard output"),
            ("type=local,dest=out/x", "the directory `out/x`"),
            ("type=tar,dest=x.tar", "the tar `x.tar`"),
            ("type=tar", "a tar to standard output"),
            ("type=oci,dest=x.tar", "the OCI archive `x.tar`"),
            ("type=oci,dest=-", "an OCI archive to standard output"),
            ("type=oci,dest=x,tar=false", "the OCI layout `x`"),
            ("type=docker,dest=x.tar", "the Docker archive `x.tar`"),
            ("type=docker", "the image in the store"),
            ("type=cacheonly", "nothing but the cache"),
            (
                "type=cacheonly,dest=x",
                "unknown key `dest` of the output type=cacheonly; type=cacheonly has none",
            ),
            ("type=image", "the image in the store"),
            ("TYPE=image , name=a", "the image in the store"),
            ("\"type=image\",\"name=a,b\"", "the image in the store"),
            (
                "tar=false,dest=x",
                "the output `tar=false,dest=x` has no type; write type=image, registry, local, tar, oci or docker",
            ),
            (
                "type=oci,x",
                "`x` in the output `type=oci,x` has no value; write key=value, as in type=oci,dest=image.tar",
            ),
            ("type=lokal,dest=x", "unknown output type `lokal`; did you mean `local`?"),
            ("type=local,dest=y,dst=x", "unknown key `dst` of the output type=local; did you mean `dest`?"),
            (
                "type=oci,compresion=zstd,dest=x",
                "unknown key `compresion` of the output type=oci; did you mean `compression`?",
            ),
            (
                "type=oci,compression=lz4,dest=x",
                "`compression=lz4` of the output type=oci; compression may be uncompressed, gzip or zstd",
            ),
            ("type=image,push=true,name=a", "the image in the store and at its registry"),
            ("type=registry,name=a", "the image in the store and at its registry"),
            (
                "type=registry,name=a:1,push-by-digest=true",
                "`name=a:1` of the output type=registry; name may be without a tag: what is pushed by its digest has none",
            ),
            (
                "type=registry,push=false",
                "`push=false` of the output type=registry; push may be true: what is not pushed is type=image",
            ),
            ("type=local", "the output type=local has no destination; add dest=DIRECTORY"),
        ] {
            assert_eq!(said(text), expected, "{text}");
        }
    }
}
