//! Where an image is, or is to go, as people write it: a transport and what it takes.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, Result, did_you_mean};
use crate::image::Reference;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `docker://NAME`
    Registry(Reference),
    /// `oci:DIR[:TAG]`
    Layout(PathBuf, Option<String>),
    /// `oci-archive:FILE[:TAG]`
    OciArchive(PathBuf, Option<String>),
    /// `docker-archive:FILE[:NAME]`
    DockerArchive(PathBuf, Option<String>),
    /// `dir:DIR`
    Flat(PathBuf),
    /// `docker-daemon:NAME`
    Daemon(String),
    /// `containers-storage:NAME`, which may begin with `[DRIVER@ROOT+RUNROOT]`
    Storage(String),
    /// `store:NAME`, or the name alone
    Store(String),
}

const TRANSPORTS: [&str; 8] =
    ["docker", "oci", "oci-archive", "docker-archive", "dir", "docker-daemon", "containers-storage", "store"];

impl FromStr for Place {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(name) = text.strip_prefix("docker://") {
            return Ok(Place::Registry(name.parse()?));
        }
        let Some((transport, rest)) = text.split_once(':') else { return named(text, text) };
        let needs = |what: &str| {
            Err(Error::invalid(format!("`{text}` names no {what}"))
                .hint(format!("write {transport}:{}", what.to_uppercase())))
        };
        match transport {
            "docker" => Err(Error::invalid(format!("`{text}` is no place of an image"))
                .hint("a registry's image is docker://NAME")),
            "oci" | "oci-archive" | "docker-archive" => {
                let (path, name) = match rest.split_once(':') {
                    Some((path, name)) => (path, Some(name.to_owned()).filter(|name| !name.is_empty())),
                    None => (rest, None),
                };
                if path.is_empty() {
                    return needs(if transport == "oci" { "directory" } else { "file" });
                }
                let path = PathBuf::from(path);
                Ok(match transport {
                    "oci" => Place::Layout(path, name),
                    "oci-archive" => Place::OciArchive(path, name),
                    _ => Place::DockerArchive(path, name),
                })
            }
            _ if !TRANSPORTS.contains(&transport) => named(text, text),
            _ if rest.is_empty() => needs(if transport == "dir" { "directory" } else { "name" }),
            "dir" => Ok(Place::Flat(rest.into())),
            "docker-daemon" => Ok(Place::Daemon(rest.to_owned())),
            "containers-storage" => Ok(Place::Storage(rest.to_owned())),
            _ => named(text, rest),
        }
    }
}

/// A name or an id of the store; what is neither may be a transport misspelt.
fn named(text: &str, name: &str) -> Result<Place> {
    let is_id = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_id && !name.starts_with("sha256:") {
        name.parse::<Reference>().map_err(|error| {
            let transport = text.split(':').next().unwrap_or_default();
            match did_you_mean(transport, TRANSPORTS) {
                Some(hint) => error.hint(hint),
                None if error.hint_text().is_some() => error,
                None => error.hint(format!("places begin with {}", TRANSPORTS.join(":, "))),
            }
        })?;
    }
    Ok(Place::Store(name.to_owned()))
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, path, name) = match self {
            Place::Registry(name) => return write!(f, "docker://{}", name.familiar()),
            Place::Layout(path, name) => ("oci", path, name.as_deref()),
            Place::OciArchive(path, name) => ("oci-archive", path, name.as_deref()),
            Place::DockerArchive(path, name) => ("docker-archive", path, name.as_deref()),
            Place::Flat(path) => ("dir", path, None),
            Place::Daemon(name) => return write!(f, "docker-daemon:{name}"),
            Place::Storage(name) => return write!(f, "containers-storage:{name}"),
            Place::Store(name) => return f.write_str(name),
        };
        write!(f, "{transport}:{}", path.display())?;
        name.map_or(Ok(()), |name| write!(f, ":{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_read_as_people_write_them() {
        let name = |text: &str| Some(text.to_owned());
        for (text, place) in [
            ("docker://localhost:5000/app:1", Place::Registry("localhost:5000/app:1".parse().unwrap())),
            ("docker://debian", Place::Registry("debian".parse().unwrap())),
            ("oci:a/b", Place::Layout("a/b".into(), None)),
            ("oci:/a:v1", Place::Layout("/a".into(), name("v1"))),
            ("oci:/a:reg.test/app:v", Place::Layout("/a".into(), name("reg.test/app:v"))),
            ("oci-archive:x.tar:v1", Place::OciArchive("x.tar".into(), name("v1"))),
            ("docker-archive:x.tar:app:v1", Place::DockerArchive("x.tar".into(), name("app:v1"))),
            ("dir:x", Place::Flat("x".into())),
            ("docker-daemon:app:1", Place::Daemon("app:1".into())),
            ("containers-storage:[vfs@/a+/b]app", Place::Storage("[vfs@/a+/b]app".into())),
            ("app:1", Place::Store("app:1".into())),
            ("store:oci:1", Place::Store("oci:1".into())),
            ("localhost:5000/app", Place::Store("localhost:5000/app".into())),
            ("sha256:12", Place::Store("sha256:12".into())),
        ] {
            assert_eq!(text.parse::<Place>().unwrap(), place, "{text}");
            let again = place.to_string().parse::<Place>();
            assert!(again.is_ok_and(|again| again == place) || text == "store:oci:1", "{text}");
        }
        for (text, hint) in [
            ("docker:x", "docker://NAME"),
            ("oci:", "oci:DIRECTORY"),
            ("oci-archive::v1", "oci-archive:FILE"),
            ("docker-daemon:", "docker-daemon:NAME"),
            ("oci-archiv:/a/b.tar", "did you mean `oci-archive`?"),
        ] {
            let error = text.parse::<Place>().unwrap_err();
            assert!(error.hint_text().is_some_and(|said| said.contains(hint)), "{text}: {error:?}");
        }
    }
}
