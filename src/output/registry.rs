//! `type=registry`: the image in the store, and pushed: layers side by side, then what names them, then each name.

use super::bundle::Sent;
use super::fields::Fields;
use super::form::Form;
use super::send::{Piece, Target};
use super::{Entry, Output, Product, image};
use crate::error::{Context as _, Result};
use crate::image::{Descriptor, Digest, MediaType, Reference};
use crate::job::Event;
use crate::registry::Registry;

pub(super) const ENTRY: Entry = Entry { name: "registry", read };

/// What was said of the push.
#[derive(Debug)]
pub(super) struct Push {
    /// The names have no tags.
    pub(super) by_digest: bool,
    /// Plain HTTP will do, and certificates are not looked at.
    pub(super) insecure: bool,
}

pub(super) type Read<'r> = dyn Fn(&Digest) -> Result<Vec<u8>> + 'r;

/// As BuildKit has it: another word for a pushed image.
fn read(fields: Fields) -> Result<Box<dyn Output>> {
    image::read(fields)
}

impl Push {
    /// `push`, `push-by-digest`, `registry.insecure`; `None`: it is not pushed.
    pub(super) fn take(fields: &mut Fields) -> Result<Option<Push>> {
        let always = fields.kind() == ENTRY.name;
        let said = fields.flag("push")?;
        let by_digest = fields.flag("push-by-digest")?.unwrap_or(false);
        let insecure = fields.flag("registry.insecure")?.unwrap_or(false);
        if always && said == Some(false) {
            return Err(fields.wrong("push", "false", "true: what is not pushed is type=image"));
        }
        Ok((always || said == Some(true)).then_some(Push { by_digest, insecure }))
    }

    /// The layers alone, so that they are compressed side by side while they go. The manifests come with `documents`.
    pub(super) fn layers(&self, product: &Product<'_>, names: &[Reference], form: &Form) -> Result<()> {
        let Some(first) = names.first() else { return Ok(()) };
        let registry = self.open(product, first)?;
        let target = self.target(product, &registry, first);
        product.job.report(Event::Pushing { repository: first.name() });
        let mut blobs: Vec<Vec<Option<Descriptor>>> = Vec::new();
        for image in product.images {
            let layers = image.stack.layers().iter();
            blobs.push(layers.map(|layer| form.distant(product.elsewhere, layer)).collect());
        }
        let mut pieces = Vec::new();
        for (image, blobs) in std::iter::zip(product.images, &blobs) {
            for (n, blob) in blobs.iter().enumerate() {
                pieces.push(Piece { stack: &image.stack, n, exactly: blob.as_ref() });
            }
        }
        target.layers(&pieces, form).map(drop).context(|| format!("pushing `{}`", first.familiar()))
    }

    /// What names the layers, to every name; `read` gives the bytes of a config or a manifest. The layers of the first
    /// are there.
    pub(super) fn documents(
        &self,
        product: &Product<'_>,
        names: &[Reference],
        sent: &Sent,
        read: &Read<'_>,
    ) -> Result<()> {
        for (n, name) in names.iter().enumerate() {
            let to = || format!("pushing `{}`", name.familiar());
            let registry = self.open(product, name)?;
            let target = self.target(product, &registry, name);
            if n > 0 && names[n - 1].name() != name.name() {
                product.job.report(Event::Pushing { repository: name.name() });
                self.rest_of_layers(product, &target, sent).context(to)?;
            }
            self.document(product, &target, sent, read).context(to)?;
        }
        Ok(())
    }

    fn rest_of_layers(&self, product: &Product<'_>, target: &Target<'_>, sent: &Sent) -> Result<()> {
        let mut pieces = Vec::new();
        for (image, sent) in std::iter::zip(product.images, &sent.images) {
            for (n, (layer, _)) in sent.layers.iter().enumerate() {
                pieces.push(Piece { stack: &image.stack, n, exactly: Some(layer) });
            }
        }
        target.layers(&pieces, &Form::plain(true)).map(drop)
    }

    fn document(
        &self,
        product: &Product<'_>,
        target: &Target<'_>,
        sent: &Sent,
        read: &Read<'_>,
    ) -> Result<()> {
        for (image, sent_image) in std::iter::zip(product.images, &sent.images) {
            let config = read(image.id.digest())?;
            target.bytes(&Descriptor::of(MediaType::OciConfig, &config), &config)?;
            let manifest = &sent_image.manifest;
            if manifest.digest != sent.top.digest {
                let raw = read(&manifest.digest)?;
                target.manifest(&manifest.digest.to_string(), manifest, &raw)?;
            }
        }
        let raw = read(&sent.top.digest)?;
        let selector = match target.name.tag().filter(|_| !self.by_digest) {
            Some(tag) => tag.to_owned(),
            None => sent.top.digest.to_string(),
        };
        target.manifest(&selector, &sent.top, &raw)?;
        product.job.report(Event::Pushed {
            tag: selector,
            digest: sent.top.digest.to_string(),
            size: sent.top.size,
        });
        Ok(())
    }

    fn open(&self, product: &Product<'_>, name: &Reference) -> Result<Registry> {
        let mut options = product.registry.clone();
        options.insecure |= self.insecure;
        Registry::of(name, &options)
    }

    fn target<'t>(
        &self,
        product: &'t Product<'_>,
        registry: &'t Registry,
        name: &'t Reference,
    ) -> Target<'t> {
        Target {
            engine: product.engine,
            registry,
            options: product.registry,
            name,
            elsewhere: Some(product.elsewhere),
            job: product.job,
        }
    }
}
