//! What a source selected, kept as a list of lines beside the cache: two lists tell which files made a key differ.
//!
//! For people alone: no key is made of it, paths that are no UTF-8 are shown as near as can be, and it may be lost.

use serde::{Deserialize, Serialize};

use super::Input;
use super::select::join;
use crate::error::{Context as _, Result};
use crate::image::Digest;
use crate::layer::Kind;

/// A file, directory or link that was selected. One line of JSON each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Below the tree it was selected from.
    pub path: String,
    /// `file`, `dir`, `symlink`, `char`, `block`, `fifo`.
    pub kind: String,
    /// Permission bits.
    pub mode: u32,
    /// `None` where owners mean nothing: in a build context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<(u32, u32)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rdev: u64,
    /// The digest of the extended attributes, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xattrs: Option<Digest>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// In the order of the selection.
pub fn entries<'i>(input: &'i Input<'_>) -> impl Iterator<Item = Entry> + 'i {
    let owners = input.tree.keeps_owners();
    input.selection.files().map(move |(source, item)| Entry {
        path: String::from_utf8_lossy(&join(&source.path, &item.path)).into_owned(),
        kind: word(item.kind).to_owned(),
        mode: item.mode,
        owner: owners.then_some((item.uid, item.gid)),
        digest: item.digest,
        target: String::from_utf8_lossy(&item.target).into_owned(),
        rdev: item.rdev,
        xattrs: (!item.xattrs.is_empty()).then(|| {
            let fields: Vec<u8> = item
                .xattrs
                .iter()
                .flat_map(|(key, value)| [key.as_slice(), b"\0", value.as_slice(), b"\0"].concat())
                .collect();
            Digest::of(&fields)
        }),
    })
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Dir => "dir",
        Kind::Symlink => "symlink",
        Kind::Char => "char",
        Kind::Block => "block",
        Kind::Fifo => "fifo",
        Kind::Whiteout => "whiteout",
    }
}

pub fn write(entries: impl Iterator<Item = Entry>, out: &mut dyn std::io::Write) -> Result<()> {
    let say = || "writing a list of files";
    for entry in entries {
        let mut line = serde_json::to_vec(&entry).context(say)?;
        line.push(b'\n');
        out.write_all(&line).context(say)?;
    }
    Ok(())
}

pub fn read(text: &[u8]) -> Result<Vec<Entry>> {
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).context(|| "reading a list of files")).collect()
}
