//! A web server on loopback, and git repositories that a real `git daemon` serves.
#![allow(dead_code, reason = "each test uses the part it needs")]

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::sandbox::{Sandbox, find_on_path};

/// What a path answers.
#[derive(Clone, Default)]
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    pub(crate) etag: Option<String>,
    pub(crate) last_modified: Option<String>,
    pub(crate) location: Option<String>,
    /// The connection ends after so many bytes of the body.
    pub(crate) cut: Option<usize>,
    /// What `Authorization` must be.
    pub(crate) wants: Option<String>,
}

impl Page {
    pub(crate) fn of(body: impl Into<Vec<u8>>) -> Self {
        Page { status: 200, body: body.into(), ..Page::default() }
    }
    pub(crate) fn etag(self, etag: &str) -> Self {
        Page { etag: Some(etag.into()), ..self }
    }
    pub(crate) fn modified(self, date: &str) -> Self {
        Page { last_modified: Some(date.into()), ..self }
    }
    pub(crate) fn status(status: u16) -> Self {
        Page { status, ..Page::default() }
    }
}

pub(crate) struct Web {
    pub(crate) address: SocketAddr,
    pages: Arc<Mutex<HashMap<String, Page>>>,
    log: Arc<Mutex<Vec<String>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Web {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (pages, log, over) =
            (Arc::<Mutex<HashMap<String, Page>>>::default(), Arc::default(), Arc::default());
        let thread = {
            let (pages, log, over) = (Arc::clone(&pages), Arc::clone(&log), Arc::clone(&over));
            std::thread::spawn(move || serve(&listener, &pages, &log, &over))
        };
        Web { address, pages, log, over, thread: Some(thread) }
    }

    pub(crate) fn page(&self, path: &str, page: Page) {
        self.pages.lock().unwrap().insert(path.into(), page);
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// `STATUS PATH` of each request since this was asked last.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _wake = TcpStream::connect(self.address);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn serve(
    listener: &TcpListener,
    pages: &Mutex<HashMap<String, Page>>,
    log: &Mutex<Vec<String>>,
    over: &AtomicBool,
) {
    for connection in listener.incoming() {
        if over.load(Ordering::SeqCst) {
            return;
        }
        let Ok(mut connection) = connection else { continue };
        connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let Some((path, headers)) = read(&connection) else { continue };
        let page = pages.lock().unwrap().get(&path).cloned().unwrap_or_else(|| Page::status(404));
        let unchanged = page.status == 200
            && (page.etag.is_some() && headers.get("if-none-match") == page.etag.as_ref()
                || page.last_modified.is_some()
                    && headers.get("if-modified-since") == page.last_modified.as_ref()
                    && page.etag.is_none());
        let refused = page.wants.is_some() && headers.get("authorization") != page.wants.as_ref();
        let status = if refused {
            401
        } else if unchanged {
            304
        } else {
            page.status
        };
        log.lock().unwrap().push(format!("{status} {path}"));
        let mut head = format!("HTTP/1.1 {status} it\r\nConnection: close\r\n");
        for (name, value) in
            [("ETag", &page.etag), ("Last-Modified", &page.last_modified), ("Location", &page.location)]
        {
            if let Some(value) = value {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        let body = if status == 200 { &page.body[..] } else { b"" };
        if status != 304 {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        let sent = &body[..page.cut.unwrap_or(body.len()).min(body.len())];
        let _gone = connection.write_all(format!("{head}\r\n").as_bytes());
        let _gone = connection.write_all(sent);
    }
}

fn read(connection: &TcpStream) -> Option<(String, HashMap<String, String>)> {
    let mut lines = BufReader::new(connection).lines();
    let path = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
    let mut headers = HashMap::new();
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    Some((path, headers))
}

/// A repository to commit to.
pub(crate) struct Repository {
    pub(crate) dir: PathBuf,
}

impl Repository {
    /// Below `<sandbox>/git`.
    pub(crate) fn new(sandbox: &Sandbox, name: &str) -> Self {
        let dir = sandbox.dir().join("git").join(name);
        fs::create_dir_all(&dir).unwrap();
        let repository = Repository { dir };
        repository.git(&["init", "-q", "-b", "main"]);
        repository
    }

    pub(crate) fn git(&self, args: &[&str]) -> String {
        let output = Command::new(find_on_path("git"))
            .args(["-c", "protocol.file.allow=always", "-c", "commit.gpgsign=false"])
            .args(args)
            .current_dir(&self.dir)
            .env_remove("GIT_DIR")
            .envs([("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_GLOBAL", "/dev/null")])
            .envs([("GIT_AUTHOR_NAME", "a"), ("GIT_AUTHOR_EMAIL", "a@b"), ("GIT_COMMITTER_NAME", "a")])
            .envs([("GIT_COMMITTER_EMAIL", "a@b"), ("GIT_AUTHOR_DATE", "1700000000 +0000")])
            .env("GIT_COMMITTER_DATE", "1700000000 +0000")
            .output()
            .unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub(crate) fn file(&self, path: &str, text: &str) {
        let path = self.dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// All that is there; the commit's id.
    pub(crate) fn commit(&self) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", "it"]);
        self.git(&["rev-parse", "HEAD"])
    }
}

/// Serves what lies below `<sandbox>/git`.
pub(crate) struct Daemon {
    process: Child,
    port: u16,
}

impl Daemon {
    pub(crate) fn start(sandbox: &Sandbox) -> Self {
        let base = sandbox.dir().join("git");
        loop {
            // A port that is free now, as git's daemon takes no 0; somebody else may be faster.
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut process = Command::new(git_daemon())
                .args(["--export-all", "--reuseaddr", "--verbose", "--listen=127.0.0.1"])
                .arg(format!("--port={port}"))
                .arg(format!("--base-path={}", base.display()))
                .arg(&base)
                .envs([
                    ("GIT_CONFIG_COUNT", "1"),
                    ("GIT_CONFIG_KEY_0", "safe.directory"),
                    ("GIT_CONFIG_VALUE_0", "*"),
                ])
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut log = BufReader::new(process.stderr.take().unwrap());
            // It says so once it listens, and else ends.
            if log.by_ref().lines().map_while(Result::ok).any(|line| line.contains("Ready to rumble")) {
                // Nobody reads the rest; a full pipe would block it.
                std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
                return Daemon { process, port };
            }
            process.wait().unwrap();
        }
    }

    pub(crate) fn url(&self, name: &str) -> String {
        format!("git://127.0.0.1:{}/{name}", self.port)
    }
}

/// Run itself: `git daemon` would leave it behind when it is killed.
fn git_daemon() -> PathBuf {
    let output = Command::new(find_on_path("git")).arg("--exec-path").output().unwrap();
    Path::new(String::from_utf8(output.stdout).unwrap().trim()).join("git-daemon")
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}
