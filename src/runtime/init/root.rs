//! The container's root and what is mounted into it, taken while the host can still be seen.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{FileType, OFlags};

use crate::error::{Context, Error, Result};
use crate::runtime::mountpoints::{self, Made, Wanted};
use crate::runtime::{Bind, Spec, Tree};
use crate::sys::dir::open_in_root;
use crate::sys::mount::{self, Attributes, Propagation, Reach};

/// The mount of the root, with mount points for all. Dropped, it takes away those that it made.
pub(super) struct Root {
    mount: OwnedFd,
    made: Made,
    journal: Option<PathBuf>,
}

/// What goes on a target in the container.
pub(super) struct Volume {
    pub(super) mount: OwnedFd,
    pub(super) target: String,
    pub(super) directory: bool,
    pub(super) read_only: bool,
}

impl Root {
    pub(super) fn mount(spec: &Spec) -> Result<Self> {
        let mount = mount::detached(&spec.root).context(|| "mounting the container's root")?;
        Ok(Root { mount, made: Made::default(), journal: spec.journal.clone() })
    }

    /// Makes the mount points that are missing.
    pub(super) fn prepare(&mut self, wanted: &[Wanted]) -> Result<()> {
        self.made = mountpoints::prepare(self.as_fd(), wanted)?;
        if let (Some(journal), false) = (&self.journal, self.made.is_empty()) {
            let text = serde_json::to_vec(&self.made).context(|| "noting mount points")?;
            std::fs::write(journal, text)
                .context(|| format!("noting mount points in {}", journal.display()))?;
        }
        Ok(())
    }

    /// The mount that the container gets: always a view of this one, so that through this one nothing is seen that is mounted
    /// in the container. Its mounts can outlive it: whoever reads /proc/PID/mountinfo holds them all meanwhile.
    /// Without a cgroup that limits devices, it must not open those of the image.
    pub(super) fn for_container(&self, read_only: bool, devices_limited: bool) -> Result<OwnedFd> {
        let doing = || "restricting the container's root";
        let attributes = Attributes { read_only, nodev: !devices_limited, ..Attributes::NONE };
        let view = mount::clone_detached(self.as_fd(), self.as_fd()).context(doing)?;
        if attributes != Attributes::NONE {
            mount::restrict(view.as_fd(), attributes, Reach::One).context(doing)?;
        }
        Ok(view)
    }
}

impl Root {
    /// Takes away the mount points that were made. Where no journal tells anybody later what is left to do, a layer would
    /// keep them: there a failure is an error.
    pub(super) fn close(mut self) -> Result<()> {
        let kept = self.journal.is_none();
        match self.undo() {
            Err(error) if kept => Err(error).context(|| "taking away the container's mount points"),
            _ => Ok(()),
        }
    }

    fn undo(&mut self) -> Result<()> {
        if self.made.is_empty() {
            return Ok(());
        }
        let made = std::mem::take(&mut self.made);
        match made.undo(self.as_fd()) {
            Ok(()) => {
                if let Some(journal) = &self.journal {
                    let _gone = std::fs::remove_file(journal);
                }
                Ok(())
            }
            // The journal, if there is one, still says what is left to do.
            Err(error) => {
                tracing::warn!(%error, "mount points stay");
                Err(error)
            }
        }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _told = self.undo();
    }
}

/// Takes the sources of `-v`, as they are now, and fresh filesystems; outer targets before those inside them.
pub(super) fn volumes(root: BorrowedFd<'_>, spec: &Spec) -> Result<Vec<Volume>> {
    let mut volumes = Vec::new();
    for bind in &spec.binds {
        volumes
            .push(take(bind).context(|| format!("mounting {} on {}", bind.source.display(), bind.target))?);
    }
    for tree in &spec.trees {
        volumes.push(part_of(tree).context(|| format!("mounting something on {}", tree.target))?);
    }
    for tmpfs in &spec.tmpfs {
        let noexec = !tmpfs.exec;
        let attributes = Attributes { read_only: tmpfs.read_only, noexec, ..Attributes::INERT };
        let mode = tmpfs.mode.or_else(|| mode_of(root, &tmpfs.target)).unwrap_or(0o1777);
        let mount = mount::tmpfs(tmpfs.size, mode, attributes)
            .context(|| format!("mounting a tmpfs on {}", tmpfs.target))?;
        let read_only = tmpfs.read_only;
        volumes.push(Volume { mount, target: tmpfs.target.clone(), directory: true, read_only });
    }
    volumes.sort_by_key(|volume| volume.target.split('/').filter(|part| !part.is_empty()).count());
    for volume in &volumes {
        check_target(&volume.target)?;
    }
    Ok(volumes)
}

fn part_of(tree: &Tree) -> Result<Volume> {
    let whole = mount::detached(&tree.tree)?;
    let mount = match tree.source.trim_matches('/') {
        "" => whole,
        source => {
            let doing = || format!("taking `{source}` for a mount");
            let part = open_in_root(whole.as_fd(), source.as_bytes(), OFlags::PATH).context(doing)?;
            mount::clone_detached(whole.as_fd(), part.as_fd()).context(doing)?
        }
    };
    if tree.read_only {
        mount::restrict(mount.as_fd(), Attributes::READ_ONLY, Reach::One)
            .context(|| "making it read-only")?;
    }
    let directory = is_directory(mount.as_fd())?;
    Ok(Volume { mount, target: tree.target.clone(), directory, read_only: tree.read_only })
}

fn is_directory(mount: BorrowedFd<'_>) -> Result<bool> {
    let stat = rustix::fs::fstat(mount).context(|| "looking at the source")?;
    Ok(FileType::from_raw_mode(stat.st_mode).is_dir())
}

fn mode_of(root: BorrowedFd<'_>, path: &str) -> Option<u32> {
    let found = open_in_root(root, path.as_bytes(), OFlags::PATH | OFlags::DIRECTORY).ok()?;
    Some(rustix::fs::fstat(&found).ok()?.st_mode & 0o7777)
}

fn take(bind: &Bind) -> Result<Volume> {
    let attributes = Attributes { read_only: bind.read_only, ..Attributes::NONE };
    let mount = mount::bind(&bind.source, Reach::Tree, attributes)?;
    mount::set_propagation_of(mount.as_fd(), Propagation::Private, Reach::Tree)
        .context(|| "keeping later mounts apart")?;
    let directory = is_directory(mount.as_fd())?;
    Ok(Volume { mount, target: bind.target.clone(), directory, read_only: bind.read_only })
}

fn check_target(target: &str) -> Result<()> {
    let plain = target.split('/').all(|part| part != "..");
    if !target.starts_with('/') || target.trim_matches('/').is_empty() || !plain {
        return Err(Error::invalid(format!("`{target}` is no place to mount something in a container"))
            .hint("give an absolute path other than `/`"));
    }
    Ok(())
}

/// Where mounts of ours go in every container.
const OURS: [&str; 3] = ["/proc", "/dev", "/sys"];

/// The mount points that must be in the root itself: those inside other mounts are made there.
pub(super) fn mount_points(spec: &Spec, volumes: &[Volume]) -> Vec<Wanted> {
    let mut wanted: Vec<Wanted> =
        OURS.iter().map(|path| Wanted { path: (*path).into(), directory: true }).collect();
    let mut add = |path: &str, directory| {
        let inside = wanted.iter().any(|outer| {
            outer.directory
                && path.strip_prefix(outer.path.as_str()).is_some_and(|rest| rest.starts_with('/'))
        });
        if !inside {
            wanted.push(Wanted { path: path.into(), directory });
        }
    };
    for volume in volumes {
        add(&volume.target, volume.directory);
    }
    for file in &spec.files {
        add(&file.target, false);
    }
    wanted
}
