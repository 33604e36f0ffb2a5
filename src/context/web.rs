//! Files over HTTP, kept in `<root>/cache/web`: the bytes under their digest, and for each address what it was last,
//! with what its server calls that version.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::private::Private;
use super::remote::{Remote, name_of};
use super::{Digests, Input, Tree, trim};
use crate::error::{Context as _, Error, Kind, Result};
use crate::image::{Digest, Hasher};
use crate::job::Job;
use crate::layer::{Newest, compress};
use crate::plan::{Checksum, HttpSource};
use crate::registry::{self, Conditions, Fetched, percent_decoded, without_password};

/// In the store.
pub(super) const PLACE: &str = "cache/web";
/// Bytes of one file.
const LARGEST: u64 = 64 << 30;
/// Bytes of all that is kept.
const MOST_KEPT: u64 = 4 << 30;

/// What an address was when it was last asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    digest: Digest,
    etag: Option<String>,
    last_modified: Option<String>,
    /// Without a password; for those who list what is kept.
    #[serde(default)]
    address: Option<String>,
}

/// The last name in the path of an address; BuildKit's name where there is none.
pub(super) fn file_name(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once('/').map_or("", |(_, path)| path);
    let path = String::from_utf8_lossy(&percent_decoded(path)).into_owned();
    match path.trim_end_matches('/').rsplit('/').next() {
        None | Some("" | "." | "..") => "__unnamed__".to_owned(),
        Some(name) => name.replace('\0', ""),
    }
}

pub(super) fn input(remote: &Remote<'_>, source: &HttpSource, job: &Job) -> Result<Input<'static>> {
    let name = file_name(&source.url);
    // What is kept may have been changed by somebody: then it is fetched as if it were not there.
    for trust in [true, false] {
        let private = Private::new(&remote.engine.root)?;
        let kept = get(remote, source, &private, &name, trust, job)?;
        let what = format!("`{}`", without_password(&source.url));
        let tree = Tree::new(private, what, Digests::Read);
        let mut selection = tree.subtree(&name, job)?;
        let item = &mut selection.sources[0].items[0];
        item.mtime = (seconds(kept.last_modified.as_deref()), 0);
        if item.digest == Some(kept.digest) {
            return Ok(Input { tree, selection, identity: None });
        }
    }
    Err(Error::corrupt(format!("`{}` changes while it is read", without_password(&source.url))))
}

/// Of a file and where it is put: see [`Remote::fetched_time`].
pub(super) fn time(
    remote: &Remote<'_>,
    source: &HttpSource,
    private: &Private,
    name: &str,
    job: &Job,
) -> Result<Option<i64>> {
    let kept = get(remote, source, private, name, true, job)?;
    if let Some(said) = date(kept.last_modified.as_deref()).filter(|_| source.checksum.is_none()) {
        return Ok(Some(said));
    }
    let file = File::open(private.tree_path().join(name)).context(|| "reading what was fetched")?;
    let newest = compress::decoder(Box::new(file)).and_then(|(_, mut tar)| Newest::of(job, &mut tar));
    match newest {
        Ok(newest) => Ok(newest.seconds()),
        // It is no archive.
        Err(cause) if matches!(cause.kind(), Kind::Invalid | Kind::Corrupt | Kind::Unsupported) => Ok(None),
        Err(cause) => Err(cause).context(|| format!("looking into `{}`", without_password(&source.url))),
    }
}

/// A file of any address, in a directory of its own, by the name `name`.
pub(super) fn get(
    remote: &Remote<'_>,
    source: &HttpSource,
    private: &Private,
    name: &str,
    trust: bool,
    job: &Job,
) -> Result<Kept> {
    let cache = Cache::open(&remote.engine.root)?;
    let place = private.tree_path().join(name);
    let known = cache.known(&source.url);
    if let Some(Checksum::Sha256(digest)) = source.checksum.as_ref().filter(|_| trust)
        && cache.take(digest, &place)?
    {
        let of_this = known.filter(|kept| kept.digest == *digest);
        return Ok(of_this.unwrap_or(Kept::of(*digest, source, None, None)));
    }
    let before = remote.files.lock().expect("no holder panics").get(&source.url).cloned();
    if let Some(kept) = before.filter(|_| trust)
        && cache.take(&kept.digest, &place)?
    {
        return kept.checked(source, &place);
    }
    let known = match known.filter(|_| trust) {
        Some(known) if cache.take(&known.digest, &place)? => Some(known),
        _ => None,
    };
    let draft = private.path().join("draft");
    let mut out = Hashed { file: create(&draft)?, hasher: Hasher::new() };
    let authorization = authorization(remote, &source.url);
    let conditions = Conditions {
        etag: known.as_ref().and_then(|kept| kept.etag.as_deref()),
        last_modified: known.as_ref().and_then(|kept| kept.last_modified.as_deref()),
        authorization: authorization.as_deref(),
        most: Some(LARGEST),
    };
    let kept = match registry::fetch(&source.url, remote.registry, conditions, &mut out, job)? {
        Fetched::Unchanged => {
            known.ok_or_else(|| Error::internal("304 to no condition"))?.checked(source, &place)?
        }
        Fetched::New { etag, last_modified, .. } => {
            let kept = Kept::of(out.hasher.finish(), source, etag, last_modified).checked(source, &draft)?;
            fs::rename(&draft, &place).context(|| "placing what was fetched")?;
            cache.keep(&source.url, &kept, &place, private)?;
            kept
        }
    };
    remote.files.lock().expect("no holder panics").insert(source.url.clone(), kept.clone());
    Ok(kept)
}

/// What the build's secrets hold for the host (BuildKit): `HTTP_AUTH_TOKEN_<host>`, or a whole header.
fn authorization(remote: &Remote<'_>, url: &str) -> Option<String> {
    let rest = url.split_once("://")?.1;
    let host = rest.split(['/', '?', '#']).next()?;
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let host = match host.strip_prefix('[') {
        Some(address) => address.split(']').next()?,
        None => host.split(':').next()?,
    };
    let token = remote.secret_text(&format!("HTTP_AUTH_TOKEN_{host}")).map(|token| format!("Bearer {token}"));
    token.or_else(|| remote.secret_text(&format!("HTTP_AUTH_HEADER_{host}")))
}

impl Kept {
    fn of(digest: Digest, source: &HttpSource, etag: Option<String>, last_modified: Option<String>) -> Self {
        Kept { digest, etag, last_modified, address: Some(without_password(&source.url)) }
    }

    /// `file` holds the bytes.
    fn checked(self, source: &HttpSource, file: &Path) -> Result<Self> {
        let Some(expected) = &source.checksum else { return Ok(self) };
        let found = match expected {
            Checksum::Sha256(_) => Checksum::Sha256(self.digest),
            _ => {
                let mut file = File::open(file).context(|| "reading what was fetched")?;
                expected.of_same_kind(&mut file).context(|| "reading what was fetched")?
            }
        };
        match found == *expected {
            true => Ok(self),
            false => Err(Error::invalid(format!(
                "`{}` is not what --checksum says: expected {expected}, got {found}",
                without_password(&source.url)
            ))
            .hint("it changed at its source, or the checksum is another file's")),
        }
    }
}

/// What a note says: the digest of the bytes, and their address.
pub(super) fn told(note: &Path) -> Option<(Digest, Option<String>)> {
    let kept: Kept = serde_json::from_slice(&fs::read(note).ok()?).ok()?;
    Some((kept.digest, kept.address))
}

/// Since 1970, of a date as HTTP writes it; 0 where there is none.
fn seconds(said: Option<&str>) -> i64 {
    date(said).unwrap_or(0)
}

fn date(said: Option<&str>) -> Option<i64> {
    OffsetDateTime::parse(said?, &Rfc2822).ok().map(OffsetDateTime::unix_timestamp)
}

struct Cache {
    dir: PathBuf,
    trash: PathBuf,
}

impl Cache {
    fn open(root: &Path) -> Result<Self> {
        let dir = root.join(PLACE);
        fs::create_dir_all(&dir).context(|| format!("making `{}`", dir.display()))?;
        Ok(Cache { dir, trash: root.join("trash") })
    }

    fn body(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.hex())
    }

    fn note(&self, url: &str) -> PathBuf {
        self.dir.join(format!("{}.json", name_of(url)))
    }

    /// What cannot be read is not known.
    fn known(&self, url: &str) -> Option<Kept> {
        serde_json::from_slice(&fs::read(self.note(url)).ok()?).ok()
    }

    /// Another name of the bytes at `place`, if they are here.
    fn take(&self, digest: &Digest, place: &Path) -> Result<bool> {
        drop(fs::remove_file(place));
        match fs::hard_link(self.body(digest), place) {
            Ok(()) => {
                trim::touch(place);
                Ok(true)
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(cause) => Err(cause).context(|| "taking a file from the cache"),
        }
    }

    /// Bytes first: a note without them is worth nothing, and does no harm.
    fn keep(&self, url: &str, kept: &Kept, place: &Path, private: &Private) -> Result<()> {
        let say = || "keeping what was fetched";
        let link = private.path().join("link");
        fs::hard_link(place, &link).context(say)?;
        fs::rename(&link, self.body(&kept.digest)).context(say)?;
        // Renaming to another name of the same file does nothing.
        drop(fs::remove_file(&link));
        let note = private.path().join("note");
        let text = serde_json::to_vec(kept).context(say)?;
        fs::write(&note, text).context(say)?;
        fs::rename(&note, self.note(url)).context(say)?;
        trim::trim(&self.dir, &self.trash, MOST_KEPT, |_| Some(()))
    }
}

fn create(path: &Path) -> Result<File> {
    let file = File::create(path).context(|| "making a file to fetch into")?;
    file.set_permissions(fs::Permissions::from_mode(0o600)).context(|| "making a file to fetch into")?;
    Ok(file)
}

struct Hashed {
    file: File,
    hasher: Hasher,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_called_as_the_path_of_its_address_ends() {
        for (url, name) in [
            ("http://h/a/b.tar.gz?x=y/z#f", "b.tar.gz"),
            ("http://h/a%20b", "a b"),
            ("http://h/a%2Fb", "b"),
            ("http://h/a/", "a"),
            ("http://h/", "__unnamed__"),
            ("http://h", "__unnamed__"),
            ("http://h?a=b/c", "__unnamed__"),
            ("http://h/..", "__unnamed__"),
        ] {
            assert_eq!(file_name(url), name, "{url}");
        }
    }

    #[test]
    fn dates_are_http_s() {
        assert_eq!(seconds(Some("Sun, 06 Nov 1994 08:49:37 GMT")), 784_111_777);
        assert_eq!(seconds(Some("soon")), 0);
        assert_eq!(seconds(None), 0);
    }
}
