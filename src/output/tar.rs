//! `type=tar`: the image's files as one tar.

use std::io::Write;
use std::path::Path;

use super::fields::Fields;
use super::progress::{self, Work};
use super::{Destination, Entry, Output, Product, Written, files};
use crate::error::Result;

pub(super) const ENTRY: Entry = Entry { name: "tar", read };

#[derive(Debug)]
struct Tar {
    to: Destination,
    /// A directory for each platform; `None`: where there are several.
    split: Option<bool>,
}

fn read(mut fields: Fields) -> Result<Box<dyn Output>> {
    let to = Destination::of(fields.take("dest").as_deref());
    let split = fields.flag("platform-split")?;
    fields.refuse(&["attestation-prefix"])?;
    fields.finish()?;
    Ok(Box::new(Tar { to, split }))
}

impl Output for Tar {
    fn describe(&self) -> String {
        match &self.to {
            Destination::Stream => "a tar to standard output".into(),
            Destination::File(path) => format!("the tar `{}`", path.display()),
        }
    }

    fn check(&self, _: usize) -> Result<()> {
        self.to.check()
    }

    fn is_stream(&self) -> bool {
        self.to == Destination::Stream
    }

    fn path(&self) -> Option<&Path> {
        self.to.path()
    }

    fn write(&self, product: &Product<'_>) -> Result<Written> {
        let total = progress::layers_size(product);
        let work = Work::start(product.job, format!("Writing {}", self.describe()), Some(total));
        self.to.write(product.stream, |out| {
            let last = product.images.len() - 1;
            for (n, image) in product.images.iter().enumerate() {
                let dir = (product.index && self.split != Some(false)).then(|| files::directory(image));
                // One archive in all: what ends the others is left out.
                let mut part = Part { out, held: Vec::new(), ends: n == last };
                files::write(product, image, dir.as_deref(), &mut part, &work)?;
            }
            Ok(())
        })?;
        Ok(Written::default())
    }
}

/// An archive of which the two blocks of zeros at its end are left out, unless it `ends` the whole.
struct Part<'o> {
    out: &'o mut (dyn Write + Send),
    held: Vec<u8>,
    ends: bool,
}

/// POSIX.1-2017, pax, "ustar Interchange Format": two blocks.
const END: usize = 1024;

impl Write for Part<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.ends {
            return self.out.write(bytes);
        }
        if bytes.len() >= END {
            self.out.write_all(&self.held)?;
            self.held.clear();
            self.out.write_all(&bytes[..bytes.len() - END])?;
            self.held.extend_from_slice(&bytes[bytes.len() - END..]);
        } else {
            self.held.extend_from_slice(bytes);
            let ready = self.held.len().saturating_sub(END);
            self.out.write_all(&self.held[..ready])?;
            self.held.drain(..ready);
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_part_is_left_out_however_it_is_written() {
        let archive: Vec<u8> = (0..5 * 512_u32).map(|n| n.to_le_bytes()[0] | 1).chain([0; END]).collect();
        for cut in [1, 100, 1023, 1024, 1025, 3000, 10_000] {
            let mut out = Vec::new();
            let mut part = Part { out: &mut out, held: Vec::new(), ends: false };
            archive.chunks(cut).for_each(|piece| part.write_all(piece).unwrap());
            assert!(out == archive[..5 * 512], "{cut}");
        }
    }
}
