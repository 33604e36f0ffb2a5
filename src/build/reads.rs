//! What a step that writes files saw of what it stands on. Where another stack shows the same there, the step would
//! leave the same layer: it need not be done again (its record is found by the key without the stack).
//!
//! Seen are: the way to everything it was to write, component by component, links followed; and the place of all that it
//! did write. Where nothing stands, nothing below needs to be looked at.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use crate::context::{End, Input, Stands, base_name, follow, join};
use crate::db::LayerNumber;
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::image::Hasher;
use crate::layer::{Kind, Row, is_at_or_below};
use crate::plan;
use crate::rootfs::{Layer, Stack};
use crate::runtime::user;

/// By path below the root: what stood there, in words; `None` where nothing did.
type Seen = BTreeMap<String, Option<String>>;

/// What saw more is known on its own stack alone: looking that up elsewhere would cost more than doing it.
const MOST: usize = 1024;

/// As JSON. `None`: that is not known, and all that the step stands on counts.
pub(super) fn of_copy(
    engine: &Engine,
    stack: &Stack,
    copy: &plan::Copy,
    inputs: &[Input<'_>],
    layer: &Layer,
    times: bool,
) -> Result<Option<String>> {
    let destination = copy.destination.trim_matches('/').as_bytes();
    let mut looking = Looking::new(engine, stack, times);
    let mut ways = vec![destination.to_vec()];
    for input in inputs {
        for (source, item) in input.selection.files() {
            ways.push(join(destination, &item.path));
            if item.path.is_empty() && !source.is_dir {
                ways.push(join(destination, base_name(&source.path)));
            }
        }
    }
    ways.extend(copy.inline.iter().map(|file| join(destination, file.path.as_os_str().as_encoded_bytes())));
    if through_own_links(inputs, destination, &ways) {
        return Ok(None);
    }
    for way in ways {
        if !looking.along(&way)? {
            return Ok(None);
        }
    }
    looking.at_rows_of(layer)
}

/// The same of a WORKDIR: `None` for `layer` where the directory was there.
pub(super) fn of_workdir(
    engine: &Engine,
    stack: &Stack,
    (path, owner): (&str, &str),
    layer: Option<&Layer>,
    times: bool,
) -> Result<Option<String>> {
    let mut looking = Looking::new(engine, stack, times);
    let mut ways = vec![path.trim_matches('/')];
    if !owner.is_empty() && user::numbers(owner).is_none() {
        ways.extend(["etc/passwd", "etc/group"]);
    }
    for way in ways {
        if !looking.along(way.as_bytes())? {
            return Ok(None);
        }
    }
    match layer {
        Some(layer) => looking.at_rows_of(layer),
        None => Ok(looking.told()),
    }
}

/// Whether this stack shows what was seen then.
pub(super) fn hold(engine: &Engine, stack: &Stack, reads: &str, times: bool) -> Result<bool> {
    let seen: Seen = serde_json::from_str(reads).context(|| "reading what a cache record saw")?;
    let looking = Looking::new(engine, stack, times);
    for (path, expected) in &seen {
        match looking.row(path.as_bytes())? {
            Some(row) => match words(&row, times) {
                Some(now) if expected.as_ref() == Some(&now) => {}
                _ => return Ok(false),
            },
            None if expected.is_none() => {}
            None => return Ok(false),
        }
    }
    Ok(true)
}

/// Whether something is copied through a link that is copied itself: where that goes no way tells.
fn through_own_links(inputs: &[Input<'_>], destination: &[u8], ways: &[Vec<u8>]) -> bool {
    let items = inputs.iter().flat_map(|input| input.selection.files());
    let links: HashSet<Vec<u8>> = items
        .filter(|(_, item)| item.kind == Kind::Symlink)
        .flat_map(|(source, item)| {
            [join(destination, &item.path), join(destination, base_name(&source.path))]
        })
        .collect();
    let above =
        |way: &[u8]| way.iter().enumerate().any(|(at, byte)| *byte == b'/' && links.contains(&way[..at]));
    !links.is_empty() && ways.iter().any(|way| above(way))
}

struct Looking<'l> {
    engine: &'l Engine,
    /// Top first.
    layers: Vec<LayerNumber>,
    /// Times count, too.
    times: bool,
    seen: Seen,
    targets: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Where nothing stands; what was looked at last.
    nothing: Option<Vec<u8>>,
}

impl<'l> Looking<'l> {
    fn new(engine: &'l Engine, stack: &Stack, times: bool) -> Self {
        Looking {
            engine,
            layers: stack.layers().iter().rev().map(|layer| layer.number).collect(),
            times,
            seen: Seen::new(),
            targets: BTreeMap::new(),
            nothing: None,
        }
    }

    fn row(&self, path: &[u8]) -> Result<Option<Row>> {
        Ok(self.engine.db.row_in_stack(&self.layers, path)?.map(|found| found.row))
    }

    /// Looks at the way as far as there is something. False: it cannot be told.
    fn along(&mut self, way: &[u8]) -> Result<bool> {
        if self.nothing.as_deref().is_some_and(|nothing| is_at_or_below(way, nothing)) {
            return Ok(true);
        }
        let end = match self.look(b"") {
            Ok(_) => follow(way, |path| self.look(path)),
            Err(untold) => Err(untold),
        };
        match end {
            Ok(End::Nothing { place, straight }) => {
                if straight {
                    self.nothing = Some(place);
                }
                Ok(true)
            }
            Ok(End::At(_) | End::Blocked) => Ok(true),
            Ok(End::Loop) | Err(Untold::Unknown) => Ok(false),
            Err(Untold::Failed(error)) => Err(error),
        }
    }

    fn look(&mut self, path: &[u8]) -> Result<Stands, Untold> {
        let name = std::str::from_utf8(path).map_err(|_not_text| Untold::Unknown)?;
        if !self.seen.contains_key(name) {
            if self.seen.len() >= MOST {
                return Err(Untold::Unknown);
            }
            let row = self.row(path).map_err(Untold::Failed)?;
            let words = match &row {
                Some(row) => Some(words(row, self.times).ok_or(Untold::Unknown)?),
                None => None,
            };
            self.seen.insert(name.to_owned(), words);
            if let Some(row) = row.filter(|row| row.kind == Kind::Symlink) {
                self.targets.insert(path.to_vec(), row.target);
            }
        }
        Ok(match self.seen[name].as_deref().map(|words| &words[..1]) {
            None => Stands::Nothing,
            Some("d") => Stands::Dir,
            Some("l") => Stands::Link(self.targets[path].clone()),
            Some(_) => Stands::Other,
        })
    }

    /// And at all that the step wrote.
    fn at_rows_of(mut self, layer: &Layer) -> Result<Option<String>> {
        for row in self.engine.db.rows(layer.number) {
            if !self.along(&row?.path)? {
                return Ok(None);
            }
        }
        Ok(self.told())
    }

    fn told(&self) -> Option<String> {
        serde_json::to_string(&self.seen).ok()
    }
}

/// Why it cannot be told what stands there.
enum Untold {
    Unknown,
    Failed(Error),
}

/// Begins with the letter of its kind. `None`: the row does not say what is there.
fn words(row: &Row, times: bool) -> Option<String> {
    if row.implied && !row.path.is_empty() {
        return None;
    }
    let letter = match row.kind {
        Kind::File => '-',
        Kind::Dir => 'd',
        Kind::Symlink => 'l',
        Kind::Char => 'c',
        Kind::Block => 'b',
        Kind::Fifo => 'p',
        Kind::Whiteout => return None,
    };
    let mut words = format!("{letter} {:o} {}:{}", row.mode, row.uid, row.gid);
    match row.kind {
        Kind::File => write!(words, " {}", row.digest?).ok()?,
        Kind::Symlink => write!(words, " -> {}", row.target.escape_ascii()).ok()?,
        Kind::Char | Kind::Block => write!(words, " {},{}", row.rdev.0, row.rdev.1).ok()?,
        _ => {}
    }
    // The root's own is in no layer.
    if times && !row.path.is_empty() {
        write!(words, " {}", row.mtime).ok()?;
    }
    if !row.xattrs.is_empty() {
        let mut hasher = Hasher::new();
        for (key, value) in &row.xattrs {
            for field in [key, value] {
                hasher.update(&(field.len() as u64).to_le_bytes());
                hasher.update(field);
            }
        }
        write!(words, " {}", hasher.finish()).ok()?;
    }
    Some(words)
}
