//! `type=image`: the image in the store, under its names; and pushed where that is said.
//!
//! An image is its config and its layers. It has a manifest in the store only where one says more: annotations, a form of
//! layers that was asked for, an index. Layers that nobody wants compressed are named there by their tar, which can be
//! made again at any time: nothing is stored twice.

use std::collections::HashMap;
use std::io::Write as _;

use super::annotation::Annotation;
use super::bundle::{self, Sent};
use super::fields::Fields;
use super::form::{self, Form};
use super::progress::{self, Work};
use super::registry::Push;
use super::{Distant, Entry, Keep, Output, Product, Written, all_names};
use crate::db::BlobLayer;
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::image::{Compression, Descriptor, Digest, MAX_CONFIG, MAX_MANIFEST, MediaType, Reference};
use crate::job::Event;
use crate::transfer::{Fill, Sink};

pub(super) const ENTRY: Entry = Entry { name: "image", read };

#[derive(Debug)]
struct Store {
    names: Vec<Reference>,
    annotations: Vec<Annotation>,
    /// What was said of it, if anything.
    form: Option<Form>,
    push: Option<Push>,
}

/// Layers as they are in the store.
const UNCOMPRESSED: Form = Form { compression: Compression::None, level: None, force: true, oci: true };

pub(super) fn read(mut fields: Fields) -> Result<Box<dyn Output>> {
    let text = fields.said("name").unwrap_or_default().to_owned();
    let names = fields.names()?;
    let annotations = fields.annotations()?;
    let must = (!annotations.is_empty()).then_some("annotations");
    let said = fields.has("compression");
    let push = Push::take(&mut fields)?;
    let form = Form::take(&mut fields, true, must)?.map(|form| match said || push.is_some() {
        true => form,
        false => Form { oci: form.oci, ..UNCOMPRESSED },
    });
    if push.as_ref().is_some_and(|push| push.by_digest)
        && let Some(tagged) = text.split(',').find(|name| is_tagged(name))
    {
        return Err(fields.wrong("name", tagged, "without a tag: what is pushed by its digest has none"));
    }
    // It always is in the store, and always unpacked there.
    fields.take("unpack");
    if fields.flag("store")? == Some(false) {
        return Err(fields.wrong("store", "false", "true: an image that is kept nowhere is no output"));
    }
    fields.refuse(&["dangling-name-prefix", "name-canonical"])?;
    super::common(&mut fields)?;
    fields.finish()?;
    Ok(Box::new(Store { names, annotations, form, push }))
}

fn is_tagged(name: &str) -> bool {
    Reference::parse_loose(name.trim()).is_ok_and(|(_, selected)| selected)
}

impl Output for Store {
    fn describe(&self) -> String {
        match self.push {
            None => "the image in the store".into(),
            Some(_) => "the image in the store and at its registry".into(),
        }
    }

    fn pushes_to(&self) -> Option<&[Reference]> {
        self.push.as_ref().map(|_| &self.names[..])
    }

    fn takes(&self, distant: Option<&Distant>) -> bool {
        let form = self.form.clone().unwrap_or(Form::plain(true));
        self.push.is_some() && distant.is_some_and(|distant| form.suits(distant))
    }

    fn check(&self, _: usize) -> Result<()> {
        Ok(())
    }

    fn write(&self, product: &Product<'_>) -> Result<Written> {
        let names = all_names(product, &self.names);
        let says_more =
            !product.annotations.is_empty() || self.form.is_some() || product.index || self.push.is_some();
        if !says_more {
            return Ok(Written {
                descriptor: None,
                names: names.clone(),
                keep: Some(Keep { names, target: None }),
            });
        }
        let plain = if self.push.is_some() { Form::plain(true) } else { UNCOMPRESSED };
        let form = super::with_annotations(product, self.form.as_ref().unwrap_or(&plain))?;
        if let Some(push) = &self.push {
            push.layers(product, &names, &form)?;
            if product.is_distant() {
                return self.push_alone(push, product, names, &form);
            }
        }
        let total = progress::layers_size(product);
        let work = Work::start(product.job, "Keeping the manifest".into(), Some(total));
        let mut store = Blobs { engine: product.engine };
        let sent = bundle::send(product, &form, &self.annotations, &mut store, &work)?;
        link(product, &sent)?;
        drop(work);
        if let Some(push) = &self.push {
            let most = MAX_MANIFEST.max(MAX_CONFIG);
            push.documents(product, &names, &sent, &|digest| product.engine.blobs.read_all(digest, most))?;
        }
        let by_digest = self.push.as_ref().is_some_and(|push| push.by_digest);
        if by_digest {
            // It is known by no tag, here neither.
            let keep = Keep { names: product.names.to_vec(), target: Some(sent.top.digest) };
            return Ok(Written { descriptor: Some(sent.top), names, keep: Some(keep) });
        }
        let keep = Keep { names: names.clone(), target: Some(sent.top.digest) };
        Ok(Written { descriptor: Some(sent.top), names, keep: Some(keep) })
    }
}

impl Store {
    /// Of an image that is not all here: it is at its registry, and the store keeps nothing of it. Its layers are there.
    fn push_alone(
        &self,
        push: &Push,
        product: &Product<'_>,
        names: Vec<Reference>,
        form: &Form,
    ) -> Result<Written> {
        let work = Work::start(product.job, "Making the manifest".into(), None);
        let mut documents = Documents::default();
        let sent = bundle::send(product, form, &self.annotations, &mut documents, &work)?;
        drop(work);
        push.documents(product, &names, &sent, &|digest| documents.get(digest))?;
        let said = "the image is at its registry and not in the store: its layers were not needed here";
        product.job.report(Event::Note(said.into()));
        Ok(Written { descriptor: Some(sent.top), names, keep: None })
    }
}

/// Configs and manifests alone, for as long as it takes to send them.
#[derive(Default)]
struct Documents(HashMap<Digest, Vec<u8>>);

impl Documents {
    fn get(&self, digest: &Digest) -> Result<Vec<u8>> {
        let known = self.0.get(digest).cloned();
        known.ok_or_else(|| Error::internal(format!("the document {digest} was not made")))
    }
}

impl Sink for Documents {
    fn blob(&mut self, blob: &Descriptor, fill: &mut Fill<'_>) -> Result<()> {
        if blob.media_type.compression().is_none() {
            let mut bytes = Vec::new();
            fill(&mut bytes)?;
            self.0.insert(blob.digest, bytes);
        }
        Ok(())
    }
}

/// What each document names is kept while it is.
fn link(product: &Product<'_>, sent: &Sent) -> Result<()> {
    product.engine.db.write(|index| {
        for (image, sent_image) in std::iter::zip(product.images, &sent.images) {
            let manifest = &sent_image.manifest.digest;
            if *manifest != sent.top.digest {
                index.link_blob(&sent.top.digest, manifest)?;
            }
            index.link_blob(manifest, image.id.digest())?;
            for (layer, diff_id) in &sent_image.layers {
                index.link_blob(manifest, &layer.digest)?;
                let compression = layer.media_type.compression().unwrap_or(Compression::None);
                if compression != Compression::None {
                    index.insert_blob_layer(&BlobLayer {
                        blob: layer.digest,
                        diff_id: *diff_id,
                        compression: form::name(compression).to_owned(),
                        size: layer.size,
                    })?;
                }
            }
        }
        Ok(())
    })
}

/// The store, as where blobs go. Plain tars of layers do not: they are there as trees.
struct Blobs<'e> {
    engine: &'e Engine,
}

impl Sink for Blobs<'_> {
    fn blob(&mut self, blob: &Descriptor, fill: &mut Fill<'_>) -> Result<()> {
        let plain = matches!(
            blob.media_type,
            MediaType::OciLayer(Compression::None) | MediaType::DockerLayer(Compression::None)
        );
        if plain || self.engine.blobs.contains(&blob.digest)? {
            return Ok(());
        }
        let mut writer = self.engine.blobs.writer(Some(blob.digest), Some(blob.size))?;
        fill(&mut writer)?;
        writer.flush().context(|| "storing a blob")?;
        let document = blob.media_type.is_manifest() || blob.media_type.is_index();
        let media_type = blob.media_type.to_string();
        writer.commit(document.then_some(&*media_type)).map(drop)
    }
}
