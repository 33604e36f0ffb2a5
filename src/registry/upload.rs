//! Sending (distribution-spec, "Push"): blobs that the registry does not have yet, and manifests.
//!
//! A blob is looked for first, then mounted from another repository, then uploaded: a small one in one request, a large
//! one in one that is taken up where it broke, as the registry says how much it has.

use std::io::Read;
use std::time::{Duration, SystemTime};

use ureq::http::header::{LOCATION, RANGE, RETRY_AFTER};
use ureq::http::{Method, Uri};

use super::auth::escape;
use super::patience::retry_after;
use super::problem::{Deed, Problem};
use super::route::{host_of, place_of, resolve, same_origin};
use super::scope::Scope;
use super::web::{Answer, Ask, Bytes, Sending, Web, is_passing};
use super::{MAX_ANSWER, Registry};
use crate::error::{Error, Kind, Result};
use crate::image::{Descriptor, Digest, MediaType, Reference};
use crate::job::Job;

/// Up to here a blob goes with the request that ends its upload.
const SMALL: u64 = 1 << 20;

/// What is between us and the registry may limit a request's size; then smaller ones are tried, not below this.
const LEAST_PIECE: u64 = 5 << 20;

/// A larger blob goes in pieces of so many bytes: what a piece has brought is not sent again. Those of one request may be:
/// Distribution's registry gives up an upload whose connection broke in the middle.
const PIECE: u64 = 32 << 20;

/// Progress that makes earlier failures forgotten.
const PROGRESS: u64 = 64 * 1024;

/// Repositories that are tried for mounting a blob; a refusal costs a request.
const MOUNTS: usize = 3;

const OCTETS: &str = "application/octet-stream";

/// How a blob came to be where it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placed {
    Uploaded,
    /// It was there.
    Exists,
    /// From this repository of the same registry.
    Mounted(String),
}

/// Gives a blob's bytes from the given one on, for every attempt anew.
pub trait Reopen: Sync {
    fn open(&self, offset: u64) -> Result<Box<dyn Read + Send + '_>>;
}

impl<F: Fn(u64) -> Result<Box<dyn Read + Send>> + Sync> Reopen for F {
    fn open(&self, offset: u64) -> Result<Box<dyn Read + Send + '_>> {
        self(offset)
    }
}

/// A blob to send.
pub struct Outgoing<'b> {
    pub blob: &'b Descriptor,
    /// Repositories of the same registry that may have it, the likeliest first.
    pub seen_in: &'b [String],
    /// Never asked where the registry has the blob.
    pub open: &'b (dyn Reopen + 'b),
    /// Told how many bytes are there.
    pub progress: &'b (dyn Fn(u64) + Sync),
    /// Where an upload that another process began goes on, if there is one.
    pub begun: Option<&'b str>,
    /// Told where it goes on, for the next process should this one die; `None`: nowhere any more.
    pub keep: &'b (dyn Fn(Option<&str>) + Sync),
}

impl<'b> Outgoing<'b> {
    /// Of which nobody is told anything.
    pub fn new(blob: &'b Descriptor, seen_in: &'b [String], open: &'b (dyn Reopen + 'b)) -> Self {
        Outgoing { blob, seen_in, open, progress: &|_| {}, begun: None, keep: &|_| {} }
    }
}

impl Registry {
    /// Whether the repository has the blob.
    pub fn has_blob(&self, job: &Job, name: &Reference, digest: &Digest) -> Result<bool> {
        let url = self.at(&format!("{}/blobs/{digest}", name.path()))?;
        let ask = Ask { method: Method::HEAD, ..Ask::of(&url) };
        let answer = self.authorized(&Scope::push(name.path()), job, &ask, Web::ask)?;
        match answer.status.as_u16() {
            200..=299 => Ok(true),
            // Some do not know HEAD.
            404 | 405 | 501 => Ok(false),
            // Where blobs lie, a HEAD may not be allowed.
            _ if !same_origin(&url, &answer.url) => Ok(false),
            _ => Err(self.refused(answer, &format!("the blob {}", digest.short()), Deed::Take)),
        }
    }

    /// Whether the repository has the manifest.
    pub fn has_manifest(&self, job: &Job, name: &Reference, digest: &Digest) -> Result<bool> {
        let url = self.at(&format!("{}/manifests/{digest}", name.path()))?;
        let accept: Vec<String> = MediaType::MANIFESTS.iter().map(MediaType::to_string).collect();
        let accept = accept.join(", ");
        let ask = Ask { method: Method::HEAD, accept: Some(&accept), ..Ask::of(&url) };
        let answer = self.authorized(&Scope::push(name.path()), job, &ask, Web::ask)?;
        match answer.status.as_u16() {
            200..=299 => Ok(true),
            404 => Ok(false),
            _ => Err(self.refused(answer, &format!("the manifest {}", digest.short()), Deed::Take)),
        }
    }

    /// Sees to it that the repository of `name` has the blob.
    pub fn push_blob(&self, job: &Job, name: &Reference, outgoing: &Outgoing<'_>) -> Result<Placed> {
        match self.find(job, name, &outgoing.blob.digest, outgoing.seen_in)? {
            Found::There(placed) => Ok(placed),
            Found::Absent(session) => {
                Upload::new(self, job, name, outgoing, session).run()?;
                Ok(Placed::Uploaded)
            }
        }
    }

    /// The same for a blob whose bytes are not at hand; `None` where the registry does not have it either.
    pub fn find_blob(
        &self,
        job: &Job,
        name: &Reference,
        digest: &Digest,
        seen_in: &[String],
    ) -> Result<Option<Placed>> {
        Ok(match self.find(job, name, digest, seen_in)? {
            Found::There(placed) => Some(placed),
            Found::Absent(_) => None,
        })
    }

    fn find(&self, job: &Job, name: &Reference, digest: &Digest, seen_in: &[String]) -> Result<Found> {
        match self.has_blob(job, name, digest) {
            Ok(true) => return Ok(Found::There(Placed::Exists)),
            Ok(false) => {}
            // Who may write need not be allowed to read.
            Err(refused) if refused.kind() == Kind::Denied => {
                tracing::debug!(%refused, "looking for a blob that is sent then");
            }
            Err(error) => return Err(error),
        }
        let mut session = None;
        for from in seen_in.iter().filter(|from| *from != name.path()).take(MOUNTS) {
            match self.mount(job, name, digest, from)? {
                Mount::Done => return Ok(Found::There(Placed::Mounted(from.clone()))),
                Mount::Session(url) => session = Some(url),
                Mount::Refused => {}
            }
        }
        Ok(Found::Absent(session))
    }

    /// Puts a manifest or an index, whose blobs and manifests are there, under a tag or under its digest. The subject
    /// that the registry has noted it for: it need not be listed by a tag (distribution-spec, "Pushing Manifests with
    /// Subject").
    pub fn push_manifest(
        &self,
        job: &Job,
        name: &Reference,
        selector: &str,
        manifest: &Descriptor,
        bytes: &[u8],
    ) -> Result<Option<Digest>> {
        let url = self.at(&format!("{}/manifests/{selector}", name.path()))?;
        let what = format!("the manifest `{selector}`");
        let media_type = manifest.media_type.to_string();
        let body = Sending {
            media_type: &media_type,
            length: bytes.len() as u64,
            range: None,
            bytes: &bytes,
            secret: false,
        };
        let ask = Ask { method: Method::PUT, body: Some(body), ..Ask::of(&url) };
        let answer = self.authorized(&Scope::push(name.path()), job, &ask, Web::ask)?;
        if !answer.status.is_success() {
            return Err(self.refused(answer, &what, Deed::Take));
        }
        let said = answer.header("docker-content-digest").and_then(|text| text.parse::<Digest>().ok());
        match said {
            Some(said) if said != manifest.digest => Err(Error::corrupt(format!(
                "{} keeps {what} under the digest {said}; it is {}",
                self.host, manifest.digest
            ))),
            _ => Ok(answer.header("oci-subject").and_then(|text| text.parse().ok())),
        }
    }

    fn mount(&self, job: &Job, name: &Reference, digest: &Digest, from: &str) -> Result<Mount> {
        let url = self.at(&format!("{}/blobs/uploads/?mount={digest}&from={}", name.path(), escape(from)))?;
        let scope = Scope::push(name.path()).and(&Scope::pull(from));
        let ask = Ask { method: Method::POST, body: Some(nothing()), ..Ask::of(&url) };
        // A token server may refuse because of the other repository alone.
        let answer = match self.authorized(&scope, job, &ask, Web::ask) {
            Err(error) if error.kind() == Kind::Denied => return Ok(Mount::Refused),
            answer => answer?,
        };
        Ok(match answer.status.as_u16() {
            201 => Mount::Done,
            202 => Mount::Session(self.location(&answer)?),
            _ => Mount::Refused,
        })
    }

    /// Where an upload goes on.
    fn location(&self, answer: &Answer) -> Result<Uri> {
        let next = answer.header(LOCATION.as_str()).and_then(|location| resolve(&answer.url, location));
        let next = next.ok_or_else(|| {
            Error::unavailable(format!("{} does not say where an upload goes", host_of(&answer.url)))
        })?;
        if answer.url.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
            return Err(Error::new(
                Kind::Denied,
                format!("{} sends an upload to plain HTTP at {}", host_of(&answer.url), host_of(&next)),
            )
            .hint("what stands before the registry must tell it that it is spoken to by HTTPS"));
        }
        Ok(next)
    }
}

enum Found {
    There(Placed),
    /// With an upload that has begun for it, if any.
    Absent(Option<Uri>),
}

enum Mount {
    Done,
    /// Not mounted; an upload has begun instead.
    Session(Uri),
    Refused,
}

fn nothing() -> Sending<'static> {
    Sending { media_type: OCTETS, length: 0, range: None, bytes: &(&[] as &[u8]), secret: false }
}

struct Upload<'u> {
    registry: &'u Registry,
    job: &'u Job,
    name: &'u Reference,
    outgoing: &'u Outgoing<'u>,
    what: String,
    /// Where it goes on; `None`: it is to be begun.
    session: Option<Uri>,
    /// Bytes that the registry has, as far as is known.
    at: u64,
    /// Bytes of one request.
    piece: u64,
    /// Nobody asked for pieces: without them it may do better.
    may_be_whole: bool,
    /// Failures since `mark`, the most bytes that were there at one.
    failed: u32,
    mark: u64,
    /// The registry found other bytes than were sent.
    garbled: u32,
}

/// Why a request came to nothing.
enum Trouble {
    /// Nothing will help.
    Final(Error),
    /// It may pass; wait so long if that is said.
    Passing(Error, Option<Duration>),
    /// The upload is gone: begin anew.
    Lost(Error),
    /// The registry has other bytes than it should have.
    Garbled(Error),
    /// Too much at once.
    Large(Error),
    /// Another part is expected.
    Unexpected(Error),
    /// A piece was not taken where the whole may be.
    Piece(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error.kind() {
            Kind::Unavailable => Trouble::Passing(error, None),
            _ => Trouble::Final(error),
        }
    }
}

impl<'u> Upload<'u> {
    fn new(
        registry: &'u Registry,
        job: &'u Job,
        name: &'u Reference,
        outgoing: &'u Outgoing<'u>,
        session: Option<Uri>,
    ) -> Self {
        let what = format!("the blob {}", outgoing.blob.digest.short());
        let (at, piece, may_be_whole) = (0, PIECE, true);
        let (failed, mark, garbled) = (0, 0, 0);
        Upload {
            registry,
            job,
            name,
            outgoing,
            what,
            session,
            at,
            piece,
            may_be_whole,
            failed,
            mark,
            garbled,
        }
    }

    /// What another process began, as far as the registry has it.
    fn take_up(&mut self) -> Result<()> {
        let Some(begun) = self.outgoing.begun.and_then(|begun| begun.parse().ok()) else { return Ok(()) };
        let other = self.session.replace(begun);
        let looked = self.look();
        self.job.check()?;
        if looked.is_err() || self.at == 0 {
            self.session = other;
        }
        self.mark = self.at;
        tracing::debug!(blob = %self.outgoing.blob.digest, at = self.at, "an upload that was begun before");
        Ok(())
    }

    /// Where it goes on from now on.
    fn goes_on_at(&mut self, session: Option<Uri>) {
        if self.outgoing.blob.size > SMALL {
            (self.outgoing.keep)(session.as_ref().map(Uri::to_string).as_deref());
        }
        self.session = session;
    }

    fn run(&mut self) -> Result<()> {
        self.take_up()?;
        loop {
            self.job.check()?;
            let (error, wait) = match self.step() {
                Ok(true) => {
                    self.goes_on_at(None);
                    return Ok(());
                }
                Ok(false) => continue,
                Err(Trouble::Piece(refused)) => {
                    tracing::debug!(blob = %self.outgoing.blob.digest, %refused, "in one piece, then");
                    (self.piece, self.may_be_whole, self.session) = (u64::MAX, false, None);
                    continue;
                }
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Passing(error, wait)) => (error, wait),
                // `recover` asks which.
                Err(Trouble::Unexpected(error)) => (error, Some(Duration::ZERO)),
                Err(Trouble::Lost(error)) => {
                    self.session = None;
                    (error, None)
                }
                Err(Trouble::Garbled(error)) => {
                    self.session = None;
                    self.garbled += 1;
                    if self.garbled > 1 {
                        return Err(error);
                    }
                    (error, None)
                }
                Err(Trouble::Large(error)) => {
                    let left = self.outgoing.blob.size - self.at;
                    if self.piece.min(left) <= LEAST_PIECE {
                        return Err(error);
                    }
                    self.piece = (self.piece.min(left) / 4).max(LEAST_PIECE);
                    self.may_be_whole = false;
                    (error, Some(Duration::ZERO))
                }
            };
            if self.recover(error, wait)? {
                self.goes_on_at(None);
                return Ok(());
            }
        }
    }

    /// One request further. True: the blob is there.
    fn step(&mut self) -> Result<bool, Trouble> {
        let size = self.outgoing.blob.size;
        let Some(session) = self.session.clone() else {
            let url = self.registry.at(&format!("{}/blobs/uploads/", self.name.path()))?;
            let answer = self.send(&Ask { method: Method::POST, body: Some(nothing()), ..Ask::of(&url) })?;
            let session = self.registry.location(&answer)?;
            self.goes_on_at(Some(session));
            self.at = 0;
            return Ok(false);
        };
        let left = size - self.at;
        if left > 0 && (size > SMALL || self.at > 0) {
            let length = left.min(self.piece);
            let whole = self.at == 0 && length == size;
            // What is sent in one piece needs no range, as Docker sends it; some registries know no other way.
            let range = (!whole).then(|| format!("{}-{}", self.at, self.at + length - 1));
            let by_choice = !whole && self.may_be_whole && self.piece == PIECE;
            let answer =
                self.carry(Method::PATCH, &session, length, range).map_err(|trouble| match trouble {
                    Trouble::Final(error) if by_choice && error.kind() != Kind::Cancelled => {
                        Trouble::Piece(error)
                    }
                    Trouble::Unexpected(error) if by_choice => Trouble::Piece(error),
                    other => other,
                })?;
            let now = self.at + length;
            let has = answer.header(RANGE.as_str()).and_then(has);
            let session = self.registry.location(&answer)?;
            self.goes_on_at(Some(session));
            // It may keep less than was sent. What cannot be, as `0-0` whatever was sent, or one byte too many, says nothing;
            // that all came right the registry finds out at the end.
            self.at = has.filter(|has| (self.at + 1..=now).contains(has)).unwrap_or(now);
            return Ok(false);
        }
        let separator = if session.query().is_some() { '&' } else { '?' };
        let end = format!("{session}{separator}digest={}", self.outgoing.blob.digest);
        let end: Uri = end.parse().map_err(|cause| {
            Error::unavailable(format!("{} gives no address to upload to", self.registry.host()))
                .because(cause)
        })?;
        self.carry(Method::PUT, &end, left, None)?;
        self.at = size;
        Ok(true)
    }

    fn carry(
        &self,
        method: Method,
        url: &Uri,
        length: u64,
        range: Option<String>,
    ) -> Result<Answer, Trouble> {
        let bytes = Rest { upload: self, length };
        let body = Sending { media_type: OCTETS, length, range, bytes: &bytes, secret: false };
        self.send(&Ask { method, body: Some(body), ..Ask::of(url) })
    }

    /// Once: what breaks is taken up by `recover`.
    fn send(&self, ask: &Ask<'_>) -> Result<Answer, Trouble> {
        let scope = Scope::push(self.name.path());
        let ask = Ask { fresh: self.failed > 0, ..ask.clone() };
        let mut answer = self.registry.authorized(&scope, self.job, &ask, Web::once)?;
        let status = answer.status;
        if status.is_success() {
            return Ok(answer);
        }
        let wait = answer.header(RETRY_AFTER.as_str()).and_then(|text| retry_after(text, SystemTime::now()));
        let problem = Problem::parse(&answer.read(MAX_ANSWER).unwrap_or_default());
        let host = place_of(&answer.url);
        let error = super::problem::refusal(status.as_u16(), &problem, host, &self.what, Deed::Take);
        Err(match (status.as_u16(), problem.code.as_str()) {
            (_, "DIGEST_INVALID" | "SIZE_INVALID") => Trouble::Garbled(
                Error::corrupt(format!("{host} received other bytes than those of {}", self.what))
                    .hint("push again; if it stays so, `outcrop system check` says whether they are damaged here")
                    .because(error),
            ),
            (_, "BLOB_UPLOAD_UNKNOWN" | "BLOB_UPLOAD_INVALID") => Trouble::Lost(error),
            (404 | 410, code) if self.session.is_some() && code != "NAME_UNKNOWN" => Trouble::Lost(error),
            (413, _) => Trouble::Large(error),
            (416, _) => Trouble::Unexpected(error),
            _ if is_passing(status) => Trouble::Passing(error, wait),
            _ => Trouble::Final(error),
        })
    }

    /// Waits, and finds out how much has arrived. True: all of it, and the upload is over.
    fn recover(&mut self, error: Error, asked: Option<Duration>) -> Result<bool> {
        let mut error = error;
        let mut asked = asked;
        loop {
            if self.at.saturating_sub(self.mark) >= PROGRESS {
                self.failed = 0;
            }
            // What was sent before and lost is no progress when it is sent again.
            self.mark = self.mark.max(self.at);
            self.failed += 1;
            let Some(wait) = self.registry.patience().wait(self.failed, asked.take()) else {
                return Err(error);
            };
            tracing::debug!(blob = %self.outgoing.blob.digest, at = self.at, %error, "taking an upload up again");
            self.job.pause(wait)?;
            match self.look() {
                Ok(done) => return Ok(done),
                Err(Trouble::Passing(again, wait)) => (error, asked) = (again, wait),
                Err(Trouble::Unexpected(again)) => (error, asked) = (again, Some(Duration::ZERO)),
                Err(Trouble::Lost(_) | Trouble::Garbled(_) | Trouble::Large(_) | Trouble::Piece(_)) => {
                    self.session = None;
                    return Ok(false);
                }
                Err(Trouble::Final(other)) => return Err(other),
            }
        }
    }

    fn look(&mut self) -> Result<bool, Trouble> {
        // The last answer may have been lost on its way.
        if self.at > 0 || self.outgoing.blob.size <= SMALL {
            let digest = &self.outgoing.blob.digest;
            if self.registry.has_blob(self.job, self.name, digest)? {
                return Ok(true);
            }
        }
        let Some(session) = &self.session else { return Ok(false) };
        let answer = self.send(&Ask::of(session))?;
        let has = answer.header(RANGE.as_str()).and_then(has).filter(|has| *has <= self.outgoing.blob.size);
        match has {
            Some(has) => self.at = has,
            None => self.session = None,
        }
        if let (Some(_), Some(location)) = (&self.session, answer.header(LOCATION.as_str()))
            && let Some(next) = resolve(&answer.url, location)
        {
            self.session = Some(next);
        }
        Ok(false)
    }
}

/// `0-9`, or with `bytes=` before: how many bytes are there. Registries say `0-0` for none, too; one byte sent twice
/// would be found out at the end.
fn has(range: &str) -> Option<u64> {
    let range = range.trim();
    let (start, end) = range.strip_prefix("bytes=").unwrap_or(range).split_once('-')?;
    match (start.trim().parse().ok()?, end.trim().parse::<u64>().ok()?) {
        (0u64, 0) => Some(0),
        (0, end) => end.checked_add(1),
        _ => None,
    }
}

/// What is to be sent next.
struct Rest<'r> {
    upload: &'r Upload<'r>,
    length: u64,
}

impl Bytes for Rest<'_> {
    fn open(&self) -> Result<Box<dyn Read + '_>> {
        if self.length == 0 {
            return Ok(Box::new(std::io::empty()));
        }
        let Upload { outgoing, at, .. } = self.upload;
        let bytes = outgoing.open.open(*at)?.take(self.length);
        Ok(Box::new(Watched { bytes, at: *at, upload: self.upload }))
    }
}

/// Tells how far it is, and stops when the job does.
struct Watched<'w, R> {
    bytes: R,
    at: u64,
    upload: &'w Upload<'w>,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.upload.job.check()?;
        let count = self.bytes.read(buffer)?;
        self.at += count as u64;
        (self.upload.outgoing.progress)(self.at);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_says_how_many_bytes_are_there() {
        for (text, bytes) in [
            ("0-9", Some(10)),
            ("bytes=0-9", Some(10)),
            ("0-0", Some(0)),
            (" 0-18446744073709551614 ", Some(u64::MAX)),
            ("0-18446744073709551615", None),
            ("5-9", None),
            ("0--1", None),
            ("", None),
            ("10", None),
        ] {
            assert_eq!(has(text), bytes, "{text}");
        }
    }
}
