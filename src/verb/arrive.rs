//! A layer's blob arrives, and is unpacked while it does.

use std::io::Read;

use crate::db::Lease;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::image::Descriptor;
use crate::job::Job;
use crate::layer::compress;
use crate::rootfs::{self, Archive, Prepared};
use crate::store::{Growing, Incoming};
use crate::transfer::Stream;

/// What of the blob came before is not asked for again; what somebody else is bringing is waited for. A blob once it
/// returns; unpacked, if it may stand on anything.
pub(super) fn arrive<'e>(
    engine: &'e Engine,
    blob: &Descriptor,
    stream: &mut Stream<'_>,
    here: &dyn Archive,
    lease: &Lease,
    job: &Job,
) -> Result<Option<Prepared<'e>>> {
    let Some(incoming) = engine.blobs.incoming(&blob.digest, blob.size, &|| stream.pause())? else {
        return rootfs::prepare(engine, here, lease, job);
    };
    let mut ready = Ok(None);
    incoming.receive(&mut |incoming| {
        let came;
        (came, ready) = both(engine, incoming, stream, lease, job)?;
        came
    })?;
    ready
}

/// Whether it came, and what became of unpacking it: which counts only if it did.
fn both<'e>(
    engine: &'e Engine,
    incoming: &mut Incoming,
    stream: &mut Stream<'_>,
    lease: &Lease,
    job: &Job,
) -> Result<(Result<()>, Result<Option<Prepared<'e>>>)> {
    let growing = incoming.growing()?;
    Ok(std::thread::scope(|scope| {
        let unpacking = scope.spawn(|| rootfs::prepare(engine, &growing, lease, job));
        let came = incoming.fill(stream, job);
        let unpacked = unpacking.join();
        (came, unpacked.unwrap_or_else(|_| Err(Error::internal("unpacking a layer panicked"))))
    }))
}

impl Archive for Growing {
    fn open(&self) -> Result<Box<dyn Read + Send + '_>> {
        Ok(compress::decoder(Box::new(self.read()))?.1)
    }
}
