//! What a program says until it ends, for whoever may be told to stop waiting.

use std::io::{self, Read};
use std::process::{Child, ExitStatus};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::error::{Context as _, Result};

/// Between two looks at whether to go on.
const LOOK: Duration = Duration::from_millis(20);

pub struct Said {
    pub status: ExitStatus,
    /// Of the streams that are pipes.
    pub out: Vec<u8>,
    pub err: Vec<u8>,
}

/// Its end, and what it says until then: of each stream the first so many bytes are kept. `go_on` is called again and again meanwhile;
/// where that fails the program is killed, and with it the group of processes that it leads, if it does.
pub fn listen(mut child: Child, most: usize, go_on: &dyn Fn() -> Result<()>) -> Result<Said> {
    let heard = hear(&mut child, most, go_on);
    if heard.is_err() {
        let pid = Pid::from_child(&child);
        // Gone already is as good.
        if rustix::process::getpgid(Some(pid)) == Ok(pid) {
            let _gone = rustix::process::kill_process_group(pid, Signal::KILL);
        }
        drop(child.kill());
        drop(child.wait());
    }
    heard
}

fn hear(child: &mut Child, most: usize, go_on: &dyn Fn() -> Result<()>) -> Result<Said> {
    let (say, heard) = mpsc::channel();
    let out = child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>);
    let err = child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>);
    let mut open = 0;
    for (n, pipe) in [out, err].into_iter().enumerate() {
        let Some(pipe) = pipe else { continue };
        let say = say.clone();
        open += 1;
        std::thread::spawn(move || {
            // Nobody may be there any more to hear it.
            drop(say.send((n, read(pipe, most))));
        });
    }
    let mut said = [Vec::new(), Vec::new()];
    while open > 0 {
        match heard.recv_timeout(LOOK) {
            Ok((n, read)) => (said[n], open) = (read.context(|| "listening to a program")?, open - 1),
            Err(_nothing) => go_on()?,
        }
    }
    let [out, err] = said;
    loop {
        if let Some(status) = child.try_wait().context(|| "waiting for the end of a program")? {
            return Ok(Said { status, out, err });
        }
        go_on()?;
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn read(mut pipe: impl Read, most: usize) -> io::Result<Vec<u8>> {
    let (mut said, mut buffer) = (Vec::new(), [0; 16 << 10]);
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => return Ok(said),
            Ok(count) => said.extend_from_slice(&buffer[..count.min(most - said.len())]),
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::error::Error;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    #[test]
    fn both_streams_and_the_end_are_told() {
        let child = shell("echo out; echo err >&2; exit 3").spawn().unwrap();
        let said = listen(child, 100, &|| Ok(())).unwrap();
        assert_eq!(
            (said.status.code(), &said.out[..], &said.err[..]),
            (Some(3), &b"out\n"[..], &b"err\n"[..])
        );
    }

    #[test]
    fn who_is_told_to_stop_leaves_no_process_of_the_group() {
        use std::os::unix::process::CommandExt as _;
        let child = shell("sleep 1000 & echo $! >&2; exec sleep 1000").process_group(0).spawn().unwrap();
        let group = Pid::from_child(&child);
        listen(child, 100, &|| Err(Error::cancelled())).err().unwrap();
        // Those that are dead and that nobody has asked for do not count.
        let gone = || match rustix::process::test_kill_process_group(group) {
            Ok(()) => std::fs::read_dir("/proc").unwrap().flatten().all(|entry| {
                let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
                let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
                let state = fields.next().unwrap_or_default().to_owned();
                let of = fields.nth(1).unwrap_or_default().to_owned();
                of != group.as_raw_nonzero().to_string() || state == "Z"
            }),
            Err(_) => true,
        };
        while !gone() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
