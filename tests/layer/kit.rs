//! Directories, what is in them, and archives through all the ways a layer takes.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Cursor;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use outcrop::image::{ContentId, Digest};
use outcrop::job::Job;
use outcrop::layer::{
    Applied, Changes, Extras, Form, PackOptions, Packed, Row, Scanned, apply, content_id, pack, replay, scan,
    verify,
};

use crate::sandbox::Sandbox;

pub(super) fn open(dir: &Path) -> OwnedFd {
    File::open(dir).unwrap().into()
}

pub(super) fn new_dir(sandbox: &Sandbox, name: &str) -> PathBuf {
    let dir = sandbox.dir().join(name);
    fs::create_dir(&dir).unwrap();
    dir
}

/// A name of any bytes.
pub(super) fn name(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

pub(super) fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut list = vec![0; 64 << 10];
    let length = rustix::fs::llistxattr(path, &mut list[..]).unwrap();
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 64 << 10];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            (name.escape_ascii().to_string(), value[..length].to_vec())
        })
        .collect()
}

pub(super) fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
}

/// All there is below a directory, a line each; names of one file say which is its first.
pub(super) fn listing(dir: &Path) -> String {
    fn walk(at: &Path, paths: &mut Vec<PathBuf>) {
        let mut names: Vec<_> = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        for path in names {
            let is_dir = fs::symlink_metadata(&path).unwrap().is_dir();
            paths.push(path.clone());
            if is_dir {
                walk(&path, paths);
            }
        }
    }
    let mut paths = Vec::new();
    walk(dir, &mut paths);
    let mut inodes: BTreeMap<u64, Vec<&Path>> = BTreeMap::new();
    for path in &paths {
        inodes.entry(fs::symlink_metadata(path).unwrap().ino()).or_default().push(path);
    }
    let mut out = String::new();
    let shown =
        |path: &Path| path.strip_prefix(dir).unwrap().as_os_str().as_bytes().escape_ascii().to_string();
    for path in &paths {
        let meta = fs::symlink_metadata(path).unwrap();
        let kind = meta.file_type();
        write!(out, "{} {:o} {}:{}", shown(path), meta.mode(), meta.uid(), meta.gid()).unwrap();
        write!(out, " @{}", meta.mtime()).unwrap();
        if kind.is_file() {
            write!(out, " {} {}", meta.len(), Digest::of(&fs::read(path).unwrap()).short()).unwrap();
        } else if kind.is_symlink() {
            let target = fs::read_link(path).unwrap().into_os_string().into_vec();
            write!(out, " -> {}", target.escape_ascii()).unwrap();
        } else if kind.is_char_device() || kind.is_block_device() {
            write!(out, " dev {}", meta.rdev()).unwrap();
        }
        for (name, value) in xattrs(path) {
            write!(out, " {name}={}", value.escape_ascii()).unwrap();
        }
        let names = &inodes[&meta.ino()];
        if names.len() > 1 {
            write!(out, " = {}", shown(names[0])).unwrap();
        }
        out.push('\n');
    }
    out
}

/// Fails with the first line that differs, and no more.
#[track_caller]
pub(super) fn assert_same(left: &str, right: &str) {
    let cut = |line: Option<&str>| line.map(|line| line.chars().take(300).collect::<String>());
    let (mut left, mut right) = (left.lines(), right.lines());
    loop {
        let pair = (left.next(), right.next());
        assert_eq!(cut(pair.0), cut(pair.1));
        if pair.0.is_none() {
            return;
        }
    }
}

/// A line for each row, with all it says.
pub(super) fn shown(rows: &[Row]) -> String {
    let mut out = String::new();
    for row in rows {
        write!(out, "{} {:?} {:o} {}:{}", row.path.escape_ascii(), row.kind, row.mode, row.uid, row.gid)
            .unwrap();
        write!(out, " @{} {} {:?}", row.mtime, row.size, row.digest).unwrap();
        write!(out, " {:?} -> {} = {:?}", row.rdev, row.target.escape_ascii(), row.link).unwrap();
        write!(out, " opaque {} implied {}", row.opaque, row.implied).unwrap();
        for (name, value) in &row.xattrs {
            write!(out, " {}={}", name.escape_ascii(), value.escape_ascii()).unwrap();
        }
        out.push('\n');
    }
    out
}

/// Rows in the order of their paths, each path once.
pub(super) fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(rows.windows(2).all(|pair| pair[0].path != pair[1].path), "two rows of one path");
    rows
}

pub(super) fn id_of(rows: &[Row]) -> ContentId {
    content_id(rows.iter().cloned().map(Ok)).unwrap()
}

pub(super) struct PackedLayer {
    pub(super) packed: Packed,
    pub(super) tar: Vec<u8>,
    pub(super) rows: Vec<Row>,
    pub(super) recipe: Vec<u8>,
}

/// Packs, and checks what is true of every packed layer.
pub(super) fn packed(changes: Changes<'_>) -> PackedLayer {
    packed_at(changes, None)
}

pub(super) fn packed_at(changes: Changes<'_>, clamp: Option<i64>) -> PackedLayer {
    let (mut tar, mut rows, mut recipe) = (Vec::new(), Vec::new(), Vec::new());
    let options = PackOptions { clamp, tee: Some(&mut tar), ..PackOptions::default() };
    let packed = pack(&Job::silent(), changes, options, &mut rows, &mut recipe).unwrap();
    assert_eq!(packed.diff_id.0, Digest::of(&tar));
    assert_eq!(packed.size, tar.len() as u64);
    assert_eq!(packed.rows, rows.len() as u64);
    PackedLayer { packed, tar, rows: sorted(rows), recipe }
}

pub(super) fn packed_tree(dir: &Path) -> PackedLayer {
    packed(Changes::Trees { tree: open(dir).as_fd(), parent: None })
}

pub(super) struct AppliedLayer {
    pub(super) applied: Applied,
    pub(super) rows: Vec<Row>,
}

/// Applies an archive, and checks what is true of every applied layer: the digest, that a scan sees the same, that
/// the recipe gives it back, that the tree is what the rows say.
pub(super) fn applied(tar: &[u8], dir: &Path, form: Form) -> AppliedLayer {
    let job = Job::silent();
    let fd = open(dir);
    let (mut rows, mut recipe) = (Vec::new(), Vec::new());
    let applied = apply(&job, &mut { tar }, fd.as_fd(), form, &mut rows, &mut recipe).unwrap();
    assert_eq!(applied.diff_id.0, Digest::of(tar));
    assert_eq!(applied.size, tar.len() as u64);
    assert_eq!(applied.rows, rows.len() as u64);
    let rows = sorted(rows);
    // Over something, a scan would have to see it too.
    if !applied.leans {
        let (scanned, rows_scanned) = scanned(tar);
        assert_same(&shown(&rows_scanned), &shown(&rows));
        assert_eq!(
            (scanned.diff_id, scanned.rows, scanned.bytes),
            (applied.diff_id, applied.rows, applied.bytes)
        );
        assert_eq!((scanned.leans, scanned.opaque_root), (applied.leans, applied.opaque_root));
    }

    assert!(replayed(&recipe, dir) == tar, "the recipe does not give the archive back");

    let extras = if form == Form::Whole { Extras::Ignore } else { Extras::Report };
    let findings = verify(&job, fd.as_fd(), form, extras, rows.iter().cloned().map(Ok)).unwrap();
    assert_eq!(findings.list, []);
    assert_eq!(findings.rows, applied.rows);
    AppliedLayer { applied, rows }
}

pub(super) fn scanned(tar: &[u8]) -> (Scanned, Vec<Row>) {
    let mut rows = Vec::new();
    let scanned = scan(&Job::silent(), &mut { tar }, None, &mut rows).unwrap();
    (scanned, sorted(rows))
}

pub(super) fn replayed(recipe: &[u8], dir: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    let replayed = replay(&Job::silent(), &mut Cursor::new(recipe), open(dir).as_fd(), &mut out).unwrap();
    assert_eq!(replayed.size, out.len() as u64);
    out
}

/// Runs a script that must succeed; its output.
pub(super) fn run(program: &str, arguments: &[&str], dir: &Path) -> Vec<u8> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(dir).stdin(Stdio::null());
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
    output.stdout
}

/// What a Python script writes to standard output.
pub(super) fn python(script: &str, dir: &Path) -> Vec<u8> {
    let prelude = "import io, os, sys, tarfile\n\
        out = io.BytesIO()\n\
        def entry(tar, name, type=tarfile.REGTYPE, data=b'', **fields):\n\
        \x20   info = tarfile.TarInfo(name)\n\
        \x20   info.type, info.size, info.mtime, info.mode = type, len(data), 1500000000, 0o644\n\
        \x20   for key, value in fields.items(): setattr(info, key, value)\n\
        \x20   tar.addfile(info, io.BytesIO(data))\n";
    let script = format!("{prelude}{script}\nsys.stdout.buffer.write(out.getvalue())\n");
    run("python3", &["-c", &script], dir)
}

/// An archive made by hand, header by header.
#[derive(Default)]
pub(super) struct Raw(pub(super) Vec<u8>);

impl Raw {
    /// A USTAR header; `edit` may spoil it before the checksum is made.
    pub(super) fn header(mut self, name: &[u8], flag: u8, size: u64, edit: impl FnOnce(&mut [u8])) -> Self {
        let mut block = [0; 512];
        block[..name.len()].copy_from_slice(name);
        block[100..108].copy_from_slice(b"0000644\0");
        block[108..116].copy_from_slice(b"0000000\0");
        block[116..124].copy_from_slice(b"0000000\0");
        block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        block[136..148].copy_from_slice(b"13000000000\0");
        block[156] = flag;
        block[257..265].copy_from_slice(b"ustar\x0000");
        edit(&mut block);
        block[148..156].copy_from_slice(b"        ");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&block);
        self
    }
    pub(super) fn data(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }
    pub(super) fn file(self, name: &[u8], bytes: &[u8]) -> Self {
        self.header(name, b'0', bytes.len() as u64, |_| {}).data(bytes)
    }
    pub(super) fn dir(self, name: &[u8]) -> Self {
        self.header(name, b'5', 0, |block| block[100..108].copy_from_slice(b"0000755\0"))
    }
    pub(super) fn link(self, flag: u8, name: &[u8], target: &[u8]) -> Self {
        self.header(name, flag, 0, |block| block[157..157 + target.len()].copy_from_slice(target))
    }
    pub(super) fn pax(self, flag: u8, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest..).find(|length| rest + length.to_string().len() == *length).unwrap();
            data.extend_from_slice(format!("{length} {key}=").as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.header(b"PaxHeaders.0/x", flag, data.len() as u64, |_| {}).data(&data)
    }
    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// Applied alone and as a whole tree, both checked; the rows.
pub(super) fn both_ways(sandbox: &Sandbox, tar: &[u8]) -> Vec<Row> {
    let clean = |name: &str| {
        let dir = sandbox.dir().join(name);
        drop(fs::remove_dir_all(&dir));
        fs::create_dir(&dir).unwrap();
        dir
    };
    let alone = applied(tar, &clean("alone"), Form::Overlay);
    let whole = applied(tar, &clean("whole"), Form::Whole);
    assert_same(&shown(&whole.rows), &shown(&alone.rows));
    alone.rows
}

/// The paths and kinds of rows, with what makes them special.
pub(super) fn brief(rows: &[Row]) -> Vec<String> {
    let mut out = Vec::new();
    for row in rows {
        let mut line = format!("{} {:?}", row.path.escape_ascii(), row.kind);
        if row.opaque {
            line.push_str(" opaque");
        }
        if row.implied {
            line.push_str(" implied");
        }
        if let Some(group) = row.link {
            write!(line, " ={group}").unwrap();
        }
        if !row.target.is_empty() {
            write!(line, " -> {}", row.target.escape_ascii()).unwrap();
        }
        out.push(line);
    }
    out
}
