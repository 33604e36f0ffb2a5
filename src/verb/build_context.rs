//! Where a build's Dockerfile and files come from: a directory, an archive, a repository, an address.

use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::context::{Held, Private, Remote};
use crate::engine::Engine;
use crate::error::{Context as _, Error, Kind, Result};
use crate::job::Job;
use crate::layer::{self, Form, Newest, compress};
use crate::plan::{GitSource, HttpSource};
use crate::sys::dir;

/// A Dockerfile is text that people write.
pub const LARGEST_DOCKERFILE: u64 = 4 << 20;
/// As many first bytes tell what something is.
pub const HEAD: usize = 512;

pub enum Place {
    Git(GitSource),
    /// An archive, or a Dockerfile without files.
    Url(String),
    /// A file of an archive, readable from its beginning.
    Archive(File),
}

/// What a build is made of.
pub struct Opened {
    /// `None`: a Dockerfile alone.
    pub dir: Option<PathBuf>,
    pub dockerfile_name: String,
    pub dockerfile: String,
    /// What `.dockerignore` is called, and says.
    pub ignore: Option<(String, Vec<u8>)>,
    /// Of the commit, of the newest file of the archive, or what its server says; a directory has none.
    pub time: Option<i64>,
    /// The directory is there as long as this.
    pub held: Option<Held>,
}

/// `file`: the Dockerfile's path inside. `text`: the Dockerfile, where it comes from elsewhere.
pub fn open(
    engine: &Engine,
    place: Place,
    file: Option<&str>,
    text: Option<String>,
    remote: &Remote<'_>,
    job: &Job,
) -> Result<Opened> {
    match place {
        Place::Git(source) => {
            let checkout = remote.checkout(&source, job)?;
            let dir = checkout.path();
            let time = remote.commit_time(&source, job)?;
            let opened = inside(checkout.as_fd(), dir, file, text)?;
            Ok(Opened { time: Some(time), ..opened.holding(Held::new(checkout)) })
        }
        Place::Archive(archive) => unpacked(engine, archive, "-", file, text, job),
        Place::Url(url) => {
            let private = Private::new(&engine.root)?;
            let source = HttpSource { url: url.clone(), checksum: None };
            let time = remote.fetched_time(&source, &private, "context", job)?;
            let say = || format!("reading `{}`", crate::registry::without_password(&url));
            let mut file_of = File::open(private.tree_path().join("context")).context(say)?;
            let mut head = Vec::new();
            file_of.by_ref().take(HEAD as u64).read_to_end(&mut head).context(say)?;
            file_of.seek(SeekFrom::Start(0)).context(say)?;
            match is_archive(&head) {
                true => {
                    unpacked(engine, file_of, &url, file, text, job).map(|opened| Opened { time, ..opened })
                }
                false => {
                    let name = crate::registry::without_password(&url);
                    let text = match text {
                        Some(text) => text,
                        None => read_text(file_of, &name)?,
                    };
                    Ok(Opened {
                        dir: None,
                        dockerfile_name: name,
                        dockerfile: text,
                        ignore: None,
                        time,
                        held: None,
                    })
                }
            }
        }
    }
}

/// By its first bytes: compressed as archives are, or a tar.
pub fn is_archive(head: &[u8]) -> bool {
    let magics: [&[u8]; 4] = [b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    magics.iter().any(|magic| head.starts_with(magic)) || is_tar(head)
}

/// Old archives have no mark, but every header has a sum: of its bytes, those of the sum taken as blanks.
fn is_tar(head: &[u8]) -> bool {
    let Some(header) = head.get(..512) else { return false };
    let field = String::from_utf8_lossy(&header[148..156]).into_owned();
    let said = u32::from_str_radix(field.trim_matches(['\0', ' ']), 8);
    let sum: u32 = header
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
        .sum();
    said == Ok(sum)
}

fn unpacked(
    engine: &Engine,
    archive: File,
    name: &str,
    file: Option<&str>,
    text: Option<String>,
    job: &Job,
) -> Result<Opened> {
    let private = Private::new(&engine.root)?;
    let say = || match name {
        "-" => "unpacking the build context from standard input".to_owned(),
        url => format!("unpacking the build context from `{}`", crate::registry::without_password(url)),
    };
    let (_, mut tar) = compress::decoder(Box::new(archive)).context(say)?;
    let mut newest = Newest::default();
    layer::apply(job, &mut tar, private.tree(), Form::Whole, &mut newest, &mut std::io::sink())
        .context(say)?;
    let dir = private.tree_path();
    let opened = inside(private.tree(), dir, file, text)?;
    Ok(Opened { time: newest.seconds(), ..opened.holding(Held::new(private)) })
}

impl Opened {
    fn holding(self, held: Held) -> Self {
        Opened { held: Some(held), ..self }
    }
}

/// The Dockerfile of a tree that somebody else made: links in it lead nowhere but into it.
fn inside(tree: BorrowedFd<'_>, dir: PathBuf, file: Option<&str>, text: Option<String>) -> Result<Opened> {
    let opened = |name: String, text: String, ignore| Opened {
        dir: Some(dir.clone()),
        dockerfile_name: name,
        dockerfile: text,
        ignore,
        time: None,
        held: None,
    };
    if let Some(text) = text {
        return Ok(opened("-".into(), text, ignore_of(tree, None)?));
    }
    let names = match file {
        Some(file) => vec![file.trim_start_matches("./").to_owned()],
        None => vec!["Dockerfile".to_owned(), "dockerfile".to_owned()],
    };
    for name in &names {
        if let Some(found) = open_file(tree, name)? {
            let text = read_text(found, name)?;
            return Ok(opened(name.clone(), text, ignore_of(tree, Some(name))?));
        }
    }
    Err(Error::not_found(format!("the build context holds no `{}`", names[0]))
        .hint("name the Dockerfile with -f FILE, from the root of the context"))
}

fn open_file(tree: BorrowedFd<'_>, name: &str) -> Result<Option<File>> {
    match dir::open_in_root(tree, name.as_bytes(), OFlags::RDONLY | OFlags::NONBLOCK) {
        Ok(fd) => Ok(Some(File::from(fd))),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(cause).context(|| format!("reading `{name}` of the build context")),
    }
}

/// `<Dockerfile>.dockerignore` next to the Dockerfile goes before the context's `.dockerignore`.
fn ignore_of(tree: BorrowedFd<'_>, dockerfile: Option<&str>) -> Result<Option<(String, Vec<u8>)>> {
    let own = dockerfile.map(|file| format!("{file}.dockerignore"));
    for name in own.into_iter().chain([".dockerignore".to_owned()]) {
        if let Some(file) = open_file(tree, &name)? {
            let text = read_text(file, &name)?;
            let shown = Path::new(&name).file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Ok(Some((shown, text.into_bytes())));
        }
    }
    Ok(None)
}

/// All of a Dockerfile.
pub fn read_text(from: impl Read, shown: &str) -> Result<String> {
    let say = || format!("reading `{shown}`");
    let mut bytes = Vec::new();
    from.take(LARGEST_DOCKERFILE + 1).read_to_end(&mut bytes).context(say)?;
    if bytes.len() as u64 > LARGEST_DOCKERFILE {
        return Err(
            Error::invalid(say()).because(Error::invalid("it is larger than 4 MiB; is it a Dockerfile?"))
        );
    }
    String::from_utf8(bytes).map_err(|cause| {
        Error::new(Kind::Invalid, say()).because(Error::invalid(format!("it is not UTF-8: {cause}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_known_by_its_first_bytes() {
        let mut old = vec![0; 512];
        old[0] = b'a';
        let sum = 32 * 8 + u32::from(b'a');
        old[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        old[155] = b' ';
        assert!(is_archive(&old));
        old[1] = b'b';
        assert!(!is_archive(&old));
        assert!(is_archive(b"\x1f\x8b\x08...") && is_archive(b"\x28\xb5\x2f\xfd"));
        assert!(!is_archive(b"FROM scratch\n") && !is_archive(b""));
    }
}
