//! A Docker daemon on its unix socket: `GET /images/NAME/get` and `POST /images/load` of the Engine API, which every
//! version of it has.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use ureq::config::Config;
use ureq::http::{Request, Uri};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};
use ureq::{Agent, SendBody};

use super::temp::Temp;
use crate::error::{Context as _, Error, Kind, Result};
use crate::job::Job;

/// Bytes of what the daemon says besides images.
const MAX_ANSWER: u64 = 1 << 20;

pub(super) struct Daemon<'d> {
    pub(super) socket: &'d Path,
}

#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    error: Option<String>,
}

impl Daemon<'_> {
    /// The archive that `docker save` would write, in a file.
    pub(super) fn save(&self, name: &str, temp: &Temp<'_>, job: &Job) -> Result<File> {
        let doing = || format!("getting `{name}` from the Docker daemon");
        let url = format!("http://docker/images/{}/get", escaped(name));
        let request = Request::get(url).body(()).map_err(|cause| self.failed(cause.into()))?;
        let answer = self.agent().run(request).map_err(|cause| self.failed(cause))?;
        let mut answer = self.accepted(answer, name)?;
        let mut file = temp.file()?;
        let mut body = answer.body_mut().with_config().limit(u64::MAX).reader();
        let mut buffer = vec![0; 128 << 10];
        loop {
            job.check()?;
            match body.read(&mut buffer).context(doing)? {
                0 => return Ok(file),
                count => file.write_all(&buffer[..count]).context(doing)?,
            }
        }
    }

    /// Sends the archive that `write` makes, while it makes it. What is not made whole, the daemon does not take.
    pub(super) fn load(
        &self,
        write: impl FnOnce(&mut (dyn Write + Send)) -> Result<()> + Send,
    ) -> Result<()> {
        let (reader, writer) = io::pipe().context(|| "making a pipe")?;
        let outcome = Mutex::new(None);
        let answer = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut out = io::BufWriter::with_capacity(128 << 10, writer);
                let written = write(&mut out).and_then(|()| out.flush().context(|| "sending the archive"));
                *outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(written);
                // Only now the reader sees the end.
                drop(out);
            });
            let mut whole = Whole { reader, outcome: &outcome };
            let request = Request::post("http://docker/images/load?quiet=1")
                .header("content-type", "application/x-tar")
                .body(SendBody::from_reader(&mut whole));
            request.map_err(ureq::Error::from).and_then(|request| self.agent().run(request))
        });
        let written = outcome.into_inner().unwrap_or_else(PoisonError::into_inner).unwrap_or(Ok(()));
        // One that hangs up early says why; else ours is the cause of theirs.
        let hung_up = match written {
            Err(error) if !is_pipe(&error) => return Err(error),
            written => written,
        };
        let mut answer = self.accepted(answer.map_err(|cause| self.failed(cause))?, "the image")?;
        let said = read(&mut answer)?;
        for line in said.lines() {
            if let Ok(Said { error: Some(error), .. }) = serde_json::from_str(line) {
                return Err(Error::invalid(format!("the Docker daemon does not take the image: {error}")));
            }
        }
        hung_up
    }

    fn agent(&self) -> Agent {
        let config = Agent::config_builder().http_status_as_error(false).max_redirects(0).proxy(None);
        let config = config.timeout_connect(Some(Duration::from_secs(15))).build();
        let socket = self.socket.to_owned();
        Agent::with_parts(config, Socket { path: socket }, Nowhere)
    }

    fn accepted(
        &self,
        mut answer: ureq::http::Response<ureq::Body>,
        name: &str,
    ) -> Result<ureq::http::Response<ureq::Body>> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let said = read(&mut answer)?;
        let said = serde_json::from_str(&said).ok().and_then(|said: Said| said.message).unwrap_or(said);
        let kind = if status.as_u16() == 404 { Kind::NotFound } else { Kind::Unavailable };
        Err(Error::new(kind, format!("the Docker daemon answers {status} for {name}: {}", said.trim())))
    }

    fn failed(&self, cause: ureq::Error) -> Error {
        let message = format!("the Docker daemon cannot be reached at {}", self.socket.display());
        let hint = "is it running, and may you use its socket? DOCKER_HOST=unix://PATH names another";
        match cause {
            ureq::Error::Io(cause) => {
                Err::<(), _>(cause).context(|| message).expect_err("it is one").hint(hint)
            }
            other => Error::unavailable(message).hint(hint).because(other),
        }
    }
}

fn is_pipe(error: &Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(at) = cause {
        if at.downcast_ref::<io::Error>().is_some_and(|at| at.kind() == io::ErrorKind::BrokenPipe) {
            return true;
        }
        cause = at.source();
    }
    false
}

fn read(answer: &mut ureq::http::Response<ureq::Body>) -> Result<String> {
    let mut said = Vec::new();
    let reader = answer.body_mut().with_config().limit(u64::MAX).reader();
    reader.take(MAX_ANSWER).read_to_end(&mut said).context(|| "reading the Docker daemon's answer")?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// What a path cannot hold as it is (RFC 3986, 3.3); names hold little of it.
fn escaped(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/@".contains(&byte);
    name.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// Ends in an error where the writer did.
struct Whole<'w> {
    reader: io::PipeReader,
    outcome: &'w Mutex<Option<Result<()>>>,
}

impl Read for Whole<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        if count == 0 && !buffer.is_empty() {
            let outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
            if !matches!(*outcome, Some(Ok(()))) {
                return Err(io::Error::other("the archive was not made whole"));
            }
        }
        Ok(count)
    }
}

#[derive(Debug)]
struct Socket {
    path: PathBuf,
}

impl Connector for Socket {
    type Out = Connection;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<Connection>, ureq::Error> {
        let stream = UnixStream::connect(&self.path)?;
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(Connection { stream, buffers }))
    }
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    buffers: LazyBuffers,
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.write_all(&self.buffers.output()[..amount])?;
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
        let count = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(count);
        Ok(count > 0)
    }

    fn is_open(&mut self) -> bool {
        false
    }
}

/// The socket has no address to be looked up.
#[derive(Debug)]
struct Nowhere;

impl Resolver for Nowhere {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        Ok(self.empty())
    }
}
