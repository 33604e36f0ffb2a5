//! Runtimes: what runs one command in a container. `Spec` says what, a `Runtime` from `TABLE` does it, `Exit` is
//! what came of it.
//!
//! Whatever the runtime, a process of its own (`outcrop __init`, the *outer half*) mounts the container's root and
//! holds it, starts the command, waits for it, and takes away what it made. It listens to a socket whose other end
//! is in `Running`: when the engine dies, however it dies, the socket closes and the outer half kills the
//! container. So a container never outlives the process that started it, no thread has to stay alive for it, and
//! no mount of it is ever seen by the host.

pub mod binfmt;
mod crun;
mod embedded;
pub mod init;
pub mod mountpoints;
mod oci;
mod runc;
mod running;
mod seccomp;
mod spec;
pub mod terminal;
pub mod user;
mod wire;
mod youki;

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

pub use running::{Running, run};
pub use spec::{
    Bind, Capability, DEFAULT_CAPABILITIES, File, Limits, MASKED_PATHS, Network, READ_ONLY_PATHS, Rlimit,
    Seccomp, Size, Spec, Tmpfs, Tree,
};

use crate::error::{Error, Result};

/// Runs a `Spec`. Implementations hold nothing: what runs is in `Running`.
///
/// `start` returns when the command runs, or when it is known that it cannot: a command that is not there is no
/// error of `start` but an `Exit` with code 127, as in a shell. What the host refuses (a mount, a limit that
/// cannot be left out) is an error, and leaves nothing behind.
pub trait Runtime: Send + Sync {
    fn name(&self) -> &'static str;
    fn start(&self, spec: &Spec, stdio: Stdio) -> Result<Running>;
}

/// What a runtime needs to know of where it is.
#[derive(Clone, Debug)]
pub struct Place {
    /// The outcrop binary: run anew as `outcrop __init`.
    pub exe: PathBuf,
    /// Where bundles and sockets of running containers may be put; made if it is not there.
    pub run: PathBuf,
    /// The search path for other runtimes.
    pub path: OsString,
}

/// A member of the table.
pub struct Entry {
    pub name: &'static str,
    pub open: fn(&Place) -> Result<Box<dyn Runtime>>,
}

/// The first one is the default.
pub const TABLE: &[Entry] = &[embedded::ENTRY, crun::ENTRY, runc::ENTRY, youki::ENTRY];

/// The runtime of that name; the default without one.
pub fn open(name: Option<&str>, place: &Place) -> Result<Box<dyn Runtime>> {
    let entry = match name {
        None => TABLE.first(),
        Some(name) => TABLE.iter().find(|entry| entry.name == name),
    };
    let entry = entry.ok_or_else(|| {
        let known: Vec<&str> = TABLE.iter().map(|entry| entry.name).collect();
        Error::invalid(format!("unknown runtime `{}`", name.unwrap_or_default()))
            .hint(format!("known are: {}", known.join(", ")))
    })?;
    (entry.open)(place)
}

/// What the command reads and writes. Ignored when the spec asks for a terminal.
#[derive(Debug, Default)]
pub struct Stdio {
    /// `None`: /dev/null.
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
    /// Held open until nothing of the container is left: leases, above all.
    pub hold: Vec<OwnedFd>,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Exit {
    /// The command's own code; 128 + number for a signal; 127 not found, 126 not executable.
    pub code: i32,
    pub signal: Option<i32>,
    /// Why the command never ran, in Docker's words.
    pub problem: Option<String>,
}
