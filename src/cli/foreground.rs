//! A container in the foreground: our terminal, our streams and our signals are its own until it ends.

use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::ExitCode;

use outcrop::container::{Attach, Config, Console, Foreground, More};
use outcrop::db::ContainerRow;
use outcrop::error::{Error, Result};
use outcrop::job::Job;
use outcrop::network::Host;
use outcrop::runtime::Exit;
use outcrop::runtime::terminal::Signals;
use outcrop::verb::start;

use super::Context;

/// `docker run -it` from a pipe: refused before anything is made.
pub(super) fn check_terminal(tty: bool, stdin: bool) -> Result<()> {
    if tty && stdin && !io::stdin().is_terminal() {
        return Err(Error::invalid("the input device is not a TTY")
            .hint("leave out -t: input comes from a pipe or a file"));
    }
    Ok(())
}

/// Runs it to its end; its exit code is ours.
pub(super) fn run(
    context: &Context,
    row: &ContainerRow,
    attach: Attach,
    proxy: bool,
    more: More,
    job: &Job,
) -> Result<ExitCode> {
    let host = Host::read(Path::new("/etc"))?;
    // A terminal's size is a signal too. Without it the second signal ends outcrop, and with it the container.
    let signals = if proxy || Config::of(row)?.tty { Some(Signals::catch()?) } else { None };
    if signals.is_some() {
        context.hand_over_signals();
    }
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let console = Console {
        stdin: attach.stdin.then(|| stdin.as_fd()),
        stdout: attach.stdout.then(|| stdout.as_fd()),
        stderr: attach.stderr.then(|| stderr.as_fd()),
        signals: signals.as_ref(),
    };
    let exit = start::start(context.engine()?, row, Foreground { console, host: &host, more }, job)?;
    if let Some(problem) = &exit.problem {
        // Where standard error is gone, the exit code still says it.
        let _gone = writeln!(io::stderr(), "error: the command cannot be started\n  because: {problem}");
    }
    Ok(code(&exit))
}

fn code(exit: &Exit) -> ExitCode {
    ExitCode::from(u8::try_from(exit.code.rem_euclid(256)).expect("it is less than 256"))
}
