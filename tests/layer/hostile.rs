//! Archives made to do harm: each a clear error, and nothing outside the root is touched.

use std::fs;
use std::io::Read;
use std::os::fd::AsFd as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use outcrop::error::{Error, Kind};
use outcrop::job::Job;
use outcrop::layer::{Form, Row, apply, scan};

use super::kit::{Raw, listing, new_dir, open};
use crate::sandbox::Sandbox;

/// What came of applying it in every form, over a tree with something in it: the same error each time, or none.
/// What stands beside the tree must be the same after.
fn refused(tar: &[u8]) -> Option<Error> {
    let sandbox = Sandbox::new();
    let outside = new_dir(&sandbox, "outside");
    fs::write(outside.join("secret"), "secret").unwrap();
    let before = listing(&outside);
    let mut errors = Vec::new();
    for form in [Form::Overlay, Form::OverlayUser, Form::Aufs, Form::Whole] {
        let tree = sandbox.dir().join(format!("{form:?}"));
        fs::create_dir(&tree).unwrap();
        if form == Form::Whole {
            symlink("../outside", tree.join("way-out")).unwrap();
            symlink(&outside, tree.join("abs-way-out")).unwrap();
            fs::create_dir(tree.join("old")).unwrap();
            fs::hard_link(outside.join("secret"), tree.join("old/secret")).unwrap();
        }
        let fd = open(&tree);
        let result =
            apply(&Job::silent(), &mut { tar }, fd.as_fd(), form, &mut Vec::<Row>::new(), &mut Vec::new());
        errors.push(result.err());
        drop(fs::remove_file(tree.join("old/secret")));
        assert_eq!(listing(&outside), before, "{form:?}");
    }
    errors.pop().unwrap()
}

/// The whole chain, as a person reads it.
fn text(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[track_caller]
fn assert_refused(tar: &[u8], expected: &str) {
    let error = refused(tar).expect("it should have been refused");
    assert_eq!(error.kind(), Kind::Invalid, "{error:?}");
    assert_eq!(text(&error), expected);
}

fn harmless(tar: &[u8]) {
    if let Some(error) = refused(tar) {
        panic!("refused: {}", text(&error));
    }
}

#[test]
fn names_that_lead_out_are_refused() {
    for (name, expected) in [
        ("../evil", "unpacking `../evil`: a name with `..` in it, which may lead out of the layer"),
        ("a/../../evil", "unpacking `a/../../evil`: a name with `..` in it, which may lead out of the layer"),
        ("a/..", "unpacking `a/..`: a name with `..` in it, which may lead out of the layer"),
        ("/etc/evil", "unpacking `/etc/evil`: an absolute name"),
        ("//evil", "unpacking `//evil`: an absolute name"),
    ] {
        let tar = Raw::default().file(name.as_bytes(), b"evil").end();
        assert_refused(&tar, expected);
        assert!(refused(&tar).unwrap().hint_text().is_some());
    }
    let tar = Raw::default().pax(b'x', &[("path", b"../../tmp/evil")]).file(b"good", b"evil").end();
    assert_refused(
        &tar,
        "unpacking `../../tmp/evil`: a name with `..` in it, which may lead out of the layer",
    );
}

#[test]
fn whiteouts_that_lead_out_are_refused() {
    assert_refused(&Raw::default().file(b".wh...", b"").end(), "unpacking `.wh...`: a whiteout of nothing");
    assert_refused(&Raw::default().file(b"a/.wh..", b"").end(), "unpacking `a/.wh..`: a whiteout of nothing");
    assert_refused(&Raw::default().file(b".wh.", b"").end(), "unpacking `.wh.`: a whiteout of nothing");
    assert_refused(
        &Raw::default().file(b".wh.a/b", b"").end(),
        "unpacking `.wh.a/b`: a name inside a whiteout",
    );
}

#[test]
fn symbolic_links_lead_nowhere_but_inside() {
    for target in [&b"../outside"[..], b"../../../../../../tmp", b"/", b"/tmp", b"."] {
        let tar = Raw::default()
            .link(b'2', b"link", target)
            .file(b"link/secret", b"evil")
            .file(b"link/.wh.other", b"")
            .end();
        harmless(&tar);
    }
    harmless(&Raw::default().file(b"way-out/secret", b"evil").file(b"way-out/.wh..wh..opq", b"").end());
    harmless(&Raw::default().file(b"abs-way-out/secret", b"evil").end());
    harmless(&Raw::default().file(b"abs-way-out/.wh.secret", b"").end());
    harmless(&Raw::default().dir(b"way-out/").file(b"way-out/secret", b"evil").end());
    // A link in the place of a directory, in the middle of the archive.
    harmless(
        &Raw::default()
            .dir(b"d/")
            .file(b"d/one", b"1")
            .link(b'2', b"d", b"../outside")
            .file(b"d/secret", b"evil")
            .end(),
    );
    let circle = Raw::default().link(b'2', b"a", b"b").link(b'2', b"b", b"a").file(b"a/x", b"").end();
    assert_refused(&circle, "unpacking `a/x`: too many symbolic links on the way");
}

#[test]
fn hard_links_lead_nowhere_but_inside() {
    assert_refused(
        &Raw::default().link(b'1', b"link", b"../outside/secret").end(),
        "unpacking `link`: following its target `../outside/secret`: a name with `..` in it, which may lead out of the layer",
    );
    // In the image, or nowhere.
    assert_refused(
        &Raw::default().link(b'1', b"link", b"/etc/shadow").end(),
        "unpacking `link`: a hard link to `etc/shadow`, which is not in the image",
    );
    assert_refused(
        &Raw::default().link(b'1', b"link", b"way-out/secret").file(b"link", b"evil").end(),
        "unpacking `link`: a hard link to `way-out/secret`, which is not in the image",
    );
    assert_refused(
        &Raw::default().link(b'1', b"link", b".").end(),
        "unpacking `link`: a hard link to a directory",
    );
    assert_refused(
        &Raw::default().dir(b"d/").link(b'1', b"link", b"d").end(),
        "unpacking `link`: a hard link to a directory",
    );
    assert_refused(
        &Raw::default().dir(b"d/").file(b"d/f", b"").link(b'1', b"d", b"d/f").end(),
        "unpacking `d`: a hard link to what it would replace",
    );
    // A file written through another name of it would change what is outside.
    harmless(&Raw::default().dir(b"old/").file(b"old/secret", b"evil").end());
    harmless(
        &Raw::default()
            .link(b'2', b"soft", b"../outside/secret")
            .link(b'1', b"hard", b"soft")
            .file(b"hard", b"evil")
            .end(),
    );
}

#[test]
fn what_stands_below_a_file_is_refused() {
    assert_refused(
        &Raw::default().file(b"f", b"").file(b"f/g", b"").end(),
        "unpacking `f/g`: `f` is not a directory",
    );
    assert_refused(&Raw::default().file(b"./", b"").end(), "unpacking `./`: the root is not a directory");
}

#[test]
fn names_longer_than_linux_has_them_are_refused() {
    let tar = |name: &[u8]| Raw::default().pax(b'x', &[("path", name)]).file(b"x", b"").end();
    let error = refused(&tar(&b"n".repeat(256))).unwrap();
    assert!(text(&error).ends_with(": a name of 256 bytes; Linux allows 255"));
    let error = refused(&tar(&b"dir/".repeat(1100))).unwrap();
    assert!(text(&error).ends_with(": a path of 4399 bytes; Linux allows 4095"));
    let error = refused(&tar(&b"d/".repeat(600))).unwrap();
    assert!(text(&error).ends_with(": 600 directories in each other; 500 are allowed"));
    assert!(refused(&tar(b"a\0b")).is_some());
}

#[test]
fn sizes_that_lie_are_refused() {
    let huge = Raw::default().header(b"huge", b'0', 0o77_777_777_777, |_| {}).data(b"little").0;
    assert_refused(&huge, "unpacking `huge`: the archive ends after 1024 bytes, in the middle of a file");
    let negative = Raw::default()
        .header(b"negative", b'0', 0, |block| block[124..136].copy_from_slice(&[255; 12]))
        .end();
    assert!(text(&refused(&negative).unwrap()).contains("a negative size"));
    let records = Raw::default().header(b"x", b'x', 1 << 30, |_| {}).data(b"").0;
    assert!(text(&refused(&records).unwrap()).contains("an extended header of 1073741824 bytes"));
    let name = Raw::default().header(b"././@LongLink", b'L', (1 << 33) - 1, |_| {}).data(b"").0;
    assert!(text(&refused(&name).unwrap()).contains("an extended header of 8589934591 bytes"));
}

#[test]
fn sparse_maps_that_lie_are_refused() {
    let map = |map: &str, size: &str, data: &[u8]| {
        Raw::default()
            .pax(
                b'x',
                &[
                    ("GNU.sparse.major", b"0"),
                    ("GNU.sparse.minor", b"1"),
                    ("GNU.sparse.map", map.as_bytes()),
                    ("GNU.sparse.size", size.as_bytes()),
                ],
            )
            .file(b"sparse", data)
            .end()
    };
    harmless(&map("0,2,10,2", "20", b"1234"));
    for (wrong, size) in [
        ("0,2,1,2", "20"),
        ("10,2,0,2", "20"),
        ("0,2,10,3", "20"),
        ("0,2,10,2", "11"),
        ("0,2,10", "20"),
        ("0,2,18446744073709551615,2", "20"),
        ("0,2,x,2", "20"),
        ("0,4", "9223372036854775808"),
    ] {
        assert!(refused(&map(wrong, size, b"1234")).is_some(), "{wrong} {size}");
    }
    // Holes cost the archive nothing and us time.
    let error = refused(&map("0,4", "9223372036854775807", b"1234")).unwrap();
    assert_eq!(error.kind(), Kind::Unsupported);
    let many = Raw::default()
        .pax(b'x', &[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.size", b"9")])
        .file(b"sparse", b"99999999999\n0\n")
        .end();
    assert!(refused(&many).is_some());
}

#[test]
fn owners_that_linux_cannot_have_are_refused() {
    for uid in ["4294967295", "4294967296", "-1", "x", "99999999999999999999"] {
        let tar = Raw::default().pax(b'x', &[("uid", uid.as_bytes())]).file(b"f", b"").end();
        assert!(refused(&tar).is_some(), "{uid}");
    }
}

#[test]
fn what_is_no_tar_is_refused() {
    for bytes in [&b"not a tar at all"[..], &[1; 512], &[0xff; 2048], b"\x1f\x8b\x08\0"] {
        assert!(refused(bytes).is_some());
    }
    let mut broken = Raw::default().file(b"good", b"data").end();
    broken[0] = b'G';
    assert!(text(&refused(&broken).unwrap()).contains("a header whose checksum is wrong"));
    let zero = [&[0; 512][..], &Raw::default().file(b"f", b"").end()].concat();
    assert!(text(&refused(&zero).unwrap()).contains("a block of zeros with something else after it"));
}

/// Members without end, as long as somebody reads them.
struct Endless {
    number: u64,
    block: Vec<u8>,
    make: fn(u64) -> Vec<u8>,
}

impl Read for Endless {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.block.is_empty() {
            self.block = (self.make)(self.number);
            self.number += 1;
        }
        let length = into.len().min(self.block.len());
        into[..length].copy_from_slice(&self.block[..length]);
        self.block.drain(..length);
        Ok(length)
    }
}

#[test]
fn archives_without_end_are_refused_at_some_point() {
    fn long_directory(number: u64) -> Vec<u8> {
        let name = format!("{number}/").into_bytes();
        let name = [name, b"d".repeat(250), b"/".to_vec(), b"e".repeat(250), b"/".to_vec()].concat();
        Raw::default().pax(b'x', &[("path", &name)]).dir(b"d/").0
    }
    let mut endless = Endless { number: 0, block: Vec::new(), make: long_directory };
    let error = scan(&Job::silent(), &mut endless, None, &mut ()).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(endless.number < 200_000, "{}", endless.number);
}

#[test]
fn a_job_that_is_cancelled_stops_in_the_middle_of_an_archive() {
    let job = Job::silent();
    let cancel = job.cancel().clone();
    struct Cancels<R>(R, outcrop::job::Cancel);
    impl<R: Read> Read for Cancels<R> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            self.1.set();
            self.0.read(into)
        }
    }
    let tar = Raw::default().file(b"f", b"").end();
    let error = scan(&job, &mut Cancels(&tar[..], cancel), None, &mut ()).unwrap_err();
    assert_eq!(error.kind(), Kind::Cancelled);
}

#[test]
fn a_device_is_data_and_nothing_is_done_with_it() {
    let sandbox = Sandbox::new();
    let tree = new_dir(&sandbox, "tree");
    let tar = Raw::default()
        .header(b"zero", b'3', 0, |block| block[329..345].copy_from_slice(b"0000001\x000000005\0"))
        .file(b"zero", b"a file in its place")
        .header(b"fifo", b'6', 0, |_| {})
        .file(b"fifo", b"and here")
        .end();
    super::kit::applied(&tar, &tree, Form::Overlay);
    assert_eq!(fs::read(tree.join(Path::new("fifo"))).unwrap(), b"and here");
}
