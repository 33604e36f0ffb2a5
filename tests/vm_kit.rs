//! A virtual machine under Debian's kernel: for what wants modules, or a power cut. `tests/vm/run` makes it.
#![allow(dead_code, reason = "each test uses the part it needs")]

use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::sandbox::{Outcome, Sandbox};

/// A machine to be. Inside, `/` is the host's, and what is written there is lost; see `tests/vm/run`.
#[derive(Clone)]
pub(crate) struct Machine {
    arguments: Vec<OsString>,
    limit: Duration,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Machine { arguments: Vec::new(), limit: Duration::from_secs(280) }
    }

    /// Debian's, with what they need: `dm-thin-pool ext4`.
    pub(crate) fn modules(self, names: &str) -> Self {
        self.with("-M", names)
    }

    /// `/dev/vda`, then `/dev/vdb` ...: a size (`3G`) of one that is thrown away, or an image file.
    pub(crate) fn disk(self, size_or_file: impl AsRef<OsStr>) -> Self {
        self.with("-d", size_or_file)
    }

    /// In MiB; 1,024 where it is not said.
    pub(crate) fn memory(self, size: u32) -> Self {
        self.with("-m", size.to_string())
    }

    /// To read and write, at `/run/share`, where the command begins.
    pub(crate) fn share(self, dir: &Path) -> Self {
        self.with("-s", dir)
    }

    /// Whoever asks a disk to write out what it holds waits until it has.
    pub(crate) fn honest_disks(self) -> Self {
        self.with("-D", "writeback")
    }

    /// 280 seconds are given, and machines without hardware help are 10 to 50 times slower than this one.
    pub(crate) fn limit(self, limit: Duration) -> Self {
        Machine { limit, ..self }
    }

    fn with(mut self, option: &str, value: impl AsRef<OsStr>) -> Self {
        self.arguments.extend([OsString::from(option), value.as_ref().to_owned()]);
        self
    }

    /// Runs it to its end. The exit code is the command's; its errors stand in its output, where it said them.
    pub(crate) fn run<A: AsRef<OsStr>>(&self, command: &[A]) -> Outcome {
        self.start(command).end()
    }

    /// Waits for its turn: there is one machine at a time, as it takes all that the host has.
    pub(crate) fn start<A: AsRef<OsStr>>(&self, command: &[A]) -> Running {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vm/run"));
        script.arg("-w").arg("-t").arg(self.limit.as_secs().to_string()).args(&self.arguments);
        script.arg("--").args(command).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let line = format!("{script:?}");
        let mut script = script.spawn().unwrap();
        let stdout = BufReader::new(script.stdout.take().unwrap());
        let (told, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.split(b'\n') {
                drop(told.send(String::from_utf8_lossy(&line.unwrap()).into_owned()));
            }
        });
        let mut stderr = script.stderr.take().unwrap();
        let errors = std::thread::spawn(move || {
            let mut errors = Vec::new();
            stderr.read_to_end(&mut errors).unwrap();
            errors
        });
        Running { script, line, lines, said: Vec::new(), errors: Some(errors), _turn: turn }
    }
}

/// A machine at work. Dropped, its power is cut.
pub(crate) struct Running {
    script: Child,
    line: String,
    lines: Receiver<String>,
    said: Vec<String>,
    errors: Option<JoinHandle<Vec<u8>>>,
    _turn: MutexGuard<'static, ()>,
}

impl Running {
    /// The next line that the command says; `None`: it has ended.
    pub(crate) fn next(&mut self) -> Option<String> {
        let line = self.lines.recv().ok()?;
        self.said.push(line.clone());
        Some(line)
    }

    /// The same, but it must say it until then.
    pub(crate) fn next_until(&mut self, end: Instant) -> Option<String> {
        let line = self.lines.recv_timeout(end.saturating_duration_since(Instant::now())).ok()?;
        self.said.push(line.clone());
        Some(line)
    }

    /// Reads on until it says this.
    #[track_caller]
    pub(crate) fn until(&mut self, line: &str) {
        while let Some(said) = self.next() {
            if said == line {
                return;
            }
        }
        let outcome = self.outcome();
        panic!("the machine ended before it said `{line}`\n{}", outcome.report());
    }

    /// To its end.
    pub(crate) fn end(mut self) -> Outcome {
        self.outcome()
    }

    /// Cuts the power, now; all that was said before.
    #[track_caller]
    pub(crate) fn cut(mut self) -> Vec<String> {
        drop(self.script.stdin.take());
        let outcome = self.outcome();
        assert_eq!(outcome.code(), Some(137), "{}", outcome.report());
        outcome.lines()
    }

    fn outcome(&mut self) -> Outcome {
        while self.next().is_some() {}
        let stdin = self.script.stdin.take();
        let status = self.script.wait().unwrap();
        drop(stdin);
        let stderr = self.errors.take().map(|errors| errors.join().unwrap()).unwrap_or_default();
        let stdout = self.said.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect();
        Outcome::new(self.line.clone(), Output { status, stdout, stderr })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.script.stdin.take());
        self.script.wait().unwrap();
    }
}

#[test]
fn a_machine_runs_a_command_under_a_kernel_of_its_own() {
    let command = "echo $VM_RUN; ls /dev/mapper; cat /sys/block/vda/size; pwd; exit 7";
    let machine = Machine::new().modules("dm-mod").disk("64M");
    let ended = machine.run(&["sh", "-c", command]).fails(7);
    assert_eq!(ended.lines(), ["1", "control", "131072", "/run/share"]);
}

/// The sandbox would find processes that name its directory.
#[test]
fn a_machine_that_is_dropped_leaves_nothing() {
    let sandbox = Sandbox::new();
    let mut running = Machine::new().share(sandbox.dir()).start(&["sh", "-c", "echo here; sleep 1000"]);
    running.until("here");
}
