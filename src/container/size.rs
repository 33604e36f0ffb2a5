//! How much a container has written.

use std::collections::HashSet;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::FileType;

use crate::db::{ContainerRow, ContainerState};
use crate::engine::Engine;
use crate::error::{Context as _, Result};
use crate::job::Job;
use crate::layer::{self, Changes, PackOptions};
use crate::sys::dir;

/// Bytes of the files in its writable layer, each inode once; none if it is removed meanwhile.
pub fn changed_bytes(engine: &Engine, row: &ContainerRow, job: &Job) -> Result<u64> {
    let measured = measure(engine, row, job);
    if measured.is_ok() {
        return measured;
    }
    match engine.db.read(|index| index.container(&row.id))? {
        Some(now) if now.state != ContainerState::Removing => measured,
        _ => Ok(0),
    }
}

fn measure(engine: &Engine, row: &ContainerRow, job: &Job) -> Result<u64> {
    let doing = || format!("measuring what container {} has written", row.id.short());
    let compared = engine.snapshots.compare(row.snapshot).context(doing)?;
    match compared.changes(false) {
        Changes::Upper { upper, .. } => {
            let mut bytes = 0;
            add(upper, &mut bytes, &mut HashSet::new()).context(doing)?;
            Ok(bytes)
        }
        // Only a comparison tells.
        trees @ (Changes::Trees { .. } | Changes::Touched { .. }) => {
            let packed = layer::pack(job, trees, PackOptions::default(), &mut (), &mut std::io::sink());
            Ok(packed.context(doing)?.bytes)
        }
    }
}

fn add(dir: BorrowedFd<'_>, bytes: &mut u64, seen: &mut HashSet<u64>) -> std::io::Result<()> {
    for name in dir::names(dir)? {
        // A container may be removing its files meanwhile.
        let Ok(stat) = dir::lstat(dir, &name) else { continue };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                if let Ok(below) = dir::open_dir(dir, &name) {
                    add(below.as_fd(), bytes, seen)?;
                }
            }
            FileType::RegularFile if stat.st_nlink == 1 || seen.insert(stat.st_ino) => {
                *bytes += u64::try_from(stat.st_size).unwrap_or(0);
            }
            _ => {}
        }
    }
    Ok(())
}
