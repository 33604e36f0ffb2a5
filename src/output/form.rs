//! The form of an image's blobs: how layers are compressed, whose media types documents have.

use super::elsewhere::{Distant, Elsewhere};
use super::fields::Fields;
use crate::db::BlobLayer;
use crate::engine::Engine;
use crate::error::Result;
use crate::image::{Compression, Descriptor, DiffId, MediaType};
use crate::layer::compress;
use crate::rootfs::Layer;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) compression: Compression,
    /// As the library counts; `None`: ours.
    pub(crate) level: Option<u32>,
    /// Also layers that are here compressed in another way.
    pub(crate) force: bool,
    /// OCI's media types, else Docker's.
    pub(crate) oci: bool,
}

impl Form {
    /// `compression`, `compression-level`, `force-compression`, `oci-mediatypes`. `None` where nothing was said of
    /// layers. `oci`: the default; `must`: why Docker's types will not do.
    pub(super) fn take(fields: &mut Fields, oci: bool, must: Option<&str>) -> Result<Option<Form>> {
        let said = fields.take("compression");
        let compression = match said.as_deref() {
            None | Some("gzip") => Compression::Gzip,
            Some("uncompressed") => Compression::None,
            Some("zstd") => Compression::Zstd,
            Some(other) => return Err(fields.wrong("compression", other, "uncompressed, gzip or zstd")),
        };
        let level = fields.take("compression-level").filter(|level| !level.is_empty());
        let level = match level.as_deref().map(str::parse::<u32>) {
            None => None,
            Some(Ok(level)) if level <= 22 => Some(level),
            Some(_) => {
                let level = level.unwrap_or_default();
                return Err(fields.wrong("compression-level", &level, "0 to 9 with gzip, 0 to 22 with zstd"));
            }
        };
        let force = fields.flag("force-compression")?;
        let types = fields.flag("oci-mediatypes")?;
        let must = match compression {
            Compression::Zstd => Some("zstd"),
            _ => must,
        };
        if let (Some(false), Some(reason)) = (types, must) {
            return Err(fields.wrong(
                "oci-mediatypes",
                "false",
                &format!("true alone here: Docker's media types have no {reason}"),
            ));
        }
        let nothing = said.is_none() && level.is_none() && force.is_none() && types.is_none();
        if nothing && must.is_none() {
            return Ok(None);
        }
        let oci = types.unwrap_or(oci) || must.is_some();
        Ok(Some(Form { compression, level, force: force.unwrap_or(false), oci }))
    }

    /// gzip, and what is here in another compression as it is.
    pub(crate) fn plain(oci: bool) -> Form {
        Form { compression: Compression::Gzip, level: None, force: false, oci }
    }

    /// The blobs of a layer that will do, the best first: compressed as wanted, then in other ways unless these are to be
    /// changed. They need not be here.
    pub(crate) fn candidates(&self, engine: &Engine, diff_id: &DiffId) -> Result<Vec<Descriptor>> {
        // A level that was asked for is not what somebody else took.
        if self.force && self.level.is_some() {
            return Ok(Vec::new());
        }
        let known = engine.db.read(|index| index.blobs_of_layer(diff_id))?;
        let known = known.iter().filter_map(|blob| Some((by_name(&blob.compression)?, blob)));
        let (mut wanted, other): (Vec<_>, Vec<_>) =
            known.partition(|(compression, _)| *compression == self.compression);
        if !self.force {
            wanted.extend(other);
        }
        let descriptor = |(compression, blob): (Compression, &BlobLayer)| {
            Descriptor::new(self.layer(compression), blob.blob, blob.size)
        };
        Ok(wanted.into_iter().map(descriptor).collect())
    }

    /// Whether a layer may go as this blob, which somebody else made.
    pub(super) fn suits(&self, distant: &Distant) -> bool {
        let media_type = &distant.blob.media_type;
        match media_type.compression().filter(|_| !media_type.is_foreign()) {
            None => false,
            Some(_) if self.force && self.level.is_some() => false,
            Some(compression) => compression == self.compression || distant.of_base && !self.force,
        }
    }

    /// How a layer that is not here is named; `None`: it is here.
    pub(super) fn distant(&self, elsewhere: &dyn Elsewhere, layer: &Layer) -> Option<Descriptor> {
        let distant = elsewhere.distant(layer).filter(|distant| self.suits(distant))?;
        let compression = distant.blob.media_type.compression()?;
        Some(Descriptor::new(self.layer(compression), distant.blob.digest, distant.blob.size))
    }

    pub(crate) fn layer(&self, compression: Compression) -> MediaType {
        // Docker's types have no zstd, and a layer may have come so.
        match self.oci || compression == Compression::Zstd {
            true => MediaType::OciLayer(compression),
            false => MediaType::DockerLayer(compression),
        }
    }
    pub(crate) fn config(&self) -> MediaType {
        if self.oci { MediaType::OciConfig } else { MediaType::DockerConfig }
    }
    pub(crate) fn manifest(&self) -> MediaType {
        if self.oci { MediaType::OciManifest } else { MediaType::DockerManifest }
    }
    pub(crate) fn index(&self) -> MediaType {
        if self.oci { MediaType::OciIndex } else { MediaType::DockerManifestList }
    }
}

/// As the table of compressions and the index call it.
pub(crate) fn name(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "none",
        Compression::Gzip => "gzip",
        Compression::Zstd => "zstd",
    }
}

pub(crate) fn by_name(name: &str) -> Option<Compression> {
    [Compression::None, Compression::Gzip, Compression::Zstd].into_iter().find(|one| self::name(*one) == name)
}

pub(crate) fn encoder(compression: Compression) -> &'static dyn compress::Compression {
    compress::by_name(name(compression)).expect("each has one")
}
