//! A blob's bytes over a connection that may break: taken up again where it broke.

use std::io::{self, Read};
use std::ops::Range;

use ureq::BodyReader;
use ureq::http::StatusCode;

use super::Registry;
use super::web::Answer;
use crate::error::{Error, Kind, Result};
use crate::image::{Descriptor, Reference};
use crate::job::Job;

/// Progress that makes earlier failures forgotten: a poor line gets through, a dead one does not.
const PROGRESS: u64 = 64 * 1024;

pub(super) struct BlobReader<'a> {
    registry: &'a Registry,
    job: &'a Job,
    path: String,
    what: String,
    wanted: Descriptor,
    body: Option<BodyReader<'static>>,
    at: u64,
    /// Where what is wanted ends.
    end: u64,
    /// Failures since `mark`.
    failed: u32,
    mark: u64,
}

impl<'a> BlobReader<'a> {
    /// Asks for the blob; an error here is the registry's answer.
    pub(super) fn open(
        registry: &'a Registry,
        job: &'a Job,
        name: &Reference,
        wanted: &Descriptor,
        offset: u64,
    ) -> Result<Self> {
        Self::open_part(registry, job, name, wanted, offset..wanted.size.max(offset))
    }

    /// Some bytes of it, which are not empty.
    pub(super) fn open_part(
        registry: &'a Registry,
        job: &'a Job,
        name: &Reference,
        wanted: &Descriptor,
        part: Range<u64>,
    ) -> Result<Self> {
        let mut reader = BlobReader {
            registry,
            job,
            path: name.path().to_owned(),
            what: format!("the blob {}", wanted.digest.short()),
            wanted: wanted.clone(),
            body: None,
            at: part.start,
            end: part.end,
            failed: 0,
            mark: part.start,
        };
        // A registry has nothing from the end on.
        if part.start < wanted.size {
            reader.connect()?;
        }
        Ok(reader)
    }

    /// Where it ends: behind the part that was asked for, if the registry gives all that is left.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    fn is_part(&self) -> bool {
        self.end < self.wanted.size
    }

    fn range(&self) -> (u64, Option<u64>) {
        (self.at, self.is_part().then_some(self.end))
    }

    fn connect(&mut self) -> Result<()> {
        let url = format!("{}/blobs/{}", self.path, self.wanted.digest);
        let mut answer = self.registry.ask(self.job, &self.path, &url, None, self.range());
        let refused = |answer: &Answer| matches!(answer.status.as_u16(), 400 | 403 | 405 | 416 | 501);
        if self.at > 0 && !self.is_part() && answer.as_ref().is_ok_and(refused) {
            // It may know no ranges; what is here is passed over then.
            answer = self.registry.ask(self.job, &self.path, &url, None, (0, None));
        }
        let answer = match answer.and_then(|answer| self.registry.accept(answer, &self.what)) {
            Ok(answer) => answer,
            Err(error) => return self.connect_elsewhere(error),
        };
        self.take(answer)
    }

    /// Foreign layers lie where their descriptor says.
    fn connect_elsewhere(&mut self, error: Error) -> Result<()> {
        if !self.wanted.media_type.is_foreign() {
            return Err(error);
        }
        for url in self.wanted.urls.clone() {
            let Ok(url) = url.parse() else { continue };
            let answer = self.registry.ask_elsewhere(self.job, &url, self.range());
            if let Ok(answer) = answer.and_then(|answer| self.registry.accept(answer, &self.what)) {
                return self.take(answer);
            }
        }
        Err(error)
    }

    /// What the answer says of its length must fit, and a server may ignore the range it was asked for.
    fn take(&mut self, answer: Answer) -> Result<()> {
        let (size, host) = (self.wanted.size, self.registry.host().to_owned());
        let length = answer.body.content_length();
        let skip = if answer.status == StatusCode::PARTIAL_CONTENT {
            let range = answer.header("content-range").and_then(parse_range);
            match range {
                Some((start, total)) if start == self.at && total.is_none_or(|total| total == size) => 0,
                _ => {
                    return Err(Error::corrupt(format!("{host} answers with another part of {}", self.what)));
                }
            }
        } else if self.is_part() && self.at > 0 {
            return Err(Error::unsupported(format!("{host} gives no parts of {}", self.what)));
        } else {
            self.end = size;
            self.at
        };
        let expected = self.end - self.at + skip;
        if let Some(length) = length.filter(|length| *length != expected) {
            return Err(Error::corrupt(format!(
                "{host} says that {} has {} bytes; its descriptor says {size}",
                self.what,
                length.saturating_add(size.saturating_sub(expected))
            )));
        }
        let mut body = answer.body.into_with_config().limit(u64::MAX).reader();
        self.skip(&mut body, skip)?;
        self.body = Some(body);
        Ok(())
    }

    fn skip(&mut self, body: &mut BodyReader<'static>, mut left: u64) -> Result<()> {
        let mut scrap = [0; 16 * 1024];
        while left > 0 {
            self.job.check()?;
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(scrap.len());
            match body.read(&mut scrap[..most]) {
                Ok(0) => return Err(self.broken(None)),
                Ok(count) => left -= u64::try_from(count).expect("a part of what is left"),
                Err(cause) => return Err(self.broken(Some(cause))),
            }
        }
        Ok(())
    }

    fn broken(&self, cause: Option<io::Error>) -> Error {
        let error = Error::unavailable(format!(
            "the connection to {} broke after {} of {} bytes of {}",
            self.registry.host(),
            self.at,
            self.wanted.size,
            self.what
        ))
        .hint("try again; what has arrived completely is kept");
        match cause {
            Some(cause) => error.because(cause),
            None => error,
        }
    }

    /// Counts a failure, waits, and connects again from where it broke.
    fn recover(&mut self, cause: Option<io::Error>) -> Result<()> {
        self.body = None;
        if self.at - self.mark >= PROGRESS {
            self.failed = 0;
        }
        self.mark = self.at;
        let mut error = self.broken(cause);
        loop {
            self.job.check()?;
            self.failed += 1;
            let Some(wait) = self.registry.patience().wait(self.failed, None) else { return Err(error) };
            tracing::debug!(blob = %self.wanted.digest, at = self.at, "taking a broken download up again");
            self.job.pause(wait)?;
            match self.connect() {
                Ok(()) => return Ok(()),
                // The line may break again while the beginning is skipped.
                Err(again) if again.kind() == Kind::Unavailable => error = again,
                Err(other) => return Err(other),
            }
        }
    }

    /// After the last byte there must be none.
    fn finish(&mut self) -> Result<()> {
        let Some(mut body) = self.body.take() else { return Ok(()) };
        match body.read(&mut [0]) {
            Ok(1..) => Err(Error::corrupt(format!(
                "{} sends more than the {} bytes that the descriptor of {} says",
                self.registry.host(),
                self.wanted.size,
                self.what
            ))),
            // The bytes are all there; how the connection ends is nobody's concern.
            Ok(0) | Err(_) => Ok(()),
        }
    }
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            self.job.check()?;
            let left = self.end.saturating_sub(self.at);
            if left == 0 {
                self.finish()?;
                return Ok(0);
            }
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
            if most == 0 {
                return Ok(0);
            }
            let Some(body) = &mut self.body else {
                return Err(self.broken(None).into());
            };
            match body.read(&mut buf[..most]) {
                Ok(0) => self.recover(None)?,
                Ok(count) => {
                    self.at += u64::try_from(count).expect("no more than was asked for");
                    return Ok(count);
                }
                Err(cause) => {
                    self.job.check()?;
                    self.recover(Some(cause))?;
                }
            }
        }
    }
}

/// `bytes 5-9/10`: where it starts, and of how many.
fn parse_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
    let (start, _) = range.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((start.trim().parse().ok()?, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_read_as_the_rfc_has_them() {
        assert_eq!(parse_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(parse_range("bytes 5-9/*"), Some((5, None)));
        for odd in ["", "bytes", "bytes */10", "items 1-2/3", "bytes x-1/2", "bytes 1-2"] {
            assert_eq!(parse_range(odd), None, "{odd}");
        }
    }
}
