//! ADD's archives: told by their first bytes, unpacked below the destination by the same code as layers.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};

use super::Input;
use super::copy::make_dirs;
use crate::error::{Context as _, Error, Result};
use crate::image::{Digest, Hasher};
use crate::job::Job;
use crate::layer::{self, Form, Kind, Row, RowSink, compress};
use crate::sys::dir;

/// An archive may become that many times its size, beyond what everybody may have.
const RATIO: u64 = 2000;
const FREE_OF_CHARGE: u64 = 1 << 30;

/// Which sources of the selection are archives, by number.
pub fn archives(input: &Input<'_>) -> Result<Vec<usize>> {
    let mut found = Vec::new();
    for (number, source) in input.selection.sources.iter().enumerate() {
        let regular = source.items.first().is_some_and(|item| item.kind == Kind::File);
        if regular && is_archive(open(input, &source.path)?) {
            found.push(number);
        }
    }
    Ok(found)
}

fn open(input: &Input<'_>, path: &[u8]) -> Result<File> {
    dir::open_in_root(input.tree.root()?, path, OFlags::RDONLY | OFlags::NONBLOCK)
        .map(File::from)
        .context(|| format!("opening `{}` in {}", String::from_utf8_lossy(path), input.tree.what))
}

/// Whether the file, decompressed, begins with the header of a tar member. What cannot be read is none.
fn is_archive(file: File) -> bool {
    let mut block = [0; 512];
    let read =
        compress::decoder(Box::new(file)).ok().and_then(|(_, mut tar)| tar.read_exact(&mut block).ok());
    read.is_some() && is_header(&block)
}

/// Its checksum is right (pax(1), "ustar Interchange Format": the sum of all bytes, its own taken as blanks).
fn is_header(block: &[u8; 512]) -> bool {
    let field = &block[148..156];
    let digits: String = field.iter().map(|byte| char::from(*byte)).collect();
    let Ok(told) = u64::from_str_radix(digits.trim_matches([' ', '\0']), 8) else { return false };
    let sum = |byte: fn(u8) -> i64| -> i64 {
        let blanks = 8 * i64::from(b' ');
        blanks + block[..148].iter().chain(&block[156..]).map(|one| byte(*one)).sum::<i64>()
    };
    let told = i64::try_from(told).unwrap_or(-1);
    // Some old writers added signed bytes.
    told == sum(i64::from) || told == sum(|byte| i64::from(byte.cast_signed()))
}

/// Unpacks source `number` into the directory `destination` below `root`. The path, where the archive's bytes are not those
/// that were hashed: then what was unpacked is to be thrown away.
pub fn into(
    root: BorrowedFd<'_>,
    destination: &str,
    input: &Input<'_>,
    number: usize,
    owner: Option<(u32, u32)>,
    job: &Job,
) -> Result<Option<String>> {
    let source = &input.selection.sources[number];
    let path = String::from_utf8_lossy(&source.path).into_owned();
    let say = || format!("unpacking `{path}` into `{destination}`");
    let below = destination.trim_matches('/').as_bytes();
    make_dirs(root, below, owner.unwrap_or((0, 0))).context(say)?;
    let target = dir::open_in_root(root, below, OFlags::RDONLY | OFlags::DIRECTORY).context(say)?;

    let file = open(input, &source.path)?;
    let size = file.metadata().context(say)?.len();
    let mut hasher = Hasher::new();
    let mut raw = Hashed { file, hasher: &mut hasher };
    let mut rows = Rows { owned: owner.map(|_| Vec::new()) };
    {
        let (_, tar) = compress::decoder(Box::new(&mut raw))?;
        let space = rustix::fs::fstatvfs(&target).context(say)?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        let most = free.min(FREE_OF_CHARGE.saturating_add(size.saturating_mul(RATIO)));
        let mut tar = Bounded { tar, left: most, most };
        layer::apply(job, &mut tar, target.as_fd(), Form::Whole, &mut rows, &mut io::sink()).context(say)?;
        io::copy(&mut tar, &mut io::sink()).context(say)?;
    }
    io::copy(&mut raw, &mut io::sink()).context(say)?;
    let digest: Digest = hasher.finish();
    if source.items.first().and_then(|item| item.digest) != Some(digest) {
        return Ok(Some(path));
    }
    if let (Some(paths), Some((uid, gid))) = (rows.owned, owner) {
        for (path, kind, mode) in paths {
            change_owner(target.as_fd(), &path, kind, mode, (uid, gid))
                .context(|| format!("changing the owner of `{}`", path.escape_ascii()))?;
        }
    }
    Ok(None)
}

/// A change of owner takes set-id bits away: they come after it.
fn change_owner(
    root: BorrowedFd<'_>,
    path: &[u8],
    kind: Kind,
    mode: u32,
    (uid, gid): (u32, u32),
) -> io::Result<()> {
    let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&b""[..], path),
    };
    if name.is_empty() {
        return Ok(());
    }
    let parent = dir::open_in_root(root, parent, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    rustix::fs::chownat(&parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    if kind != Kind::Symlink {
        rustix::fs::chmodat(&parent, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
    }
    Ok(())
}

/// What came out of the archive, as far as anybody asks.
struct Rows {
    owned: Option<Vec<(Vec<u8>, Kind, u32)>>,
}

impl RowSink for Rows {
    fn row(&mut self, row: Row) -> Result<()> {
        if row.kind == Kind::Whiteout || row.opaque {
            return Err(Error::invalid(format!(
                "the archive has `.wh.` files, which would delete `{}`",
                row.path.escape_ascii()
            ))
            .hint("such files mean something in layers of images alone; leave them out of the archive"));
        }
        if let Some(owned) = self.owned.as_mut().filter(|_| !row.implied) {
            owned.push((row.path, row.kind, row.mode));
        }
        Ok(())
    }
    fn replace(&mut self, row: Row) -> Result<()> {
        self.row(row)
    }
    fn forget(&mut self, path: &[u8]) -> Result<()> {
        if let Some(owned) = &mut self.owned {
            owned.retain(|(known, ..)| known != path);
        }
        Ok(())
    }
}

struct Hashed<'h> {
    file: File,
    hasher: &'h mut Hasher,
}

impl Read for Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

struct Bounded<'b> {
    tar: Box<dyn Read + Send + 'b>,
    left: u64,
    most: u64,
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.tar.read(buffer)?;
        match self.left.checked_sub(count as u64) {
            Some(left) => self.left = left,
            None => {
                return Err(io::Error::from(
                    Error::invalid(format!("the archive holds more than {} bytes", self.most)).hint(
                        "that is more than there is room for, or 2000 times its size: it may be made to do harm; unpack it in a RUN step if you trust it",
                    ),
                ));
            }
        }
        Ok(count)
    }
}
