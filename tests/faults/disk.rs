//! A disk that is full: a clear error, nothing half-written, and all is well once there is room again.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use rustix::mount::{MountFlags, UnmountFlags};

use super::left::{ask, half_written};
use crate::sandbox::{Sandbox, alone, tool};

/// A store on a filesystem of its own with these many MB.
struct Small {
    sandbox: Sandbox,
}

impl Small {
    fn new(megabytes: u32) -> Self {
        let sandbox = Sandbox::new();
        fs::create_dir(sandbox.root()).unwrap();
        let size = std::ffi::CString::new(format!("size={megabytes}m")).unwrap();
        rustix::mount::mount(
            "outcrop-test",
            sandbox.root(),
            "tmpfs",
            MountFlags::empty(),
            Some(size.as_c_str()),
        )
        .unwrap();
        Small { sandbox }
    }

    /// Takes all the room that is left, but for some KB.
    fn fill(&self, but_kilobytes: u64) -> PathBuf {
        let path = self.sandbox.root().join("cache/ballast");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = fs::File::create(&path).unwrap();
        let stat = rustix::fs::fstatvfs(file.as_fd()).unwrap();
        let bytes = (stat.f_bavail * stat.f_frsize).saturating_sub(but_kilobytes << 10);
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes).unwrap();
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        rustix::mount::unmount(self.sandbox.root(), UnmountFlags::DETACH).unwrap();
    }
}

/// Everything of the sandbox but the filesystem that the test has mounted.
fn left(sandbox: &Sandbox) -> Vec<String> {
    let own = format!("mount at {}", sandbox.root().display());
    half_written(sandbox).into_iter().filter(|left| *left != own).collect()
}

#[test]
fn a_build_on_a_full_disk_fails_and_succeeds_once_there_is_room() {
    alone(build_on_a_full_disk);
}

fn build_on_a_full_disk() {
    let small = Small::new(64);
    let sandbox = &small.sandbox;
    sandbox.base_image("base");
    sandbox.file("small", "small");
    sandbox.file("large", vec![b'x'; 24 << 20]);
    sandbox.dockerfile(
        "FROM base\nCOPY small /\nCOPY large /\nRUN dd if=/dev/zero of=/larger bs=1M count=8 2> /dev/null\n",
    );
    let images = ask(sandbox, "select count(*) from image");

    let ballast = small.fill(8 << 10);
    let failed = sandbox.outcrop(&["build", "-t", "it", "."]).fails(1);
    let said = failed.stderr();
    assert!(said.contains("No space left on device") || said.contains("disk is full"), "{said}");
    assert!(
        said.ends_with("\nhint: free some space: `outcrop system prune` removes what nothing uses\n"),
        "{said}"
    );
    assert_eq!(left(sandbox), Vec::<String>::new());
    assert_eq!(ask(sandbox, "select count(*) from tag where name like '%/it:%'"), "0");
    // The step that went well stays for the next build.
    assert_eq!(ask(sandbox, "select count(*) from image"), (images.parse::<u32>().unwrap() + 1).to_string());

    // Not a byte is left: even the index cannot be written.
    fs::remove_file(&ballast).unwrap();
    let ballast = small.fill(0);
    let said = sandbox.outcrop(&["build", "-t", "it", "."]).fails(1).stderr();
    assert!(
        said.ends_with("\nhint: free some space: `outcrop system prune` removes what nothing uses\n"),
        "{said}"
    );

    fs::remove_file(ballast).unwrap();
    let built = sandbox.outcrop(&["build", "-t", "it", "."]).ok();
    assert!(built.stdout().contains("Step 2/4 : COPY small /\n ---> Using cache\n"), "{}", built.stdout());
    assert_eq!(left(sandbox), Vec::<String>::new());
}

#[test]
fn a_full_disk_can_be_pruned() {
    alone(full_on_a_full_disk);
}

fn full_on_a_full_disk() {
    let small = Small::new(64);
    let sandbox = &small.sandbox;
    sandbox.base_image("base");
    sandbox.file("large", vec![b'x'; 16 << 20]);
    sandbox.dockerfile("FROM base\nCOPY large /\n");
    sandbox.outcrop(&["build", "-t", "it", "."]).ok();
    sandbox.outcrop(&["rmi", "it"]).ok();
    let ballast = small.fill(0);

    sandbox.outcrop(&["system", "prune", "-a", "-f"]).ok();
    assert_eq!(left(sandbox), Vec::<String>::new());
    assert_eq!(ask(sandbox, "select count(*) from layer"), "0");
    let file = fs::File::open(&ballast).unwrap();
    let free = rustix::fs::fstatvfs(file.as_fd()).unwrap();
    assert!(free.f_bavail * free.f_frsize > 16 << 20);
}

#[test]
fn an_export_that_finds_no_room_leaves_what_stood_there() {
    alone(export_without_room);
}

fn export_without_room() {
    let sandbox = Sandbox::new();
    sandbox.base_image("base");
    sandbox.outcrop(&["create", "--name", "box", "base", "true"]).ok();
    let small = sandbox.context().join("small");
    fs::create_dir(&small).unwrap();
    rustix::mount::mount("outcrop-test", &small, "tmpfs", MountFlags::empty(), Some(c"size=256k")).unwrap();
    let place = sandbox.file("small/box.tar", "what stood there");
    sandbox.outcrop(&["export", "-o", "small/box.tar", "box"]).fails(1).complains("No space left on device");
    assert_eq!(fs::read_to_string(place).unwrap(), "what stood there");
    assert_eq!(fs::read_dir(&small).unwrap().count(), 1);

    // A device is no file of ours to be taken away.
    let full = small.join("full");
    tool(&sandbox, &["mknod", full.to_str().unwrap(), "c", "1", "7"]);
    sandbox.outcrop(&["export", "-o", "small/full", "box"]).fails(1).complains("No space left on device");
    assert!(full.exists());
    rustix::mount::unmount(&small, UnmountFlags::DETACH).unwrap();
}
