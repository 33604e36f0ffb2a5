//! Volumes of a container: made when it is created, filled with what the image has in their place.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags, RenameFlags};
use rustix::io::Errno;

use super::names::is_name;
use super::{Config, Mount, MountKind};
use crate::db::{ContainerId, ContainerRow, Scratch, Writer};
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::image::ChainId;
use crate::job::Job;
use crate::sys;

pub(super) fn data(engine: &Engine, name: &str) -> PathBuf {
    engine.root.join("volumes").join(name).join("_data")
}

/// `Invalid` for what cannot be a volume's name.
pub fn check_volume_name(name: &str) -> Result<()> {
    if is_name(name) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "\"{name}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed"
    ))
    .hint("for a directory of the host give its absolute path"))
}

/// A volume that a container uses.
pub(super) struct Used {
    name: String,
    target: String,
    anonymous: bool,
}

impl Used {
    /// There is no container that uses it. One with a name may be another's by now, and stays.
    pub(super) fn give_up(&self, engine: &Engine) {
        if self.anonymous {
            drop(std::fs::remove_dir_all(engine.root.join("volumes").join(&self.name)));
        }
    }

    /// `Conflict`: somebody has removed it since it was made or found.
    pub(super) fn record(&self, engine: &Engine, index: &Writer<'_>, container: &ContainerId) -> Result<()> {
        if !data(engine, &self.name).is_dir() {
            return Err(Error::conflict(format!("volume `{}` was removed meanwhile", self.name))
                .hint("try again: it is made anew"));
        }
        index.insert_volume(&self.name, &BTreeMap::new(), self.anonymous)?;
        index.use_volume(container, &self.name, &self.target)
    }
}

/// Gives every volume of the configuration a name and a directory; those that the image asks for, too.
pub(super) fn make(
    engine: &Engine,
    config: &mut Config,
    image: Option<&ChainId>,
    job: &Job,
) -> Result<Vec<Used>> {
    for path in &config.volumes {
        let same = |target: &str| target.trim_end_matches('/') == path.trim_end_matches('/');
        let taken = config.mounts.iter().any(|mount| same(&mount.target))
            || config.tmpfs.iter().any(|tmpfs| same(&tmpfs.target));
        if !taken {
            let kind = MountKind::Volume { name: None, no_copy: false };
            config.mounts.push(Mount { kind, target: path.clone(), read_only: false });
        }
    }
    let mut used = Vec::new();
    for mount in &mut config.mounts {
        let MountKind::Volume { name, no_copy } = &mut mount.kind else { continue };
        let anonymous = name.is_none();
        let name = name.get_or_insert_with(|| ContainerId::random().as_str().to_owned());
        let image = (!*no_copy).then_some(image);
        make_one(engine, name, &mount.target, image, anonymous, job)
            .context(|| format!("making volume {name} for {}", mount.target))
            .inspect_err(|_| used.iter().for_each(|volume: &Used| volume.give_up(engine)))?;
        used.push(Used { name: name.clone(), target: mount.target.clone(), anonymous });
    }
    Ok(used)
}

/// One that is new or empty gets what the image has at `target`; `None`: nothing.
fn make_one(
    engine: &Engine,
    name: &str,
    target: &str,
    image: Option<Option<&ChainId>>,
    anonymous: bool,
    job: &Job,
) -> Result<()> {
    let place = data(engine, name);
    if place.is_dir() {
        // Filled where it stands: somebody may have it mounted.
        return match image {
            Some(image) => fill(engine, &place, target, image, job).map(drop),
            None => Ok(()),
        };
    }
    let making = Making::begin(engine)?;
    let filled = match image {
        Some(image) => fill(engine, &making.data(), target, image, job)?,
        None => false,
    };
    if filled && !anonymous {
        // One with a name is taken up by the next container, whatever has become of this one.
        engine.db.write_out()?;
    }
    if !making.give_name(engine, name)? {
        // Another container has made one meanwhile; or somebody made half of one.
        std::fs::create_dir_all(&place).context(|| format!("making {}", place.display()))?;
    }
    Ok(())
}

/// A volume that has no name yet: whoever is killed leaves none that holds a part of what it should.
pub struct Making(Scratch);

impl Making {
    pub fn begin(engine: &Engine) -> Result<Making> {
        use std::os::unix::fs::PermissionsExt as _;
        let making = Making(Scratch::new(&engine.root, "volume")?);
        let data = making.data();
        let doing = || format!("making the directory {}", data.display());
        std::fs::create_dir(&data).context(doing)?;
        for dir in [&making.0.path, &data] {
            std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).context(doing)?;
        }
        Ok(making)
    }

    /// Where its files go.
    pub fn data(&self) -> PathBuf {
        self.0.path.join("_data")
    }

    /// False: there is one of this name. This one goes with the trash then.
    pub fn give_name(self, engine: &Engine, name: &str) -> Result<bool> {
        let place = engine.root.join("volumes").join(name);
        match rustix::fs::renameat_with(CWD, &self.0.path, CWD, &place, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(errno).context(|| format!("making {}", place.display())),
        }
    }
}

/// An empty directory gets what the image has in its place. Whether that was something.
fn fill(engine: &Engine, dir: &Path, target: &str, image: Option<&ChainId>, job: &Job) -> Result<bool> {
    let doing = || format!("opening {}", dir.display());
    let to = std::fs::File::open(dir).context(doing)?;
    if !sys::dir::names(to.as_fd()).context(doing)?.is_empty() {
        return Ok(false);
    }
    let view = engine.snapshots.open_view(image)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let Ok(from) = sys::dir::open_in_root(view.as_fd(), target.as_bytes(), flags) else {
        return Ok(false);
    };
    sys::tree::copy(from.as_fd(), to.as_fd(), job.budget.threads)
        .context(|| "copying what the image has there")?;
    Ok(true)
}

/// The nameless volumes of a container that is gone, where nobody else uses them; their files with the next sweep.
pub(super) fn remove_anonymous(engine: &Engine, of: &[String]) -> Result<()> {
    match of {
        [] => Ok(()),
        of => engine
            .db
            .write(|index| of.iter().try_for_each(|name| index.remove_nameless_volume(name, None).map(drop))),
    }
}

/// The names of the volumes that a container uses.
pub(super) fn names_of(engine: &Engine, row: &ContainerRow) -> Result<Vec<String>> {
    let used = engine.db.read(|index| index.volumes_of(&row.id))?;
    Ok(used.into_iter().map(|(name, _)| name).collect())
}
