//! Whether a dataset can carry snapshots: one is made below it, written to, cloned, and destroyed.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FlockOperation, XattrFlags};
use rustix::io::Errno;

use super::super::Setting;
use super::super::folder::{make_dir, open_dir};
use super::tool::{Dialect, Tool, Why};
use super::{home, real};
use crate::error::{Context as _, Error, Result};
use crate::sys::zfs::At;

/// What directories of trials begin with, and the datasets of each.
const PREFIX: &str = "zfs-probe-";

pub(super) fn probe(setting: &Setting<'_>) -> Result<String> {
    let tool = Tool::find()?;
    let dataset = home::dataset(setting)?;
    home::examine(&tool, &dataset, setting.root)?;
    let root = &real(setting.root)?;
    clear_the_dead(&tool, &dataset, root)?;
    // Not in the trash: who empties it must not meet a mount.
    let name = format!("{PREFIX}{}", crate::db::random_name());
    let place = root.join(&name);
    make_dir(&place, 0o700)?;
    let lock = lock(&place)?;
    let tried = try_in(&tool, &format!("{dataset}/{name}"), &place);
    let cleared = clear(&tool, &dataset, &place);
    drop(lock);
    tried.and(cleared)?;
    let kind = if tool.dialect == Dialect::Fuse { "zfs-fuse" } else { "zfs in the kernel" };
    Ok(format!("{kind}, below the dataset {dataset}"))
}

/// Held as long as the trial lasts; `None`: by another one.
fn lock(place: &Path) -> Result<Option<OwnedFd>> {
    let dir = open_dir(place)?;
    match rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(dir)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(errno).context(|| format!("locking {}", place.display())),
    }
}

/// Of trials that were killed.
fn clear_the_dead(tool: &Tool, dataset: &str, root: &Path) -> Result<()> {
    let doing = || format!("listing {}", root.display());
    for entry in fs::read_dir(root).context(doing)? {
        let entry = entry.context(doing)?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX)
            && let Ok(Some(_lock)) = lock(&entry.path())
        {
            clear(tool, dataset, &entry.path())?;
        }
    }
    Ok(())
}

const PARENT: &str = "parent";
const CHILD: &str = "child";

/// `base`: what the names of its datasets begin with.
fn try_in(tool: &Tool, base: &str, place: &Path) -> Result<()> {
    let (parent, child) = (format!("{base}-{PARENT}"), format!("{base}-{CHILD}"));
    let (at_parent, at_child) = (place.join(PARENT), place.join(CHILD));
    for place in [&at_parent, &at_child] {
        make_dir(place, 0o700)?;
    }
    tool.create(&parent, &at_parent)?;
    mount(tool, &parent, &at_parent)?;
    let file = at_parent.join("file");
    fs::write(&file, "").context(|| format!("writing to the dataset {parent}"))?;
    for name in ["user.outcrop", "trusted.outcrop"] {
        match rustix::fs::setxattr(&file, name, b"probe", XattrFlags::empty()) {
            Err(Errno::NOTSUP | Errno::NOSYS) => return Err(without_xattrs(tool.dialect, base)),
            set => set.context(|| format!("setting an extended attribute in the dataset {parent}"))?,
        }
    }
    let snapshot = format!("{parent}@probe");
    tool.snapshot(&snapshot)?;
    tool.clone(&snapshot, &child, &at_child)?;
    mount(tool, &child, &at_child)?;
    fs::metadata(at_child.join("file"))
        .context(|| format!("looking into {child}, a clone of {parent}"))
        .map(drop)
}

fn mount(tool: &Tool, name: &str, place: &Path) -> Result<()> {
    match tool.mount(name, place) {
        Err(refused) if refused.why != Why::Mounted => return Err(refused.into()),
        _ => {}
    }
    if super::look(place)? == At::Mount { Ok(()) } else { Err(super::unseen(name)) }
}

/// All that a trial has made; it may have been begun by somebody who died.
fn clear(tool: &Tool, dataset: &str, place: &Path) -> Result<()> {
    let base = place.file_name().unwrap_or_default().to_string_lossy();
    // The clone first.
    for which in [CHILD, PARENT] {
        tool.unmount(&place.join(which))?;
        match tool.destroy_patiently(&format!("{dataset}/{base}-{which}")) {
            Err(refused) if refused.why != Why::Missing => return Err(refused.into()),
            _ => {}
        }
    }
    match fs::remove_dir_all(place) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            Err(cause).context(|| format!("removing {}", place.display()))
        }
        _ => Ok(()),
    }
}

fn without_xattrs(dialect: Dialect, base: &str) -> Error {
    let dataset = base.rsplit_once('/').map_or(base, |(dataset, _)| dataset);
    Error::unsupported(format!("the dataset {dataset} has no extended attributes, which images need")).hint(
        match dialect {
            Dialect::Fuse => "start the daemon as `zfs-fuse --enable-xattr`".to_owned(),
            Dialect::Module => format!("`zfs set xattr=sa {dataset}`"),
        },
    )
}
