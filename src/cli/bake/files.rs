//! Which bake files are read.

use std::io::Read as _;
use std::path::Path;

use outcrop::bake::{COMPOSE_FILES, DEFAULT_FILES, File};
use outcrop::error::{Context as _, Error, Result};

/// Bake files are text that people write.
const LARGEST_FILE: u64 = 4 << 20;

/// Those that are named, else those that are looked for.
pub(super) fn read(named: &[String]) -> Result<Vec<File>> {
    if !named.is_empty() {
        return named.iter().map(|name| read_file(name)).collect();
    }
    // As in buildx: where its own variable names them.
    if let Ok(names) = std::env::var("BUILDX_BAKE_FILE") {
        let separator = std::env::var("BUILDX_BAKE_FILE_SEPARATOR").unwrap_or_else(|_unset| ":".into());
        let names = names.split(&separator).filter(|name| !name.is_empty());
        return names.map(read_file).collect();
    }
    let present = |name: &&str| Path::new(name).exists();
    let found: Vec<&str> = DEFAULT_FILES.into_iter().filter(present).collect();
    if let Some(compose) = COMPOSE_FILES.into_iter().find(|name| present(name)) {
        let error = Error::unsupported(format!(
            "`{compose}` would be read too, and compose files are not supported by this version"
        ));
        return Err(match found.first() {
            Some(file) => error
                .hint(format!("to leave it out: outcrop bake -f {}", found.join(" -f ")))
                .because(Error::unsupported(format!("it may change the targets of `{file}`"))),
            None => error.hint("write its services as targets of a docker-bake.hcl"),
        });
    }
    if found.is_empty() {
        return Err(Error::not_found("no bake file in this directory")
            .hint(format!("looked for: {}; name another with -f FILE", DEFAULT_FILES.join(", "))));
    }
    found.into_iter().map(read_file).collect()
}

fn read_file(name: &str) -> Result<File> {
    let say = || format!("reading `{name}`");
    let mut bytes = Vec::new();
    let read = match name {
        "-" => std::io::stdin().lock().take(LARGEST_FILE + 1).read_to_end(&mut bytes),
        name => {
            let open = std::fs::File::open(name).context(say)?;
            open.take(LARGEST_FILE + 1).read_to_end(&mut bytes)
        }
    };
    read.context(say)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(Error::invalid(say()).because(Error::invalid("it is larger than 4 MiB")));
    }
    let text = String::from_utf8(bytes).map_err(|cause| {
        Error::invalid(say()).because(Error::invalid(format!("it is not UTF-8: {cause}")))
    })?;
    Ok(File { name: name.to_owned(), text })
}
