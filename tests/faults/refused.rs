//! A disk that takes what is written and cannot keep it: whoever comes later, and is not told of it, must not take
//! it for kept.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags};

use super::left::ask;
use crate::sandbox::{Sandbox, alone, tool};

/// A store on a disk that lies in a file, which is promised more than there is room for.
struct Promised {
    sandbox: Sandbox,
    bed: PathBuf,
}

impl Promised {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let bed = sandbox.dir().join("bed");
        fs::create_dir(&bed).unwrap();
        fs::create_dir(sandbox.root()).unwrap();
        rustix::mount::mount("outcrop-test", &bed, "tmpfs", MountFlags::empty(), Some(c"size=256m")).unwrap();
        let disk = bed.join("disk");
        fs::File::create(&disk).unwrap().set_len(512 << 20).unwrap();
        // What describes files has its place from the beginning: the bytes of files alone find none.
        let path = disk.to_str().unwrap();
        tool(
            &sandbox,
            &["mkfs.ext4", "-q", "-O", "^has_journal", "-E", "lazy_itable_init=0", "-N", "4096", path],
        );
        let promised = Promised { sandbox, bed };
        promised.mount();
        promised
    }

    /// The loop device goes with the mount.
    fn mount(&self) {
        let (disk, root) = (self.bed.join("disk"), self.sandbox.root());
        let mut mount = Command::new("mount");
        assert!(mount.args(["-o", "loop"]).arg(disk).arg(root).status().unwrap().success());
    }

    /// What memory has of the disk is forgotten.
    fn mount_again(&self) {
        rustix::mount::unmount(self.sandbox.root(), UnmountFlags::empty()).unwrap();
        self.mount();
    }

    /// The file that is the disk can grow by these many MB.
    fn leave(&self, megabytes: u64) {
        let stat = rustix::fs::statvfs(&self.bed).unwrap();
        let used = (stat.f_blocks - stat.f_bfree) * stat.f_frsize;
        let size = std::ffi::CString::new(format!("size={}", used + (megabytes << 20))).unwrap();
        rustix::mount::mount_remount(&self.bed, MountFlags::empty(), size.as_c_str()).unwrap();
    }
}

impl Drop for Promised {
    fn drop(&mut self) {
        // A lazy one would let a failed test's loop device live on, with a disk that is gone.
        let _busy = rustix::mount::unmount(self.sandbox.root(), UnmountFlags::empty());
        let _busy = rustix::mount::unmount(&self.bed, UnmountFlags::DETACH);
    }
}

#[test]
fn a_build_after_one_whose_writes_were_refused_takes_nothing_of_it_for_kept() {
    alone(build_after_refused_writes);
}

fn build_after_refused_writes() {
    let promised = Promised::new();
    let sandbox = &promised.sandbox;
    sandbox.base_image("base");
    let large: Vec<u8> =
        (0..32_u32 << 18).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    sandbox.file("from", &large);
    sandbox.dockerfile("FROM base\nCOPY from /large\n");

    promised.leave(8);
    let failed = sandbox.outcrop(&["build", "-t", "it", "."]).fails(1);
    assert!(failed.stderr().contains("Input/output error"), "{}", failed.report());
    assert_eq!(ask(sandbox, "select count(*) from tag where name like '%/it:%'"), "0");

    promised.leave(200);
    sandbox.outcrop(&["build", "-t", "it", "."]).ok();
    promised.mount_again();
    sandbox.outcrop(&["system", "check"]).ok();
    sandbox.outcrop(&["create", "--name", "box", "it", "true"]).ok();
    sandbox.outcrop(&["export", "-o", "box.tar", "box"]).ok();
    tool(sandbox, &["tar", "-xf", "box.tar", "large"]);
    assert!(fs::read(sandbox.context().join("large")).unwrap() == large, "other bytes than were copied");
}
