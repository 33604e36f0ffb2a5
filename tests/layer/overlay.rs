//! Overlays and whole trees: the same change, the same bytes.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use outcrop::job::Job;
use outcrop::layer::{Changes, Extras, Form, Kind, Row, verify};
use outcrop::sys::mount::Mount;
use rustix::fs::{AtFlags, CWD, Mode, Timespec, Timestamps};

use super::kit::{applied, assert_same, listing, new_dir, open, packed, run, set_xattr, shown};
use crate::sandbox::{Sandbox, all_paths, remove};

/// Detached, so that nothing is left when it is dropped.
struct Mounted(OwnedFd);

impl Mounted {
    fn view(lowers: &[&Path]) -> Self {
        Self::new(lowers, None)
    }
    fn new(lowers: &[&Path], upper: Option<(&Path, &Path)>) -> Self {
        let mount = Mount::Overlay {
            lowers: lowers.iter().map(|path| path.to_path_buf()).collect(),
            upper: upper.map(|(upper, _)| upper.to_path_buf()),
            work: upper.map(|(_, work)| work.to_path_buf()),
            volatile: false,
            user: false,
        };
        Mounted(outcrop::sys::mount::detached(&mount).unwrap())
    }
    /// Its root, for this process and its children.
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}/.", std::process::id(), self.0.as_raw_fd()))
    }
}

/// xorshift64: the same changes on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
    fn pick(&mut self, from: &[PathBuf]) -> PathBuf {
        from[self.below(from.len())].clone()
    }
}

fn set_time(path: &Path, seconds: i64) {
    let time = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: 0 },
    };
    rustix::fs::utimensat(CWD, path, &time, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// One of the things a build step may do.
fn change(root: &Path, random: &mut Random) {
    let (dirs, others) = all_paths(root);
    let dir = random.pick(&dirs);
    let fresh = dir.join(["a", "b", "c", "d.e", "d", "\u{fc}"][random.below(6)]);
    let any = if others.is_empty() { fresh.clone() } else { random.pick(&others) };
    let is_file = fs::symlink_metadata(&any).is_ok_and(|meta| meta.is_file());
    match random.below(20) {
        0 | 1 => {
            remove(&fresh);
            fs::write(&fresh, vec![b'x'; random.below(4) * 70_000]).unwrap();
        }
        2 => {
            remove(&fresh);
            fs::create_dir(&fresh).unwrap();
        }
        3 => {
            remove(&fresh);
            symlink(["x", "/etc", "../.."][random.below(3)], &fresh).unwrap();
        }
        4 if is_file => fs::write(&any, "written anew").unwrap(),
        5 if is_file => {
            // Copied up, and yet nothing changed.
            let meta = fs::metadata(&any).unwrap();
            let bytes = fs::read(&any).unwrap();
            fs::write(&any, bytes).unwrap();
            set_time(&any, meta.mtime());
        }
        6 if is_file => fs::set_permissions(&any, fs::Permissions::from_mode(0o4711)).unwrap(),
        7 if is_file => {
            let mode = fs::metadata(&any).unwrap().permissions();
            fs::set_permissions(&any, fs::Permissions::from_mode(0o700)).unwrap();
            fs::set_permissions(&any, mode).unwrap();
        }
        8 | 9 => remove(&any),
        10 if dir != root => remove(&dir),
        11 if dir != root => {
            // Opaque.
            remove(&dir);
            fs::create_dir(&dir).unwrap();
        }
        12 if dir != root => {
            // The same again: opaque, and nothing changed but times.
            let copy = root.join("copy-of-it");
            remove(&copy);
            run("cp", &["-a", dir.to_str().unwrap(), copy.to_str().unwrap()], Path::new("/"));
            remove(&dir);
            run("cp", &["-a", copy.to_str().unwrap(), dir.to_str().unwrap()], Path::new("/"));
            remove(&copy);
        }
        13 if is_file && any != fresh => {
            remove(&fresh);
            if any.exists() {
                fs::hard_link(&any, &fresh).unwrap();
            }
        }
        14 => {
            remove(&fresh);
            if fs::symlink_metadata(&any).is_ok() {
                fs::rename(&any, &fresh).unwrap();
            }
        }
        15 if is_file => set_xattr(&any, "user.set", b"v"),
        16 if dir != root => set_xattr(&dir, "trusted.set", b"v"),
        17 => set_time(&dir, 1_000_000_000),
        18 => {
            remove(&fresh);
            rustix::fs::mkfifoat(CWD, &fresh, Mode::from_raw_mode(0o600)).unwrap();
        }
        19 => chown(&dir, Some(7), None).unwrap(),
        _ => {}
    }
}

#[test]
fn an_upper_and_the_trees_it_makes_pack_to_the_same_bytes() {
    for seed in 1..=60 {
        one_overlay(seed);
    }
}

fn one_overlay(seed: u64) {
    let sandbox = Sandbox::new();
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    for _ in 0..8 {
        random.below(2);
    }
    let dirs = ["bottom", "middle", "upper", "work", "work2"].map(|name| new_dir(&sandbox, name));
    let [bottom, middle, upper, work, work2] = &dirs;
    let empty = new_dir(&sandbox, "empty");
    fs::create_dir_all(bottom.join("etc/d")).unwrap();
    for name in ["one", "etc/two", "etc/d/three", "etc/d/four"] {
        fs::write(bottom.join(name), name.repeat(20_000)).unwrap();
    }
    fs::hard_link(bottom.join("one"), bottom.join("etc/one")).unwrap();
    for _ in 0..15 {
        change(bottom, &mut random);
    }
    // The layer between is one that an overlay made, whiteouts and all.
    let below = Mounted::new(&[bottom, &empty], Some((middle, work)));
    for _ in 0..10 {
        change(&below.path(), &mut random);
    }
    drop(below);
    let mut before: Vec<_> = [bottom, middle].iter().flat_map(|dir| all_paths(dir).0).collect();
    before.extend(all_paths(bottom).1);
    for path in before {
        set_time(&path, 1_400_000_000 + i64::try_from(random.below(3)).unwrap());
    }

    let parent = Mounted::view(&[middle, bottom]);
    let mounted = Mounted::new(&[middle, bottom], Some((upper, work2)));
    for _ in 0..random.below(16) {
        change(&mounted.path(), &mut random);
    }
    let after = listing(&mounted.path());
    let from_trees = packed(Changes::Trees { tree: mounted.0.as_fd(), parent: Some(parent.0.as_fd()) });
    drop(mounted);

    let upper_fd = open(upper);
    let changes = |settle| Changes::Upper {
        upper: upper_fd.as_fd(),
        form: Form::Overlay,
        parent: Some(parent.0.as_fd()),
        settle,
    };
    let from_upper = packed(changes(false));
    assert_same(&shown(&from_upper.rows), &shown(&from_trees.rows));
    assert!(from_upper.tar == from_trees.tar, "seed {seed}");
    for row in from_upper.rows.iter().filter(|row| row.kind == Kind::Whiteout) {
        let (parent, _) = row.path.split_at(row.path.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
        assert!(parent.is_empty() || from_upper.rows.iter().any(|row| row.path == parent), "seed {seed}");
    }

    // Settled, the upper is exactly what the archive says, on any parent.
    let settled = packed(changes(true));
    assert!(settled.tar == from_upper.tar, "seed {seed}");
    let findings = verify(
        &Job::silent(),
        upper_fd.as_fd(),
        Form::Overlay,
        Extras::Report,
        settled.rows.iter().cloned().map(Ok),
    );
    assert_eq!(findings.unwrap().list, [], "seed {seed}");
    assert!(packed(changes(false)).tar == from_upper.tar, "seed {seed}: settled, it packs differently");
    let alone = Changes::Upper { upper: upper_fd.as_fd(), form: Form::Overlay, parent: None, settle: false };
    // Only the root is compared with something else.
    let but_root = |rows: Vec<Row>| rows.into_iter().filter(|row| !row.path.is_empty()).collect::<Vec<_>>();
    assert_same(&shown(&but_root(packed(alone).rows)), &shown(&but_root(settled.rows)));
    // Two names that came apart and still are equal are no change: they are one file again.
    let names_apart = |listing: &str| {
        let cut = |line: &str| line.split_once(" = ").map_or(line, |(line, _)| line).to_owned();
        listing.lines().map(cut).collect::<Vec<_>>().join("\n")
    };
    let settled_view = listing(&Mounted::view(&[upper, middle, bottom]).path());
    assert_same(&names_apart(&settled_view), &names_apart(&after));

    // And the archive makes the same of the parent, whichever way it is applied.
    let layer = new_dir(&sandbox, "layer");
    let applied_alone = applied(&from_upper.tar, &layer, Form::Overlay);
    assert!(!applied_alone.applied.leans, "seed {seed}");
    assert_same(&shown(&applied_alone.rows), &shown(&from_upper.rows));
    assert_same(&listing(&Mounted::view(&[&layer, middle, bottom]).path()), &settled_view);
    let whole = new_dir(&sandbox, "whole");
    run("cp", &["-a", &format!("{}/.", parent.path().display()), "."], &whole);
    applied(&from_upper.tar, &whole, Form::Whole);
    assert_same(&listing(&whole), &settled_view);
}

/// Everything a layer alone can say, in the archive's own order.
fn marks() -> Vec<u8> {
    super::kit::Raw::default()
        .file(b".wh.gone", b"")
        .dir(b"dir/")
        .header(b"dir/.wh..wh..opq", b'0', 0, |block| {
            block[100..148].copy_from_slice(b"0000000\x000000000\x000000000\x0000000000000\x0013000000000\0")
        })
        .file(b"dir/new", b"new")
        .end()
}

#[test]
fn whiteouts_and_opaque_marks_come_back_out_of_every_form() {
    let sandbox = Sandbox::new();
    let mut archives = Vec::new();
    for (number, form) in [Form::Overlay, Form::OverlayUser, Form::Aufs].into_iter().enumerate() {
        let dir = new_dir(&sandbox, &number.to_string());
        applied(&marks(), &dir, form);
        let fd = open(&dir);
        let changes = Changes::Upper { upper: fd.as_fd(), form, parent: None, settle: false };
        archives.push(packed(changes).tar);
    }
    // The time of a whiteout is nobody's; ours have none.
    let names: Vec<&[u8]> = archives[0]
        .chunks(512)
        .filter(|block| &block[257..262] == b"ustar")
        .map(|block| block.split(|byte| *byte == 0).next().unwrap())
        .collect();
    assert_eq!(names, [&b"dir/"[..], b"dir/.wh..wh..opq", b"dir/new", b".wh.gone"]);
    assert!(archives[1] == archives[0] && archives[2] == archives[0]);
}

#[test]
fn a_leaning_layer_is_applied_through_the_mounted_parent() {
    let sandbox = Sandbox::new();
    let [bottom, empty, upper, work] =
        ["bottom", "empty", "upper", "work"].map(|name| new_dir(&sandbox, name));
    fs::create_dir_all(bottom.join("usr/lib")).unwrap();
    fs::set_permissions(bottom.join("usr/lib"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::write(bottom.join("usr/lib/old"), "old").unwrap();
    fs::write(bottom.join("usr/lib/gone"), "gone").unwrap();
    symlink("usr/lib", bottom.join("lib")).unwrap();
    set_time(&bottom.join("usr/lib"), 1_400_000_000);
    let tar = super::kit::Raw::default()
        .file(b"lib/new", b"new")
        .link(b'1', b"lib/old2", b"usr/lib/old")
        .file(b"lib/.wh.gone", b"")
        .end();
    let mounted = Mounted::new(&[&bottom, &empty], Some((&upper, &work)));
    let layer = applied(&tar, &mounted.path(), Form::Whole);
    assert!(layer.applied.leans);
    let rows = super::kit::brief(&layer.rows);
    assert_eq!(
        rows,
        [
            "usr Dir implied",
            "usr/lib Dir implied",
            "usr/lib/gone Whiteout",
            "usr/lib/new File",
            "usr/lib/old File implied =0",
            "usr/lib/old2 File =0",
        ]
    );
    let lines = listing(&mounted.path());
    assert!(lines.contains("usr/lib 40750 0:0 @1400000000\n"), "{lines}");
    assert!(!lines.contains("gone") && lines.contains("lib 120777"), "{lines}");
}
