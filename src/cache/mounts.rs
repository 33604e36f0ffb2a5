//! Cache mounts that travel: sent as files that the other side does not have, and restored where a step needs a new one.

use std::collections::{HashMap, HashSet};
use std::io::{Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::document::{self, Mount as Described};
use super::export::Built;
use super::import::Imported;
use super::origin::Origin;
use super::packs::{self, Pack, Packing};
use super::target::Target;
use super::{mount_files, rows};
use crate::error::{Context as _, Error, Kind as Why, Result};
use crate::image::{Compression, Descriptor, Digest, MediaType};
use crate::job::Job;
use crate::layer::{Kind, Row};
use crate::output::bundle;
use crate::output::form::Form;

/// Bytes of a list of files or packs.
const MAX_LIST: u64 = 256 << 20;

/// A cache mount that the build has to do with.
pub struct MountDir {
    /// What makes two mounts the same, as text.
    pub identity: String,
    /// Its files, held still; `None`: it is not here.
    pub dir: Option<PathBuf>,
}

/// Sends the mounts; one that cannot be sent now is told and left out.
pub(super) fn send(
    built: &Built<'_>,
    previous: Option<&(Origin, document::Document)>,
    target: &mut Target<'_>,
    job: &Job,
) -> Result<(Vec<Described>, Vec<Descriptor>)> {
    let (mut sent, mut blobs) = (Vec::new(), Vec::new());
    let mut known = Vec::new();
    if let Some((origin, document)) = previous {
        for mount in &document.mounts {
            known.extend(read_packs(origin, mount, job).unwrap_or_default());
        }
    }
    for mount in &built.mounts {
        let one = match &mount.dir {
            Some(dir) => send_dir(built, &mount.identity, dir, &known, target, job),
            None => pass_on(built, &mount.identity, target, job),
        };
        match one {
            Ok(Some((described, more))) => {
                sent.push(described);
                blobs.extend(more);
            }
            Ok(None) => {}
            Err(problem) if problem.kind() == Why::Conflict => {
                job.warn(format!("a cache mount is not exported: {}", problem.one_line()));
            }
            Err(problem) => return Err(problem),
        }
    }
    Ok((sent, blobs))
}

type Sent = Option<(Described, Vec<Descriptor>)>;

fn send_dir(
    built: &Built<'_>,
    identity: &str,
    dir: &Path,
    known: &[Pack],
    target: &mut Target<'_>,
    job: &Job,
) -> Result<Sent> {
    let listed = mount_files::list(dir, job)?;
    let files = || listed.iter().filter(|row| row.kind == Kind::File && row.size > 0);
    let needed: HashSet<Digest> = files().filter_map(|row| row.digest).collect();
    let mut packs: Vec<Pack> = Vec::new();
    let mut have: HashSet<Digest> = HashSet::new();
    for pack in known.iter().filter(|pack| pack.is_worth_it(&needed)) {
        if !packs.contains(pack) && target.has(&pack.blob)? {
            have.extend(pack.files.iter().map(|(digest, _)| *digest));
            packs.push(pack.clone());
        }
    }
    let mut packing: Option<Packing> = None;
    for row in files() {
        job.check()?;
        let digest = row.digest.expect("a regular file's");
        if !have.insert(digest) {
            continue;
        }
        let open = match &mut packing {
            Some(open) => open,
            None => packing.insert(Packing::new(built.engine.unnamed_file()?)),
        };
        open.add(&packs::place(dir, row), digest, row.size)?;
        if let Some(full) = packing.take_if(|open| open.is_full()) {
            packs.push(send_pack(built, full, target, job)?);
        }
    }
    if let Some(last) = packing {
        packs.push(send_pack(built, last, target, job)?);
    }
    let list = rows::encode(listed.into_iter().map(Ok))?;
    let rows = Descriptor::of(MediaType::from(document::ROWS), &list);
    target.put(&rows, &list)?;
    let text = serde_json::to_vec(&packs).context(|| "writing a list of packs")?;
    let listed = Descriptor::of(MediaType::from(packs::PACKS), &text);
    target.put(&listed, &text)?;
    let blobs = packs.iter().map(|pack| pack.blob.clone()).chain([rows.clone(), listed.clone()]).collect();
    Ok(Some((Described { identity: identity.to_owned(), rows, packs: listed }, blobs)))
}

fn send_pack(built: &Built<'_>, packing: Packing, target: &mut Target<'_>, job: &Job) -> Result<Pack> {
    let (mut plain, files) = packing.finish();
    let form = Form { compression: Compression::Zstd, level: None, force: false, oci: true };
    let mut fill = |out: &mut dyn Write| {
        plain.seek(SeekFrom::Start(0)).context(|| "reading a file again")?;
        std::io::copy(&mut plain, out).map(drop).context(|| "packing files")
    };
    let (file, digest, size) = bundle::compressed(built.engine, &form, &mut fill, job)?;
    let blob = Descriptor::new(MediaType::from(packs::PACK), digest, size);
    target.file(&blob, &file)?;
    Ok(Pack { blob, files })
}

/// One that no step needed goes on as it came.
fn pass_on(built: &Built<'_>, identity: &str, target: &mut Target<'_>, job: &Job) -> Result<Sent> {
    let Some(imported) = built.imported else { return Ok(None) };
    let Some((origin, mount)) = imported.mount(identity) else { return Ok(None) };
    let packs = read_packs(origin, mount, job)?;
    let blobs: Vec<Descriptor> =
        packs.iter().map(|pack| pack.blob.clone()).chain([mount.rows.clone(), mount.packs.clone()]).collect();
    for blob in &blobs {
        super::export::forward(built.engine, origin, blob, target, job)?;
    }
    Ok(Some((mount.clone(), blobs)))
}

fn read_packs(origin: &Origin, mount: &Described, job: &Job) -> Result<Vec<Pack>> {
    let text = origin.small(&mount.packs, MAX_LIST, job)?;
    serde_json::from_slice(&text).context(|| "reading a list of packs")
}

impl Imported<'_> {
    pub(super) fn mount(&self, identity: &str) -> Option<(&Origin, &Described)> {
        let (mount, origin) = self.mounts.iter().find(|(mount, _)| mount.identity == identity)?;
        Some((&self.origins[*origin], mount))
    }

    /// Fills the empty directory of a new cache mount; false: no cache has it. On error some of it may stand there.
    pub fn restore(&self, identity: &str, into: &Path, job: &Job) -> Result<bool> {
        let Some((origin, mount)) = self.mount(identity) else { return Ok(false) };
        let mut listed: Vec<Row> = Vec::new();
        rows::decode(&origin.small(&mount.rows, MAX_LIST, job)?, &mut listed)?;
        packs::check(&listed)?;
        let mut wanted: HashMap<Digest, Vec<&Row>> = HashMap::new();
        for row in listed.iter().filter(|row| row.kind == Kind::File) {
            wanted.entry(row.digest.expect("checked")).or_default().push(row);
        }
        mount_files::make_dirs(&listed, into)?;
        let mut written: HashSet<Digest> = HashSet::new();
        for pack in read_packs(origin, mount, job)? {
            job.check()?;
            if !pack.files.iter().any(|(digest, _)| wanted.contains_key(digest)) {
                continue;
            }
            let file = self.engine.unnamed_file()?;
            super::export::fetch(origin, &pack.blob, &file, job)?;
            packs::unpack(&pack, &file, &wanted, &mut written, into)?;
        }
        if let Some((digest, _)) =
            wanted.iter().find(|(digest, rows)| rows[0].size > 0 && !written.contains(*digest))
        {
            return Err(Error::corrupt(format!("no pack has the bytes of {}", digest.short())));
        }
        mount_files::finish(&listed, &wanted, &written, into)?;
        Ok(true)
    }
}
