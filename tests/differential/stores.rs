//! Stores: one with the two base images, copied for each build that is to find nothing.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use outcrop::engine::{self, Engine};

use crate::sandbox::{copy_program, find_on_path};

/// In memory where that can be: these stores are made and thrown away by the thousand.
pub(super) struct Stores {
    dir: PathBuf,
}

impl Stores {
    pub(super) fn new() -> Self {
        static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let memory = Path::new("/dev/shm");
        let home = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let dir = home.join(format!("outcrop-differential-{}-{number}", std::process::id()));
        drop(fs::remove_dir_all(&dir));
        fs::create_dir(&dir).unwrap();
        let stores = Stores { dir };
        for (name, motd) in [("base", "one\n"), ("other", "two\n")] {
            let archive = stores.archive(name, motd);
            let import = Command::new(env!("CARGO_BIN_EXE_outcrop"))
                .arg("--root")
                .arg(stores.template())
                .arg("--run-root")
                .arg(stores.dir.join("run"))
                .arg("import")
                .arg(archive)
                .arg(name)
                .output()
                .unwrap();
            assert!(import.status.success(), "{}", String::from_utf8_lossy(&import.stderr));
        }
        stores
    }

    fn template(&self) -> PathBuf {
        self.dir.join("template")
    }

    /// Busybox with the few applets that the commands need.
    fn archive(&self, name: &str, motd: &str) -> PathBuf {
        let tree = self.dir.join(name);
        for dir in ["bin", "etc", "in", "proc", "sys", "dev", "tmp"] {
            fs::create_dir_all(tree.join(dir)).unwrap();
            fs::set_permissions(tree.join(dir), fs::Permissions::from_mode(0o755)).unwrap();
        }
        copy_program(&find_on_path("busybox"), &tree.join("bin/busybox"));
        for applet in
            "sh cat echo env grep sort find mkdir rm cp chmod pwd id ls awk ln mv test true".split(' ')
        {
            symlink("busybox", tree.join("bin").join(applet)).unwrap();
        }
        let passwd = "root:x:0:0::/:/bin/sh\nsome:x:7:8::/:/bin/sh\n";
        fs::write(tree.join("etc/passwd"), passwd).unwrap();
        fs::write(tree.join("etc/group"), "root:x:0:\nsome:x:8:\n").unwrap();
        fs::write(tree.join("in/a"), motd).unwrap();
        // What COPY meets on its way is not the same in both.
        if name == "other" {
            fs::create_dir(tree.join("deep")).unwrap();
            fs::set_permissions(tree.join("deep"), fs::Permissions::from_mode(0o750)).unwrap();
            symlink("in", tree.join("ln")).unwrap();
        }
        let archive = self.dir.join(format!("{name}.tar"));
        let tar = Command::new("tar")
            .args(["--sort=name", "--mtime=@1500000000", "--owner=0", "--group=0", "-cf"])
            .arg(&archive)
            .arg("-C")
            .arg(&tree)
            .arg(".")
            .status();
        assert!(tar.unwrap().success());
        archive
    }

    pub(super) fn place(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A store with the base images and nothing else.
    pub(super) fn fresh(&self, name: &str) -> Store {
        let root = self.dir.join(name);
        copy_tree(&self.template(), &root);
        let engine = Engine::open(&engine::Options {
            root: root.clone(),
            run: self.dir.join("run"),
            driver: None,
            storage: Default::default(),
            runtime: None,
            exe: env!("CARGO_BIN_EXE_outcrop").into(),
            path: std::env::var_os("PATH").unwrap(),
        });
        Store { engine: Some(engine.unwrap()), root }
    }
}

impl Drop for Stores {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.dir));
    }
}

pub(super) struct Store {
    engine: Option<Engine>,
    root: PathBuf,
}

impl Store {
    pub(super) fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("open until it is dropped")
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        drop(self.engine.take());
        drop(fs::remove_dir_all(&self.root));
    }
}

/// Files, directories and links; owners stay root's and times are no matter, but modes are kept.
fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (kind, target) = (entry.file_type().unwrap(), to.join(entry.file_name()));
        if kind.is_dir() {
            copy_tree(&entry.path(), &target);
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path()).unwrap(), target).unwrap();
        } else if entry.metadata().unwrap().len() > 1 << 20 && entry.file_name() == "busybox" {
            // Nobody writes to a layer's files.
            fs::hard_link(entry.path(), target).unwrap();
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
