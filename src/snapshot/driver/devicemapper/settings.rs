//! What `--storage-opt dm.*` says, and what the store was made with.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::Options;
use crate::error::{Error, Result};
use crate::sys::thin::Filesystem;

pub(super) const NAMES: &[&str] = &[
    "dm.basesize",
    "dm.loopdatasize",
    "dm.loopmetadatasize",
    "dm.fs",
    "dm.mkfsarg",
    "dm.mountopt",
    "dm.datadev",
    "dm.metadatadev",
    "dm.thinpooldev",
    "dm.blocksize",
    "dm.blkdiscard",
    "dm.use_deferred_removal",
    "dm.use_deferred_deletion",
    "dm.min_free_space",
    "dm.xfs_nospace_max_retries",
    "dm.override_udev_sync_check",
    "dm.libdm_log_level",
    "dm.directlvm_device",
    "dm.directlvm_device_force",
    "dm.thinp_percent",
    "dm.thinp_metapercent",
    "dm.thinp_autoextend_threshold",
    "dm.thinp_autoextend_percent",
];

/// Docker's names for what is not done here, and why.
const REFUSED: &[(&str, &str)] = &[
    ("dm.override_udev_sync_check", "udev is not waited for: leave it out"),
    ("dm.libdm_log_level", "libdevmapper is not used: leave it out"),
    ("dm.directlvm_device", LVM),
    ("dm.directlvm_device_force", LVM),
    ("dm.thinp_percent", LVM),
    ("dm.thinp_metapercent", LVM),
    ("dm.thinp_autoextend_threshold", LVM),
    ("dm.thinp_autoextend_percent", LVM),
];
const LVM: &str =
    "volume groups are not made here: make a thin pool with lvcreate(8) and give dm.thinpooldev";

/// Where a pool's blocks lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Source {
    /// In the files `data` and `metadata`.
    Files,
    /// On two block devices.
    Devices { data: PathBuf, metadata: PathBuf },
    /// In a pool that somebody else has made and keeps, by its name.
    Pool { name: String },
}

/// What cannot change once the store has its pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fixed {
    pub(super) source: Source,
    /// Bytes of a block of the pool.
    pub(super) block_size: u64,
    /// `ext4` or `xfs`
    pub(super) filesystem: String,
}

#[derive(Clone, Debug)]
pub(super) struct Settings {
    source: Option<Source>,
    block_size: Option<u64>,
    kind: Option<String>,
    /// Bytes; `None`: what is there, or the default.
    pub(super) base_size: Option<u64>,
    pub(super) data_size: Option<u64>,
    pub(super) metadata_size: Option<u64>,
    pub(super) mkfs_arguments: Vec<String>,
    mount_options: Vec<String>,
    discard: Option<bool>,
    /// Percent of the pool's blocks, of data and of metadata, that stay free.
    pub(super) least_free: u8,
    retries: Option<u32>,
}

/// Of a volume, the file with data, and the one with metadata.
pub(super) const BASE_SIZE: u64 = 10 << 30;
pub(super) const DATA_SIZE: u64 = 100 << 30;
pub(super) const METADATA_SIZE: u64 = 2 << 30;

impl Settings {
    /// `Invalid` says which option, and what would be right.
    pub(super) fn read(options: &Options) -> Result<Settings> {
        for (name, why) in REFUSED {
            if options.get(name).is_some() {
                return Err(
                    Error::invalid(format!("the storage driver `devicemapper` has no `{name}`")).hint(*why)
                );
            }
        }
        for (name, what) in [
            ("dm.use_deferred_removal", "a device goes when its last user does"),
            ("dm.use_deferred_deletion", "what is deleted while it is in use goes when its last user does"),
        ] {
            if !options.flag(name, true)? {
                return Err(Error::invalid(format!("{name}=false: it is always so that {what}")));
            }
        }
        let size = |name| options.get(name).map(|_| options.bytes(name, 0)).transpose();
        let kind = options.get("dm.fs").map(str::to_owned);
        if let Some(kind) = kind.as_deref().filter(|kind| !matches!(*kind, "ext4" | "xfs")) {
            return Err(Error::invalid(format!("dm.fs={kind} is no filesystem for this driver"))
                .hint("it can be ext4 (the default) or xfs"));
        }
        let retries = match options.get("dm.xfs_nospace_max_retries").map(|text| (text, text.parse())) {
            None => None,
            Some((_, Ok(number))) => Some(number),
            Some((text, Err(_))) => {
                return Err(Error::invalid(format!("dm.xfs_nospace_max_retries={text} is no number")));
            }
        };
        let words = |name, separator: fn(char) -> bool| -> Vec<String> {
            let text = options.get(name).unwrap_or_default();
            text.split(separator).filter(|word| !word.is_empty()).map(str::to_owned).collect()
        };
        Ok(Settings {
            source: source(options)?,
            block_size: size("dm.blocksize")?.map(block_size).transpose()?,
            kind,
            base_size: size("dm.basesize")?.map(base_size).transpose()?,
            data_size: size("dm.loopdatasize")?,
            metadata_size: size("dm.loopmetadatasize")?,
            mkfs_arguments: words("dm.mkfsarg", char::is_whitespace),
            mount_options: words("dm.mountopt", |letter| letter == ','),
            discard: options.get("dm.blkdiscard").map(|_| options.flag("dm.blkdiscard", true)).transpose()?,
            least_free: options.percent("dm.min_free_space", 10)?,
            retries,
        })
    }

    /// For a store that has none yet.
    pub(super) fn fixed(&self) -> Fixed {
        Fixed {
            source: self.source.clone().unwrap_or(Source::Files),
            block_size: self.block_size.unwrap_or(64 << 10),
            filesystem: self.kind.clone().unwrap_or_else(|| "ext4".into()),
        }
    }

    /// `Conflict` where something else is wanted than the store was made with.
    pub(super) fn agrees_with(&self, fixed: &Fixed) -> Result<()> {
        let differs = |what: &str, has: &dyn std::fmt::Display| {
            Err(Error::conflict(format!("{what} cannot change: the store was made with {has}"))
                .hint("leave the option out, or name another `--root` for a store with it"))
        };
        if self.source.as_ref().is_some_and(|source| *source != fixed.source) {
            let has = match &fixed.source {
                Source::Files => "files of its own".to_owned(),
                Source::Devices { data, metadata } => {
                    format!("{} and {}", data.display(), metadata.display())
                }
                Source::Pool { name } => format!("the pool {name}"),
            };
            return differs("where the pool lies", &has);
        }
        if self.block_size.is_some_and(|size| size != fixed.block_size) {
            return differs("dm.blocksize", &format!("{}K", fixed.block_size >> 10));
        }
        if self.kind.as_ref().is_some_and(|kind| *kind != fixed.filesystem) {
            return differs("dm.fs", &fixed.filesystem);
        }
        Ok(())
    }

    pub(super) fn filesystem(&self, kind: &str) -> Filesystem {
        let mut options = self.mount_options.clone();
        // All volumes have their filesystem from the one that was made, with its id.
        if kind == "xfs" && !options.iter().any(|option| option == "nouuid") {
            options.push("nouuid".into());
        }
        Filesystem { kind: kind.into(), options, retries: self.retries }
    }

    /// Whether what a volume took goes back to the disk at once when it is removed.
    pub(super) fn discards(&self, fixed: &Fixed) -> bool {
        self.discard.unwrap_or(fixed.source == Source::Files)
    }
}

fn source(options: &Options) -> Result<Option<Source>> {
    let [pool, data, metadata] =
        ["dm.thinpooldev", "dm.datadev", "dm.metadatadev"].map(|name| options.get(name));
    match (pool, data, metadata) {
        (None, None, None) => Ok(None),
        (Some(pool), None, None) => {
            Ok(Some(Source::Pool { name: pool.strip_prefix("/dev/mapper/").unwrap_or(pool).to_owned() }))
        }
        (None, Some(data), Some(metadata)) => {
            Ok(Some(Source::Devices { data: data.into(), metadata: metadata.into() }))
        }
        (Some(_), _, _) => Err(Error::invalid("dm.thinpooldev goes without dm.datadev and dm.metadatadev")),
        (None, _, _) => Err(Error::invalid("dm.datadev and dm.metadatadev go together")),
    }
}

/// thin-provisioning.rst: between 64 KiB and 1 GiB, in multiples of 64 KiB.
fn block_size(bytes: u64) -> Result<u64> {
    match bytes.is_multiple_of(64 << 10) && (64 << 10..=1 << 30).contains(&bytes) {
        true => Ok(bytes),
        false => Err(Error::invalid(format!("dm.blocksize={bytes} is no size of a pool's blocks"))
            .hint("64K to 1G, in multiples of 64K")),
    }
}

fn base_size(bytes: u64) -> Result<u64> {
    match bytes >= 64 << 20 {
        true => Ok(bytes / 4096 * 4096),
        false => Err(Error::invalid(format!("dm.basesize={bytes} is too small for a filesystem"))
            .hint("64M at least, and 300M for xfs")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(said: &[&str]) -> Result<Settings> {
        Settings::read(&Options::parse(said).unwrap())
    }

    #[test]
    fn without_options_it_is_a_pool_in_files_with_ext4() {
        let settings = read(&[]).unwrap();
        let fixed = settings.fixed();
        let expected = Fixed { source: Source::Files, block_size: 65536, filesystem: "ext4".into() };
        assert_eq!(fixed, expected);
        assert_eq!(settings.least_free, 10);
        assert!(settings.discards(&fixed));
        settings.agrees_with(&fixed).unwrap();
    }

    #[test]
    fn what_is_given_is_what_is_done() {
        let settings = read(&[
            "dm.fs=xfs",
            "dm.mountopt=noatime,,discard",
            "dm.mkfsarg=-L label",
            "dm.blocksize=1M",
            "dm.datadev=/dev/a",
            "dm.metadatadev=/dev/b",
            "dm.xfs_nospace_max_retries=0",
            "dm.min_free_space=25%",
        ])
        .unwrap();
        let fixed = settings.fixed();
        assert_eq!(fixed.block_size, 1 << 20);
        assert_eq!(fixed.source, Source::Devices { data: "/dev/a".into(), metadata: "/dev/b".into() });
        let filesystem = settings.filesystem(&fixed.filesystem);
        assert_eq!(filesystem.options, ["noatime", "discard", "nouuid"]);
        assert_eq!(filesystem.retries, Some(0));
        assert_eq!(settings.mkfs_arguments, ["-L", "label"]);
        assert!(!settings.discards(&fixed));
        let pool = read(&["dm.thinpooldev=/dev/mapper/vg-pool"]).unwrap().fixed().source;
        assert_eq!(pool, Source::Pool { name: "vg-pool".into() });
    }

    #[test]
    fn what_is_not_done_is_refused_by_its_name() {
        for wrong in [
            "dm.fs=btrfs",
            "dm.blocksize=100K",
            "dm.blocksize=2G",
            "dm.basesize=1M",
            "dm.datadev=/dev/a",
            "dm.use_deferred_removal=false",
            "dm.use_deferred_deletion=false",
            "dm.xfs_nospace_max_retries=many",
            "dm.override_udev_sync_check=true",
            "dm.directlvm_device=/dev/a",
            "dm.thinp_percent=95",
        ] {
            let error = read(&[wrong]).unwrap_err();
            let name = wrong.split('=').next().unwrap();
            assert!(error.to_string().contains(name), "{wrong}: {error}");
        }
        for (name, _) in REFUSED {
            assert!(NAMES.contains(name));
        }
    }

    #[test]
    fn what_a_store_was_made_with_stays() {
        let fixed = read(&[]).unwrap().fixed();
        for other in ["dm.fs=xfs", "dm.blocksize=128K", "dm.thinpooldev=pool"] {
            let error = read(&[other]).unwrap().agrees_with(&fixed).unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::Conflict);
        }
        read(&["dm.fs=ext4", "dm.basesize=20G"]).unwrap().agrees_with(&fixed).unwrap();
    }
}
