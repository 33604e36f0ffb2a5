//! Transfers that are watched and broken: images of archives, servers that get stuck in the middle of a blob, processes
//! that are killed.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use outcrop::image::Descriptor;

use crate::registry_kit::{Asked, Image, Layout, RealRegistry, Reply, Server, config_for};
use crate::sandbox::Sandbox;

pub(crate) const MB: usize = 1_000_000;
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// An image with one layer for each of these archives.
pub(crate) fn image_of(tars: &[Vec<u8>]) -> Image {
    Image::made(tars, config_for(&"linux/amd64".parse().unwrap()))
}

/// A registry with the image in it as `app:v1`.
pub(crate) fn filled(sandbox: &Sandbox, image: &Image) -> RealRegistry {
    let registry = RealRegistry::start(sandbox);
    registry.push(&Layout::single(&sandbox.dir().join("layout"), image), "app:v1");
    registry
}

pub(crate) fn is_of(asked: &Asked, blob: &Descriptor) -> bool {
    asked.method == "GET" && asked.path.ends_with(&format!("/blobs/{}", blob.digest))
}

/// The ranges that were asked for of a blob, in order; `all` where none was.
pub(crate) fn ranges(server: &Server, blob: &Descriptor) -> Vec<String> {
    let asked = server.asked();
    let of = asked.iter().filter(|asked| is_of(asked, blob));
    of.map(|asked| asked.header("range").unwrap_or("all").to_owned()).collect()
}

/// What a server does with a request for a layer.
pub(crate) type Later = fn(&Asked) -> Reply;

/// Gives `bytes` of the blob and then nothing more, as long as `stuck` says so.
pub(crate) fn stuck_after(
    registry: &RealRegistry,
    blob: &Descriptor,
    bytes: usize,
    stuck: &Arc<AtomicBool>,
    later: Later,
) -> Server {
    let (blob, stuck) = (blob.clone(), Arc::clone(stuck));
    Server::start(Some(registry.address), move |asked, _| match is_of(asked, &blob) {
        true if stuck.load(Ordering::SeqCst) => Reply::Change(Box::new(move |told| {
            told.length = Some(told.body.len());
            told.cut = Some(bytes);
            told.stall = Duration::from_secs(25);
        })),
        true => later(asked),
        false => Reply::Forward,
    })
}

pub(crate) fn ingest(sandbox: &Sandbox, blob: &Descriptor) -> PathBuf {
    sandbox.root().join("ingest").join(blob.digest.hex())
}

pub(crate) fn size(path: &PathBuf) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

pub(crate) fn is_stored(sandbox: &Sandbox, blob: &Descriptor) -> bool {
    sandbox.root().join("blobs/sha256").join(blob.digest.hex()).exists()
}

pub(crate) fn start(sandbox: &Sandbox, args: &[&str]) -> Child {
    sandbox.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

pub(crate) fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}
