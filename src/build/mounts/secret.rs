//! `type=secret`: bytes that nothing remembers, as a file in memory or a variable.

use super::super::stage::Stage;
use crate::build::key;
use crate::error::{Error, Result};
use crate::plan;
use crate::runtime::{File, Spec};

/// What a secret is. Never shown.
#[derive(Clone)]
pub struct SecretBytes(pub Vec<u8>);

impl std::fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretBytes")
    }
}

pub(super) struct Secret<'m> {
    plan: &'m plan::Secret,
    bytes: &'m SecretBytes,
}

impl<'m> Secret<'m> {
    /// `None`: it was not given, and then it is not there.
    pub(super) fn of<'b: 'm>(stage: &Stage<'b>, plan: &'m plan::Secret) -> Option<Self> {
        let bytes = stage.inputs.run.secrets.get(&plan.id)?;
        Some(Secret { plan, bytes })
    }

    pub(super) fn key(&self) -> key::Mount<'m> {
        let plan::Secret { id, target, env, mode, owner } = self.plan;
        key::Mount::Secret { id, target: target.as_deref(), env: env.as_deref(), mode: *mode, owner: *owner }
    }

    pub(super) fn prepare(&self, spec: &mut Spec) -> Result<()> {
        if let Some(name) = &self.plan.env {
            let problem = |what: &str| {
                Error::invalid(format!("the secret `{}` cannot be the variable {name}: {what}", self.plan.id))
                    .hint("mount it as a file")
            };
            let value = std::str::from_utf8(&self.bytes.0);
            // Without the cause: it would say what the bytes are.
            let value = value.map_err(|_not_text| problem("it is not UTF-8"))?;
            if value.contains('\0') {
                return Err(problem("it holds a NUL byte"));
            }
            let prefix = format!("{name}=");
            spec.env.retain(|entry| !entry.starts_with(&prefix));
            spec.env.push(prefix + value);
        }
        if let Some(target) = &self.plan.target {
            spec.files.push(File {
                target: target.clone(),
                content: self.bytes.0.clone(),
                mode: self.plan.mode,
                owner: self.plan.owner,
                read_only: true,
            });
        }
        Ok(())
    }
}
