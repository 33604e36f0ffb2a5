//! `-v`, `--mount` and `--tmpfs`, as people write them.

use std::path::Path;

use outcrop::container::{Mount, MountKind, Tmpfs, check_volume_name};
use outcrop::error::{Context as _, Error, Result};

/// Options of `-v` that say how it is done anyway, or mean something on other hosts alone.
const DONE_ANYWAY: [&str; 7] = ["rprivate", "private", "z", "Z", "consistent", "cached", "delegated"];

/// `[SOURCE:]TARGET[:OPTIONS]`.
pub(super) fn volume(text: &str) -> Result<Mount> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => (None, target, ""),
        [source, target] if target.starts_with('/') => (Some(source), target, ""),
        // `/data:ro`: a nameless volume.
        [target, options] if target.starts_with('/') && options.split(',').all(is_option) => {
            (None, target, options)
        }
        [source, target] => (Some(source), target, ""),
        [source, target, options] => (Some(source), target, options),
        _ => return Err(wrong(text, "there are more than three parts")),
    };
    if source.is_some_and(str::is_empty) {
        return Err(wrong(text, "empty section between colons"));
    }
    let target = clean(target)
        .ok_or_else(|| wrong(text, &format!("invalid mount path: '{target}' mount path must be absolute")))?;
    let (mut read_only, mut no_copy) = (false, false);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            "rw" => read_only = false,
            "nocopy" => no_copy = true,
            _ if is_option(option) => {}
            _ => return Err(wrong(text, &format!("invalid mode: {option}"))),
        }
    }
    let kind = match source {
        Some(path) if path.starts_with(['/', '.']) => {
            MountKind::Bind { source: absolute(path)?, create: true }
        }
        Some(name) => {
            check_volume_name(name)?;
            MountKind::Volume { name: Some(name.to_owned()), no_copy }
        }
        None => MountKind::Volume { name: None, no_copy },
    };
    Ok(Mount { kind, target, read_only })
}

fn is_option(word: &str) -> bool {
    DONE_ANYWAY.contains(&word) || ["ro", "rw", "nocopy"].contains(&word)
}

fn wrong(text: &str, why: &str) -> Error {
    Error::invalid(format!("invalid volume specification: '{text}': {why}"))
        .hint("write HOST:CONTAINER[:ro], NAME:CONTAINER, or CONTAINER; paths in the container are absolute")
}

pub(super) enum Parsed {
    Mount(Mount),
    Tmpfs(Tmpfs),
}

/// `type=bind,source=/a,target=/b,readonly`.
pub(super) fn mount(text: &str) -> Result<Parsed> {
    let invalid = |why: String| {
        Error::invalid(format!("invalid argument \"{text}\" for \"--mount\" flag: {why}"))
            .hint("write type=bind,source=DIR,target=DIR[,readonly]")
    };
    let (mut kind, mut source, mut target) = ("volume", None, None);
    let (mut read_only, mut no_copy) = (false, false);
    let mut memory = Tmpfs { target: String::new(), size: None, mode: 0o1777 };
    for field in text.split(',') {
        let (key, value) = field.split_once('=').unwrap_or((field, ""));
        let truth = |value: &str| match value {
            "" | "1" | "true" => Ok(true),
            "0" | "false" => Ok(false),
            _ => Err(invalid(format!("invalid value for {key}: {value}"))),
        };
        match key.to_ascii_lowercase().as_str() {
            "type" => kind = value,
            "source" | "src" => source = Some(value),
            "target" | "dst" | "destination" => target = Some(value),
            "readonly" | "ro" => read_only = truth(value)?,
            "volume-nocopy" => no_copy = truth(value)?,
            "tmpfs-size" => memory.size = Some(outcrop::size::parse(value)?),
            "tmpfs-mode" => {
                memory.mode = octal(value).ok_or_else(|| invalid(format!("invalid mode {value}")))?
            }
            "bind-propagation" if value == "rprivate" || value == "private" => {}
            "consistency" => {}
            _ => return Err(invalid(format!("unexpected key '{key}' in '{field}'"))),
        }
    }
    let target = target.ok_or_else(|| invalid("target is required".into()))?;
    let target = clean(target)
        .ok_or_else(|| invalid(format!("invalid mount path: '{target}' mount path must be absolute")))?;
    let kind = match (kind, source) {
        ("tmpfs", None) => return Ok(Parsed::Tmpfs(Tmpfs { target, ..memory })),
        ("tmpfs", Some(_)) => return Err(invalid("a tmpfs has no source".into())),
        ("bind", Some(path)) => MountKind::Bind { source: absolute(path)?, create: false },
        ("bind", None) => return Err(invalid("source is required for a bind mount".into())),
        ("volume", None | Some("")) => MountKind::Volume { name: None, no_copy },
        ("volume", Some(name)) => {
            check_volume_name(name)?;
            MountKind::Volume { name: Some(name.to_owned()), no_copy }
        }
        (other, _) => return Err(invalid(format!("mount type unknown: \"{other}\""))),
    };
    Ok(Parsed::Mount(Mount { kind, target, read_only }))
}

/// `TARGET[:size=64m,mode=1777]`.
pub(super) fn tmpfs(text: &str) -> Result<Tmpfs> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let invalid = |why: String| {
        Error::invalid(format!("invalid tmpfs `{text}`: {why}")).hint("write TARGET[:size=64m,mode=1777]")
    };
    let target = clean(target).ok_or_else(|| invalid("the path must be absolute".into()))?;
    let mut tmpfs = Tmpfs { target, size: None, mode: 0o1777 };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", size)) => tmpfs.size = Some(outcrop::size::parse(size)?),
            Some(("mode", mode)) => {
                tmpfs.mode = octal(mode).ok_or_else(|| invalid(format!("invalid mode {mode}")))?;
            }
            // As it is mounted anyway.
            None if ["rw", "noexec", "nosuid", "nodev"].contains(&option) => {}
            _ => return Err(invalid(format!("invalid option {option}"))),
        }
    }
    Ok(tmpfs)
}

fn octal(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777)
}

/// Absolute, without `.`, `..`, or slashes too many; `None` for a relative one, and for `/`.
fn clean(path: &str) -> Option<String> {
    if !path.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| format!("/{}", parts.join("/")))
}

/// From where the user stands.
fn absolute(path: &str) -> Result<String> {
    let absolute = std::path::absolute(Path::new(path)).context(|| format!("finding `{path}`"))?;
    // Text in, text out.
    Ok(absolute.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(source: &str, create: bool) -> MountKind {
        MountKind::Bind { source: source.into(), create }
    }
    fn named(name: Option<&str>) -> MountKind {
        MountKind::Volume { name: name.map(str::to_owned), no_copy: false }
    }
    fn on(kind: MountKind, target: &str, read_only: bool) -> Mount {
        Mount { kind, target: target.into(), read_only }
    }

    #[test]
    fn volumes_are_directories_names_or_neither() {
        assert_eq!(volume("/a:/b").unwrap(), on(bind("/a", true), "/b", false));
        assert_eq!(volume("/a:/b/../c/:ro,Z").unwrap(), on(bind("/a", true), "/c", true));
        assert_eq!(volume("data:/b").unwrap(), on(named(Some("data")), "/b", false));
        assert_eq!(volume("/b").unwrap(), on(named(None), "/b", false));
        assert_eq!(volume("/b:ro").unwrap(), on(named(None), "/b", true));
        let here = std::env::current_dir().unwrap();
        assert_eq!(volume("./x:/b").unwrap().kind, bind(here.join("x").to_str().unwrap(), true));
    }

    #[test]
    fn a_wrong_volume_says_why() {
        for (text, why) in [
            (
                "a:b",
                "invalid volume specification: 'a:b': invalid mount path: 'b' mount path must be absolute",
            ),
            ("/a:/b:rx", "invalid volume specification: '/a:/b:rx': invalid mode: rx"),
            (":/b", "invalid volume specification: ':/b': empty section between colons"),
            (
                "/a:/",
                "invalid volume specification: '/a:/': invalid mount path: '/' mount path must be absolute",
            ),
        ] {
            assert_eq!(volume(text).unwrap_err().message(), why);
        }
        assert!(
            volume("a/b:/c").unwrap_err().message().contains("invalid characters for a local volume name")
        );
    }

    #[test]
    fn mounts_in_words_mean_the_same() {
        let parsed = |text: &str| match mount(text).unwrap() {
            Parsed::Mount(mount) => mount,
            Parsed::Tmpfs(_) => panic!("{text} is a tmpfs"),
        };
        assert_eq!(parsed("type=bind,src=/a,dst=/b,ro"), on(bind("/a", false), "/b", true));
        assert_eq!(parsed("source=data,target=/b"), on(named(Some("data")), "/b", false));
        let Parsed::Tmpfs(memory) = mount("type=tmpfs,target=/t,tmpfs-size=1m").unwrap() else { panic!() };
        assert_eq!(memory, Tmpfs { target: "/t".into(), size: Some(1 << 20), mode: 0o1777 });
        for wrong in ["type=bind,target=/b", "src=/a", "type=what,target=/b", "target=/b,x=1"] {
            assert!(mount(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_tmpfs_has_size_and_mode() {
        assert_eq!(tmpfs("/t").unwrap(), Tmpfs { target: "/t".into(), size: None, mode: 0o1777 });
        let small = tmpfs("/t:rw,size=64k,mode=700").unwrap();
        assert_eq!((small.size, small.mode), (Some(65_536), 0o700));
        assert!(tmpfs("t").is_err() && tmpfs("/t:what").is_err());
    }
}
