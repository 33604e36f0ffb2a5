//! What the engine and the outer half tell each other, over a stream socket: a length, then JSON, with descriptors
//! beside the first byte.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Exit, Spec};
use crate::error::{Error, Kind};

/// The first message to the outer half. Beside it: those of stdin, stdout and stderr that are given, then what is held.
#[derive(Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) spec: Spec,
    pub(super) how: How,
    pub(super) given: [bool; 3],
}

/// Who starts the command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum How {
    /// The outer half itself.
    Embedded,
    /// A program that speaks the OCI runtime command line.
    Oci { program: PathBuf, run: PathBuf },
}

/// What the engine says later.
#[derive(Serialize, Deserialize)]
pub(super) enum Down {
    Signal(i32),
}

/// What the outer half says.
#[derive(Serialize, Deserialize)]
pub(super) enum Up {
    /// The command runs. `pid` is the host's. Beside it: the terminal's master, if one was asked for.
    Running {
        pid: u32,
        warnings: Vec<String>,
    },
    Ended(Exit),
    Failed(Failure),
}

/// An `Error` on its way to another process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Failure {
    kind: Kind,
    messages: Vec<String>,
    hint: Option<String>,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let mut messages = vec![error.to_string()];
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            messages.push(cause.to_string());
            source = cause.source();
        }
        Failure { kind: error.kind(), messages, hint: error.hint_text().map(str::to_owned) }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let mut messages = failure.messages.into_iter().rev();
        let innermost = Error::new(failure.kind, messages.next().unwrap_or_default());
        let mut error =
            messages.fold(innermost, |cause, message| Error::new(failure.kind, message).because(cause));
        if let Some(hint) = failure.hint {
            error = error.hint(hint);
        }
        error
    }
}

/// As many as the kernel takes in one message (SCM_MAX_FD).
const DESCRIPTORS: usize = 253;
/// A spec is a few KB; arguments and environment may be as long as execve takes.
const LONGEST: u32 = 64 << 20;

pub(super) fn send<T: Serialize>(socket: impl AsFd, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = u32::try_from(bytes.len() - 4).map_err(io::Error::other)?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());

    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other(format!("more than {DESCRIPTORS} descriptors at once")));
    }
    let mut sent = 0;
    while sent < bytes.len() {
        let rest = [IoSlice::new(&bytes[sent..])];
        match rustix::net::sendmsg(&socket, &rest, &mut beside, SendFlags::NOSIGNAL) {
            Ok(more) => sent += more,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        beside.clear();
    }
    Ok(())
}

/// `None`: the other side is gone.
pub(super) fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut fds = Vec::new();
    let mut length = [0; 4];
    if !fill(&socket, &mut length, &mut fds)? {
        return Ok(None);
    }
    let length = u32::from_le_bytes(length);
    if length > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message longer than any we send"));
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    if !fill(&socket, &mut bytes, &mut fds)? {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&bytes)?, fds)))
}

/// `false`: the stream ended before.
fn fill(socket: impl AsFd, bytes: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<bool> {
    let mut done = 0;
    while done < bytes.len() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let mut rest = [IoSliceMut::new(&mut bytes[done..])];
        let got = match rustix::net::recvmsg(&socket, &mut rest, &mut beside, RecvFlags::CMSG_CLOEXEC) {
            Ok(got) => got.bytes,
            Err(rustix::io::Errno::INTR) => continue,
            // What a stream socket says when its peer died with unread bytes in it.
            Err(rustix::io::Errno::CONNRESET) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if got == 0 {
            return Ok(false);
        }
        done += got;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_message_arrives_with_its_descriptors() {
        let (here, there) = UnixStream::pair().unwrap();
        let mut file = tempfile();
        file.write_all(b"seen").unwrap();
        file.rewind().unwrap();
        send(&here, &Down::Signal(15), &[file.as_fd()]).unwrap();
        let (Down::Signal(signal), fds) = receive(&there).unwrap().unwrap();
        assert_eq!(signal, 15);
        let mut text = String::new();
        let [fd] = <[OwnedFd; 1]>::try_from(fds).unwrap();
        std::fs::File::from(fd).read_to_string(&mut text).unwrap();
        assert_eq!(text, "seen");
        drop(here);
        assert!(receive::<Down>(&there).unwrap().is_none());
    }

    #[test]
    fn an_error_keeps_kind_words_and_hint() {
        let error = Error::unsupported("mounting").because(Error::invalid("too many").hint("fewer"));
        let there = Error::from(Failure::from(&error));
        assert_eq!(there.kind(), Kind::Unsupported);
        assert_eq!(there.to_string(), "mounting");
        assert_eq!(std::error::Error::source(&there).unwrap().to_string(), "too many");
        assert_eq!(there.hint_text(), Some("fewer"));
    }

    fn tempfile() -> std::fs::File {
        rustix::fs::memfd_create(c"wire", rustix::fs::MemfdFlags::CLOEXEC).unwrap().into()
    }
}
