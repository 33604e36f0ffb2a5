//! The commands `zfs` and `zpool` of the host, behind a handful of verbs; what they refuse is told in their words.
//!
//! They speak two dialects, which [`Dialect`] tells apart. The module's datasets have the mount point `legacy` and are
//! mounted by mount(2). zfs-fuse mounts nothing in that way: its daemon mounts a dataset where its own mount point says,
//! when it is told to (`canmount=noauto`).

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::error::{Context, Error, Kind, Result};
use crate::sys;
use crate::sys::zfs::At;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// OpenZFS in the kernel.
    Module,
    /// zfs-fuse 0.7, a daemon.
    Fuse,
}

pub(super) struct Tool {
    zfs: PathBuf,
    pub(super) dialect: Dialect,
}

/// Why a command refused: what is decided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Exists,
    Missing,
    Busy,
    /// Snapshots of it have clones.
    Needed,
    Mounted,
    Full,
    Denied,
    Other,
}

/// A command that was refused.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) why: Why,
    command: String,
    /// What it said.
    words: String,
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        let kind = match refused.why {
            Why::Exists | Why::Mounted => Kind::Conflict,
            Why::Missing => Kind::NotFound,
            Why::Busy | Why::Needed | Why::Full => Kind::Unavailable,
            Why::Denied => Kind::Denied,
            Why::Other => Kind::Internal,
        };
        let error = Error::new(kind, format!("running `{}`", refused.command)).because(refused.words);
        match refused.why {
            Why::Full => error.hint("free some space in the pool, or raise the dataset's quota"),
            Why::Denied => error.hint("the `zfs` driver is for root, or for whom `zfs allow` lets"),
            _ => error,
        }
    }
}

type Answer<T> = Result<T, Refused>;

impl<T> Context<T> for Answer<T> {
    fn context<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T> {
        self.map_err(Error::from).context(message)
    }
}

/// How long a dataset may be busy after its unmount.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(20);

/// Where zfs-fuse listens.
const DAEMON: &str = "/run/zfs";

/// Where administrators' commands lie; the search path of a user may lack them.
const PLACES: [&str; 5] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/run/current-system/sw/bin"];

impl Tool {
    pub(super) fn find() -> Result<Tool> {
        let candidates = PLACES.iter().map(|place| Path::new(place).join("zfs"));
        let zfs = candidates.into_iter().find(|candidate| candidate.is_file()).ok_or_else(|| {
            Error::unsupported("there is no `zfs` command on this host")
                .hint("install OpenZFS (Debian: zfsutils-linux) or zfs-fuse")
        })?;
        // Either brings all its commands: they are in each other's way.
        let daemon = zfs.with_file_name("zfs-fuse");
        let dialect = if daemon.is_file() { Dialect::Fuse } else { Dialect::Module };
        Ok(Tool { zfs, dialect })
    }

    /// A new filesystem, not mounted, to be mounted at `place`.
    pub(super) fn create(&self, name: &str, place: &Path) -> Answer<()> {
        let mut options = self.placing(place);
        if self.dialect == Dialect::Module {
            // Of what is set above it these would change names. They are kept by clones.
            options.extend(set(&["utf8only=off", "normalization=none", "casesensitivity=sensitive"]));
        }
        let _turn = self.turn()?;
        self.run(&[&["create"], &as_strs(&options)[..], &[name]].concat()).map(drop)
    }

    /// The same with all that `snapshot` shows. zfs-fuse mounts it at once.
    pub(super) fn clone(&self, snapshot: &str, name: &str, place: &Path) -> Answer<()> {
        let options = self.placing(place);
        let _turn = self.turn()?;
        self.run(&[&["clone"], &as_strs(&options)[..], &[snapshot, name]].concat()).map(drop)
    }

    fn placing(&self, place: &Path) -> Vec<String> {
        match self.dialect {
            // A listing of `/` shows no `.zfs`; ACLs are attributes that images may have.
            Dialect::Module => set(&["mountpoint=legacy", "snapdir=hidden", "acltype=posixacl"]),
            Dialect::Fuse => set(&["canmount=noauto", &format!("mountpoint={}", place.display())]),
        }
    }

    pub(super) fn snapshot(&self, snapshot: &str) -> Answer<()> {
        self.run(&["snapshot", snapshot]).map(drop)
    }

    /// A filesystem with its snapshots. Refused where one of them has clones, and where it is in use.
    pub(super) fn destroy(&self, name: &str) -> Answer<()> {
        self.run(&["destroy", "-r", name]).map(drop)
    }

    /// The same for one that was mounted a moment ago: an unmount is over only when zfs-fuse has heard of it.
    pub(super) fn destroy_patiently(&self, name: &str) -> Answer<()> {
        let start = Instant::now();
        loop {
            match self.destroy(name) {
                Err(refused) if refused.why == Why::Busy && start.elapsed() < PATIENCE => {
                    std::thread::sleep(PAUSE);
                }
                done => return done,
            }
        }
    }

    /// A snapshot, once its last clone is gone.
    pub(super) fn destroy_later(&self, snapshot: &str) -> Answer<()> {
        self.run(&["destroy", "-d", snapshot]).map(drop)
    }

    pub(super) fn set(&self, name: &str, property: &str, value: &str) -> Answer<()> {
        self.run(&["set", &format!("{property}={value}"), name]).map(drop)
    }

    /// In the order asked for; numbers are exact, what is not set is `-`.
    pub(super) fn get<const N: usize>(&self, name: &str, properties: [&str; N]) -> Answer<[String; N]> {
        let text = self.run(&["get", "-H", "-p", "-o", "property,value", &properties.join(","), name])?;
        // One line each, in an order of its own.
        Ok(properties.map(|wanted| {
            let lines = text.lines().filter_map(|line| line.split_once('\t'));
            lines
                .into_iter()
                .find(|(name, _)| *name == wanted)
                .map_or("-".into(), |(_, value)| value.trim().into())
        }))
    }

    /// A property that was set on this dataset itself.
    pub(super) fn own(&self, name: &str, property: &str) -> Answer<Option<String>> {
        let text = self.run(&["get", "-H", "-s", "local", "-o", "value", property, name])?;
        Ok(text.lines().next().map(|value| value.trim().to_owned()))
    }

    /// The filesystems right below, each with the snapshot that it is a clone of (`-`: of none).
    pub(super) fn list(&self, parent: &str) -> Answer<Vec<(String, String)>> {
        let text = self.run(&["list", "-H", "-o", "name,origin", "-t", "filesystem", "-d", "1", parent])?;
        let pairs = text.lines().filter_map(|line| line.split_once('\t'));
        Ok(pairs
            .filter(|(name, _)| *name != parent)
            .map(|(name, origin)| (name.to_owned(), origin.trim().to_owned()))
            .collect())
    }

    /// Mounts it at its place, which exists. `Mounted` where it stands there already.
    pub(super) fn mount(&self, name: &str, place: &Path) -> Answer<()> {
        match self.dialect {
            Dialect::Fuse => {
                let _turn = self.turn()?;
                self.run(&["mount", name]).map(drop)
            }
            Dialect::Module => sys::zfs::mount(name, place).map_err(|cause| Refused {
                why: match cause.kind() {
                    std::io::ErrorKind::NotFound => Why::Missing,
                    std::io::ErrorKind::ResourceBusy => Why::Mounted,
                    std::io::ErrorKind::PermissionDenied => Why::Denied,
                    _ => Why::Other,
                },
                command: format!("mount -t zfs {name} {}", place.display()),
                words: cause.to_string(),
            }),
        }
    }

    /// For what may mount a dataset with zfs-fuse, whose daemon tells the thread that serves the datasets of each with two
    /// writes to one pipe: of two at once neither is served, nor any that is mounted after them. All stores of the host take
    /// turns; `None` for OpenZFS.
    fn turn(&self) -> Answer<Option<OwnedFd>> {
        if self.dialect == Dialect::Module {
            return Ok(None);
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let open = |path| rustix::fs::open(path, flags, Mode::empty());
        let locked = open(Path::new(DAEMON)).or_else(|_| open(&*self.zfs)).and_then(|file| {
            rustix::io::retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::LockExclusive))?;
            Ok(file)
        });
        locked.map(Some).map_err(|errno| Refused {
            why: Why::Other,
            command: "flock".into(),
            words: format!("waiting for other mounts of zfs-fuse: {errno}"),
        })
    }

    /// Takes it away from its place; whoever holds it keeps it.
    pub(super) fn unmount(&self, place: &Path) -> Result<()> {
        let doing = || format!("unmounting {}", place.display());
        if self.dialect == Dialect::Fuse && sys::zfs::at(place).context(doing)? == At::Mount {
            sys::zfs::drain(place).context(doing)?;
        }
        sys::mount::detach(place)
    }

    /// `ONLINE`, `DEGRADED`...
    pub(super) fn health(&self, pool: &str) -> Answer<String> {
        let zpool = self.zfs.with_file_name("zpool");
        run(&zpool, &["list", "-H", "-o", "health", pool]).map(|text| text.trim().to_owned())
    }

    fn run(&self, arguments: &[&str]) -> Answer<String> {
        run(&self.zfs, arguments)
    }
}

/// As arguments.
fn set(properties: &[&str]) -> Vec<String> {
    properties.iter().flat_map(|property| ["-o", property]).map(str::to_owned).collect()
}

fn as_strs(options: &[String]) -> Vec<&str> {
    options.iter().map(String::as_str).collect()
}

fn run(program: &Path, arguments: &[&str]) -> Answer<String> {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let command = [&[&*name], arguments].concat().join(" ");
    let output = Command::new(program)
        .args(arguments)
        // What it says is read.
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|cause| Refused { why: Why::Other, command: command.clone(), words: cause.to_string() })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words = said(&String::from_utf8_lossy(&output.stderr));
    let words = if words.is_empty() { format!("it ended with {}", output.status) } else { words };
    Err(Refused { why: why(&words), command, words })
}

/// Its first lines as one: below them it prints lists, or how to use it.
fn said(text: &str) -> String {
    let lines = text.lines().map(str::trim);
    let told = lines
        .take_while(|line| !line.is_empty() && !line.starts_with("use '-") && !line.starts_with("usage:"));
    told.collect::<Vec<_>>().join("; ")
}

fn why(words: &str) -> Why {
    let says = |texts: &[&str]| texts.iter().any(|text| words.contains(text));
    match () {
        () if says(&["dataset already exists", "snapshot already exists"]) => Why::Exists,
        () if says(&["does not exist", "no such pool", "could not find any snapshots"]) => Why::Missing,
        () if says(&["already mounted"]) => Why::Mounted,
        // Of two that unmount it one finds nothing to unmount.
        () if says(&["is busy", "Device busy", "resource busy", "umount failed"]) => Why::Busy,
        () if says(&["has dependent clones", "has children"]) => Why::Needed,
        () if says(&["out of space", "No space left", "quota exceeded"]) => Why::Full,
        () if says(&["ermission denied", "must be root"]) => Why::Denied,
        () => Why::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As zfs-fuse 0.7.0 and OpenZFS 2.1 say it.
    #[test]
    fn refusals_are_told_apart_by_their_words() {
        for (words, expected) in [
            ("cannot create 't/g/1': dataset already exists", Why::Exists),
            ("cannot create snapshot 't/g/1@2': dataset already exists", Why::Exists),
            ("cannot open 't/g/1': dataset does not exist", Why::Missing),
            ("cannot create 'nope/1': no such pool 'nope'", Why::Missing),
            ("cannot mount 't/g/1': filesystem already mounted", Why::Mounted),
            ("cannot destroy 't/g/1': dataset is busy", Why::Busy),
            (
                "umount: /t/g/1: not mounted.; cannot unmount '/t/g/1': umount failed: umount child process failed",
                Why::Busy,
            ),
            ("cannot destroy 't/g/1': filesystem has dependent clones", Why::Needed),
            ("cannot create 't/g/1': out of space", Why::Full),
            ("cannot create 't/g/1': permission denied", Why::Denied),
            ("internal error: failed to initialize ZFS library", Why::Other),
        ] {
            assert_eq!(why(words), expected, "{words}");
        }
    }

    #[test]
    fn lists_and_usage_below_the_words_are_left_out() {
        let text = "cannot destroy 't/g/1': filesystem has dependent clones\nuse '-R' to destroy the following datasets:\nt/g/2\n";
        assert_eq!(said(text), "cannot destroy 't/g/1': filesystem has dependent clones");
        assert_eq!(
            said("unrecognized command 'diff'\nusage:\n\tzfs command args ...\n"),
            "unrecognized command 'diff'"
        );
        let error = Error::from(Refused {
            why: Why::Full,
            command: "zfs create t/1".into(),
            words: "cannot create 't/1': out of space".into(),
        });
        assert_eq!(error.one_line(), "running `zfs create t/1`: cannot create 't/1': out of space");
        assert_eq!(error.kind(), Kind::Unavailable);
    }
}
