//! `import`: a tar of a root filesystem becomes an image of one layer. `bootstrap` ends here too.

use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom};
use std::sync::Mutex;

use crate::db::{NewImage, Origin};
use crate::engine::{self, Engine};
use crate::error::{Context as _, Error, Result};
use crate::image::{History, ImageConfig, ImageId, Platform, Reference, RootFs, RunConfig};
use crate::job::Job;
use crate::layer::compress;
use crate::rootfs::{self, Archive, Made, Stack};
use crate::verb::tag;

pub struct Options {
    pub name: Option<Reference>,
    /// How the image runs; `--change` has been applied.
    pub config: RunConfig,
    pub message: String,
    pub platform: Platform,
    pub origin: Origin,
    /// For the tag's log: `import`, `bootstrap`.
    pub verb: &'static str,
    pub created_by: Option<String>,
}

/// Reads the tar, compressed in whatever way, from `file`'s beginning; `file` must be seekable.
pub fn import(engine: &Engine, file: File, options: &Options, job: &Job) -> Result<ImageId> {
    engine.sweep_after(make(engine, file, options, job))
}

fn make(engine: &Engine, file: File, options: &Options, job: &Job) -> Result<ImageId> {
    let name = options.name.as_ref().map(tag::plain).transpose()?;
    let lease = engine.db.lease()?;
    let archive = Whole { file: Mutex::new(file) };
    let made = Made { instruction: options.created_by.as_deref(), ..Made::default() };
    let base = Stack::default();
    let layer = rootfs::place(engine, &archive, None, None, &base, &made, &lease, job)?;
    let stack = base.with(layer.clone());
    let created = engine::rfc3339(None);
    let config = ImageConfig {
        architecture: options.platform.architecture.clone(),
        variant: options.platform.variant.clone(),
        os: options.platform.os.clone(),
        config: options.config.clone(),
        created: Some(created.clone()),
        history: vec![History {
            created: Some(created.clone()),
            created_by: options.created_by.clone(),
            comment: Some(options.message.clone()).filter(|text| !text.is_empty()),
            ..History::default()
        }],
        rootfs: RootFs { kind: "layers".into(), diff_ids: vec![layer.diff_id], ..RootFs::default() },
        ..ImageConfig::default()
    };
    let bytes = serde_json::to_vec(&config).context(|| "writing an image config")?;
    let id = ImageId(engine.blobs.put(&bytes, None)?);
    engine.db.write(|index| {
        index.insert_image(&NewImage {
            id,
            parent: None,
            chain: stack.chain().copied(),
            platform: options.platform.to_string(),
            created: Some(created),
            created_by: options.created_by.clone(),
            origin: options.origin,
            build: None,
        })
    })?;
    engine.barrier(|durable| match &name {
        Some(name) => durable.move_tag(name, &id, None, options.verb, None).map(drop),
        None => Ok(()),
    })?;
    drop(lease);
    Ok(id)
}

struct Whole {
    file: Mutex<File>,
}

impl Archive for Whole {
    fn open(&self) -> Result<Box<dyn Read + Send + '_>> {
        let mut file =
            self.file.lock().expect("no holder panics").try_clone().context(|| "reading the archive")?;
        file.seek(SeekFrom::Start(0)).context(|| "reading the archive from its beginning")?;
        if file.metadata().context(|| "looking at the archive")?.len() == 0 {
            return Err(Error::invalid("the archive is empty"));
        }
        Ok(compress::decoder(Box::new(file))?.1)
    }
}
