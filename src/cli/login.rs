//! `login`: credentials for a registry.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::process::ExitCode;

use outcrop::error::{Context as _, Error, Result};
use outcrop::job::Job;
use outcrop::registry::Credentials;
use outcrop::verb::login::{self, Server};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::progress::{Mode, Progress};
use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Who logs in
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// The password, or an access token; other users of this machine can see it, and the shell may keep it
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Take the password from standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
    #[command(flatten)]
    registry: super::registry::RegistryArgs,
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["login"];
    const ABOUT: &'static str = "Log in to a registry";
    const EXAMPLE: &'static str =
        "outcrop login -u me registry.example.com\noutcrop login -u me --password-stdin < token";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let server = Server::parse(self.server.as_deref())?;
        let options = self.registry.options();
        let progress = Progress::aside(Mode::Quiet);
        let job = context.job(progress.report());
        let mut out = context.out();
        if self.username.is_none()
            && self.password.is_none()
            && let Some(known) = login::known(&server, &options, &job)?
        {
            out.line("Authenticating with existing credentials...")?;
            if login::check(&server, &known, &options, &job).is_ok() {
                out.line("Login Succeeded")?;
                out.done()?;
                return Ok(ExitCode::SUCCESS);
            }
        }
        let credentials = self.credentials(&job)?;
        let kept = login::login(&server, &credentials, &options, &job);
        let kept = kept.context(|| format!("logging in to {}", server.host()))?;
        if let Some(file) = kept {
            out.line(format!("The password is kept unencrypted in {}", file.display()))?;
        }
        out.line("Login Succeeded")?;
        out.done()?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Args {
    fn credentials(&self, job: &Job) -> Result<Credentials> {
        let stdin = std::io::stdin();
        if self.password_stdin {
            let mut password = String::new();
            stdin.lock().read_to_string(&mut password).context(|| "reading the password")?;
            let password = password.trim_end_matches(['\r', '\n']).to_owned();
            let user = self.username.clone().expect("the parser wants it");
            return complete(user, password);
        }
        let interactive = self.username.is_none() || self.password.is_none();
        if interactive && !stdin.is_terminal() {
            return Err(Error::invalid("Cannot perform an interactive login from a non TTY device")
                .hint("give --username, and --password-stdin with the password on standard input"));
        }
        let user = match &self.username {
            Some(user) => user.clone(),
            None => ask("Username: ", false, job)?,
        };
        let password = match &self.password {
            Some(password) => password.clone(),
            None => ask("Password: ", true, job)?,
        };
        job.check()?;
        complete(user, password)
    }
}

fn complete(user: String, password: String) -> Result<Credentials> {
    for (value, what) in [(&user, "user"), (&password, "password")] {
        if value.is_empty() {
            return Err(Error::invalid(format!("there is no {what}")));
        }
    }
    if user.contains(':') {
        return Err(Error::invalid("a user's name holds no colon"));
    }
    Ok(Credentials { user, password })
}

/// One line from the terminal. What is hidden is not shown while it is typed; the first Ctrl-C ends it, so that none comes
/// that would leave the terminal so.
fn ask(prompt: &str, hidden: bool, job: &Job) -> Result<String> {
    let doing = || "asking on the terminal";
    let mut terminal = std::io::stderr();
    write!(terminal, "{prompt}").and_then(|()| terminal.flush()).context(doing)?;
    let stdin = std::io::stdin();
    let before = tcgetattr(&stdin).context(doing)?;
    if hidden {
        let mut silent = before.clone();
        silent.local_modes -= LocalModes::ECHO;
        tcsetattr(&stdin, OptionalActions::Now, &silent).context(doing)?;
    }
    let read = line(&stdin, job);
    if hidden {
        tcsetattr(&stdin, OptionalActions::Now, &before).context(doing)?;
        writeln!(terminal).context(doing)?;
    }
    let line = read.context(doing)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// A signal only sets a flag, and ends no read(2).
fn line(stdin: &std::io::Stdin, job: &Job) -> Result<String> {
    let doing = || "waiting for a line";
    let look = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    let mut line = Vec::new();
    // A terminal gives a line at most with each read.
    while line.last() != Some(&b'\n') {
        job.check()?;
        match poll(&mut [PollFd::new(stdin, PollFlags::IN)], Some(&look)) {
            Ok(0) | Err(Errno::INTR) => continue,
            ready => ready.context(doing)?,
        };
        let mut buffer = [0; 4096];
        match rustix::io::read(stdin, &mut buffer).context(doing)? {
            0 => break,
            count => line.extend_from_slice(&buffer[..count]),
        }
    }
    String::from_utf8(line).map_err(|_not_text| Error::invalid("what was typed is no text"))
}
