//! A disk that takes what is written and cannot keep it: whoever comes later, and is not told of it, must not take
//! it for kept.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use outcrop::db::Db;
use outcrop::snapshot::Snapshots;
use outcrop::snapshot::driver::Options;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use super::left::{ask, ask_file};
use crate::registry_kit::{Reply, Server, noise, tar_of_files};
use crate::sandbox::{Outcome, Sandbox, alone, tool, wait_until};
use crate::store::{child, wait_until_ready};
use crate::transfer_kit::{LONG, MB, filled, image_of, is_of, kill, start};

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

    /// A build of `it`, with a file of these bytes on `base`, that ends as the disk keeps little of it.
    fn refuse_a_build(&self, large: &[u8]) -> Outcome {
        let sandbox = &self.sandbox;
        sandbox.base_image("base");
        sandbox.file("from", large);
        sandbox.dockerfile("FROM base\nCOPY from /large\n");
        self.leave(8);
        sandbox.outcrop(&["build", "-t", "it", "."]).fails(1)
    }

    /// Something was refused.
    fn is_full(&self) -> bool {
        rustix::fs::statvfs(&self.bed).unwrap().f_bfree == 0
    }

    /// The file of an image as it is on the disk.
    fn file_of(&self, image: &str, name: &str) -> Vec<u8> {
        let sandbox = &self.sandbox;
        self.mount_again();
        sandbox.outcrop(&["system", "check"]).ok();
        sandbox.outcrop(&["create", "--name", "box", image, "true"]).ok();
        sandbox.outcrop(&["export", "-o", "box.tar", "box"]).ok();
        tool(sandbox, &["tar", "-xf", "box.tar", name]);
        fs::read(sandbox.context().join(name)).unwrap()
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
    let large = noise("from", 32 * MB);
    let failed = promised.refuse_a_build(&large);
    // The kernel gives one or the other for a loop device whose file finds no room.
    let refused = ["Input/output error", "No space left on device"];
    assert!(refused.iter().any(|why| failed.stderr().contains(why)), "{}", failed.report());
    assert_eq!(ask(sandbox, "select count(*) from tag where name like '%/it:%'"), "0");

    promised.leave(200);
    sandbox.outcrop(&["build", "-t", "it", "."]).ok();
    assert!(promised.file_of("it", "large") == large, "other bytes than were copied");
}

/// The kernel mounts nothing without regard to crashes while somebody has yet to be told.
#[test]
fn a_refused_write_that_nobody_was_told_of_stops_one_build_and_not_the_next() {
    alone(build_after_a_write_that_nobody_was_told_of);
}

fn build_after_a_write_that_nobody_was_told_of() {
    let promised = Promised::new();
    let sandbox = &promised.sandbox;
    sandbox.base_image("base");
    sandbox.dockerfile("FROM base\nRUN echo it > /file\n");
    promised.leave(8);
    let mut file = fs::File::create(sandbox.root().join("of-another-program")).unwrap();
    file.write_all(&noise("other", 32 * MB)).unwrap();
    // Of one file: this tells of the file alone.
    file.sync_all().unwrap_err();
    promised.leave(200);
    let stopped = sandbox.outcrop(&["build", "-t", "it", "."]).fails(1);
    assert!(stopped.stderr().contains("the disk did not keep all"), "{}", stopped.report());
    sandbox.outcrop(&["build", "-t", "it", "."]).ok();
}

/// What comes is written out while more is coming, and what was refused then is still told to whoever asks.
#[test]
fn what_was_refused_before_a_pull_was_killed_is_pulled_anew() {
    alone(pull_after_refused_writes);
}

fn pull_after_refused_writes() {
    let promised = Promised::new();
    let sandbox = &promised.sandbox;
    let image = image_of(&[tar_of_files(&[("large", 32 * MB)]), tar_of_files(&[("later", 16 * MB)])]);
    let registry = filled(sandbox, &image);
    let stuck = Arc::new(AtomicBool::new(true));
    let server = {
        let (stuck, index, later) =
            (stuck.clone(), sandbox.root().join("outcrop.db"), image.manifest.layers[1].clone());
        // The second layer begins when the first is published: 64 MB are written then, and more to come make a turn of it.
        let is_first_here = move || ask_file(&index, "select count(*) from layer") == "1";
        Server::start(Some(registry.address), move |asked, _| match is_of(asked, &later) {
            true if stuck.load(Ordering::SeqCst) => {
                assert!(wait_until(LONG, &is_first_here));
                Reply::Change(Box::new(|told| {
                    (told.length, told.cut) = (Some(told.body.len()), Some(8 * MB));
                    told.stall = Duration::from_secs(25);
                }))
            }
            _ => Reply::Forward,
        })
    };
    let name = format!("{}/app:v1", server.address);

    promised.leave(8);
    let child = start(sandbox, &["pull", &name]);
    let refused = || promised.is_full() && ask(sandbox, "select count(*) from layer") == "1";
    assert!(wait_until(LONG, refused), "the first layer is here, and did not find room on the disk");
    kill(child);

    promised.leave(200);
    stuck.store(false, Ordering::SeqCst);
    let told = sandbox.outcrop(&["pull", &name]).fails(1);
    assert!(told.stderr().contains("the disk did not keep all"), "{}", told.report());
    sandbox.outcrop(&["pull", &name]).ok();
    assert!(promised.file_of(&name, "large") == noise("large", 32 * MB), "other bytes than were pulled");
}

/// The index's log is read to the first page that is not there, whatever stands behind it.
#[test]
fn what_is_named_after_the_index_was_refused_is_kept() {
    alone(name_after_the_index_was_refused);
}

fn name_after_the_index_was_refused() {
    let promised = Promised::new();
    let sandbox = &promised.sandbox;
    sandbox.base_image("base");
    rustix::fs::syncfs(fs::File::open(sandbox.root()).unwrap()).unwrap();
    promised.leave(0);
    // Of what has its place already nothing is refused.
    let refused = |number| {
        let name = format!("refused-{number}");
        sandbox.outcrop(&["create", "--name", &name, "base", "true"]);
        sandbox.outcrop(&["tag", "base", &name]).stderr().contains("disk I/O error")
    };
    assert!((0..20).any(refused), "the disk keeps all of the index");
    promised.leave(200);
    for name in ["one", "another"] {
        sandbox.outcrop(&["tag", "base", name]).ok();
    }
    promised.mount_again();
    let images = sandbox.outcrop(&["images", "--format", "{{.Repository}}"]).ok().stdout();
    for name in ["base", "one", "another"] {
        assert!(images.lines().any(|line| line == name), "{name} is gone: {images}");
    }
    sandbox.outcrop(&["system", "check"]).ok();
}

/// As whoever is killed while he waits for a commit leaves it.
#[test]
fn who_comes_after_one_that_died_in_a_commit_mends_the_log() {
    let sandbox = Sandbox::new();
    let db = Db::open(&sandbox.root()).unwrap();
    let add = |key: &str| {
        db.durable(|durable| durable.set_driver(key, &[])).unwrap();
        fs::metadata(sandbox.root().join("outcrop.db-wal")).unwrap().len()
    };
    let (one, two) = (add("one"), add("two"));
    assert!(two > one, "a commit adds to the log: {one}, {two}");
    fs::write(sandbox.root().join("locks/log"), format!("?{}\n", db.boot())).unwrap();
    assert!(add("three") < two, "what stood in the log is in the file");
    let four = add("four");
    assert!(add("five") > four, "once is enough");
}

/// What the disk refused is told to whoever has it open; and not to who opened it when another one had been told.
#[test]
fn who_came_while_one_asked_that_died_takes_nothing_for_kept() {
    let sandbox = Sandbox::new();
    let before = Db::open(&sandbox.root()).unwrap();
    let asks = || fs::write(sandbox.root().join("locks/disk"), format!("?{}\n", before.boot())).unwrap();
    asks();
    let meanwhile = Db::open(&sandbox.root()).unwrap();
    before.write_out().unwrap();
    meanwhile.write_out().unwrap();
    asks();
    let error = meanwhile.write_out().unwrap_err();
    assert!(error.to_string().contains("did not keep something"), "{error}");
    before.write_out().unwrap_err();
    Db::open(&sandbox.root()).unwrap().write_out().unwrap();
}

/// A store on a disk that lies in a file of another one, which can be made to wait.
struct Waiting {
    sandbox: Sandbox,
    bed: PathBuf,
}

impl Waiting {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let waiting = Waiting { bed: sandbox.dir().join("bed"), sandbox };
        waiting.make("bed.disk", 64, &waiting.bed);
        waiting.make("bed/disk", 256, &waiting.sandbox.root());
        waiting
    }

    fn make(&self, disk: &str, megabytes: u64, place: &Path) {
        let disk = self.sandbox.dir().join(disk);
        fs::File::create(&disk).unwrap().set_len(megabytes << 20).unwrap();
        let path = disk.to_str().unwrap();
        let all_at_once = "lazy_itable_init=0";
        let make = ["mkfs.ext4", "-q", "-O", "^has_journal", "-E", all_at_once, "-N", "1024", path];
        tool(&self.sandbox, &make);
        fs::create_dir(place).unwrap();
        tool(&self.sandbox, &["mount", "-o", "loop", path, place.to_str().unwrap()]);
    }

    fn freeze(&self, how: &str) {
        tool(&self.sandbox, &["fsfreeze", how, self.bed.to_str().unwrap()]);
    }

    /// Somebody who asks the disk is killed while it makes him wait. What `meanwhile` gives comes before the disk answers.
    fn kill_who_asks<T>(&self, meanwhile: impl FnOnce() -> T) -> T {
        let mut asks = child(&self.sandbox.root(), "write out");
        wait_until_ready(&mut asks);
        self.freeze("--freeze");
        let came = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            fs::write(self.sandbox.root().join("to-be-written"), noise("asks", 4 * MB)).unwrap();
            drop(asks.stdin.take());
            assert!(wait_until(LONG, || self.note() == "?"), "nobody asks");
            kill(asks);
            let came = meanwhile();
            assert_eq!(self.note(), "?");
            came
        }));
        self.freeze("--unfreeze");
        let came = came.unwrap();
        assert!(wait_until(LONG, || self.nobody_asks()), "who asks does not come to an end");
        came
    }

    /// Its first character.
    fn note(&self) -> String {
        fs::read_to_string(self.sandbox.root().join("locks/disk"))
            .unwrap_or_default()
            .chars()
            .take(1)
            .collect()
    }

    fn nobody_asks(&self) -> bool {
        let file = fs::File::open(self.sandbox.root().join("locks/disk")).unwrap();
        rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive).is_ok()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        for place in [&self.sandbox.root(), &self.bed] {
            let _busy = rustix::mount::unmount(place, UnmountFlags::empty());
        }
    }
}

#[test]
fn who_is_killed_while_he_waits_for_the_disk_disturbs_nobody() {
    alone(killed_in_the_wait);
}

fn killed_in_the_wait() {
    let waiting = Waiting::new();
    let root = waiting.sandbox.root();
    let before = Db::open(&root).unwrap();
    let came = waiting.kill_who_asks(|| Db::open(&root).unwrap());
    assert_eq!(waiting.note(), "-");
    for db in [&came, &before, &Db::open(&root).unwrap()] {
        db.write_out().unwrap();
        assert_eq!(db.boot(), before.boot());
    }
}

/// Nobody else had the store open, so the kernel tells nobody else.
#[test]
fn what_was_refused_to_who_was_killed_meanwhile_is_taken_for_kept_by_nobody() {
    alone(killed_in_the_wait_for_a_refusal);
}

fn killed_in_the_wait_for_a_refusal() {
    let waiting = Waiting::new();
    let root = waiting.sandbox.root();
    let boot = Db::open(&root).unwrap().boot().to_owned();
    rustix::fs::syncfs(fs::File::open(&root).unwrap()).unwrap();
    let filler = waiting.bed.join("filler");
    let full = fs::write(&filler, noise("filler", 64 * MB)).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    waiting.kill_who_asks(|| ());
    assert_eq!(waiting.note(), "?");
    rustix::fs::syncfs(fs::File::open(&root).unwrap()).expect("he was told");
    fs::remove_file(filler).unwrap();
    let db = Db::open(&root).unwrap();
    assert_ne!(db.boot(), boot);
    assert_eq!(waiting.note(), "-");
    db.write_out().unwrap();
}

/// Memory goes on showing what the disk never got.
#[test]
fn an_index_that_is_made_again_has_nothing_that_the_disk_refused() {
    alone(index_again_after_refused_writes);
}

fn index_again_after_refused_writes() {
    let promised = Promised::new();
    let sandbox = &promised.sandbox;
    let large = noise("from", 32 * MB);
    promised.refuse_a_build(&large);
    promised.leave(200);
    let made = sandbox.outcrop(&["system", "check", "--rebuild-index"]).fails(1);
    assert!(made.stdout().contains("made again: 1 image, 1 tag,"), "{}", made.report());
    sandbox.outcrop(&["system", "check"]).ok();
    sandbox.outcrop(&["build", "-t", "it", "."]).ok();
    assert!(promised.file_of("it", "large") == large, "other bytes than were copied");
}

/// Who opens a filesystem is told of what it refused before, as long as nobody was (syncfs(2)).
#[test]
fn writing_out_while_more_is_coming_tells_nobody_what_was_refused() {
    alone(refused_while_more_is_coming);
}

fn refused_while_more_is_coming() {
    let promised = Promised::new();
    let root = promised.sandbox.root();
    let db = Db::open(&root).unwrap();
    let snapshots = Snapshots::open(&db, Some("overlay2"), &Options::default()).unwrap();
    promised.leave(8);
    snapshots.writing_out(|| {
        // Another process counts when it has ended: one turn takes all of it.
        let large = format!("of={}", root.join("large").display());
        tool(&promised.sandbox, &["dd", "status=none", "if=/dev/urandom", &large, "bs=1M", "count=80"]);
        // Long before the kernel begins by itself: it leaves what is younger than 30 seconds alone (dirty_expire_centisecs).
        assert!(wait_until(Duration::from_secs(20), || promised.is_full()), "nothing was written out");
    });
    promised.leave(200);
    let told = rustix::fs::syncfs(fs::File::open(&root).unwrap());
    assert!(matches!(told, Err(Errno::IO | Errno::NOSPC)), "{told:?}");
    // And once is enough.
    rustix::fs::syncfs(fs::File::open(&root).unwrap()).unwrap();
}
