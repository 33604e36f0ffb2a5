//! Other builders as judges: Debian's dockerd with the BuildKit that is in it, and Buildah. The same Dockerfile and
//! context by each of them and by outcrop, and what differs between the images.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use outcrop::job::Job;
use outcrop::layer::{Kind, Row, scan};
use serde_json::Value;

use crate::sandbox::{Outcome, Sandbox, find_on_path, wait_until};

/// Both are installed by `make tools-test`; a test fails where one of them is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judge {
    /// Of dockerd 20.10: its Dockerfile language is that of 1.2, with `RUN --mount` and `--chmod`.
    BuildKit,
    /// 1.28, without isolation of its own and without heredocs.
    Buildah,
}

pub(crate) const JUDGES: [Judge; 2] = [Judge::BuildKit, Judge::Buildah];

/// What was built, in words that can be compared.
pub(crate) struct Image {
    /// A line for each path.
    tree: BTreeMap<Vec<u8>, Entry>,
    config: BTreeMap<String, Value>,
    /// What stands above the base: what made it, and whether it made a layer.
    history: Vec<(String, bool)>,
}

struct Entry {
    mode: u32,
    text: String,
    /// Seconds, where they come from the context or the base and not from the clock.
    pinned: Option<i64>,
}

/// What Buildah leaves behind where it has mounted something.
const BUILDAHS: [&str; 5] = ["etc/hosts", "etc/hostname", "etc/resolv.conf", "run", "run/.containerenv"];

/// Whatever is older than this was not made by a build.
const NOW_AT_LEAST: i64 = 1_780_000_000;

/// Where `ours` is not `theirs`: a key (`tree:PATH`, `config:FIELD`, `history:N`), and both values.
pub(crate) fn differences(ours: &Image, theirs: &Image, judge: Judge) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let paths: BTreeSet<&Vec<u8>> = ours.tree.keys().chain(theirs.tree.keys()).collect();
    for path in paths {
        let (our, their) = (ours.tree.get(path), theirs.tree.get(path));
        let time = |entry: Option<&Entry>| match entry.map(|entry| entry.pinned) {
            None => String::new(),
            Some(None) => " @now".to_owned(),
            Some(Some(time)) => format!(" @{time}"),
        };
        // Buildah's COPY drops set-id bits.
        let mask = if judge == Judge::Buildah { 0o1777 } else { 0o7777 };
        let line = |entry: Option<&Entry>| match entry {
            None => "absent".to_owned(),
            Some(Entry { mode, text, .. }) => format!("{:04o} {text}{}", mode & mask, time(entry)),
        };
        // Older builders touch directories that newer ones leave as old as they were.
        let dir = our.zip(their).is_some_and(|(our, their)| {
            (our.mode & mask, &our.text) == (their.mode & mask, &their.text)
                && our.text.starts_with("Dir")
                && their.pinned.is_none()
        });
        if line(our) != line(their) && !dir {
            let key = format!("tree:/{}", path.escape_ascii());
            found.insert(key, format!("outcrop: {}\n      {judge:?}: {}", line(our), line(their)));
        }
    }
    let fields: BTreeSet<&String> = ours.config.keys().chain(theirs.config.keys()).collect();
    for field in fields {
        let (our, their) = (ours.config.get(field), theirs.config.get(field));
        if our != their {
            let shown = |value: Option<&Value>| value.map_or("absent".to_owned(), Value::to_string);
            let text = format!("outcrop: {}\n      {judge:?}: {}", shown(our), shown(their));
            found.insert(format!("config:{field}"), text);
        }
    }
    let (ours, theirs) = (comparable(&ours.history, true), comparable(&theirs.history, false));
    for at in 0..ours.len().max(theirs.len()) {
        let (our, their) = (ours.get(at), theirs.get(at));
        if our != their {
            let shown = |entry: Option<&(String, bool)>| match entry {
                None => "absent".to_owned(),
                Some((text, layer)) => format!("{text:?}{}", if *layer { " (layer)" } else { "" }),
            };
            let text = format!("outcrop: {}\n      {judge:?}: {}", shown(our), shown(their));
            found.insert(format!("history:{at}"), text);
        }
    }
    found
}

/// Histories without what is known to differ between outcrop, or BuildKit 1.26, and the BuildKit of 1.2:
/// * COPY and ADD name their flags since 1.3;
/// * HEALTHCHECK has a start interval since 1.6, which is 0 in what is judged;
/// * EXPOSE is told as a list, no longer as a map, since 1.20;
/// * a WORKDIR that is there is no layer in outcrop, and an empty one in BuildKit;
/// * ONBUILD stands in the history of outcrop alone: every instruction has an image there;
/// * BuildKit signs, and outcrop does not forge.
fn comparable(history: &[(String, bool)], is_ours: bool) -> Vec<(String, bool)> {
    let entries = history.iter().filter(|(text, _)| !text.starts_with("ONBUILD "));
    let entries = entries.map(|(text, layer)| {
        let text = text.strip_suffix(" # buildkit").unwrap_or(text);
        let (instruction, rest) = text.split_once(' ').unwrap_or((text, ""));
        let rest = match instruction {
            "COPY" | "ADD" => {
                let words = rest.split(' ').skip_while(|word| word.starts_with("--"));
                words.collect::<Vec<_>>().join(" ")
            }
            "HEALTHCHECK" if is_ours => rest.replace(" \"0s\" '", " '"),
            "EXPOSE" => rest.replace("map[", "[").replace(":{}", ""),
            _ => rest.to_owned(),
        };
        (format!("{instruction} {rest}"), *layer || instruction == "WORKDIR")
    });
    entries.collect()
}

/// A dockerd of our own with what it needs in one directory. Dropped, it ends, and with it all that it started and mounted.
pub(crate) struct Daemon {
    dir: PathBuf,
    child: Child,
    /// Keeps the thread that started it.
    _parent: std::sync::mpsc::Sender<()>,
}

/// What other tests have mounted just now must not be kept by it.
const NOT_OF_OTHERS: &str = r#"
awk '$5 ~ "/outcrop-test-" { print $5 }' /proc/self/mountinfo | while read -r at; do
    case "$at" in "$0"/*) ;; *) umount -l "$at" ;; esac
done
exec "$@""#;

impl Daemon {
    /// `data` is its data root.
    pub(crate) fn start(dir: &Path, data: &Path, driver: &str) -> Daemon {
        fs::write(dir.join("daemon.json"), "{}").unwrap();
        // In namespaces of its own: whatever it mounts and starts goes with it, and it goes with us.
        let mut command = Command::new(find_on_path("setpriv"));
        command.args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"]);
        command.args(["--mount-proc", "sh", "-c", NOT_OF_OTHERS]).arg(dir).arg("/usr/sbin/dockerd");
        command.args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-masq=false"]);
        command.args(["--ip-forward=false", "--userland-proxy=false", "--storage-driver", driver]);
        command.arg("--data-root").arg(data);
        for (option, name) in
            [("--config-file", "daemon.json"), ("--exec-root", "docker-run"), ("--pidfile", "docker.pid")]
        {
            command.arg(option).arg(dir.join(name));
        }
        command.arg("--host").arg(format!("unix://{}", dir.join("docker.sock").display()));
        let log = File::create(dir.join("docker.log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        // The signal comes when the thread that started it dies, and threads of tests do.
        let (started, child) = std::sync::mpsc::channel();
        let (parent, adjourned) = std::sync::mpsc::channel::<()>();
        std::thread::spawn(move || {
            started.send(command.spawn()).unwrap();
            adjourned.recv()
        });
        let child = child.recv().unwrap().unwrap();
        let daemon = Daemon { dir: dir.to_owned(), child, _parent: parent };
        let up = wait_until(Duration::from_secs(60), || {
            daemon.docker(&["version"]).output().unwrap().status.success()
        });
        let log = fs::read_to_string(dir.join("docker.log")).unwrap();
        assert!(up, "dockerd does not answer:\n{log}");
        daemon
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("docker.sock")
    }

    /// Debian's client, which needs no plug-in to speak with the BuildKit in the daemon.
    pub(crate) fn docker(&self, args: &[&str]) -> Command {
        let mut command = Command::new("/usr/bin/docker");
        command.arg("--host").arg(format!("unix://{}", self.socket().display())).args(args);
        command.env("HOME", &self.dir).env("DOCKER_CONFIG", self.dir.join("docker-config"));
        command.env("DOCKER_BUILDKIT", "1").stdin(Stdio::null());
        command
    }

    /// What `unshare` started.
    fn own_process(&self) -> Option<rustix::process::Pid> {
        let id = self.child.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
        rustix::process::Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It undoes its mounts and ends its containerd; what it forgets goes with its namespaces.
        if let Some(pid) = self.own_process() {
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let child = &mut self.child;
        if !wait_until(Duration::from_secs(20), || child.try_wait().unwrap().is_some()) {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

/// The judges, ready: a daemon of their own that all tests of this process share while one of them runs, and a store.
pub(crate) struct Court {
    // Ended before its directory goes.
    daemon: Daemon,
    sandbox: Sandbox,
}

impl Court {
    pub(crate) fn sits() -> Arc<Court> {
        static COURT: Mutex<Weak<Court>> = Mutex::new(Weak::new());
        let mut court = COURT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(sitting) = court.upgrade() {
            return sitting;
        }
        let new = Arc::new(Court::new());
        *court = Arc::downgrade(&new);
        new
    }

    fn new() -> Court {
        let sandbox = Sandbox::new();
        let daemon = Daemon::start(sandbox.dir(), &sandbox.dir().join("docker"), "overlay2");
        let court = Court { daemon, sandbox };
        let base = court.sandbox.busybox_archive();
        Outcome::of(court.docker(&["import"]).arg(&base).arg("base")).ok();
        let context = court.sandbox.dir().join("base");
        fs::create_dir(&context).unwrap();
        fs::rename(&base, context.join("busybox.tar")).unwrap();
        fs::write(context.join("Dockerfile"), "FROM scratch\nADD busybox.tar /\n").unwrap();
        Outcome::of(court.buildah(&["bud", "-t", "base"]).arg(&context)).ok();
        court
    }

    /// Of the daemon.
    pub(crate) fn socket(&self) -> PathBuf {
        self.daemon.socket()
    }

    pub(crate) fn docker(&self, args: &[&str]) -> Command {
        self.daemon.docker(args)
    }

    pub(crate) fn buildah(&self, args: &[&str]) -> Command {
        let mut command = Command::new(find_on_path("buildah"));
        let dir = self.sandbox.dir();
        command.arg("--storage-driver").arg("overlay").arg("--root").arg(dir.join("buildah"));
        command.arg("--runroot").arg(dir.join("buildah-run")).args(args);
        command.env("HOME", dir).env("TMPDIR", dir).env("BUILDAH_ISOLATION", "chroot").stdin(Stdio::null());
        command
    }

    /// Builds `context` under this name; `name` is the judge's alone.
    pub(crate) fn build(
        &self,
        judge: Judge,
        context: &Path,
        dockerfile: &Path,
        name: &str,
        args: &[&str],
    ) -> Outcome {
        let mut command = match judge {
            Judge::BuildKit => self.docker(&["build", "--progress", "plain", "--network", "none"]),
            Judge::Buildah => self.buildah(&["bud", "--format", "docker", "--network", "host"]),
        };
        Outcome::of(command.args(["-t", name, "-f"]).arg(dockerfile).args(args).arg(context))
    }

    pub(crate) fn image(&self, judge: Judge, name: &str) -> Image {
        let dir = self.sandbox.dir().join(format!("saved-{judge:?}-{name}"));
        fs::create_dir(&dir).unwrap();
        let archive = dir.join("archive.tar");
        match judge {
            Judge::BuildKit => Outcome::of(self.docker(&["save", name, "-o"]).arg(&archive)).ok(),
            Judge::Buildah => {
                let to = format!("docker-archive:{}", archive.display());
                Outcome::of(&mut self.buildah(&["push", "--quiet", name, &to])).ok()
            }
        };
        Outcome::of(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&dir)).ok();
        let read =
            |name: &str| -> Value { serde_json::from_slice(&fs::read(dir.join(name)).unwrap()).unwrap() };
        let manifest = &read("manifest.json")[0];
        let config = read(manifest["Config"].as_str().unwrap());
        let layers: Vec<PathBuf> = manifest["Layers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|layer| dir.join(layer.as_str().unwrap()))
            .collect();
        let image = described(&layers, &config, judge == Judge::Buildah);
        fs::remove_dir_all(&dir).unwrap();
        image
    }
}

/// What outcrop has under this name.
pub(crate) fn ours(sandbox: &Sandbox, name: &str) -> Image {
    let id = sandbox.outcrop(&["inspect", "--format", "{{.Id}}", name]).ok().line();
    let blob = sandbox.root().join("blobs/sha256").join(id.strip_prefix("sha256:").unwrap());
    let config: Value = serde_json::from_slice(&fs::read(blob).unwrap()).unwrap();
    let container = sandbox.outcrop(&["create", name, "/nothing"]).ok().line();
    let archive = sandbox.dir().join(format!("{name}.tar"));
    let export = [OsStr::new("export"), OsStr::new("-o"), archive.as_os_str(), OsStr::new(&container)];
    sandbox.outcrop(&export).ok();
    sandbox.outcrop(&["rm", "-v", &container]).ok();
    let image = described(std::slice::from_ref(&archive), &config, false);
    fs::remove_file(archive).unwrap();
    image
}

fn described(layers: &[PathBuf], config: &Value, buildah: bool) -> Image {
    Image { tree: merged(layers, buildah), config: fields(config), history: history(config) }
}

/// One on top of the other (image-spec layer.md), as lines.
fn merged(layers: &[PathBuf], buildah: bool) -> BTreeMap<Vec<u8>, Entry> {
    let mut tree: BTreeMap<Vec<u8>, (usize, Row)> = BTreeMap::new();
    for (number, layer) in layers.iter().enumerate() {
        let mut rows: Vec<Row> = Vec::new();
        let mut file = BufReader::new(File::open(layer).unwrap());
        scan(&Job::silent(), &mut file, None, &mut rows).unwrap();
        let below = |path: &[u8], top: &[u8]| {
            top.is_empty() || (path.starts_with(top) && path.get(top.len()) == Some(&b'/'))
        };
        for row in &rows {
            let gone = row.kind == Kind::Whiteout;
            if gone {
                tree.remove(&row.path);
            }
            if gone || row.opaque || (row.kind != Kind::Dir && !row.implied) {
                tree.retain(|path, _| !below(path, &row.path));
            }
        }
        for row in rows {
            if row.kind != Kind::Whiteout && !(row.implied && tree.contains_key(&row.path)) {
                tree.insert(row.path.clone(), (number, row));
            }
        }
    }
    // The root is nobody's instruction.
    tree.retain(|path, _| {
        let path = path.escape_ascii().to_string();
        !(path.is_empty() || buildah && BUILDAHS.contains(&path.as_str()))
    });
    let mut groups: BTreeMap<(usize, u32), Vec<Vec<u8>>> = BTreeMap::new();
    for (path, (number, row)) in &tree {
        if let Some(link) = row.link {
            groups.entry((*number, link)).or_default().push(path.clone());
        }
    }
    let mut lines = BTreeMap::new();
    for (path, (number, row)) in &tree {
        let mut text = format!("{:?} {}:{}", row.kind, row.uid, row.gid);
        if row.kind == Kind::Symlink {
            write!(text, " -> {}", row.target.escape_ascii()).unwrap();
        }
        if let Some(digest) = row.digest {
            write!(text, " {} {}", row.size, digest.short()).unwrap();
        }
        if row.rdev != (0, 0) {
            write!(text, " {:?}", row.rdev).unwrap();
        }
        for (name, value) in &row.xattrs {
            // dockerd 20.10 stores no others, whatever its BuildKit made.
            if name != b"security.capability" {
                continue;
            }
            write!(text, " {}={}", name.escape_ascii(), value.escape_ascii()).unwrap();
        }
        let group = row.link.map(|link| &groups[&(*number, link)]).filter(|group| group.len() > 1);
        if let Some(group) = group {
            write!(text, " = /{}", group[0].escape_ascii()).unwrap();
        }
        let seconds = row.mtime.div_euclid(1_000_000_000);
        let pinned = (seconds < NOW_AT_LEAST).then_some(seconds);
        // A symbolic link's means nothing.
        let mode = if row.kind == Kind::Symlink { 0o777 } else { row.mode };
        lines.insert(path.clone(), Entry { mode, text, pinned });
    }
    lines
}

/// What the config says, without what is empty and what nobody compares: names of containers, times.
fn fields(config: &Value) -> BTreeMap<String, Value> {
    let mut fields = BTreeMap::new();
    let inner = config["config"].as_object().unwrap();
    let outer = ["architecture", "os", "variant", "author"].map(|name| (name.to_owned(), &config[name]));
    for (name, value) in inner.iter().map(|(name, value)| (name.clone(), value)).chain(outer) {
        let empty = match value {
            Value::Null | Value::Bool(false) => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        if !empty && !["Hostname", "Image", "ArgsEscaped"].contains(&name.as_str()) {
            let mut value = sorted(value);
            if let Some(labels) = value.as_object_mut().filter(|_| name == "Labels") {
                labels.shift_remove("io.buildah.version");
                if labels.is_empty() {
                    continue;
                }
            }
            fields.insert(name, value);
        }
    }
    fields
}

/// The order of keys means nothing.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let map: BTreeMap<&String, Value> = map.iter().map(|(key, value)| (key, sorted(value))).collect();
            map.into_iter().map(|(key, value)| (key.clone(), value)).collect()
        }
        other => other.clone(),
    }
}

/// Without the one entry of the base.
fn history(config: &Value) -> Vec<(String, bool)> {
    let entries = config["history"].as_array().map_or(&[][..], Vec::as_slice);
    let made = |entry: &Value| {
        let text = entry["created_by"].as_str().unwrap_or_default().to_owned();
        (text, entry["empty_layer"] != Value::Bool(true))
    };
    entries.iter().skip(1).map(made).collect()
}
