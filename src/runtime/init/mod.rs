//! `outcrop __init`, the outer half of a container: a process with one thread that takes its order from the engine,
//! holds the container's root, starts its first process and outlives it.
//!
//! It stays in the host's namespaces; only the first process enters new ones. When the engine's end of the socket closes, it
//! kills the container and cleans up. (A parent-death signal would come when the *thread* that spawned it ends, and the
//! engine has many.) When it is killed itself, the first process gets its parent-death signal, and with it the whole
//! pid namespace.

mod cgroup;
mod config;
mod devices;
mod embedded;
mod inside;
mod oci;
mod root;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::fs::{Mode, OFlags};

use super::wire::{self, Failure, How, Order, Up};
use super::{Exit, Stdio};
use crate::error::{Context, Error, Result};
use crate::sys::process;

/// The whole life of the outer half. To be called first thing in the process, before any thread, with the socket as
/// standard input; an error is one that the engine could not be told.
pub fn main() -> Result<()> {
    let doing = || "taking the engine's order";
    // Whatever whoever started the engine left open.
    process::close_from(3, false).context(doing)?;
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned().context(doing)?);
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).context(doing)?;
    process::install(null.as_fd(), 0).context(doing)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    rustix::thread::set_name(c"outcrop-init").context(doing)?;
    // Out of the terminal's foreground group: what the user types is the engine's to hand on.
    rustix::process::setsid().context(doing)?;

    let Some((order, fds)) = wire::receive::<Order>(&socket).context(doing)? else {
        return Err(Error::invalid("`outcrop __init` is for outcrop itself"));
    };
    let last = match carry_out(&socket, order, fds) {
        Ok(exit) => Up::Ended(exit),
        Err(error) => Up::Failed(Failure::from(&error)),
    };
    // An engine that has gone needs no answer.
    let _unheard = wire::send(&socket, &last, &[]);
    Ok(())
}

fn carry_out(socket: &UnixStream, order: Order, fds: Vec<OwnedFd>) -> Result<Exit> {
    let mut fds = fds.into_iter();
    let [stdin, stdout, stderr] = order.given.map(|given| if given { fds.next() } else { None });
    let stdio = Stdio { stdin, stdout, stderr, hold: fds.collect() };
    match order.how {
        How::Embedded => embedded::carry_out(socket, &order.spec, stdio),
        How::Oci { program, run } => oci::carry_out(socket, &order.spec, stdio, &program, &run),
    }
}
