//! `type=docker`: an archive that `docker load` reads, which is an OCI layout too; without a destination the image goes
//! into the store, which is where it would go in Docker.

use std::path::Path;

use super::annotation::Annotation;
use super::fields::Fields;
use super::form::Form;
use super::progress::{self, Work};
use super::{Destination, Entry, Output, Product, Written, all_names, bundle, image, oci};
use crate::archive::{DockerImage, LayoutTar};
use crate::error::{Error, Result};
use crate::image::Reference;

pub(super) const ENTRY: Entry = Entry { name: "docker", read };

#[derive(Debug)]
struct Docker {
    to: Destination,
    names: Vec<Reference>,
    annotations: Vec<Annotation>,
    form: Form,
}

fn read(mut fields: Fields) -> Result<Box<dyn Output>> {
    fields.refuse(&["context"])?;
    let Some(dest) = fields.take("dest") else { return image::read(fields) };
    if fields.flag("tar")? == Some(false) {
        return Err(Error::unsupported("the output type=docker,tar=false: a directory is no Docker archive")
            .hint("type=oci,tar=false writes a directory"));
    }
    let names = fields.names()?;
    let annotations = fields.annotations()?;
    let must = (!annotations.is_empty()).then_some("annotations");
    let form = Form::take(&mut fields, false, must)?.unwrap_or_else(|| Form::plain(false));
    super::common(&mut fields)?;
    fields.finish()?;
    Ok(Box::new(Docker { to: Destination::of(Some(&dest)), names, annotations, form }))
}

impl Output for Docker {
    fn describe(&self) -> String {
        match &self.to {
            Destination::Stream => "a Docker archive to standard output".into(),
            Destination::File(path) => format!("the Docker archive `{}`", path.display()),
        }
    }

    fn check(&self, platforms: usize) -> Result<()> {
        if platforms > 1 {
            return Err(Error::unsupported("a Docker archive holds the image of one platform")
                .hint("type=oci writes images of several platforms"));
        }
        self.to.check()
    }

    fn is_stream(&self) -> bool {
        self.to == Destination::Stream
    }

    fn path(&self) -> Option<&Path> {
        self.to.path()
    }

    fn write(&self, product: &Product<'_>) -> Result<Written> {
        let names = all_names(product, &self.names);
        let form = super::with_annotations(product, &self.form)?;
        let total = progress::layers_size(product);
        let work = Work::start(product.job, format!("Writing {}", self.describe()), Some(total));
        let mut top = None;
        self.to.write(product.stream, |out| {
            let mut tar = LayoutTar::new(out)?;
            let sent = bundle::send(product, &form, &self.annotations, &mut tar, &work)?;
            let images: Vec<DockerImage> = std::iter::zip(product.images, &sent.images)
                .map(|(image, sent)| DockerImage {
                    config: *image.id.digest(),
                    names: names.clone(),
                    layers: sent.layers.iter().map(|(layer, _)| layer.digest).collect(),
                })
                .collect();
            tar.finish(oci::listed(&sent.top, &names), &images)?;
            top = Some(sent.top);
            Ok(())
        })?;
        Ok(Written { descriptor: top, names, keep: None })
    }
}
