//! `bootstrap`: a base image from the distribution's own packages, where no registry can be reached.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::import;
use crate::db::Origin;
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::image::{ImageId, Platform, Reference, RunConfig};
use crate::job::{Event, Job};
use crate::sys::child::{Said, listen};

pub struct Options {
    /// `debian` or `ubuntu`.
    pub distribution: Distribution,
    /// As in `bookworm`.
    pub suite: String,
    /// Where packages come from; the distribution's own servers where there is none.
    pub mirror: Option<String>,
    pub name: Reference,
    pub platform: Platform,
    /// The search path for mmdebstrap and debootstrap.
    pub path: OsString,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    Debian,
    Ubuntu,
}

impl Distribution {
    pub fn find(name: &str) -> Option<Self> {
        match name {
            "debian" => Some(Distribution::Debian),
            "ubuntu" => Some(Distribution::Ubuntu),
            _ => None,
        }
    }
    fn mirror(self) -> &'static str {
        match self {
            Distribution::Debian => "http://deb.debian.org/debian",
            Distribution::Ubuntu => "http://archive.ubuntu.com/ubuntu",
        }
    }
}

pub fn bootstrap(engine: &Engine, options: &Options, job: &Job) -> Result<ImageId> {
    let tool = find_tool(&options.path)?;
    let dir = engine.root.join("ingest");
    let mut archive = engine.unnamed_file()?;
    let mirror = options.mirror.as_deref().unwrap_or(options.distribution.mirror());
    job.report(Event::Note(format!("{} fetches {} from {mirror}", tool.name(), options.suite)));
    tool.run(options, mirror, &dir, &mut archive, job)?;
    let import = import::Options {
        name: Some(options.name.clone()),
        config: RunConfig {
            env: Some(vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()]),
            cmd: Some(vec!["bash".into()]),
            ..RunConfig::default()
        },
        message: format!("made by {} from {mirror}", tool.name()),
        platform: options.platform.clone(),
        origin: Origin::Bootstrapped,
        verb: "bootstrap",
        created_by: Some(format!("outcrop bootstrap {}", options.name.familiar())),
    };
    import::import(engine, archive, &import, job)
}

enum Tool {
    Mmdebstrap(PathBuf),
    Debootstrap(PathBuf),
}

fn find_tool(path: &OsString) -> Result<Tool> {
    // Administrators' tools stand in directories that a user's search path may lack.
    let dirs = std::env::split_paths(path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let dirs: Vec<PathBuf> = dirs.collect();
    let find = |name: &str| dirs.iter().map(|dir| dir.join(name)).find(|file| file.is_file());
    if let Some(tool) = find("mmdebstrap") {
        return Ok(Tool::Mmdebstrap(tool));
    }
    if let Some(tool) = find("debootstrap") {
        return Ok(Tool::Debootstrap(tool));
    }
    Err(Error::not_found("neither mmdebstrap nor debootstrap is on the search path")
        .hint("install one of them: `apt-get install mmdebstrap`"))
}

impl Tool {
    fn name(&self) -> &'static str {
        match self {
            Tool::Mmdebstrap(_) => "mmdebstrap",
            Tool::Debootstrap(_) => "debootstrap",
        }
    }

    fn run(&self, options: &Options, mirror: &str, dir: &Path, archive: &mut File, job: &Job) -> Result<()> {
        let out = || archive.try_clone().context(|| "writing the archive");
        match self {
            Tool::Mmdebstrap(tool) => {
                let mut command = Command::new(tool);
                command.args(["--variant=minbase", "--quiet", "--format=tar"]);
                command.arg(format!("--architectures={}", debian_architecture(&options.platform)));
                command.args([&options.suite, "-", mirror]).stdout(out()?);
                finish(self.name(), command, job)
            }
            Tool::Debootstrap(tool) => {
                let tree = Tree(dir.join(format!("bootstrap-{}", std::process::id())));
                let mut command = Command::new(tool);
                command.arg("--variant=minbase");
                command.arg(format!("--arch={}", debian_architecture(&options.platform)));
                command.arg(&options.suite).arg(&tree.0).arg(mirror).stdout(Stdio::null());
                finish(self.name(), command, job)?;
                let mut tar = Command::new("tar");
                tar.args([
                    "--numeric-owner",
                    "--xattrs",
                    "--exclude=./var/cache/apt/archives/*.deb",
                    "-c",
                    ".",
                ]);
                tar.current_dir(&tree.0).stdout(out()?);
                finish("tar", tar, job)
            }
        }
    }
}

struct Tree(PathBuf);
impl Drop for Tree {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn debian_architecture(platform: &Platform) -> String {
    match (platform.architecture.as_str(), platform.variant.as_str()) {
        ("386", _) => "i386".into(),
        ("arm", "v7" | "") => "armhf".into(),
        ("arm", _) => "armel".into(),
        ("ppc64le", _) => "ppc64el".into(),
        (other, _) => other.into(),
    }
}

/// Runs it to its end; what it says on standard error is told if it fails.
fn finish(name: &str, mut command: Command, job: &Job) -> Result<()> {
    let child =
        command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().context(|| format!("starting {name}"))?;
    let Said { status, err, .. } = listen(child, usize::MAX, &|| job.check())?;
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&err);
    let last: Vec<&str> = said.trim().lines().rev().take(8).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    Err(Error::unavailable(format!("{name} failed ({status}); it said:\n    {}", last.join("\n    ")))
        .hint("are the distribution's package servers reachable? another one is named with --mirror"))
}
