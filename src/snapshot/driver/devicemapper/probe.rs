//! Whether thin pools work here: one is made of two small files, with a volume in it, and taken away.

use std::path::Path;

use super::super::Setting;
use super::super::folder::{filesystem_of, in_scratch};
use super::pool::Pool;
use super::settings::{Fixed, Settings, Source};
use super::{ENTRY, base, prefix, volume_of};
use crate::error::{Context, Error, Kind, Result};
use crate::sys::dm::Control;
use crate::sys::thin::{self, Locked};

pub(super) fn probe(setting: &Setting<'_>) -> Result<String> {
    let settings = Settings::read(setting.options)?;
    let fixed = settings.fixed();
    let control = Control::open().map_err(|cause| {
        Error::unsupported(
            "there is no device mapper: /dev/mapper/control cannot be opened (`modprobe dm-thin-pool` may help)",
        )
        .because(cause)
    })?;
    for target in ["thin-pool", "thin"] {
        if !control.has_target(target).context(|| "asking device mapper for its targets")? {
            return Err(Error::unsupported(format!(
                "the kernel has no device-mapper target `{target}` (`modprobe dm-thin-pool` may help)"
            )));
        }
    }
    base::mkfs(&fixed.filesystem)?;
    knows(&fixed.filesystem)?;
    match &fixed.source {
        Source::Files => {
            in_scratch(setting.root, ENTRY.name, |scratch| try_in(scratch, &fixed))?;
            Ok(format!(
                "a thin pool in files on {}, volumes with {}",
                filesystem_of(setting.root)?,
                fixed.filesystem
            ))
        }
        Source::Devices { data, .. } => {
            Ok(format!("a thin pool on {}, volumes with {}", data.display(), fixed.filesystem))
        }
        Source::Pool { name } => {
            let state = control.state(name).context(|| "asking for dm.thinpooldev")?;
            state.filter(|state| state.live).ok_or_else(|| {
                Error::not_found(format!("there is no pool {name} (dm.thinpooldev)"))
                    .hint("`dmsetup ls --target thin-pool` names those that there are")
            })?;
            Ok(format!("the thin pool {name}, volumes with {}", fixed.filesystem))
        }
    }
}

fn knows(filesystem: &str) -> Result<()> {
    use rustix::mount::FsOpenFlags;
    match rustix::mount::fsopen(filesystem, FsOpenFlags::FSOPEN_CLOEXEC) {
        Ok(_) => Ok(()),
        Err(rustix::io::Errno::NODEV) => {
            Err(Error::unsupported(format!("the kernel has no {filesystem}"))
                .hint("`dm.fs` can be ext4 or xfs"))
        }
        Err(cause) => Err(cause).context(|| format!("asking the kernel for {filesystem}")),
    }
}

fn try_in(scratch: &Path, fixed: &Fixed) -> Result<()> {
    let small = super::super::Options::parse(&["dm.loopdatasize=64M", "dm.loopmetadatasize=4M"])?;
    let settings = Settings::read(&small)?;
    let (prefix, lock) = (prefix(scratch)?, scratch.join("lock"));
    let doing = || "trying a thin pool";
    let locked = Locked::take(&lock)?;
    let pool = Pool::open(scratch, &prefix, fixed, &settings, &locked).map_err(|cause| {
        let kind = if cause.kind() == Kind::NotFound { Kind::Unsupported } else { cause.kind() };
        Error::new(kind, "no thin pool can be made here").because(cause)
    })?;
    pool.message("create_thin 1").context(doing)?;
    let volume = volume_of(&prefix, &pool.name, &lock, "1", 1, 1 << 20);
    drop(volume.activate(&pool.control, &locked)?);
    thin::gone(&pool.control, &volume.name)?;
    let name = pool.name.clone();
    drop(pool);
    thin::gone(&Control::open().context(doing)?, &name)
}
