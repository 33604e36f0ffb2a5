//! Layers as tars: whatever the bytes, an answer; and the same one again.

use outcrop::job::Job;
use outcrop::layer::{Row, scan};

pub fn check(data: &[u8]) {
    let read = || {
        let mut rows: Vec<Row> = Vec::new();
        let scanned = scan(&Job::silent(), &mut &data[..], None, &mut rows);
        (scanned.map(|scanned| (scanned.diff_id, scanned.size, scanned.bytes, scanned.rows)).ok(), rows)
    };
    let (first, second) = (read(), read());
    assert_eq!(first.0, second.0);
    let (Some((_, size, bytes, _)), rows) = first else { return };
    assert_eq!(size, data.len() as u64, "the whole archive counts");
    // Holes are no bytes of the archive, but nothing else comes from nowhere.
    assert!(bytes <= size || rows.iter().any(|row| row.size > size));
    assert_eq!(rows.len(), second.1.len());
    for row in &rows {
        assert!(!row.path.starts_with(b"/") && !row.path.ends_with(b"/"));
        assert!(!row.path.split(|byte| *byte == b'/').any(|part| part == b".." || part == b"."));
    }
}
