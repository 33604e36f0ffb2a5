//! Steps that are known from another stack: COPY, ADD and WORKDIR, by what they saw there.

use super::stage::Stage;
use super::{Base, copy, image, reads, record};
use crate::context::Input;
use crate::error::Result;
use crate::plan::{Action, Step};
use crate::rootfs::Layer;

impl Stage<'_> {
    /// What the step came to on another stack, where this one shows all that it saw there; found under its own key from
    /// now on, and as old as it was: it did not run.
    pub(super) fn elsewhere(
        &self,
        base: &Base,
        step: &Step,
        new: &record::New<'_>,
    ) -> Result<Option<record::Hit>> {
        if self.forced() || !matches!(step.action, Action::Copy(_) | Action::Workdir { .. }) {
            return Ok(None);
        }
        // What stands in layers that are not here yet only a cache that was given can tell.
        if self.inputs.imported.is_none_or(|imported| !imported.is_remote(&base.stack))
            && let Some(hit) = self.here_elsewhere(base, new)?
        {
            return Ok(Some(hit));
        }
        self.imported_elsewhere(base, new)
    }

    fn here_elsewhere(&self, base: &Base, new: &record::New<'_>) -> Result<Option<record::Hit>> {
        let (newest, notes) = (self.inputs.reuse.newest, self.inputs.notes);
        let found = record::look_up_elsewhere(self.engine, &new.step, newest, notes, |reads, layer| {
            Ok(self.shows(base, reads)? && self.stands(&base.stack, layer)?)
        })?;
        let Some(record::Elsewhere { mut hit, reads, made_at }) = found else { return Ok(None) };
        hit.created = image::not_before(&base.config, hit.created, self.inputs.epoch);
        let came = record::Came {
            layer: hit.layer.as_ref(),
            created: &hit.created,
            reads: Some(reads),
            made_at: Some(made_at),
        };
        record::remember(self.engine, new, came, self.inputs.record)?;
        Ok(Some(hit))
    }

    pub(super) fn shows(&self, base: &Base, reads: &str) -> Result<bool> {
        #[cfg(debug_assertions)]
        if self.inputs.hole == Some("reads") {
            return Ok(true);
        }
        reads::hold(self.engine, &base.stack, reads, self.inputs.epoch.is_some())
    }

    /// What the step saw of what it stands on; `None`: all of that counts.
    pub(super) fn reads(
        &self,
        base: &Base,
        step: &Step,
        inputs: &[Input<'_>],
        layer: Option<&Layer>,
    ) -> Result<Option<String>> {
        // Times below an epoch are in the layer as they were.
        let times = self.inputs.epoch.is_some();
        match (&step.action, layer) {
            (Action::Copy(what), Some(layer)) if !what.link && !copy::unpacks_any(what, inputs)? => {
                reads::of_copy(self.engine, &base.stack, what, inputs, layer, times)
            }
            (Action::Workdir { path, user }, layer) => {
                reads::of_workdir(self.engine, &base.stack, (path, user), layer, times)
            }
            _ => Ok(None),
        }
    }
}
