//! A driver on a root of its own, and how tests look at what it makes.

use super::*;

/// A driver on a root of its own.
pub(super) struct Bench {
    /// Of the driver `zfs`; it ends before its sandbox.
    pub(super) _pool: Option<Pool>,
    pub(super) sandbox: Sandbox,
    pub(super) root: PathBuf,
    pub(super) driver: Box<dyn Driver>,
    /// What the root is on, if it is a filesystem of its own, mounted where nobody sees it.
    pub(super) _disk: Option<OwnedFd>,
    pub(super) next: Cell<u64>,
}

/// Sealed snapshots as the driver wants them for a stack: nearest first; of a Stacked one the nearest alone.
pub(super) type Stack = Vec<SnapshotId>;

/// Without options.
pub(super) fn setting(root: &Path) -> Setting<'_> {
    static NONE: LazyLock<Options> = LazyLock::new(Options::default);
    Setting { root, options: &NONE }
}

pub(super) fn select(root: &Path, wanted: Option<&str>) -> outcrop::error::Result<driver::Selected> {
    driver::select(&setting(root), wanted)
}

/// A detached mount, as a path.
pub(super) struct Seen(pub(super) OwnedFd);

impl Seen {
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/.", self.0.as_raw_fd()))
    }
    pub(super) fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }
    pub(super) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap()
    }
    pub(super) fn names(&self, dir: &str) -> Vec<String> {
        names(&self.at(dir))
    }
}

pub(super) fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

impl Bench {
    pub(super) fn new(name: &str) -> Self {
        let sandbox = Sandbox::new();
        fs::create_dir(sandbox.root()).unwrap();
        let pool = (name == "zfs").then(|| Pool::new(&sandbox));
        let options = pool.as_ref().map(|_| Pool::options()).unwrap_or_default();
        let setting = Setting { root: &sandbox.root(), options: &options };
        let driver = driver::select(&setting, Some(name)).unwrap().driver;
        Bench { root: sandbox.root(), _pool: pool, sandbox, driver, _disk: None, next: Cell::new(1) }
    }
    /// The same on a new filesystem of this kind.
    pub(super) fn on_filesystem(name: &str, kind: &str) -> Self {
        let sandbox = Sandbox::new();
        let disk = match kind {
            "tmpfs" => outcrop::sys::mount::tmpfs(Some(256 << 20), 0o755, Attributes::NONE).unwrap(),
            _ => new_disk(&sandbox, kind),
        };
        let root = PathBuf::from(format!("/proc/self/fd/{}/.", disk.as_raw_fd()));
        let driver = select(&root, Some(name)).unwrap().driver;
        Bench { root, _pool: None, sandbox, driver, _disk: Some(disk), next: Cell::new(1) }
    }
    /// In a machine: small, and with this filesystem in its volumes.
    pub(super) fn devicemapper(filesystem: &str) -> Self {
        let sandbox = Sandbox::new();
        fs::create_dir_all(sandbox.root().join("trash")).unwrap();
        let kind = format!("dm.fs={filesystem}");
        let said = ["dm.basesize=512M", "dm.loopdatasize=4G", "dm.loopmetadatasize=32M", &kind];
        let options = Options::parse(&said).unwrap();
        let setting = Setting { root: &sandbox.root(), options: &options };
        let driver = driver::open(&setting, "devicemapper").unwrap();
        Bench { root: sandbox.root(), _pool: None, sandbox, driver, _disk: None, next: Cell::new(1) }
    }
    pub(super) fn number(&self) -> SnapshotId {
        SnapshotId(self.next.replace(self.next.get() + 1))
    }
    pub(super) fn open(&self, mount: &Mount) -> Seen {
        Seen(detached(mount).unwrap())
    }
    pub(super) fn create(&self, below: &[SnapshotId]) -> SnapshotId {
        let id = self.number();
        self.driver.create(id, below).unwrap();
        id
    }
    /// A sealed snapshot on a stack, changed through its mount.
    pub(super) fn on(&self, below: &[SnapshotId], change: impl FnOnce(&Seen)) -> Stack {
        let id = self.create(below);
        change(&self.open(&self.driver.mount(id, below).unwrap()));
        self.driver.release(id).unwrap();
        self.driver.seal(id).unwrap();
        match self.driver.shape() {
            Shape::Layered => [&[id], below].concat(),
            Shape::Stacked => vec![id],
        }
    }
    pub(super) fn base(&self, change: impl FnOnce(&Seen)) -> Stack {
        self.on(&[], change)
    }
    pub(super) fn tree(&self, id: SnapshotId) -> Seen {
        Seen(self.driver.tree(id).unwrap().dir)
    }
    pub(super) fn view(&self, stack: &[SnapshotId]) -> Seen {
        self.open(&self.driver.view(stack).unwrap())
    }
}

/// A disk in a file; the loop device goes with the mount.
pub(crate) fn new_disk(sandbox: &Sandbox, kind: &str) -> OwnedFd {
    let image = sandbox.dir().join("disk");
    fs::File::create(&image).unwrap().set_len(1 << 30).unwrap();
    let run = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    run(Command::new(format!("mkfs.{kind}")).arg("-q").arg(&image));
    let device = run(Command::new("losetup").args(["-f", "--show"]).arg(&image));
    let mounted = || -> rustix::io::Result<OwnedFd> {
        use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
        let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_string(&context, "source", device.as_str())?;
        rustix::mount::fsconfig_create(&context)?;
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    };
    let disk = mounted();
    run(Command::new("losetup").arg("-d").arg(&device));
    disk.unwrap()
}

pub(super) fn xattr(path: &Path, name: &str) -> Vec<u8> {
    let mut value = vec![0; 70_000];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
    value.truncate(length);
    value
}

pub(super) fn nothing_is_left(bench: &Bench) {
    assert_eq!(bench.driver.list().unwrap(), []);
    let trash = bench.root.join("trash");
    assert!(!trash.exists() || names(&trash).is_empty());
}
