//! What `info` shows, in Docker's words.

use std::path::Path;

use super::Running;
use super::pool::{METADATA_BLOCK, Usage};
use super::records::Record;
use super::settings::{Settings, Source};
use crate::error::{Context, Result};

pub(super) fn lines(
    running: &Running,
    settings: &Settings,
    dir: &Path,
    base: Option<&Record>,
    waiting: usize,
) -> Result<Vec<(&'static str, String)>> {
    let Running { pool, fixed } = running;
    let status = pool.status()?;
    let mut lines = vec![("Pool Name", pool.name.clone()), ("Pool Blocksize", human(fixed.block_size))];
    if let Some(base) = base {
        lines.push(("Base Device Size", human(base.size)));
    }
    lines.push(("Backing Filesystem", fixed.filesystem.clone()));
    let room = |usage: Usage, block: u64| {
        let free = usage.total.saturating_sub(usage.used);
        [usage.used, usage.total, free].map(|blocks| blocks * block)
    };
    let [data_used, data_total, mut data_free] = room(status.data, fixed.block_size);
    let [metadata_used, metadata_total, metadata_free] = room(status.metadata, METADATA_BLOCK);
    match &fixed.source {
        Source::Files => {
            let place = |name| dir.join(name).display().to_string();
            lines.extend([("Data loop file", place("data")), ("Metadata loop file", place("metadata"))]);
            // The files are sparse: no more fits than the disk below has room for.
            data_free = data_free.min(free_below(dir)?);
        }
        Source::Devices { data, metadata } => lines.extend([
            ("Data file", data.display().to_string()),
            ("Metadata file", metadata.display().to_string()),
        ]),
        Source::Pool { .. } => {}
    }
    lines.extend([
        ("Data Space Used", human(data_used)),
        ("Data Space Total", human(data_total)),
        ("Data Space Available", human(data_free)),
        ("Metadata Space Used", human(metadata_used)),
        ("Metadata Space Total", human(metadata_total)),
        ("Metadata Space Available", human(metadata_free)),
        ("Thin Pool Minimum Free Space", human(data_total / 100 * u64::from(settings.least_free))),
        ("Pool Mode", status.mode),
        ("Udev Sync Supported", "false".into()),
        ("Deferred Removal Enabled", "true".into()),
        ("Deferred Deletion Enabled", "true".into()),
        ("Deferred Deleted Device Count", waiting.to_string()),
    ]);
    Ok(lines)
}

/// Bytes of the disk below the pool's files.
pub(super) fn free_below(dir: &Path) -> Result<u64> {
    let below = rustix::fs::statvfs(dir).context(|| format!("examining {}", dir.display()))?;
    Ok(below.f_bavail.saturating_mul(below.f_frsize))
}

/// In units of 1000 with four digits, as Docker writes sizes (go-units HumanSize).
fn human(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let (mut power, mut unit) = (0, 1_u64);
    while power + 1 < UNITS.len() && bytes / unit >= 1000 {
        (power, unit) = (power + 1, unit * 1000);
    }
    let places = 4_usize.saturating_sub((bytes / unit).to_string().len());
    let scale = (0..places).fold(1, |scale, _| scale * 10);
    let rounded = (u128::from(bytes) * scale + u128::from(unit) / 2) / u128::from(unit);
    let (whole, fraction) = (rounded / scale, format!("{:0places$}", rounded % scale));
    let fraction = if places == 0 { "" } else { fraction.trim_end_matches('0') };
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{whole}{point}{fraction}{}", UNITS[power])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_with_four_digits() {
        let written = [0, 999, 65536, 10 << 30, 107_374_182_400, 2_147_483_648, 1_000_000].map(human);
        assert_eq!(written, ["0B", "999B", "65.54kB", "10.74GB", "107.4GB", "2.147GB", "1MB"]);
    }
}
