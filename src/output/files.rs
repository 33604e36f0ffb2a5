//! The files of an image as a tar: what `type=tar` writes, and `type=local` unpacks.

use std::io::Write;
use std::os::fd::AsFd as _;

use super::progress::Work;
use super::{Image, Product};
use crate::error::{Context as _, Result};
use crate::layer::{self, Changes, PackOptions, Root};

/// Owners, modes, attributes, links and devices as they are; sockets are left out. With SOURCE_DATE_EPOCH every time is
/// that one, as in BuildKit.
pub(super) fn write(
    product: &Product<'_>,
    image: &Image,
    below: Option<&str>,
    out: &mut (dyn Write + Send),
    work: &Work<'_>,
) -> Result<()> {
    let doing = || "reading the image's files";
    let view = image.stack.view(product.engine).context(doing)?;
    let mut watched = Watched { out, work };
    let options = PackOptions {
        time: product.epoch,
        root: below.map_or(Root::Left, Root::In),
        tee: Some(&mut watched),
        ..PackOptions::default()
    };
    let trees = Changes::Trees { tree: view.as_fd(), parent: None };
    layer::pack(product.job, trees, options, &mut (), &mut std::io::sink()).map(drop)
}

/// `linux/arm/v7` as a directory.
pub(super) fn directory(image: &Image) -> String {
    image.platform.to_string().replace('/', "_")
}

struct Watched<'w> {
    out: &'w mut (dyn Write + Send),
    work: &'w Work<'w>,
}

impl Write for Watched<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.work.passed(written as u64)?;
        Ok(written)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
