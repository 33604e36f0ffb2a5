//! The id of a layer's content without its times.
//!
//! SHA-256 over the line `outcrop content 1\n` and then, for each row in the order of the paths' bytes, with numbers
//! as unsigned LEB128 and byte strings preceded by their length:
//!
//! ```text
//! path  kind  [mode uid gid]  [by kind]  link  xattr count  (name value)*
//! ```
//!
//! * `kind` is the number of `Kind`, plus 0x40 for an opaque directory, plus 0x80 for an implied one.
//! * A whiteout ends after `kind`. So does an implied directory, which is here only if it is opaque; all other
//!   implied rows are left out.
//! * By kind: a file's size and the 32 bytes of its digest; a symbolic link's target; a device's major and minor.
//! * `link` is 0 for a row that is not linked to an earlier one, else the number of that earlier row, the first of
//!   its group, counted from 1 over the rows that are here. So the numbers of groups do not matter.

use std::collections::HashMap;

use super::{Kind, Row};
use crate::error::{Error, Result};
use crate::image::{ContentId, Hasher};

const VERSION: &[u8] = b"outcrop content 1\n";

/// Of rows in the order of their paths' bytes, each path once. Times and implied rows do not count.
pub fn content_id(rows: impl IntoIterator<Item = Result<Row>>) -> Result<ContentId> {
    let mut hasher = Hasher::new();
    hasher.update(VERSION);
    let mut groups: HashMap<u32, u64> = HashMap::new();
    let mut bytes = Vec::new();
    let mut last: Option<Vec<u8>> = None;
    let mut count = 0;
    for row in rows {
        let row = row?;
        if last.as_ref().is_some_and(|last| *last >= row.path) {
            return Err(Error::internal(format!("rows out of order at `{}`", row.path.escape_ascii())));
        }
        if !row.implied || row.opaque {
            count += 1;
            let first = row.link.filter(|_| !row.implied).map(|group| *groups.entry(group).or_insert(count));
            put_row(&mut bytes, &row, first.filter(|first| *first != count).unwrap_or(0))?;
            hasher.update(&bytes);
            bytes.clear();
        }
        last = Some(row.path);
    }
    Ok(ContentId(hasher.finish()))
}

fn put_row(out: &mut Vec<u8>, row: &Row, link: u64) -> Result<()> {
    put_bytes(out, &row.path);
    out.push(row.kind as u8 | if row.opaque { 0x40 } else { 0 } | if row.implied { 0x80 } else { 0 });
    if row.kind == Kind::Whiteout || row.implied {
        return Ok(());
    }
    for number in [row.mode, row.uid, row.gid] {
        put_number(out, number.into());
    }
    match row.kind {
        Kind::File => {
            put_number(out, row.size);
            let digest = row.digest.ok_or_else(|| {
                Error::internal(format!("the row of `{}` has no digest", row.path.escape_ascii()))
            })?;
            out.extend_from_slice(digest.as_bytes());
        }
        Kind::Symlink => put_bytes(out, &row.target),
        Kind::Char | Kind::Block => {
            put_number(out, row.rdev.0.into());
            put_number(out, row.rdev.1.into());
        }
        Kind::Dir | Kind::Fifo | Kind::Whiteout => {}
    }
    put_number(out, link);
    put_number(out, row.xattrs.len() as u64);
    for (name, value) in &row.xattrs {
        put_bytes(out, name);
        put_bytes(out, value);
    }
    Ok(())
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Unsigned LEB128.
pub(super) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7f).expect("masked") | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).expect("below 0x80"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Digest;

    fn file(path: &str, link: Option<u32>) -> Row {
        Row {
            mode: 0o644,
            size: 3,
            digest: Some(Digest::of(b"abc")),
            mtime: 7,
            link,
            ..Row::bare(path, Kind::File)
        }
    }

    fn id(rows: &[Row]) -> ContentId {
        content_id(rows.iter().cloned().map(Ok)).unwrap()
    }

    #[test]
    fn the_stored_format_does_not_change() {
        assert_eq!(
            id(&[file("a", None)]).to_string(),
            "sha256:e1346191233a9b0f83a39cfe6235d534c0455c61f6729d9d4ffb29ea7a29b487"
        );
    }

    #[test]
    fn times_and_implied_directories_do_not_count() {
        let mut later = file("a/b", None);
        later.mtime = 8;
        let implied =
            Row { path: b"a".into(), kind: Kind::Dir, implied: true, digest: None, ..file("a", None) };
        assert_eq!(id(&[file("a/b", None)]), id(&[implied, later]));
    }

    #[test]
    fn link_groups_count_by_their_members_and_not_by_their_numbers() {
        let linked = id(&[file("a", Some(1)), file("b", Some(1)), file("c", None)]);
        assert_eq!(linked, id(&[file("a", Some(9)), file("b", Some(9)), file("c", None)]));
        assert_ne!(linked, id(&[file("a", None), file("b", None), file("c", None)]));
        assert_ne!(linked, id(&[file("a", Some(1)), file("b", None), file("c", Some(1))]));
        assert_eq!(id(&[file("a", Some(1))]), id(&[file("a", None)]));
    }

    #[test]
    fn rows_out_of_order_are_a_bug() {
        assert!(content_id([file("b", None), file("a", None)].map(Ok)).is_err());
    }
}
