//! `export`: all that a container sees, as one tar.

use std::io::Write;
use std::os::fd::AsFd as _;

use crate::container::{self, Still};
use crate::db::ContainerRow;
use crate::engine::Engine;
use crate::error::{Context as _, Result};
use crate::job::Job;
use crate::layer::{self, Changes, PackOptions};
use crate::snapshot::Purpose;

/// The same files make the same bytes. Of a container that runs, it is what it sees at one moment.
pub fn export(engine: &Engine, row: &ContainerRow, out: &mut (dyn Write + Send), job: &Job) -> Result<()> {
    let doing = || format!("exporting container {}", row.id.short());
    let still = Still::of(engine, row, true).context(doing)?;
    if !still.runs() {
        let view = engine.snapshots.open_container(still.row.snapshot);
        let packed = view.and_then(|view| pack(view.as_fd(), out, job));
        // Before what the packing says: a tree that was removed beneath it is the cause, and not the effect.
        return still.end(engine).and(packed).context(doing);
    }
    // An upper must not be mounted twice.
    // Before its files: if it ends meanwhile, its mount points go, and the copy may still have some.
    let made = container::mount_points(engine, &row.id)?;
    let copied = engine.snapshots.copy(still.row.snapshot, Purpose::Layer);
    still.end(engine).context(doing)?;
    let draft = copied.context(doing)?;
    let mounted = draft.mounted().context(doing)?;
    made.undo(mounted.as_fd())?;
    pack(mounted.as_fd(), out, job).context(doing)
}

fn pack(tree: std::os::fd::BorrowedFd<'_>, out: &mut (dyn Write + Send), job: &Job) -> Result<()> {
    let options = PackOptions { tee: Some(out), ..PackOptions::default() };
    let trees = Changes::Trees { tree, parent: None };
    layer::pack(job, trees, options, &mut (), &mut std::io::sink()).map(drop)
}
