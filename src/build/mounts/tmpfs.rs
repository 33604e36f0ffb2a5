//! `type=tmpfs`: an empty directory in memory.

use crate::build::key;
use crate::plan;
use crate::runtime::{Spec, Tmpfs};

pub(super) fn key(plan: &plan::Tmpfs) -> key::Mount<'_> {
    key::Mount::Tmpfs { target: &plan.target, size: plan.size, read_only: plan.read_only }
}

pub(super) fn prepare(plan: &plan::Tmpfs, spec: &mut Spec) {
    spec.tmpfs.push(Tmpfs {
        target: plan.target.clone(),
        size: plan.size,
        mode: None,
        read_only: plan.read_only,
        // Compilers run what they have made.
        exec: true,
    });
}
