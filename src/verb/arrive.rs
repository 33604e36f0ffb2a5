//! A layer's blob arrives, and is unpacked while it does.

use std::io::{Read, Write as _};

use crate::db::Lease;
use crate::engine::Engine;
use crate::error::{Context as _, Error, Kind, Result};
use crate::image::Descriptor;
use crate::job::Job;
use crate::layer::compress;
use crate::rootfs::{self, Archive, Prepared};
use crate::store::{Growing, Incoming};
use crate::transfer::Stream;

/// Between two looks at what somebody else is bringing.
const LOOK: std::time::Duration = std::time::Duration::from_millis(50);

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
    let wait = || {
        job.pause(LOOK)?;
        stream.check()
    };
    let Some(mut incoming) = engine.blobs.incoming(&blob.digest, blob.size, &wait)? else {
        return rootfs::prepare(engine, here, lease, job);
    };
    loop {
        let resumed = incoming.have() > 0;
        let (came, unpacked) = both(engine, &mut incoming, stream, lease, job)?;
        match came {
            Ok(()) => {
                incoming.commit()?;
                return unpacked;
            }
            Err(error) if error.kind() == Kind::Corrupt => {
                if !resumed {
                    incoming.discard()?;
                    return Err(error);
                }
                // What was here may have been what was wrong.
                tracing::debug!(blob = %blob.digest, %error, "beginning again");
                incoming.restart()?;
            }
            Err(error) => return Err(error),
        }
    }
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
        let came = Ending(incoming).bring(stream, job);
        let unpacked = unpacking.join();
        (came, unpacked.unwrap_or_else(|_| Err(Error::internal("unpacking a layer panicked"))))
    }))
}

/// Whoever reads behind comes to an end, however it ends: else the scope would wait for ever.
struct Ending<'i>(&'i mut Incoming);

impl Ending<'_> {
    fn bring(self, stream: &mut Stream<'_>, job: &Job) -> Result<()> {
        match self.0.have() {
            0 => stream.start()?,
            have => stream.start_behind(have, self.0.hashed(&|| job.check())?)?,
        }
        let mut buffer = vec![0; 128 << 10];
        loop {
            let count = stream.read(&mut buffer).context(|| "fetching it")?;
            if count == 0 {
                break;
            }
            self.0.write_all(&buffer[..count]).context(|| "storing it")?;
        }
        stream.finish()?;
        self.0.end(true);
        Ok(())
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.end(false);
    }
}

impl Archive for Growing {
    fn open(&self) -> Result<Box<dyn Read + Send + '_>> {
        Ok(compress::decoder(Box::new(self.read()))?.1)
    }
}
