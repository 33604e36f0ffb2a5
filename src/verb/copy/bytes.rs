//! A blob of a source, proved while it streams, however often it is begun anew.

use std::io::{self, Read, Write};
use std::sync::{Mutex, PoisonError};

use crate::error::{Context as _, Error, Result};
use crate::image::{Descriptor, Digest, Hasher, Reference};
use crate::job::Job;
use crate::registry::Reopen;
use crate::transfer::Source;

pub(super) struct Bytes<'s> {
    pub(super) job: &'s Job,
    pub(super) source: &'s dyn Source,
    pub(super) name: &'s Reference,
    pub(super) blob: &'s Descriptor,
    proof: Mutex<Proof>,
}

/// Of the bytes before `done`, whoever read them.
struct Proof {
    hasher: Option<Hasher>,
    done: u64,
}

impl<'s> Bytes<'s> {
    pub(super) fn of(
        job: &'s Job,
        source: &'s dyn Source,
        name: &'s Reference,
        blob: &'s Descriptor,
    ) -> Bytes<'s> {
        let proof = Mutex::new(Proof { hasher: Some(Hasher::new()), done: 0 });
        Bytes { job, source, name, blob, proof }
    }

    /// All of it; `tell` hears how many bytes are there.
    pub(super) fn write_to(&self, out: &mut dyn Write, tell: &dyn Fn(u64)) -> Result<()> {
        let doing = || format!("copying {} from {}", self.blob.digest.short(), self.source.place());
        let mut reader = self.open(0)?;
        let (mut buffer, mut done) = (vec![0; 128 << 10], 0);
        loop {
            match reader.read(&mut buffer).context(doing)? {
                0 => return Ok(()),
                count => {
                    out.write_all(&buffer[..count]).context(doing)?;
                    done += count as u64;
                    tell(done);
                }
            }
        }
    }

    /// The last bytes are given when all before them are the right ones, too.
    fn prove(&self, at: u64, bytes: &[u8]) -> Result<()> {
        let Descriptor { digest, size, .. } = self.blob;
        let mut proof = self.proof.lock().unwrap_or_else(PoisonError::into_inner);
        let end = at + bytes.len() as u64;
        if end > *size {
            return Err(Error::corrupt(format!(
                "{digest} is longer than the {size} bytes of its descriptor"
            )));
        }
        let fresh = proof.done.checked_sub(at).and_then(|known| usize::try_from(known).ok());
        if let (Some(hasher), Some(new)) = (&mut proof.hasher, fresh.and_then(|known| bytes.get(known..))) {
            hasher.update(new);
            proof.done = end;
        }
        if proof.done == *size
            && let Some(found) = proof.hasher.take().map(Hasher::finish)
        {
            compare(digest, &found)?;
        }
        Ok(())
    }
}

fn compare(wanted: &Digest, found: &Digest) -> Result<()> {
    if wanted == found {
        return Ok(());
    }
    Err(Error::corrupt(format!("{wanted} came with the digest {found}"))
        .hint("try again; if it stays so, the copy at the source is damaged"))
}

impl Reopen for Bytes<'_> {
    fn open(&self, offset: u64) -> Result<Box<dyn Read + Send + '_>> {
        if self.blob.size == 0 {
            compare(&self.blob.digest, &Digest::of(b""))?;
        }
        let bytes = self.source.blob(self.job, self.name, self.blob, offset)?;
        Ok(Box::new(Reader { of: self, bytes, at: offset }))
    }
}

struct Reader<'r> {
    of: &'r Bytes<'r>,
    bytes: Box<dyn Read + Send + 'r>,
    at: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.of.job.check()?;
        if buffer.is_empty() {
            return Ok(0);
        }
        let Descriptor { digest, size, .. } = self.of.blob;
        let count = self.bytes.read(buffer)?;
        if count == 0 && self.at < *size {
            let error = Error::corrupt(format!("{digest} ended after {} of {size} bytes", self.at));
            return Err(error.into());
        }
        self.of.prove(self.at, &buffer[..count])?;
        self.at += count as u64;
        Ok(count)
    }
}
