//! The storage that Podman, Buildah and CRI-O share (containers-storage): by way of skopeo, which is of the same house.
//! Its layout is nobody's interface: it changes, and whoever writes it holds its locks. Between us and skopeo lies a
//! plain directory, in which nothing is converted.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Context as _, Error, Result};
use crate::job::Job;
use crate::sys::child::{Said, listen};

pub(super) struct Helper {
    program: PathBuf,
}

impl Helper {
    /// `path`: where programs are looked for.
    pub(super) fn find(path: &OsStr) -> Result<Helper> {
        let programs = std::env::split_paths(path).map(|dir| dir.join("skopeo"));
        let program = programs.into_iter().find(|program| program.is_absolute() && program.is_file());
        let program = program.ok_or_else(|| {
            Error::unsupported("containers-storage: is reached by way of `skopeo`, which is not on PATH")
                .hint("install skopeo; or `podman save --format oci-archive`, and copy that")
        })?;
        Ok(Helper { program })
    }

    /// The image `name` into a directory.
    pub(super) fn get(&self, name: &str, dir: &Path, job: &Job) -> Result<()> {
        self.copy(&storage(name), &flat(dir), job)
            .context(|| format!("getting `{name}` from containers-storage"))
    }

    pub(super) fn put(&self, dir: &Path, name: &str, job: &Job) -> Result<()> {
        self.copy(&flat(dir), &storage(name), job)
            .context(|| format!("putting `{name}` into containers-storage"))
    }

    fn copy(&self, from: &str, to: &str, job: &Job) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.args(["copy", "--insecure-policy", "--quiet", from, to]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let doing = || format!("running {}", self.program.display());
        let Said { status, err, .. } = listen(command.spawn().context(doing)?, usize::MAX, &|| job.check())?;
        if status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&err);
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
        Err(Error::unavailable(format!("skopeo: {}", last.trim())))
    }
}

fn storage(name: &str) -> String {
    format!("containers-storage:{name}")
}

fn flat(dir: &Path) -> String {
    format!("dir:{}", dir.display())
}
