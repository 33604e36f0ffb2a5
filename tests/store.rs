//! The index and the blobs: many processes at once, kills, reboots, and what keeps what.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use outcrop::db::{
    Db, KeyKind, Keyed, LayerNumber, Lease, NewCacheRecord, NewContainer, NewImage, NewLayer, Origin, Sealed,
    SnapshotId,
};
use outcrop::error::Kind;
use outcrop::image::{CacheKey, ChainId, ContentId, DiffId, Digest, ImageId};
use outcrop::layer::{self, Row, RowSink as _};

use crate::sandbox::Sandbox;

fn file(path: &str, content: &[u8]) -> Row {
    Row {
        path: path.into(),
        kind: layer::Kind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        size: content.len() as u64,
        digest: Some(Digest::of(content)),
        mtime: 1_700_000_000_000_000_000,
        rdev: (0, 0),
        target: Vec::new(),
        link: None,
        opaque: false,
        implied: false,
        xattrs: BTreeMap::new(),
    }
}

fn digest_of(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

/// A layer of one file named `name`, published, with a sealed snapshot.
fn add_layer(db: &Db, lease: &Lease, name: &str) -> (LayerNumber, SnapshotId) {
    let slot = db.reserve_layer(lease).unwrap();
    let mut rows = slot.rows().unwrap();
    rows.row(file(name, name.as_bytes())).unwrap();
    let row_count = rows.finish().unwrap();
    db.write(|writer| {
        let published = writer.publish_layer(&NewLayer {
            number: slot.number(),
            diff_id: DiffId(digest_of(name)),
            base: None,
            leans: false,
            content_id: ContentId(digest_of(&format!("content of {name}"))),
            size: name.len() as u64,
            tar_size: 2048,
            row_count,
            made_by: Some(format!("COPY {name} /")),
            build: None,
        })?;
        let id = writer.new_snapshot("vfs", &[], lease)?;
        writer.snapshot_made(id)?;
        let id = match writer.seal_snapshot(id, Keyed::Layer(published.number))? {
            Sealed::Now => id,
            Sealed::Already(other) => {
                writer.remove_snapshot(id)?;
                other
            }
        };
        Ok((published.number, id))
    })
    .unwrap()
}

/// An image of these layers on top of another image; its config is the name.
fn add_image(db: &Db, name: &str, parent: Option<ImageId>, layers: &[LayerNumber]) -> ImageId {
    let id = ImageId(digest_of(name));
    std::fs::write(db.root().join("blobs/sha256").join(id.hex()), name).unwrap();
    db.write(|writer| {
        writer.insert_blob(&id.0, name.len() as u64, None)?;
        let mut chain = match &parent {
            Some(parent) => writer.image(parent)?.unwrap().chain,
            None => None,
        };
        for layer in layers {
            chain = Some(writer.add_chain(chain.as_ref(), *layer)?);
        }
        writer.insert_image(&NewImage {
            id,
            parent,
            chain,
            platform: "linux/amd64".into(),
            created: Some("2024-01-01T00:00:00Z".into()),
            created_by: Some(format!("RUN make {name}")),
            origin: Origin::Built,
            build: None,
        })
    })
    .unwrap();
    id
}

fn tag(db: &Db, name: &str, image: ImageId) {
    db.barrier(|_| Ok(()), |durable| durable.move_tag(name, &image, None, "tag", None)).unwrap();
}

fn no_tree(_: &outcrop::db::SnapshotRow) -> outcrop::error::Result<()> {
    Ok(())
}

fn sqlite3(database: &Path, sql: &str) -> String {
    let output = Command::new("sqlite3").arg(database).arg(sql).output().expect("sqlite3 is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

fn store(sandbox: &Sandbox) -> Db {
    Db::open(&sandbox.root()).unwrap()
}

#[test]
fn what_an_image_stands_on_stays_until_the_image_goes() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let lease = db.lease().unwrap();
    let (one, _) = add_layer(&db, &lease, "one");
    let (two, _) = add_layer(&db, &lease, "two");
    let base = add_image(&db, "base", None, &[one]);
    let top = add_image(&db, "top", Some(base), &[two]);
    tag(&db, "docker.io/library/x:latest", top);
    drop(lease);

    assert!(db.sweep(&no_tree).unwrap().complete);
    assert_eq!(
        db.read(|reader| reader.stack(Some(&ChainId::of(&[DiffId(digest_of("one"))]).unwrap())))
            .unwrap()
            .len(),
        1
    );
    let error = db.write(|writer| writer.condemn_images(&[base])).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);

    db.durable(|durable| {
        durable.remove_tag("docker.io/library/x:latest", "rmi", None)?;
        let gone = durable.condemn_images(&[top])?;
        assert_eq!(gone.images, [top, base]);
        assert_eq!(gone.layers, [(one, 3), (two, 3)]);
        assert_eq!(gone.bytes(), 3 + 3 + 4 + 3);
        Ok(())
    })
    .unwrap();
    let swept = db.sweep(&no_tree).unwrap();
    assert!(swept.complete && swept.failed.is_empty(), "{swept:?}");
    assert_eq!((swept.images, swept.layers, swept.snapshots, swept.blobs), (2, 2, 2, 2));
    assert_eq!(db.numbers_with_rows().unwrap(), []);
    assert_eq!(std::fs::read_dir(sandbox.root().join("blobs/sha256")).unwrap().count(), 0);
}
