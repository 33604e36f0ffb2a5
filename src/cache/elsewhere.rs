//! What a registry may take of layers that are not here, without their coming here for good.

use std::fs::File;
use std::io::{Seek as _, SeekFrom};

use super::export;
use super::import::Imported;
use super::origin::Origin;
use crate::error::{Context as _, Error, Result};
use crate::image::{DiffId, Hasher};
use crate::job::Job;
use crate::layer::compress;
use crate::output::{Distant, Elsewhere};
use crate::registry::Registry;
use crate::rootfs::Layer;
use crate::sys::part::Part;

impl Elsewhere for Imported<'_> {
    fn distant(&self, layer: &Layer) -> Option<Distant> {
        let index = self.index_of(layer)?;
        if let Some((blob, name)) = self.state().distant.get(&index) {
            let at = Some((name.host().to_owned(), name.path().to_owned()));
            return Some(Distant { blob: blob.clone(), at, of_base: true });
        }
        let remote = &self.layers[index];
        let origin = &self.origins[remote.origin];
        let at = origin.is_registry.then(|| (origin.name.host().to_owned(), origin.name.path().to_owned()));
        Some(Distant { blob: remote.described.archive.clone()?, at, of_base: false })
    }

    /// What passes here is looked at as it would be if it stayed.
    fn fetch(&self, layer: &Layer, job: &Job) -> Result<File> {
        let known = self.index_of(layer).and_then(|index| Some((index, self.distant(layer)?)));
        let (index, Distant { blob, .. }) =
            known.ok_or_else(|| Error::internal("a layer is fetched that is here"))?;
        let file = self.engine.unnamed_file()?;
        let base = self.state().distant.get(&index).map(|(_, name)| name.clone());
        let fetched = match base {
            Some(name) => {
                let source = Box::new(Registry::of(&name, &self.registry)?);
                let from = Origin { source, said: name.familiar(), name, is_registry: true };
                export::fetch(&from, &blob, &file, job)
            }
            None => export::fetch(&self.origins[self.layers[index].origin], &blob, &file, job)
                .map_err(|problem| self.lose(index, problem)),
        };
        fetched?;
        if diff_id(&file, blob.size)? != layer.diff_id {
            let problem = Error::corrupt(format!(
                "the blob {} is not the layer {} that it is said to be",
                blob.digest.short(),
                layer.diff_id.short()
            ));
            return Err(self.lose(index, problem));
        }
        (&file).seek(SeekFrom::Start(0)).context(|| "reading a fetched layer again")?;
        Ok(file)
    }
}

fn diff_id(file: &File, size: u64) -> Result<DiffId> {
    let doing = || "reading a fetched layer";
    let whole = Part::of(file, 0, size).context(doing)?;
    let mut hasher = Hashing(Hasher::new());
    std::io::copy(&mut compress::decoder(Box::new(whole))?.1, &mut hasher).context(doing)?;
    Ok(DiffId(hasher.0.finish()))
}

struct Hashing(Hasher);

impl std::io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
