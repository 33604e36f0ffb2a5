//! overlayfs (kernel Documentation/filesystems/overlayfs.rst), mounted so that the upper directory is the
//! diff.
//!
//! `redirect_dir=nofollow,metacopy=off,index=off`: a renamed or chmodded lower file is whole in the upper,
//! hard links are only what the upper shows, and a layer from outside cannot point its reader to another
//! place.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, OpenTreeFlags};

use super::mount::{in_own_mounts, with_log};
use crate::error::{Context, Error, Result};

/// The changes of one mount. Two mounts must never share one: the kernel only logs it.
pub(super) struct Upper<'a> {
    pub(super) dir: &'a Path,
    /// Empty or used by the same upper before, on the same filesystem.
    pub(super) work: &'a Path,
    pub(super) volatile: bool,
}

/// The most lowers one overlay takes (fs/overlayfs/params.h, OVL_MAX_STACK).
const MOST_LOWERS: usize = 500;

const OPTIONS: [(&str, &str); 3] = [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off")];

/// An overlay that nobody sees; lowers nearest first. Stacks of more than 500 lowers, up to 999, are two
/// overlays: the deepest 500 stand below as one. (Only the deepest can: a whiteout in a merged view does not
/// show, so it hides nothing below it.) `user`: marks are `user.overlay.*` (overlayfs.rst, "User xattr").
pub(super) fn detached(lowers: &[&Path], upper: Option<&Upper<'_>>, user: bool) -> Result<OwnedFd> {
    let doing = || match upper {
        Some(upper) => {
            format!("mounting an overlay of {} layers with the upper {}", lowers.len(), upper.dir.display())
        }
        None => format!("mounting an overlay of {} layers", lowers.len()),
    };
    if lowers.len() >= 2 * MOST_LOWERS {
        return Err(Error::unsupported(format!(
            "a stack of {} layers; overlayfs carries {} here",
            lowers.len(),
            2 * MOST_LOWERS - 1
        ))
        .hint("flatten the image: `FROM scratch` and `COPY --from=<image> / /` make one layer of it"));
    }
    let (above, deepest) = lowers.split_at(lowers.len().saturating_sub(MOST_LOWERS));
    let mut layers: Vec<Lower<'_>> = deepest.iter().map(|path| Lower::At(path)).collect();
    if !above.is_empty() {
        let merged = mount(&layers, None, user).context(|| "merging the deepest layers").context(doing)?;
        layers = above.iter().map(|path| Lower::At(path)).chain([Lower::Open(merged)]).collect();
    }
    let open = |dir: &Path| open_dir(dir).context(doing);
    let upper = match upper {
        Some(upper) => Some((open(upper.dir)?, open(upper.work)?, upper.volatile)),
        None => None,
    };
    if let Some((_, work, true)) = &upper {
        forget_volatile(work.as_fd()).context(doing)?;
    }
    mount(&layers, upper.as_ref(), user).context(doing)
}

/// A volatile mount leaves a mark that refuses the next one (overlayfs.rst, "Volatile mount"). Whoever mounts
/// volatile again knows that the bytes are all there, as nothing but a crash of the system loses them.
fn forget_volatile(work: BorrowedFd<'_>) -> io::Result<()> {
    use rustix::fs::{AtFlags, unlinkat};
    let gone = |removed| match removed {
        Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
        Err(errno) => Err(io::Error::from(errno)),
    };
    gone(unlinkat(work, c"work/incompat/volatile/dirty", AtFlags::empty()))?;
    gone(unlinkat(work, c"work/incompat/volatile", AtFlags::REMOVEDIR))
}

/// A lower of a mount.
enum Lower<'a> {
    At(&'a Path),
    Open(OwnedFd),
}

impl Lower<'_> {
    /// As a string for fsconfig(2): at most 255 bytes, and nothing in it that overlayfs could take for punctuation.
    fn name(&self) -> Option<&'_ OsStr> {
        match self {
            Lower::At(path) => Some(path.as_os_str()).filter(|name| {
                name.len() < 256 && !name.as_bytes().iter().any(|byte| b"\\:,".contains(byte))
            }),
            Lower::Open(_) => None,
        }
    }
    fn open(&self) -> io::Result<OwnedFd> {
        match self {
            Lower::At(path) => open_dir(path),
            Lower::Open(dir) => dir.try_clone(),
        }
    }
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| of(path.as_os_str(), errno.into()))
}

/// The cause, with the directory that it is about.
fn of(dir: &OsStr, cause: io::Error) -> io::Error {
    io::Error::new(cause.kind(), format!("the layer directory {}: {cause}", dir.display()))
}

/// Upper, work, volatile.
type OpenUpper = (OwnedFd, OwnedFd, bool);

fn mount(lowers: &[Lower<'_>], upper: Option<&OpenUpper>, user: bool) -> io::Result<OwnedFd> {
    // The mount API reports a parameter it does not know as EINVAL, at once: that decides which dialect is
    // spoken.
    let root = match by_context(lowers, upper, user, Naming::Descriptors) {
        Err(Step::Lower(Errno::INVAL | Errno::BADF)) => {
            match by_context(lowers, upper, user, Naming::Paths) {
                Err(Step::Lower(Errno::INVAL)) => by_classic_call(lowers, upper, user)?,
                other => other?,
            }
        }
        // fsconfig(2) takes no descriptors for a filesystem that does not speak the mount API, as overlayfs
        // before 6.5; of strings it takes any (fs/fsopen.c).
        Err(Step::Lower(Errno::OPNOTSUPP)) => by_classic_call(lowers, upper, user)?,
        other => other?,
    };
    // An upper that the kernel cannot write to makes a read-only mount without an error.
    if upper.is_some() && rustix::fs::fstatvfs(&root)?.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY)
    {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the kernel gave a read-only mount: the filesystem below cannot hold an upper directory",
        ));
    }
    Ok(root)
}

/// How the kernel takes descriptors of directories.
#[derive(Clone, Copy, PartialEq)]
enum Naming {
    /// Linux 6.13 and newer.
    Descriptors,
    /// Linux 6.5 and newer; through `/proc/self/fd`, as a string ends at 255 bytes.
    Paths,
}

enum Step {
    /// Naming the first lower: a refusal here is the dialect's.
    Lower(Errno),
    Other(io::Error),
}

impl From<io::Error> for Step {
    fn from(cause: io::Error) -> Self {
        Step::Other(cause)
    }
}

impl From<Errno> for Step {
    fn from(errno: Errno) -> Self {
        Step::Other(errno.into())
    }
}

impl From<Step> for io::Error {
    fn from(step: Step) -> Self {
        match step {
            Step::Lower(errno) => errno.into(),
            Step::Other(cause) => cause,
        }
    }
}

fn by_context(
    lowers: &[Lower<'_>],
    upper: Option<&OpenUpper>,
    user: bool,
    naming: Naming,
) -> std::result::Result<OwnedFd, Step> {
    use rustix::mount::{
        fsconfig_create, fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
    };
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let said = |errno| with_log(errno, context.as_fd());
    let set = |key: &str, dir: &OwnedFd| match naming {
        Naming::Descriptors => fsconfig_set_fd(&context, key, dir),
        Naming::Paths => fsconfig_set_string(&context, key, proc_path(dir)),
    };
    fsconfig_set_string(&context, "source", "overlay")?;
    for (index, lower) in lowers.iter().enumerate() {
        match lower.name() {
            // The first is a descriptor, as that tells the dialects apart. The others are not opened for each mount:
            // that is a tenth of the time that a mount on a hundred takes.
            Some(name) if index > 0 => {
                fsconfig_set_string(&context, "lowerdir+", name).map_err(|errno| of(name, said(errno)))?;
            }
            _ => set("lowerdir+", &lower.open()?).map_err(|errno| match index {
                0 => Step::Lower(errno),
                _ => said(errno).into(),
            })?,
        }
    }
    if let Some((dir, work, volatile)) = upper {
        set("upperdir", dir).map_err(said)?;
        set("workdir", work).map_err(said)?;
        if *volatile {
            fsconfig_set_flag(&context, "volatile").map_err(said)?;
        }
    }
    for (key, value) in OPTIONS {
        fsconfig_set_string(&context, key, value).map_err(said)?;
    }
    if user {
        fsconfig_set_flag(&context, "userxattr").map_err(said)?;
    }
    fsconfig_create(&context).map_err(said)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

fn proc_path(dir: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", dir.as_raw_fd())
}

/// mount(2) for kernels before 6.5. It attaches, so a thread with a mount namespace of its own does it, and
/// takes the mount away again as a detached copy. Options are one page: some 190 lowers.
fn by_classic_call(lowers: &[Lower<'_>], upper: Option<&OpenUpper>, user: bool) -> io::Result<OwnedFd> {
    let attached = || -> Result<OwnedFd> {
        let doing = || "mounting in the namespace of a thread";
        // overlayfs takes directories of the caller's own namespace only, so they are opened once more.
        let again = |dir: &OwnedFd| -> rustix::io::Result<OwnedFd> {
            let path = rustix::fs::readlink(proc_path(dir), Vec::new())?;
            rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        };
        let lowers: Vec<OwnedFd> = lowers
            .iter()
            .map(|lower| Ok(again(&lower.open()?)?))
            .collect::<io::Result<_>>()
            .context(doing)?;
        let upper = match upper {
            Some((dir, work, volatile)) => {
                Some((again(dir).context(doing)?, again(work).context(doing)?, *volatile))
            }
            None => None,
        };
        let data = classic_options(&lowers, upper.as_ref(), user)?;
        // Any directory of this namespace will do as a mount point. The descriptor goes on showing what it
        // was opened on; the path shows the mount.
        let place = lowers.first().map(proc_path).unwrap_or_default();
        let place = rustix::fs::readlink(place, Vec::new()).context(doing)?;
        rustix::mount::mount("overlay", &place, "overlay", MountFlags::empty(), data.as_c_str())
            .context(doing)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        rustix::mount::open_tree(CWD, &place, flags).context(doing)
    };
    Ok(in_own_mounts(attached)?)
}

fn classic_options(lowers: &[OwnedFd], upper: Option<&OpenUpper>, user: bool) -> Result<CString> {
    let mut data = OPTIONS.map(|(key, value)| format!("{key}={value}")).join(",");
    data += if user { ",userxattr" } else { "" };
    if let Some((dir, work, volatile)) = upper {
        let volatile = if *volatile { ",volatile" } else { "" };
        data += &format!(",upperdir={},workdir={}{volatile}", proc_path(dir), proc_path(work));
    }
    let names: Vec<String> = lowers.iter().map(proc_path).collect();
    data += &format!(",lowerdir={}", names.join(":"));
    if data.len() >= 4096 {
        return Err(Error::unsupported("too many layers for the mount call of this kernel")
            .hint("Linux 6.5 and newer take 999 layers"));
    }
    Ok(CString::new(data).expect("descriptor paths have no NUL"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    struct Temporary(PathBuf);
    impl Temporary {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("outcrop-overlay-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Temporary(path)
        }
        fn dir(&self, name: &str) -> PathBuf {
            let dir = self.0.join(name);
            fs::create_dir(&dir).unwrap();
            dir
        }
    }
    impl Drop for Temporary {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn open(path: &Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }
    fn read(root: &OwnedFd, name: &str) -> Option<String> {
        fs::read_to_string(format!("{}/{name}", proc_path(root))).ok()
    }

    /// One file below, one above, one written: what every way to mount must show.
    fn shows_a_stack(name: &str, how: impl Fn(&[Lower<'_>], Option<&OpenUpper>) -> io::Result<OwnedFd>) {
        let temporary = Temporary::new(name);
        let (near, far) = (temporary.dir("near"), temporary.dir("far"));
        let (upper, work) = (temporary.dir("upper"), temporary.dir("work"));
        fs::write(far.join("file"), "far").unwrap();
        fs::write(far.join("other"), "other").unwrap();
        fs::write(near.join("file"), "near").unwrap();
        let root =
            how(&[Lower::Open(open(&near)), Lower::At(&far)], Some(&(open(&upper), open(&work), true)))
                .unwrap();
        assert_eq!(rustix::fs::fstatfs(&root).unwrap().f_type, 0x794c_7630);
        assert_eq!(read(&root, "file").as_deref(), Some("near"));
        assert_eq!(read(&root, "other").as_deref(), Some("other"));
        fs::write(format!("{}/new", proc_path(&root)), "new").unwrap();
        assert_eq!(fs::read_to_string(upper.join("new")).unwrap(), "new");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(name), "a detached mount is in nobody's table");
    }

    #[test]
    fn directories_are_named_by_descriptor() {
        shows_a_stack("by-descriptor", |lowers, upper| {
            Ok(by_context(lowers, upper, false, Naming::Descriptors)?)
        });
    }

    #[test]
    fn directories_are_named_by_path_before_linux_6_13() {
        shows_a_stack("by-path", |lowers, upper| Ok(by_context(lowers, upper, false, Naming::Paths)?));
    }

    #[test]
    fn the_classic_call_serves_kernels_before_6_5() {
        shows_a_stack("by-classic-call", |lowers, upper| by_classic_call(lowers, upper, false));
    }

    #[test]
    fn a_lower_that_is_not_there_is_named() {
        let temporary = Temporary::new("absent");
        let (near, absent) = (temporary.dir("near"), temporary.0.join("absent"));
        for lowers in [[&*near, &*absent], [&*absent, &*near]] {
            let error = detached(&lowers, None, false).unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::NotFound);
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert!(cause.starts_with(&format!("the layer directory {}: ", absent.display())), "{cause}");
        }
    }

    #[test]
    fn names_that_overlayfs_would_take_apart_are_no_obstacle() {
        let temporary = Temporary::new("names");
        let names = ["near", "a:b", "a\\:c", "a,upperdir=d", &"long".repeat(60)];
        let dirs: Vec<PathBuf> = names.iter().map(|name| temporary.dir(name)).collect();
        for (number, dir) in dirs.iter().enumerate() {
            fs::write(dir.join(number.to_string()), "").unwrap();
        }
        let lowers: Vec<&Path> = dirs.iter().map(PathBuf::as_path).collect();
        let root = detached(&lowers, None, false).unwrap();
        assert_eq!(fs::read_dir(proc_path(&root)).unwrap().count(), names.len());
    }

    #[test]
    fn six_hundred_lowers_are_mounted_and_a_thousand_refused() {
        let temporary = Temporary::new("many");
        let dirs: Vec<PathBuf> = (0..1000).map(|number| temporary.dir(&number.to_string())).collect();
        for (number, dir) in dirs.iter().enumerate() {
            fs::write(dir.join(format!("only-{number}")), "").unwrap();
            fs::write(dir.join("all"), number.to_string()).unwrap();
        }
        let nearest_first: Vec<&Path> = dirs[..600].iter().rev().map(PathBuf::as_path).collect();
        let upper = Upper { dir: &temporary.dir("upper"), work: &temporary.dir("work"), volatile: false };
        let root = detached(&nearest_first, Some(&upper), false).unwrap();
        assert_eq!(read(&root, "all").as_deref(), Some("599"));
        assert_eq!(fs::read_dir(proc_path(&root)).unwrap().count(), 601);
        let all: Vec<&Path> = dirs.iter().map(PathBuf::as_path).collect();
        assert_eq!(detached(&all, None, false).unwrap_err().kind(), crate::error::Kind::Unsupported);
    }

    #[test]
    fn a_volatile_upper_is_mounted_again() {
        let temporary = Temporary::new("volatile");
        let (lower, dir, work) = (temporary.dir("lower"), temporary.dir("upper"), temporary.dir("work"));
        let upper = Upper { dir: &dir, work: &work, volatile: true };
        for _ in 0..3 {
            drop(detached(&[&lower], Some(&upper), false).unwrap());
        }
    }
}
