//! `type=oci`: an OCI layout, as a tar or as a directory.

use std::path::{Path, PathBuf};

use super::annotation::Annotation;
use super::fields::Fields;
use super::form::Form;
use super::progress::{self, Work};
use super::{Destination, Entry, Output, Product, Written, all_names, bundle};
use crate::archive::{self, LayoutDir, LayoutTar};
use crate::error::{Context as _, Error, Result};
use crate::image::{Descriptor, Reference};

pub(super) const ENTRY: Entry = Entry { name: "oci", read };

#[derive(Debug)]
struct Oci {
    to: To,
    names: Vec<Reference>,
    annotations: Vec<Annotation>,
    form: Form,
}

#[derive(Debug)]
enum To {
    Tar(Destination),
    Dir(PathBuf),
}

fn read(mut fields: Fields) -> Result<Box<dyn Output>> {
    let dest = fields.take("dest");
    let to = match fields.flag("tar")? {
        Some(false) => match dest.filter(|dest| !dest.is_empty() && dest != "-") {
            Some(dir) => To::Dir(dir.into()),
            None => {
                return Err(Error::invalid("the output type=oci,tar=false has no destination")
                    .hint("add dest=DIRECTORY"));
            }
        },
        _ => To::Tar(Destination::of(dest.as_deref())),
    };
    let names = fields.names()?;
    let annotations = fields.annotations()?;
    let must = (!annotations.is_empty()).then_some("annotations");
    let form = Form::take(&mut fields, true, must)?.unwrap_or_else(|| Form::plain(true));
    super::common(&mut fields)?;
    fields.finish()?;
    Ok(Box::new(Oci { to, names, annotations, form }))
}

/// The entries of `index.json`: one for each name.
pub(super) fn listed(top: &Descriptor, names: &[Reference]) -> Vec<archive::Listed> {
    match names {
        [] => vec![top.clone()],
        names => names.iter().map(|name| archive::named(top.clone(), name)).collect(),
    }
}

impl Output for Oci {
    fn describe(&self) -> String {
        match &self.to {
            To::Tar(Destination::Stream) => "an OCI archive to standard output".into(),
            To::Tar(Destination::File(path)) => format!("the OCI archive `{}`", path.display()),
            To::Dir(dir) => format!("the OCI layout `{}`", dir.display()),
        }
    }

    fn check(&self, _: usize) -> Result<()> {
        match &self.to {
            To::Tar(to) => to.check(),
            To::Dir(dir) => super::check_directory(dir),
        }
    }

    fn is_stream(&self) -> bool {
        matches!(self.to, To::Tar(Destination::Stream))
    }

    fn path(&self) -> Option<&Path> {
        match &self.to {
            To::Tar(to) => to.path(),
            To::Dir(dir) => Some(dir),
        }
    }

    fn write(&self, product: &Product<'_>) -> Result<Written> {
        let doing = || format!("writing {}", self.describe());
        let names = all_names(product, &self.names);
        let form = super::with_annotations(product, &self.form)?;
        let total = progress::layers_size(product);
        let work = Work::start(product.job, format!("Writing {}", self.describe()), Some(total));
        let mut top = None;
        match &self.to {
            To::Tar(to) => to.write(product.stream, |out| {
                let mut tar = LayoutTar::new(out)?;
                let sent = bundle::send(product, &form, &self.annotations, &mut tar, &work)?;
                tar.finish(listed(&sent.top, &names), &[])?;
                top = Some(sent.top);
                Ok(())
            })?,
            To::Dir(dir) => {
                let mut layout = LayoutDir::open(dir).context(doing)?;
                let sent =
                    bundle::send(product, &form, &self.annotations, &mut layout, &work).context(doing)?;
                layout.finish(listed(&sent.top, &names)).context(doing)?;
                top = Some(sent.top);
            }
        }
        Ok(Written { descriptor: top, names, keep: None })
    }
}
