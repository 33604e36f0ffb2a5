//! `devicemapper`: a thin pool, and in it a volume with a filesystem for each snapshot, which shares the blocks that
//! neither has changed with the one it was made on.
//!
//! `<root>/devicemapper/data` and `metadata` are the pool's blocks, unless devices are given for them; `snapshots/<n>`
//! says which volume a snapshot is. Volumes become devices only while they are mounted, the pool only while
//! somebody needs it; all of them go with their last user, however that ends (`sys::thin`).
//!
//! A record is on disk before its volume is made, and names the transaction that makes it; the pool is then told that
//! it has come to this transaction. A record that is ahead of the pool is of somebody who died in between.

mod base;
mod pool;
mod probe;
mod records;
mod settings;
mod status;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::io::Errno;

use self::base::Base;
use self::pool::{Pool, is_absent};
use self::records::{Record, Records};
use self::settings::{Fixed, Settings, Source};
use super::folder::make_dir;
use super::{Delta, Driver, Entry, Mount, Setting, Shape, SnapshotId, Stamps, Tree};
use crate::error::{Context, Error, Kind, Result};
use crate::layer::Form;
use crate::sys;
use crate::sys::block::grow;
use crate::sys::dm::is;
use crate::sys::thin::{self, Locked, Volume, patiently};

pub(super) const ENTRY: Entry = Entry {
    name: "devicemapper",
    options: settings::NAMES,
    probe: probe::probe,
    open: |setting| Ok(Box::new(DeviceMapper::open(setting)?) as Box<dyn Driver>),
};

struct DeviceMapper {
    dir: PathBuf,
    settings: Settings,
    records: Records,
    /// What the names of its devices begin with: the same for all who see this directory.
    prefix: String,
    running: OnceLock<Running>,
    /// Mounts of what is written to, until it is sealed or removed. What could not be written to the device is told to
    /// those who had the filesystem open before (syncfs(2)), and nobody when it is unmounted: `seal` asks here.
    held: Mutex<HashMap<SnapshotId, OwnedFd>>,
}

struct Running {
    pool: Pool,
    fixed: Fixed,
}

/// `name` is what follows the prefix.
fn volume_of(prefix: &str, pool: &str, lock: &Path, name: &str, id: u32, bytes: u64) -> Volume {
    Volume {
        pool: pool.to_owned(),
        name: format!("{prefix}-{name}"),
        id,
        sectors: bytes / 512,
        read_only: false,
        lock: lock.to_owned(),
    }
}

impl DeviceMapper {
    fn open(setting: &Setting<'_>) -> Result<Self> {
        let settings = Settings::read(setting.options)?;
        let dir = setting.root.join("devicemapper");
        std::fs::create_dir_all(&dir).context(|| format!("creating {}", dir.display()))?;
        let records = Records::open(&dir)?;
        if let Some(fixed) = records.document::<Fixed>("pool")? {
            settings.agrees_with(&fixed)?;
        }
        match make_dir(&dir.join("empty"), 0o755) {
            Err(error) if error.kind() != Kind::Conflict => return Err(error),
            _ => {}
        }
        let prefix = prefix(&dir)?;
        Ok(DeviceMapper { dir, settings, records, prefix, running: OnceLock::new(), held: Mutex::default() })
    }

    fn lock_file(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// The pool, running, and nobody else at work on it.
    fn locked(&self) -> Result<(&Running, Locked)> {
        let locked = Locked::take(&self.lock_file())?;
        if let Some(running) = self.running.get() {
            return Ok((running, locked));
        }
        let running = self.start(&locked)?;
        Ok((self.running.get_or_init(|| running), locked))
    }

    fn running(&self) -> Result<&Running> {
        match self.running.get() {
            Some(running) => Ok(running),
            None => self.locked().map(|(running, _)| running),
        }
    }

    fn start(&self, locked: &Locked) -> Result<Running> {
        let kept: Option<Fixed> = self.records.document("pool")?;
        let fixed = kept.clone().unwrap_or_else(|| self.settings.fixed());
        let blank = pool::metadata_are_blank(&self.dir, &fixed.source)?;
        match (&kept, &fixed.source) {
            (None, Source::Devices { metadata, .. }) if !blank => {
                return Err(Error::conflict(format!("{} is not empty", metadata.display()))
                    .hint("if nobody needs what is there: `dd if=/dev/zero bs=4096 count=1 of=` it"));
            }
            // Before anything is written down: what is noted, and not finished, is deleted by whoever comes next.
            (None, Source::Pool { name }) if !Pool::is_blank(name)? => return Err(pool::not_empty(name)),
            (None, _) => self.records.write_document("pool", &fixed)?,
            (Some(_), _) if blank && base::record(&self.records)?.is_some() => {
                return Err(Error::corrupt(format!(
                    "the metadata of the pool in {} are lost",
                    self.dir.display()
                ))
                .hint("bring them back from a copy: without them nothing in its data can be found"));
            }
            _ => {}
        }
        let pool = Pool::open(&self.dir, &self.prefix, &fixed, &self.settings, locked)?;
        self.tidy(&pool).context(|| "looking for what a killed process has left")?;
        if pool.fresh {
            self.recover(&pool)?;
        }
        let running = Running { pool, fixed };
        self.base(&running, locked).ensure()?;
        self.collect(&running, locked);
        Ok(running)
    }

    fn base<'b>(&'b self, running: &'b Running, locked: &'b Locked) -> Base<'b> {
        Base {
            records: &self.records,
            settings: &self.settings,
            fixed: &running.fixed,
            pool: &running.pool,
            locked,
            volume: base::volume(&self.prefix, &running.pool.name, &self.lock_file()),
        }
    }

    /// Whoever was killed while he held the lock may have left devices that are not to go by themselves, or that wait.
    fn tidy(&self, pool: &Pool) -> io::Result<()> {
        let own = format!("{}-", self.prefix);
        for name in pool.control.names()?.iter().filter(|name| name.starts_with(&own) && **name != pool.name)
        {
            match pool.control.state(name)? {
                Some(state) if state.suspended && state.live => pool.control.resume(name)?,
                // udev may have it open, which looks at what comes.
                Some(state) if !state.goes => pool.control.remove_when_closed(name)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// What the pool's last transaction did not come to is undone.
    fn recover(&self, pool: &Pool) -> Result<()> {
        let transaction = pool.status()?.transaction;
        for (id, record) in self.records.all()? {
            if record.transaction_id > transaction + 1 {
                return Err(Error::corrupt(format!(
                    "the pool {} has come to transaction {transaction}, and snapshot {id} was made in {}",
                    pool.name, record.transaction_id
                ))
                .hint("its metadata are older than the store: bring back both from the same copy"));
            }
            if record.transaction_id == transaction + 1 {
                tracing::warn!(id = id.0, "a volume that was not finished is removed");
                match pool.message(&format!("delete {}", record.device_id)) {
                    Ok(()) => self.records.forget(id)?,
                    Err(error) if is_absent(&error) => self.records.forget(id)?,
                    // In a pool of others it may be a device that somebody has open.
                    Err(error) if is(&error, Errno::BUSY) => {}
                    Err(error) => {
                        return Err(error).context(|| format!("removing what was left of snapshot {id}"));
                    }
                }
            }
        }
        Ok(())
    }

    /// Deletes what was in use when it was removed, and is not any more.
    fn collect(&self, running: &Running, locked: &Locked) {
        let all = self.records.condemned().unwrap_or_default();
        for (id, record) in all {
            if let Err(error) = self.delete(running, locked, id, &record) {
                tracing::warn!(id = id.0, %error, "a volume stays until the next time");
            }
        }
    }

    /// The volume of one that was condemned, unless somebody uses it.
    fn delete(&self, running: &Running, locked: &Locked, id: SnapshotId, record: &Record) -> Result<()> {
        let Running { pool, fixed } = running;
        let doing = || format!("deleting the volume of snapshot {id}");
        // Sealed or not: what is discarded is written to.
        let volume = Volume { read_only: false, ..self.volume(running, id, record) };
        match pool.control.state(&volume.name).context(doing)? {
            Some(state) if state.openers > 0 => return Ok(()),
            Some(_) => {
                pool.control.remove_when_closed(&volume.name).context(doing)?;
                thin::gone(&pool.control, &volume.name)?;
            }
            None => {}
        }
        if self.settings.discards(fixed) {
            // Deleting it gives its blocks back to the pool, and not to the disk.
            match volume.activate(&pool.control, locked) {
                Ok(device) => {
                    if let Err(error) = device.discard(record.size) {
                        tracing::debug!(id = id.0, %error, "its blocks stay where they are");
                    }
                    drop(device);
                    thin::gone(&pool.control, &volume.name)?;
                }
                Err(error) => tracing::debug!(id = id.0, %error, "it is no device to discard"),
            }
        }
        // A device has left its name before it has left the pool.
        let deleted = patiently(|| match pool.message(&format!("delete {}", record.device_id)) {
            Err(error) if is(&error, Errno::BUSY) => {
                // Or somebody has it open again.
                let open = pool.control.state(&volume.name)?.is_some();
                if open { Err(io::ErrorKind::ResourceBusy.into()) } else { Ok(None) }
            }
            answer => answer.map(Some),
        });
        match deleted {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(()),
            Err(error) if !is_absent(&error) => {
                let status = pool.status()?;
                pool.writes(&status).context(doing)?;
                Err(error).context(doing)
            }
            _ => self.records.finish(id),
        }
    }

    fn volume(&self, running: &Running, id: SnapshotId, record: &Record) -> Volume {
        let (lock, name) = (self.lock_file(), id.to_string());
        let volume = volume_of(&self.prefix, &running.pool.name, &lock, &name, record.device_id, record.size);
        Volume { read_only: record.sealed, ..volume }
    }

    fn thin(&self, running: &Running, id: SnapshotId, record: &Record, read_only: bool) -> Mount {
        let filesystem = self.settings.filesystem(&running.fixed.filesystem);
        Mount::Thin { volume: self.volume(running, id, record), filesystem, read_only }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<SnapshotId, OwnedFd>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Mounted by this process until it is released or sealed.
    fn hold(&self, running: &Running, id: SnapshotId, record: &Record) -> Result<()> {
        if self.held().contains_key(&id) {
            return Ok(());
        }
        let root = sys::mount::detached(&self.thin(running, id, record, false))?;
        let dir = open_dir_at(&root)?;
        self.held().entry(id).or_insert(dir);
        Ok(())
    }

    /// A volume that begins as `origin`, under the next transaction.
    fn make(&self, id: SnapshotId, origin: &Record, live: Option<&str>) -> Result<()> {
        let (running, locked) = self.locked()?;
        let pool = &running.pool;
        self.collect(running, &locked);
        if self.records.find(id)?.is_some() || self.records.is_condemned(id) {
            return Err(Error::conflict(format!("snapshot {id} exists already")));
        }
        let doing = || format!("making the volume of snapshot {id}");
        let status = pool.status()?;
        pool.has_room(&status, self.settings.least_free).context(doing)?;
        let transaction = status.transaction;
        let mut record = Record { transaction_id: transaction + 1, sealed: false, ..origin.clone() };
        let mut numbers = numbers_of(id);
        loop {
            record.device_id = numbers.next().expect("they begin anew");
            self.records.write(id, &record)?;
            match snapshot(pool, record.device_id, origin.device_id, live) {
                // Of a store that was here before: no record knows it.
                Err(error) if is(&error, Errno::EXIST) => {}
                Err(error) => {
                    self.records.forget(id)?;
                    return Err(error).context(doing);
                }
                Ok(()) => break,
            }
        }
        pool.message(&format!("set_transaction_id {transaction} {}", transaction + 1)).context(doing)
    }
}

/// Of a live origin only when nothing is written to it meanwhile: its filesystem is made to stand still.
fn snapshot(pool: &Pool, id: u32, origin: u32, live: Option<&str>) -> io::Result<()> {
    let message = format!("create_snap {id} {origin}");
    let Some(device) = live else { return pool.message(&message) };
    pool.control.suspend(device)?;
    let made = pool.message(&message);
    pool.control.resume(device)?;
    made
}

/// Numbers in the pool to try for a snapshot: its own, as far as 24 bits go, and those after it. 0 is the base's.
fn numbers_of(id: SnapshotId) -> impl Iterator<Item = u32> {
    const LAST: u64 = (1 << 24) - 1;
    (0..).map(move |offset| {
        let number = (id.0.wrapping_sub(1).wrapping_add(offset)) % LAST + 1;
        u32::try_from(number).expect("24 bits")
    })
}

/// As Docker names them: by the device and inode that the directory has.
fn prefix(dir: &Path) -> Result<String> {
    let stat = rustix::fs::stat(dir).context(|| format!("examining {}", dir.display()))?;
    let (major, minor) = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    Ok(format!("outcrop-{major}:{minor}-{}", stat.st_ino))
}

fn open_dir_at(root: &OwnedFd) -> Result<OwnedFd> {
    sys::dir::open_dir(root.as_fd(), c".").context(|| "opening the root of a volume")
}

impl Driver for DeviceMapper {
    fn name(&self) -> &'static str {
        ENTRY.name
    }
    fn shape(&self) -> Shape {
        Shape::Stacked
    }

    fn create(&self, id: SnapshotId, parents: &[SnapshotId]) -> Result<()> {
        debug_assert!(parents.len() <= 1, "a Stacked driver has one parent");
        let origin = match parents.first() {
            Some(parent) => self.records.get(*parent)?,
            None => {
                // Not in the middle of being made larger.
                let _locked = self.locked()?;
                let missing = || Error::internal("the volume that all layers begin as was not made");
                base::record(&self.records)?.ok_or_else(missing)?
            }
        };
        self.make(id, &origin, None)
    }

    fn copy(&self, id: SnapshotId, of: SnapshotId) -> Result<()> {
        let running = self.running()?;
        let origin = self.records.get(of)?;
        let name = self.volume(running, of, &origin).name;
        let state = running
            .pool
            .control
            .state(&name)
            .context(|| format!("looking at the device of snapshot {of}"))?;
        let live = state.filter(|state| state.live && !origin.sealed).map(|_| name.as_str());
        self.make(id, &origin, live)
    }

    fn mount(&self, id: SnapshotId, _parents: &[SnapshotId]) -> Result<Mount> {
        let running = self.running()?;
        let record = self.records.get(id)?;
        self.hold(running, id, &record)?;
        Ok(self.thin(running, id, &record, false))
    }

    fn view(&self, stack: &[SnapshotId]) -> Result<Mount> {
        let Some(id) = stack.first() else {
            return Ok(Mount::Bind { source: self.dir.join("empty"), read_only: true });
        };
        let record = self.records.get(*id)?;
        Ok(self.thin(self.running()?, *id, &record, true))
    }

    fn tree(&self, id: SnapshotId) -> Result<Tree> {
        let record = self.records.get(id)?;
        let running = self.running()?;
        if !record.sealed {
            self.hold(running, id, &record)?;
        }
        let root = sys::mount::detached(&self.thin(running, id, &record, record.sealed))?;
        Ok(Tree { dir: open_dir_at(&root)?, form: Form::Whole })
    }

    fn path(&self, id: SnapshotId) -> PathBuf {
        self.records.path(id)
    }

    fn remove(&self, id: SnapshotId) -> Result<()> {
        drop(self.held().remove(&id));
        self.records.tidy(id)?;
        if self.records.find(id)?.is_none() && !self.records.is_condemned(id) {
            return Ok(());
        }
        let (running, locked) = self.locked()?;
        self.records.condemn(id)?;
        for (other, record) in self.records.condemned()? {
            let deleted = self.delete(running, &locked, other, &record);
            // Others have their own turn.
            if other == id {
                deleted?;
            }
        }
        Ok(())
    }

    /// On the device, without what it does not use, and then no device.
    fn seal(&self, id: SnapshotId) -> Result<()> {
        let record = self.records.get(id)?;
        if record.sealed {
            return Ok(());
        }
        let doing = || format!("sealing snapshot {id}");
        let running = self.running()?;
        self.hold(running, id, &record).context(doing)?;
        // Before blocks are given back, which makes a full pool one with room again.
        running.pool.status().and_then(|status| running.pool.writes(&status)).context(doing)?;
        let root = self.held().remove(&id);
        if let Some(root) = root {
            base::settle(root, running.fixed.block_size).context(doing)?;
        }
        thin::gone(&running.pool.control, &self.volume(running, id, &record).name).context(doing)?;
        self.records.write(id, &Record { sealed: true, ..record })
    }

    /// A larger device, and the filesystem on it.
    fn limit(&self, id: SnapshotId, bytes: u64) -> Result<()> {
        let record = self.records.get(id)?;
        if bytes < record.size {
            return Err(Error::invalid(format!(
                "a container of {bytes} bytes is less than the {} bytes of its image's filesystem",
                record.size
            ))
            .hint("`--storage-opt size=` makes it larger than dm.basesize; with a smaller dm.basesize begins a new store"));
        }
        let running = self.running()?;
        let size = bytes / 4096 * 4096;
        if size == record.size {
            return Ok(());
        }
        let doing = || format!("enlarging snapshot {id} to {bytes} bytes");
        let record = Record { size, ..record };
        self.records.write(id, &record)?;
        let name = self.volume(running, id, &record).name;
        thin::gone(&running.pool.control, &name).context(doing)?;
        let root = open_dir_at(&sys::mount::detached(&self.thin(running, id, &record, false))?)?;
        grow(root.as_fd(), &running.fixed.filesystem, size).context(doing)?;
        drop(root);
        thin::gone(&running.pool.control, &name).context(doing)
    }

    fn status(&self) -> Result<Vec<(&'static str, String)>> {
        let running = self.running()?;
        let base = base::record(&self.records)?;
        let waiting = self.records.condemned()?.len();
        status::lines(running, &self.settings, &self.dir, base.as_ref(), waiting)
    }

    fn writes_elsewhere(&self) -> bool {
        true
    }

    fn sync(&self, ids: &[SnapshotId]) -> Result<()> {
        let running = self.running()?;
        for id in ids {
            let doing = || format!("writing snapshot {id} to disk");
            // Whose device is gone, or cannot be written to, was written when it was unmounted.
            let Some(record) = self.records.find(*id)?.filter(|record| !record.sealed) else { continue };
            let name = self.volume(running, *id, &record).name;
            if running.pool.control.state(&name).context(doing)?.is_none() {
                continue;
            }
            let root = open_dir_at(&sys::mount::detached(&self.thin(running, *id, &record, true))?)?;
            rustix::fs::syncfs(&root).context(doing)?;
        }
        // The kernel commits the pool's metadata before it answers.
        let status = running.pool.status()?;
        running.pool.writes(&status).context(|| "writing layers to disk")?;
        running.pool.flush().context(|| format!("writing the pool {} to disk", running.pool.name))
    }

    /// What the filesystem itself writes until it is unmounted, by blocks of 64 KiB: measured with one small file.
    fn overhead(&self) -> Result<u64> {
        let kept: Option<Fixed> = self.records.document("pool")?;
        let fixed = kept.unwrap_or_else(|| self.settings.fixed());
        Ok(if fixed.filesystem == "xfs" { 37 << 16 } else { 7 << 16 })
    }

    /// As far as dm.min_free_space lets; of a pool that is not made yet, what it will have.
    fn room(&self) -> Result<Option<u64>> {
        let kept: Option<Fixed> = self.records.document("pool")?;
        let fixed = kept.clone().unwrap_or_else(|| self.settings.fixed());
        let (data, metadata) = match kept {
            Some(_) => {
                let status = self.running()?.pool.status()?;
                (status.data, status.metadata)
            }
            None => pool::to_be(&fixed, &self.settings)?,
        };
        let room = pool::room(data, metadata, fixed.block_size, self.settings.least_free);
        Ok(Some(match fixed.source {
            // They are sparse.
            Source::Files => room.min(status::free_below(&self.dir)?),
            _ => room,
        }))
    }

    fn delta(&self, _id: SnapshotId) -> Option<Delta> {
        None
    }

    /// A volume begins with the blocks of the one below: ext4 and xfs find the same inodes there, and move the ctime with
    /// every change, that of a page written through mmap(2) before the first byte of it.
    fn stamps(&self, _id: SnapshotId) -> Result<Option<Stamps>> {
        Ok(Some(Stamps::All))
    }

    fn list(&self) -> Result<Vec<SnapshotId>> {
        self.records.list()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_the_pool_are_the_snapshots_own_as_far_as_24_bits_go() {
        let first = |id| numbers_of(SnapshotId(id)).take(2).collect::<Vec<_>>();
        assert_eq!(first(1), [1, 2]);
        assert_eq!(first((1 << 24) - 1), [(1 << 24) - 1, 1]);
        assert_eq!(first(1 << 24), [1, 2]);
        assert_eq!(first(u64::MAX).len(), 2);
    }

    #[test]
    fn names_of_devices_tell_stores_apart() {
        let one = prefix(Path::new("/")).unwrap();
        assert!(one.starts_with("outcrop-"), "{one}");
        assert_ne!(one, prefix(Path::new("/proc")).unwrap());
    }
}
