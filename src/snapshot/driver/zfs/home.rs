//! The dataset below which a store keeps its snapshots: which one it is, and that it is this store's alone. Numbers of
//! snapshots begin at 1 in every store, so two of them on one dataset would destroy each other's.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::Setting;
use super::tool::{Refused, Tool, Why};
use crate::error::{Context as _, Error, Kind, Result};
use crate::sys;
use crate::sys::durable::write_durably;

/// The option that names it.
pub(super) const OPTION: &str = "zfs.fsname";
/// The user property that holds the root of the store that it belongs to.
const OWNER: &str = "outcrop:root";

/// Holds the name since the store was made.
fn note(root: &Path) -> PathBuf {
    root.join("zfs/fsname")
}

/// The dataset of this store: what it has, what the option says, or what the root stands on.
pub(super) fn dataset(setting: &Setting<'_>) -> Result<String> {
    let root = setting.root;
    let said = setting.options.get(OPTION).map(str::to_owned);
    let kept = match fs::read_to_string(note(root)) {
        Ok(text) => Some(text.trim_end().to_owned()),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => None,
        Err(cause) => return Err(cause).context(|| format!("reading {}", note(root).display())),
    };
    match (said, kept) {
        (Some(said), Some(kept)) if said != kept => Err(Error::conflict(format!(
            "the store keeps its snapshots in the dataset `{kept}`, not in `{said}`"
        ))
        .hint(format!("leave out `--storage-opt {OPTION}=`, or name another `--root`"))),
        (Some(name), _) | (None, Some(name)) => Ok(name),
        (None, None) => sys::zfs::dataset_of(root)
            .context(|| format!("looking for what {} stands on", root.display()))?
            .ok_or_else(|| {
                Error::unsupported(format!("{} is on no ZFS", root.display()))
                    .hint(format!("name a dataset: `--storage-opt {OPTION}=POOL/NAME`"))
            }),
    }
}

/// Whether the dataset is there and may be this store's.
pub(super) fn examine(tool: &Tool, dataset: &str, root: &Path) -> Result<()> {
    let absent = |refused: Refused| match refused.why {
        Why::Missing => {
            Error::from(refused).hint(format!("make it: `zfs create -o mountpoint=none {dataset}`"))
        }
        _ => refused.into(),
    };
    let owner = tool.own(dataset, OWNER).map_err(absent)?;
    let own = super::real(root)?;
    if let Some(owner) = owner.filter(|owner| Path::new(owner) != own) {
        return Err(Error::conflict(format!("the dataset `{dataset}` belongs to the store at {owner}")).hint(format!(
            "name another one (`--storage-opt {OPTION}=`); once that store is gone, `zfs inherit {OWNER} {dataset}` frees it"
        )));
    }
    let below = tool.list(dataset)?;
    match below.iter().find(|(name, _)| super::number(dataset, name).is_some()) {
        Some((name, _)) if !note(root).exists() => Err(Error::conflict(format!(
            "the dataset `{name}` would be in the way: it is of an earlier store"
        ))
        .hint(format!(
            "name another dataset (`--storage-opt {OPTION}=`), or destroy what is below this one"
        ))),
        _ => Ok(()),
    }
}

/// Makes it this store's, once.
pub(super) fn claim(tool: &Tool, dataset: &str, root: &Path) -> Result<()> {
    let note = note(root);
    if note.exists() {
        return Ok(());
    }
    match examine(tool, dataset, root) {
        // Another process has made the store meanwhile.
        Err(error) if error.kind() == Kind::Conflict && note.exists() => return Ok(()),
        examined => examined?,
    }
    tool.set(dataset, OWNER, &super::real(root)?.to_string_lossy())?;
    let doing = || format!("writing {}", note.display());
    let fresh = note.with_extension(crate::db::random_name());
    // On disk before the first dataset is, which ZFS writes out at once: a name without its text would say that the store's
    // dataset is another one.
    write_durably(&note, &fresh, format!("{dataset}\n").as_bytes()).context(doing)
}
