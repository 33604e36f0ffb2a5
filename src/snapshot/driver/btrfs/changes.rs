//! What differs between a subvolume and its parent, by `btrfs send` without the bytes: it compares the metadata of the two
//! trees by their blocks, and reads only those that are not shared.
//!
//! Both must be read-only. A subvolume that is still written to is snapshotted for it, in `<root>/btrfs/send/`; the
//! snapshot is locked as long as somebody works with it.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::FlockOperation;

use super::groups::Groups;
use super::replay::Replay;
use super::stream::{Command, Stream, doubt};
use crate::layer::Touched;
use crate::sys::{btrfs, dir};

/// `None`: this way does not lead there. An error means the same, and says why.
pub(super) fn between(
    subvolume: BorrowedFd<'_>,
    parent: BorrowedFd<'_>,
    scratch: BorrowedFd<'_>,
    groups: &Groups,
) -> io::Result<Option<Touched>> {
    // A snapshot does not hold the subvolumes inside.
    if btrfs::has_nested(subvolume)? || !btrfs::is_read_only(parent)? {
        return Ok(None);
    }
    let parent = btrfs::id(parent)?;
    let still = Still::of(subvolume, scratch, groups)?;
    let (reader, writer) = io::pipe()?;
    let of = still.dir.as_fd();
    let (sent, touched) = std::thread::scope(|scope| {
        let sending = scope.spawn(move || btrfs::send_changes(of, parent, writer));
        // If this ends early, so does the reader, and the kernel stops at EPIPE.
        let touched = read(io::BufReader::with_capacity(64 << 10, reader));
        (sending.join().unwrap_or_else(|_| Err(io::Error::other("sending panicked"))), touched)
    });
    sent.and(touched).map(Some)
}

fn read(input: impl io::Read) -> io::Result<Touched> {
    let mut stream = Stream::open(input)?;
    if stream.next()? != Command::Begin {
        return Err(doubt("it does not stand on the parent"));
    }
    let mut replay = Replay::new();
    loop {
        match stream.next()? {
            Command::End => break,
            command => replay.step(command)?,
        }
    }
    stream.finish()?;
    Ok(replay.touched())
}

/// A read-only snapshot for the moment.
struct Still<'s> {
    scratch: BorrowedFd<'s>,
    groups: &'s Groups,
    name: CString,
    /// Locked.
    dir: OwnedFd,
}

impl<'s> Still<'s> {
    fn of(subvolume: BorrowedFd<'_>, scratch: BorrowedFd<'s>, groups: &'s Groups) -> io::Result<Self> {
        loop {
            let name = CString::new(crate::db::random_name()).expect("there is no NUL in it");
            btrfs::snapshot(scratch, &name, subvolume, true)?;
            // It may have been taken for rubbish before it was locked.
            let Ok(dir) = dir::open_dir(scratch, &name) else { continue };
            let locked = rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive);
            if locked.is_ok() && dir::lstat(scratch, &name).is_ok() {
                return Ok(Still { scratch, groups, name, dir });
            }
        }
    }
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        let noted = self.groups.note(self.dir.as_fd());
        if let Err(error) = noted.and_then(|()| btrfs::destroy(self.scratch, &self.name)) {
            tracing::warn!(name = ?self.name, %error, "a snapshot is left to the next removal");
        }
    }
}

/// Destroys what killed processes have left.
pub(super) fn clean(scratch: BorrowedFd<'_>) -> io::Result<()> {
    for name in dir::names(scratch)? {
        let Ok(left) = dir::open_dir(scratch, &name) else { continue };
        if rustix::fs::flock(&left, FlockOperation::NonBlockingLockExclusive).is_ok() {
            crate::sys::tree::remove(scratch, &name)?;
        }
    }
    Ok(())
}
