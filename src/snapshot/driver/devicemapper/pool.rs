//! The thin pool: made of two files or devices when it is first needed, and gone with its last user.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::settings::{DATA_SIZE, Fixed, METADATA_SIZE, Settings, Source};
use crate::error::{Context, Error, Result};
use crate::sys::block::{self, Access, Block};
use crate::sys::dm::{Control, Table, is};
use crate::sys::loop_device;
use crate::sys::thin::{Locked, patiently};

/// Open: it stays as long as this lives.
pub(super) struct Pool {
    pub(super) control: Control,
    pub(super) name: String,
    device: Block,
    /// Nobody had it before: what a crash left is to be looked for.
    pub(super) fresh: bool,
}

/// What a pool says of itself (thin-provisioning.rst, "Status").
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) transaction: u64,
    /// Blocks of 4 KiB.
    pub(super) metadata: Usage,
    /// Blocks of the pool's size.
    pub(super) data: Usage,
    /// `rw`, `ro`, `out_of_data_space`
    pub(super) mode: String,
    /// Something went wrong with its metadata; no more is written before thin_check(8) has looked at them.
    pub(super) needs_check: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) used: u64,
    pub(super) total: u64,
}

impl Usage {
    fn has_free(self, percent: u8) -> bool {
        let free = self.total.saturating_sub(self.used);
        u128::from(free) * 100 >= u128::from(self.total) * u128::from(percent)
    }
    /// Blocks that can be taken until so many percent are left.
    fn free_above(self, percent: u8) -> u64 {
        let kept = (u128::from(self.total) * u128::from(percent)).div_ceil(100);
        let kept = u64::try_from(kept).unwrap_or(u64::MAX);
        self.total.saturating_sub(self.used).saturating_sub(kept)
    }
}

pub(super) const METADATA_BLOCK: u64 = 4096;
/// Blocks of data that a block of metadata tells of: some hundred where much is written, 7 to 20 in a small layer.
const DATA_PER_METADATA: u64 = 32;

impl Status {
    /// `None`: it has failed, or it is no pool.
    pub(super) fn parse(text: &str) -> Option<Status> {
        let mut words = text.split_whitespace();
        let transaction = words.next()?.parse().ok()?;
        let mut usage = || {
            let (used, total) = words.next()?.split_once('/')?;
            Some(Usage { used: used.parse().ok()?, total: total.parse().ok()? })
        };
        let (metadata, data) = (usage()?, usage()?);
        let _held_root = words.next()?;
        let mode = words.next()?.to_owned();
        Some(Status {
            transaction,
            metadata,
            data,
            mode,
            needs_check: words.any(|word| word == "needs_check"),
        })
    }
}

impl Pool {
    /// The store's pool, which is made where it does not run. `prefix` begins the names of the store's devices.
    pub(super) fn open(
        dir: &Path,
        prefix: &str,
        fixed: &Fixed,
        settings: &Settings,
        _locked: &Locked,
    ) -> Result<Pool> {
        let control = Control::open().context(|| "asking the kernel for its device mapper")?;
        if let Source::Pool { name } = &fixed.source {
            return Self::of_others(control, name);
        }
        let name = format!("{prefix}-pool");
        let mut fresh = false;
        let device = patiently(|| match control.state(&name)? {
            Some(state) if state.live => {
                let device = Block::open(state.device, Access::Read)?;
                control.remove_when_closed(&name)?;
                Ok(Some(device))
            }
            // Of somebody who was killed, or on its way out.
            Some(_) => control.remove(&name).map(|()| None),
            None => {
                fresh = true;
                make(&control, &name, dir, fixed, settings).map(Some).map_err(io::Error::from)
            }
        })
        .context(|| format!("starting the thin pool {name}"))?;
        Ok(Pool { control, name, device, fresh })
    }

    fn of_others(control: Control, name: &str) -> Result<Pool> {
        let doing = || format!("using the thin pool {name} (dm.thinpooldev)");
        let absent = || Error::not_found(format!("there is no pool {name} (dm.thinpooldev)"));
        let state = control.state(name).context(doing)?.filter(|state| state.live).ok_or_else(absent)?;
        let device = Block::open(state.device, Access::Read).context(doing)?;
        let pool = Pool { control, name: name.to_owned(), device, fresh: true };
        pool.status().map(|_| pool)
    }

    /// Whether nothing was ever written to a pool of others.
    pub(super) fn is_blank(name: &str) -> Result<bool> {
        let control = Control::open().context(|| "asking the kernel for its device mapper")?;
        Ok(Self::of_others(control, name)?.status()?.data.used == 0)
    }

    /// As of now, and durable: the kernel commits first.
    pub(super) fn status(&self) -> Result<Status> {
        let text =
            self.control.status(&self.name).context(|| format!("asking the pool {} how it is", self.name))?;
        Status::parse(&text).ok_or_else(|| {
            Error::corrupt(format!("the thin pool {} does not work: `{text}`", self.name))
                .hint("`dmesg` says why; thin_check(8) and thin_repair(8) look at its metadata")
        })
    }

    /// Durable when it returns.
    pub(super) fn message(&self, text: &str) -> io::Result<()> {
        self.control.message(&self.name, text)
    }

    /// What was given to it is on disk.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.device.flush()
    }

    /// `Unavailable` where so many percent of it are not free, or nothing can be written.
    pub(super) fn has_room(&self, status: &Status, percent: u8) -> Result<()> {
        let full = |what: &str, usage: Usage, option: &str| {
            let free = usage.total.saturating_sub(usage.used) * 100 / usage.total.max(1);
            Err(Error::unavailable(format!(
                "the thin pool {} has {free} % of its {what} left, and dm.min_free_space={percent}% stay free",
                self.name
            ))
            .hint(format!(
                "`outcrop system prune` removes what nothing uses; `--storage-opt {option}=` with a larger size, \
                 when nothing of the store runs, makes it larger (of a device: enlarge the device)"
            )))
        };
        if !status.metadata.has_free(percent) {
            return full("metadata", status.metadata, "dm.loopmetadatasize");
        }
        if !status.data.has_free(percent) {
            return full("data", status.data, "dm.loopdatasize");
        }
        self.writes(status)
    }

    /// `Unavailable` where what was written may not have found a place.
    pub(super) fn writes(&self, status: &Status) -> Result<()> {
        if status.mode == "rw" && !status.needs_check {
            return Ok(());
        }
        let (mode, check) = (&status.mode, if status.needs_check { ", needs_check" } else { "" });
        let error = Error::unavailable(format!("the thin pool {} takes no more ({mode}{check})", self.name));
        Err(match mode.as_str() {
            "out_of_data_space" => error.hint(
                "it is full: `outcrop system prune` removes what nothing uses; or make it larger with `--storage-opt \
                 dm.loopdatasize=` when nothing of the store runs",
            ),
            _ => error.hint(
                "its metadata are full or damaged: when nothing of the store runs, make them larger with `--storage-opt \
                 dm.loopmetadatasize=`, and have them looked at: thin_check --clear-needs-check-flag",
            ),
        })
    }
}

pub(super) fn not_empty(name: &str) -> Error {
    Error::conflict(format!("the pool {name} is not empty"))
        .hint("give dm.thinpooldev or dm.metadatadev that nobody has used")
}

/// The files or devices that a pool is made of, ready.
struct Parts {
    data: Block,
    metadata: Block,
}

fn make(control: &Control, name: &str, dir: &Path, fixed: &Fixed, settings: &Settings) -> Result<Block> {
    let parts = match &fixed.source {
        Source::Devices { data, metadata } => devices(data, metadata)?,
        _ => files(dir, settings)?,
    };
    let block = fixed.block_size / 512;
    let number = |part: &Block| -> io::Result<String> {
        let device = rustix::fs::fstat(part)?.st_rdev;
        Ok(format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device)))
    };
    let made = || -> io::Result<Block> {
        let sectors = parts.data.size()? / 512 / block * block;
        let parameters = format!(
            // An event is told below 32,768 free blocks; nobody listens here. Blocks are not zeroed before they are
            // written to: a filesystem shows nothing that it has not written. Who writes to a full pool gets an error.
            "{} {} {block} 32768 2 skip_block_zeroing error_if_no_space",
            number(&parts.metadata)?,
            number(&parts.data)?
        );
        let table = Table { sectors, target: "thin-pool", parameters: &parameters, read_only: false };
        let device = Block::open(control.create(name, &table)?, Access::Read)?;
        control.remove_when_closed(name)?;
        Ok(device)
    };
    made().context(|| format!("making the thin pool {name}"))
}

/// Sparse files; larger when the options say so, never smaller.
fn files(dir: &Path, settings: &Settings) -> Result<Parts> {
    let part = |name: &str, wanted: Option<u64>, default: u64| -> Result<Block> {
        let path = dir.join(name);
        let doing = || format!("making a block device of {}", path.display());
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.context(doing)?;
        // The last pool on it is on its way out, and still writes.
        patiently(|| Ok((!loop_device::is_attached(&file)?).then_some(()))).context(doing)?;
        let there = file.metadata().context(doing)?.len();
        let size = if there == 0 { wanted.unwrap_or(default) } else { wanted.unwrap_or(there).max(there) };
        if size != there {
            file.set_len(size).and_then(|()| file.sync_all()).context(doing)?;
        }
        loop_device::attach(&file).context(doing)
    };
    Ok(Parts {
        data: part("data", settings.data_size, DATA_SIZE)?,
        metadata: part("metadata", settings.metadata_size, METADATA_SIZE)?,
    })
}

fn devices(data: &Path, metadata: &Path) -> Result<Parts> {
    let open = |path: &Path| {
        let doing = || format!("opening {}", path.display());
        let number = block::number_of(path).context(doing)?;
        Block::open(number, Access::Write).context(doing)
    };
    Ok(Parts { data: open(data)?, metadata: open(metadata)? })
}

/// What a pool has that is not made yet: data, metadata.
pub(super) fn to_be(fixed: &Fixed, settings: &Settings) -> Result<(Usage, Usage)> {
    let size = |path: &Path| {
        let doing = || format!("looking how large {} is", path.display());
        let device = block::number_of(path).and_then(|number| Block::open(number, Access::Read));
        device.and_then(|device| device.size()).context(doing)
    };
    let (data, metadata) = match &fixed.source {
        Source::Files => {
            (settings.data_size.unwrap_or(DATA_SIZE), settings.metadata_size.unwrap_or(METADATA_SIZE))
        }
        Source::Devices { data, metadata } => (size(data)?, size(metadata)?),
        Source::Pool { name } => {
            let control = Control::open().context(|| "asking the kernel for its device mapper")?;
            let status = Pool::of_others(control, name)?.status()?;
            return Ok((status.data, status.metadata));
        }
    };
    let empty = |total| Usage { used: 0, total };
    Ok((empty(data / fixed.block_size), empty(metadata / METADATA_BLOCK)))
}

/// Bytes that can be written to a pool until so many percent of it are left.
pub(super) fn room(data: Usage, metadata: Usage, block_size: u64, percent: u8) -> u64 {
    let told = metadata.free_above(percent).saturating_mul(DATA_PER_METADATA);
    data.free_above(percent).min(told).saturating_mul(block_size)
}

/// The metadata begin with zeros: the kernel makes new ones there.
pub(super) fn metadata_are_blank(dir: &Path, source: &Source) -> Result<bool> {
    let path: PathBuf = match source {
        Source::Files => dir.join("metadata"),
        Source::Devices { metadata, .. } => metadata.clone(),
        Source::Pool { .. } => return Ok(false),
    };
    let mut start = [0; 4096];
    let read = File::open(&path).and_then(|file| file.read_at(&mut start, 0));
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        read => read.map(|_| start.iter().all(|byte| *byte == 0)),
    }
    .context(|| format!("reading {}", path.display()))
}

/// What the kernel says where a number has no volume.
pub(super) fn is_absent(error: &io::Error) -> bool {
    is(error, Errno::NODATA)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pool_says_of_itself_is_read() {
        let text = "3 17/512 20/1600 - rw discard_passdown error_if_no_space - 1024";
        let status = Status::parse(text).unwrap();
        let usage = |used, total| Usage { used, total };
        let (metadata, data) = (usage(17, 512), usage(20, 1600));
        let expected = Status { transaction: 3, metadata, data, mode: "rw".into(), needs_check: false };
        assert_eq!(status, expected);
        let text = "9 512/512 9/9 14 ro discard_passdown error_if_no_space needs_check 1024";
        let status = Status::parse(text).unwrap();
        assert_eq!((status.mode.as_str(), status.needs_check), ("ro", true));
        assert_eq!(Status::parse("Fail"), None);
        assert_eq!(Status::parse("Error"), None);
    }

    #[test]
    fn room_is_what_both_parts_have() {
        let usage = |used| Usage { used, total: 1000 };
        assert_eq!(room(usage(300), usage(0), 65536, 10), 600 * 65536);
        assert_eq!(room(usage(300), usage(890), 65536, 10), 10 * 32 * 65536);
        assert_eq!(room(usage(300), usage(900), 65536, 10), 0);
    }

    #[test]
    fn a_tenth_is_free_or_not() {
        let usage = |used| Usage { used, total: 100 };
        assert!(usage(90).has_free(10));
        assert!(!usage(91).has_free(10));
        assert!(usage(100).has_free(0));
        assert!(Usage { used: u64::MAX / 2, total: u64::MAX }.has_free(50));
        assert_eq!([50, 85, 90, 100].map(|used| usage(used).free_above(10)), [40, 5, 0, 0]);
        assert_eq!(usage(0).free_above(100), 0);
    }
}
