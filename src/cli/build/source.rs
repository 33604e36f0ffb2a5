//! What the last word of `build` names: a directory, `-`, an address, a repository.

use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use outcrop::context::{GitHost, Remote, git_url};
use outcrop::error::{Context as _, Error, Kind, Result};
use outcrop::job::Job;
use outcrop::verb::build::Options;
use outcrop::verb::build_context::{self, HEAD, Opened, Place, is_archive, read_text};

use crate::cli::Context;

/// What git may know of the caller.
pub(crate) fn git_host() -> GitHost {
    let known_hosts = std::env::var_os("HOME").map(|home| Path::new(&home).join(".ssh/known_hosts"));
    GitHost {
        path: std::env::var_os("PATH").unwrap_or_default(),
        ssh_agent: std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from),
        known_hosts: known_hosts.filter(|file| file.is_file()),
    }
}

/// `file`: as `-f` names it. `options` for what other machines are to be told.
pub(crate) fn source(
    context: &Context,
    path: &str,
    file: Option<&Path>,
    options: &Options,
    job: &Job,
) -> Result<Opened> {
    let from_stdin = file == Some(Path::new("-"));
    let place = match path {
        "-" if from_stdin => {
            return Err(Error::invalid("both the Dockerfile and the build context are `-`")
                .hint("only one of them can come from standard input"));
        }
        "-" => match standard_input(context)? {
            Stdin::Text(text) => return Ok(alone("-".into(), text)),
            Stdin::Archive(file) => Place::Archive(file),
        },
        path if Path::new(path).is_dir() => return directory(path, file),
        path => match git_url::parse_context(path)? {
            Some(mut git) => {
                let keep = options.build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR");
                git.keep_git_dir |= keep
                    .is_some_and(|keep| matches!(keep.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True"));
                Place::Git(git)
            }
            None if path.starts_with("http://") || path.starts_with("https://") => {
                Place::Url(path.to_owned())
            }
            None => return directory(path, file),
        },
    };
    let text = from_stdin.then(|| read_text(std::io::stdin().lock(), "-")).transpose()?;
    let file = file.filter(|_| !from_stdin).map(|file| file.to_string_lossy().into_owned());
    let engine = context.engine()?;
    let secret = |id: &str| options.run.secrets.get(id).map(|secret| secret.0.clone());
    let remote = Remote::new(engine, &options.registry, &options.git, &secret);
    build_context::open(engine, place, file.as_deref(), text, &remote, job)
}

fn alone(name: String, text: String) -> Opened {
    Opened { dir: None, dockerfile_name: name, dockerfile: text, ignore: None, time: None, held: None }
}

enum Stdin {
    Text(String),
    Archive(File),
}

fn standard_input(context: &Context) -> Result<Stdin> {
    let say = || "reading standard input";
    let mut stdin = std::io::stdin().lock();
    let mut head = Vec::new();
    stdin.by_ref().take(HEAD as u64).read_to_end(&mut head).context(say)?;
    let mut all = std::io::Cursor::new(head.clone()).chain(stdin);
    if !is_archive(&head) {
        return read_text(all, "-").map(Stdin::Text);
    }
    let mut file = context.engine()?.unnamed_file()?;
    std::io::copy(&mut all, &mut file).context(say)?;
    file.seek(SeekFrom::Start(0)).context(say)?;
    Ok(Stdin::Archive(file))
}

fn directory(path: &str, file: Option<&Path>) -> Result<Opened> {
    let dir = std::fs::canonicalize(path)
        .context(|| format!("build context `{path}`"))
        .map_err(|error| error.hint("name the directory that holds the files to copy"))?;
    if !dir.is_dir() {
        return Err(Error::invalid(format!("build context `{path}` is not a directory"))
            .hint("name the directory; a Dockerfile goes with -f"));
    }
    let opened = |name: String, text: String, ignore| Opened {
        dir: Some(dir.clone()),
        dockerfile_name: name,
        dockerfile: text,
        ignore,
        time: None,
        held: None,
    };
    if file == Some(Path::new("-")) {
        let text = read_text(std::io::stdin().lock(), "-")?;
        return Ok(opened("-".into(), text, ignore_of(&dir, None)?));
    }
    let (shown, file) = match file {
        // As BuildKit: written small it will do.
        None if !dir.join("Dockerfile").exists() && dir.join("dockerfile").exists() => {
            (join_shown(path, "dockerfile"), dir.join("dockerfile"))
        }
        None => (join_shown(path, "Dockerfile"), dir.join("Dockerfile")),
        // As the docker CLI: from here, else from the context.
        Some(file) if file.exists() || file.is_absolute() => (file.display().to_string(), file.to_owned()),
        Some(file) => (join_shown(path, &file.display().to_string()), dir.join(file)),
    };
    let open =
        File::open(&file).context(|| format!("reading `{shown}`")).map_err(|error| match error.kind() {
            Kind::NotFound => error.hint("name the Dockerfile with -f FILE"),
            _ => error,
        })?;
    let text = read_text(open, &shown)?;
    Ok(opened(shown, text, ignore_of(&dir, Some(&file))?))
}

fn join_shown(dir: &str, file: &str) -> String {
    match dir.trim_end_matches('/') {
        "." | "" => file.to_owned(),
        dir => format!("{dir}/{file}"),
    }
}

/// `<Dockerfile>.dockerignore` next to the Dockerfile goes before the context's `.dockerignore`.
fn ignore_of(dir: &Path, dockerfile: Option<&Path>) -> Result<Option<(String, Vec<u8>)>> {
    let own = dockerfile.map(|file| {
        let mut name = file.as_os_str().to_owned();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    for file in own.into_iter().chain([dir.join(".dockerignore")]) {
        match std::fs::read(&file) {
            Ok(text) => {
                let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
                return Ok(Some((name, text)));
            }
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {}
            Err(cause) => return Err(cause).context(|| format!("reading `{}`", file.display())),
        }
    }
    Ok(None)
}
