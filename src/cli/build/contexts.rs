//! The flag of `build` that names more contexts.

use std::collections::BTreeMap;

use outcrop::error::{Context as _, Error, Result};
use outcrop::verb::named_context::{self, Named};

#[derive(clap::Args)]
pub(super) struct ContextFlags {
    /// What stands for an image of that name: a directory, a git repository, a file's address, docker-image://NAME,
    /// oci-layout://DIRECTORY[:TAG]
    #[arg(long = "build-context", value_name = "NAME=VALUE")]
    contexts: Vec<String>,
}

impl ContextFlags {
    pub(super) fn contexts(&self) -> Result<BTreeMap<String, Named>> {
        let mut contexts = BTreeMap::new();
        for text in &self.contexts {
            let say = || format!("`{text}` in --build-context");
            let (name, value) = text
                .split_once('=')
                .filter(|(name, value)| !name.is_empty() && !value.is_empty())
                .ok_or_else(|| Error::invalid(say()).hint("write --build-context NAME=VALUE"))?;
            let name = named_context::normalized(name).context(say)?;
            let find = |path: &str| std::fs::canonicalize(path).context(|| format!("the directory `{path}`"));
            let named = named_context::parse(value, find).context(say)?;
            if let Named::Dir(dir) | Named::Layout { dir, .. } = &named
                && !dir.is_dir()
            {
                return Err(
                    Error::invalid(say()).because(Error::invalid(format!("`{value}` is no directory")))
                );
            }
            contexts.insert(name, named);
        }
        Ok(contexts)
    }
}
