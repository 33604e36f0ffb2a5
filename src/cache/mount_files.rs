//! The directory of a cache mount as rows, and rows as a directory again.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps};

use super::packs;
use crate::error::{Context as _, Result};
use crate::image::{Digest, Hasher};
use crate::job::Job;
use crate::layer::{Kind, Row};
use crate::sys::dir;

/// In the order of the paths' bytes. Sockets, pipes and devices are no files that another machine could use.
pub(super) fn list(top: &Path, job: &Job) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut links: HashMap<(u64, u64), u32> = HashMap::new();
    walk(top, &[], &mut rows, &mut links, job)?;
    rows.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(rows)
}

fn walk(
    path: &Path,
    below: &[u8],
    rows: &mut Vec<Row>,
    links: &mut HashMap<(u64, u64), u32>,
    job: &Job,
) -> Result<()> {
    job.check()?;
    let doing = || format!("reading {}", path.display());
    let found = fs::symlink_metadata(path).context(doing)?;
    let kind = match found.file_type() {
        kind if kind.is_dir() => Kind::Dir,
        kind if kind.is_file() => Kind::File,
        kind if kind.is_symlink() => Kind::Symlink,
        _ => return Ok(()),
    };
    let mut row = Row::bare(below, kind);
    (row.mode, row.uid, row.gid) = (found.mode() & 0o7777, found.uid(), found.gid());
    row.mtime = found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec());
    if kind != Kind::Symlink {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty()).context(doing)?;
        let all = dir::xattrs_of(file.as_fd()).context(doing)?;
        row.xattrs = all.into_iter().filter(|(name, _)| name.starts_with(b"user.")).collect();
    }
    match kind {
        Kind::Symlink => row.target = fs::read_link(path).context(doing)?.into_os_string().into_vec(),
        Kind::File => {
            let mut hasher = Hasher::new();
            let mut file = File::open(path).context(doing)?;
            row.size = std::io::copy(&mut file, &mut hasher).context(doing)?;
            row.digest = Some(hasher.finish());
            if found.nlink() > 1 {
                let next = u32::try_from(links.len()).unwrap_or(u32::MAX);
                row.link = Some(*links.entry((found.dev(), found.ino())).or_insert(next));
            }
        }
        _ => {}
    }
    rows.push(row);
    if kind == Kind::Dir {
        for entry in fs::read_dir(path).context(doing)? {
            let name = entry.context(doing)?.file_name();
            let inner = if below.is_empty() {
                name.as_bytes().to_vec()
            } else {
                [below, b"/", name.as_bytes()].concat()
            };
            walk(&path.join(&name), &inner, rows, links, job)?;
        }
    }
    Ok(())
}

/// Directories that the files go into.
pub(super) fn make_dirs(rows: &[Row], into: &Path) -> Result<()> {
    for row in rows.iter().filter(|row| row.kind == Kind::Dir && !row.path.is_empty()) {
        let path = packs::place(into, row);
        fs::create_dir(&path).context(|| format!("making {}", path.display()))?;
    }
    Ok(())
}

/// All that is left once the bytes are there: other names of files and their copies, links, and what all of them are like.
pub(super) fn finish(
    rows: &[Row],
    wanted: &HashMap<Digest, Vec<&Row>>,
    written: &HashSet<Digest>,
    into: &Path,
) -> Result<()> {
    let mut groups: HashMap<u32, &Row> = HashMap::new();
    for row in rows.iter().filter(|row| row.kind == Kind::File) {
        let path = packs::place(into, row);
        let doing = || format!("making {}", path.display());
        let digest = row.digest.as_ref().expect("checked");
        let first = wanted[digest][0];
        let known = row.link.and_then(|group| groups.get(&group)).copied();
        if first.path != row.path {
            match known {
                Some(known) => fs::hard_link(packs::place(into, known), &path).context(doing)?,
                None => fs::copy(packs::place(into, first), &path).map(drop).context(doing)?,
            }
        } else if row.size == 0 && !written.contains(digest) {
            File::create_new(&path).context(doing)?;
        }
        if let Some(group) = row.link {
            groups.entry(group).or_insert(row);
        }
    }
    for row in rows.iter().filter(|row| row.kind == Kind::Symlink) {
        let path = packs::place(into, row);
        symlink(OsStr::from_bytes(&row.target), &path).context(|| format!("making {}", path.display()))?;
    }
    // What stands in a directory before it, as every change moves its time.
    for row in rows.iter().rev() {
        describe(row, into).context(|| format!("describing `{}`", row.path.escape_ascii()))?;
    }
    Ok(())
}

fn describe(row: &Row, into: &Path) -> Result<()> {
    let path = packs::place(into, row);
    let doing = || path.display().to_string();
    std::os::unix::fs::lchown(&path, Some(row.uid), Some(row.gid)).context(doing)?;
    if row.kind != Kind::Symlink {
        for (name, value) in &row.xattrs {
            rustix::fs::setxattr(&path, name, value, rustix::fs::XattrFlags::empty()).context(doing)?;
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(row.mode)).context(doing)?;
    }
    let time = Timespec {
        tv_sec: row.mtime.div_euclid(1_000_000_000),
        tv_nsec: row.mtime.rem_euclid(1_000_000_000),
    };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).context(doing)
}
