//! Runtimes that speak the OCI command line: found on PATH by name, driven by `outcrop __init`.

use std::path::PathBuf;

use super::embedded::Binary;
use super::running::launch;
use super::wire::How;
use super::{Place, Running, Runtime, Spec, Stdio};
use crate::error::{Error, Result};

/// A program with `create`, `start` and `delete` (runtime-spec runtime.md, "Operations").
pub(super) struct Oci {
    name: &'static str,
    program: PathBuf,
    exe: Binary,
    run: PathBuf,
}

impl Oci {
    pub(super) fn open(name: &'static str, place: &Place) -> Result<Box<dyn Runtime>> {
        let program = std::env::split_paths(&place.path)
            .map(|dir| dir.join(name))
            .find(|candidate| candidate.is_absolute() && candidate.is_file())
            .ok_or_else(|| {
                Error::not_found(format!("the runtime `{name}` is not on PATH"))
                    .hint("install it, or leave `--runtime` out: outcrop has one of its own")
            })?;
        Ok(Box::new(Oci { name, program, exe: Binary::new(&place.exe), run: place.run.clone() }))
    }
}

impl Runtime for Oci {
    fn name(&self) -> &'static str {
        self.name
    }

    fn start(&self, spec: &Spec, stdio: Stdio) -> Result<Running> {
        let how = How::Oci { program: self.program.clone(), run: self.run.clone() };
        launch(&self.exe.path()?, how, spec, stdio)
    }
}
