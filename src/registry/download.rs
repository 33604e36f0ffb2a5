//! A file from anywhere on the web.

use std::io::{Read as _, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ureq::http::{StatusCode, Uri};

use super::Options;
use super::route::host_of;
use super::web::{Answer, Ask, Web};
use crate::error::{Context as _, Error, Kind, Result};
use crate::job::{Event, Job};

/// What a server is told, beyond the address.
#[derive(Clone, Copy, Default)]
pub struct Conditions<'c> {
    /// Of what is here: the server may answer that it has nothing newer.
    pub etag: Option<&'c str>,
    pub last_modified: Option<&'c str>,
    /// Sent to the origin of the address alone.
    pub authorization: Option<&'c str>,
    /// Bytes; more are an error.
    pub most: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// What the conditions name is what there is.
    Unchanged,
    New {
        size: u64,
        etag: Option<String>,
        last_modified: Option<String>,
    },
}

/// All of it into `out`; how many bytes. Redirects are followed; a server that falters is asked again.
pub fn download(url: &str, options: &Options, out: &mut dyn Write, job: &Job) -> Result<u64> {
    match fetch(url, options, Conditions::default(), out, job)? {
        Fetched::New { size, .. } => Ok(size),
        Fetched::Unchanged => Err(Error::internal(format!("`{url}` answers 304 to no condition"))),
    }
}

/// The same, if there is anything new. A user and a password in the address are sent, and in no message.
pub fn fetch(
    url: &str,
    options: &Options,
    conditions: Conditions<'_>,
    out: &mut dyn Write,
    job: &Job,
) -> Result<Fetched> {
    let shown = without_password(url);
    let bad = || {
        Error::invalid(format!("`{shown}` is no address to fetch from")).hint("write http://.. or https://..")
    };
    let (plain, userinfo) = split_userinfo(url);
    let address: Uri = plain.parse().map_err(|cause| bad().because(cause))?;
    if !matches!(address.scheme_str(), Some("http" | "https")) || address.host().is_none_or(str::is_empty) {
        return Err(bad());
    }
    let basic = userinfo.map(|userinfo| format!("Basic {}", BASE64_STANDARD.encode(userinfo)));
    let web = Web::new(options)?;
    let ask = Ask {
        authorization: conditions.authorization.or(basic.as_deref()),
        if_none_match: conditions.etag,
        if_modified_since: conditions.last_modified,
        ..Ask::of(&address)
    };
    let say = || format!("fetching `{shown}`");
    let mut answer = web.ask(job, &ask).context(say)?;
    let conditional = conditions.etag.is_some() || conditions.last_modified.is_some();
    if answer.status == StatusCode::NOT_MODIFIED && conditional {
        return Ok(Fetched::Unchanged);
    }
    if !answer.status.is_success() {
        return Err(refused(&shown, &answer));
    }
    let total = answer.body.content_length();
    let most = conditions.most.unwrap_or(u64::MAX);
    let too_long = || Error::invalid(format!("{}: it has more than {most} bytes", say()));
    if total.is_some_and(|total| total > most) {
        return Err(too_long());
    }
    let header = |name: &str| answer.header(name).map(str::to_owned);
    let (etag, last_modified) = (header("etag"), header("last-modified"));
    let work = Work::start(job, format!("Downloading from {shown}"), total);
    let mut reader = answer.body.as_reader();
    let mut buffer = vec![0; 128 << 10];
    let mut size = 0_u64;
    loop {
        job.check()?;
        let read = reader
            .read(&mut buffer)
            .map_err(|cause| Error::unavailable(format!("{}: the connection broke", say())).because(cause))?;
        if read == 0 {
            break;
        }
        size += read as u64;
        if size > most {
            return Err(too_long());
        }
        out.write_all(&buffer[..read]).context(|| format!("storing what `{shown}` sends"))?;
        job.report(Event::WorkProgress { id: work.id, done: size });
    }
    match total.filter(|total| *total != size) {
        None => Ok(Fetched::New { size, etag, last_modified }),
        Some(total) => Err(Error::unavailable(format!("`{shown}` ends after {size} of {total} bytes"))),
    }
}

fn refused(shown: &str, answer: &Answer) -> Error {
    let message = format!("fetching `{shown}`: {} answers {}", host_of(&answer.url), answer.status);
    match answer.status.as_u16() {
        401 | 403 | 407 => Error::new(Kind::Denied, message)
            .hint("it asks for authorization: is the address right, and may you read it?"),
        404 | 410 => Error::not_found(message).hint("is the address spelled right?"),
        500.. => Error::unavailable(message).hint("the server has trouble; try again later"),
        _ => Error::not_found(message),
    }
}

/// The address without `user:password@`, and that, unescaped.
fn split_userinfo(url: &str) -> (String, Option<Vec<u8>>) {
    let Some((scheme, rest)) = url.split_once("://") else { return (url.to_owned(), None) };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rsplit_once('@') {
        Some((userinfo, host)) => {
            let userinfo = percent_decoded(userinfo);
            let userinfo = if userinfo.contains(&b':') { userinfo } else { [&userinfo[..], b":"].concat() };
            (format!("{scheme}://{host}{}", &rest[end..]), Some(userinfo))
        }
        None => (url.to_owned(), None),
    }
}

/// `%20` and its like (RFC 3986, 2.1); what is no such escape stays.
pub fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let byte = digits
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(byte.unwrap_or(bytes[at]));
        at += if byte.is_some() { 3 } else { 1 };
    }
    out
}

/// A URL as it may be shown: a password in it is `xxxxx`.
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rsplit_once('@') {
        Some((user, host)) => {
            let user = user.split_once(':').map_or(user.to_owned(), |(name, _)| format!("{name}:xxxxx"));
            format!("{scheme}://{user}@{host}{}", &rest[end..])
        }
        None => url.to_owned(),
    }
}

/// Reported while it lives.
struct Work<'j> {
    job: &'j Job,
    id: u64,
}

impl<'j> Work<'j> {
    fn start(job: &'j Job, what: String, total: Option<u64>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1 << 32);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        job.report(Event::WorkStarted { id, what, total });
        Work { job, id }
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        self.job.report(Event::WorkDone { id: self.id });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        for (url, shown) in [
            ("https://a:b@host/x?y=1", "https://a:xxxxx@host/x?y=1"),
            ("https://token@host/x", "https://token@host/x"),
            ("https://host/a:b@c", "https://host/a:b@c"),
            ("git@host:x/y", "git@host:x/y"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }

    #[test]
    fn a_user_and_a_password_stand_before_the_host() {
        let split = |url| split_userinfo(url);
        assert_eq!(split("http://h/a@b"), ("http://h/a@b".into(), None));
        assert_eq!(split("http://u:p%40q@h/x"), ("http://h/x".into(), Some(b"u:p@q".to_vec())));
        assert_eq!(split("http://u@h"), ("http://h".into(), Some(b"u:".to_vec())));
        assert_eq!(percent_decoded("a%20b%zz%+1%"), b"a b%zz%+1%");
    }
}
