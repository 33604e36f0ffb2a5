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

use rustix::fs::{CWD, Mode, OFlags, mkdirat};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, OpenTreeFlags};

use super::mount::{Attributes, attach_at, in_own_mounts, tmpfs, with_log};
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
    let open = |dir: &Path| open_dir(dir).context(doing);
    let upper = match upper {
        Some(upper) => Some((open(upper.dir)?, open(upper.work)?, upper.volatile)),
        None => None,
    };
    if let Some((_, work, true)) = &upper {
        forget_volatile(work.as_fd()).context(doing)?;
    }
    let way = |lowers: &[Lower<'_>], upper: Option<&OpenUpper>| mount(lowers, upper, user);
    match (stacked(lowers, upper.as_ref(), &way), upper) {
        // While a write that the disk refused is still to be told to somebody (overlayfs.rst, "Volatile mount"): with regard to
        // crashes it is mounted all the same, and whoever asks the disk in the end is told.
        (Err(cause), Some((dir, work, true))) => {
            tracing::debug!(%cause, "not mounted without regard to crashes");
            stacked(lowers, Some(&(dir, work, false)), &way)
        }
        (mounted, _) => mounted,
    }
    .context(doing)
}

/// One overlay, or one on another.
fn stacked(lowers: &[&Path], upper: Option<&OpenUpper>, mount: &Way<'_>) -> io::Result<OwnedFd> {
    let (above, deepest) = lowers.split_at(lowers.len().saturating_sub(MOST_LOWERS));
    let mut layers: Vec<Lower<'_>> = deepest.iter().map(|path| Lower::At(path)).collect();
    if !above.is_empty() {
        let merged = mount(&layers, None).context(|| "merging the deepest layers")?;
        layers = above.iter().map(|path| Lower::At(path)).chain([Lower::Merged(merged)]).collect();
    }
    mount(&layers, upper)
}

/// A dialect of the kernel's.
type Way<'w> = dyn Fn(&[Lower<'_>], Option<&OpenUpper>) -> io::Result<OwnedFd> + 'w;

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
    /// A mount that is not attached.
    Merged(OwnedFd),
}

impl Lower<'_> {
    /// As a string for fsconfig(2): at most 255 bytes, and nothing in it that overlayfs could take for punctuation.
    fn name(&self) -> Option<&'_ OsStr> {
        match self {
            Lower::At(path) => Some(path.as_os_str()).filter(|name| {
                name.len() < 256 && !name.as_bytes().iter().any(|byte| b"\\:,".contains(byte))
            }),
            Lower::Merged(_) => None,
        }
    }
    fn open(&self) -> io::Result<OwnedFd> {
        match self {
            Lower::At(path) => open_dir(path),
            Lower::Merged(root) => root.try_clone(),
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
/// takes the mount away again as a detached copy. Options are one page: there all directories have short names.
fn by_classic_call(lowers: &[Lower<'_>], upper: Option<&OpenUpper>, user: bool) -> io::Result<OwnedFd> {
    let attached = || -> Result<OwnedFd> {
        let doing = || "mounting in the namespace of a thread";
        let names = Names::new().context(doing)?;
        for (number, lower) in lowers.iter().enumerate() {
            names.give(&number.to_string(), lower).context(doing)?;
        }
        if let Some((dir, work, _)) = upper {
            names.link("upper", dir).context(doing)?;
            names.link("work", work).context(doing)?;
        }
        let data = classic_options(lowers.len(), upper.map(|(_, _, volatile)| *volatile), user)?;
        mkdirat(&names.0, "all", Mode::RWXU).context(doing)?;
        rustix::process::fchdir(&names.0).context(doing)?;
        rustix::mount::mount("overlay", "all", "overlay", MountFlags::empty(), data.as_c_str())
            .context(doing)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        rustix::mount::open_tree(CWD, "all", flags).context(doing)
    };
    Ok(in_own_mounts(attached)?)
}

/// A directory in memory, attached in the caller's own mount namespace.
struct Names(OwnedFd);

impl Names {
    fn new() -> Result<Names> {
        let names = tmpfs(None, 0o700, Attributes::NONE)?;
        // Whoever works here is in the root already, and goes on seeing what lies below it.
        attach_at(names.as_fd(), CWD, "/".as_ref()).context(|| "attaching it")?;
        Ok(Names(names))
    }

    fn give(&self, name: &str, lower: &Lower<'_>) -> io::Result<()> {
        match lower {
            Lower::At(path) => self.link(name, &open_dir(path)?),
            Lower::Merged(root) => {
                mkdirat(&self.0, name, Mode::RWXU)?;
                attach_at(root.as_fd(), self.0.as_fd(), name.as_ref())
            }
        }
    }

    /// overlayfs takes directories of the caller's own namespace only, so it comes to this one by its path.
    fn link(&self, name: &str, dir: &OwnedFd) -> io::Result<()> {
        let path = rustix::fs::readlink(proc_path(dir), Vec::new())?;
        Ok(rustix::fs::symlinkat(path, &self.0, name)?)
    }
}

/// With the names that `by_classic_call` gives. `volatile`: of an upper.
fn classic_options(lowers: usize, volatile: Option<bool>, user: bool) -> Result<CString> {
    let mut data = OPTIONS.map(|(key, value)| format!("{key}={value}")).join(",");
    data += if user { ",userxattr" } else { "" };
    if let Some(volatile) = volatile {
        data +=
            if volatile { ",upperdir=upper,workdir=work,volatile" } else { ",upperdir=upper,workdir=work" };
    }
    let names: Vec<String> = (0..lowers).map(|number| number.to_string()).collect();
    data += &format!(",lowerdir={}", names.join(":"));
    debug_assert!(data.len() < 4096, "{MOST_LOWERS} names of three digits fit into a page");
    Ok(CString::new(data).expect("no name has a NUL"))
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
            how(&[Lower::At(&near), Lower::At(&far)], Some(&(open(&upper), open(&work), true))).unwrap();
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

    /// Six hundred below what is written to: more than one overlay takes.
    fn shows_many(name: &str, how: &Way<'_>) {
        let temporary = Temporary::new(name);
        let dirs: Vec<PathBuf> = (0..600).map(|number| temporary.dir(&number.to_string())).collect();
        for (number, dir) in dirs.iter().enumerate() {
            fs::write(dir.join(format!("only-{number}")), "").unwrap();
            fs::write(dir.join("all"), number.to_string()).unwrap();
        }
        let nearest_first: Vec<&Path> = dirs.iter().rev().map(PathBuf::as_path).collect();
        let (upper, work) = (temporary.dir("upper"), temporary.dir("work"));
        for depth in [1, 300, 500, 501, 600] {
            let root = stacked(&nearest_first[600 - depth..], Some(&(open(&upper), open(&work), false)), how)
                .unwrap();
            assert_eq!(read(&root, "all"), Some((depth - 1).to_string()));
            assert_eq!(fs::read_dir(proc_path(&root)).unwrap().count(), depth + 1);
        }
    }

    #[test]
    fn six_hundred_lowers_are_mounted() {
        shows_many("many", &|lowers, upper| mount(lowers, upper, false));
    }

    #[test]
    fn six_hundred_lowers_are_mounted_by_the_classic_call() {
        shows_many("many-by-classic-call", &|lowers, upper| by_classic_call(lowers, upper, false));
    }

    #[test]
    fn a_thousand_lowers_are_refused() {
        let error = detached(&[Path::new("/absent"); 1000], None, false).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Unsupported);
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
