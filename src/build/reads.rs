//! What a step that writes files saw of what it stands on. Where another stack shows the same there, the step would
//! leave the same layer: it need not be done again (its record is found by the key without the stack).
//!
//! Seen are: the way to everything it was to write, component by component, links followed; and the place of all that it
//! did write. Where nothing stands, nothing below needs to be looked at.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use crate::context::Input;
use crate::db::LayerNumber;
use crate::engine::Engine;
use crate::error::{Context as _, Result};
use crate::image::Hasher;
use crate::layer::{Kind, Row};
use crate::plan;
use crate::rootfs::{Layer, Stack};
use crate::runtime::user;

/// By path below the root: what stood there, in words; `None` where nothing did.
type Seen = BTreeMap<String, Option<String>>;

/// What saw more is known on its own stack alone: looking that up elsewhere would cost more than doing it.
const MOST: usize = 1024;
/// As many as the kernel follows (path_resolution(7)).
const MOST_LINKS: usize = 40;

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
            let name = source.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            ways.push(join(destination, &item.path));
            if item.path.is_empty() && !source.is_dir {
                ways.push(join(destination, name));
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
            let name = source.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            [join(destination, &item.path), join(destination, name)]
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

    /// Looks at every component of the way, links followed, as far as there is something. False: it cannot be told.
    fn along(&mut self, way: &[u8]) -> Result<bool> {
        if self.nothing.as_deref().is_some_and(|nothing| is_below(way, nothing)) {
            return Ok(true);
        }
        let mut links = 0;
        let mut real = Vec::new();
        let mut rest: Vec<Vec<u8>> = parts(way).rev().map(<[u8]>::to_vec).collect();
        match self.look(&real)? {
            Found::Unknown => return Ok(false),
            Found::Nothing | Found::Dir | Found::Link | Found::Other => {}
        }
        while let Some(part) = rest.pop() {
            if part == b".." {
                real.truncate(real.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
                continue;
            }
            let here = join(&real, &part);
            match self.look(&here)? {
                Found::Unknown => return Ok(false),
                Found::Other => return Ok(true),
                Found::Nothing => {
                    if links == 0 {
                        self.nothing = Some(here);
                    }
                    return Ok(true);
                }
                Found::Dir => real = here,
                Found::Link => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Ok(false);
                    }
                    let target = &self.targets[&here];
                    if target.starts_with(b"/") {
                        real.clear();
                    }
                    rest.extend(parts(target).rev().map(<[u8]>::to_vec));
                }
            }
        }
        Ok(true)
    }

    /// What stands at a path whose parents are directories.
    fn look(&mut self, path: &[u8]) -> Result<Found> {
        let Ok(name) = std::str::from_utf8(path) else { return Ok(Found::Unknown) };
        if let Some(known) = self.seen.get(name) {
            return Ok(match known.as_deref().map(|words| &words[..1]) {
                None => Found::Nothing,
                Some("d") => Found::Dir,
                Some("l") => Found::Link,
                Some(_) => Found::Other,
            });
        }
        if self.seen.len() >= MOST {
            return Ok(Found::Unknown);
        }
        let Some(row) = self.row(path)? else {
            self.seen.insert(name.to_owned(), None);
            return Ok(Found::Nothing);
        };
        let Some(words) = words(&row, self.times) else { return Ok(Found::Unknown) };
        self.seen.insert(name.to_owned(), Some(words));
        Ok(match row.kind {
            Kind::Dir => Found::Dir,
            Kind::Symlink => {
                self.targets.insert(path.to_vec(), row.target);
                Found::Link
            }
            _ => Found::Other,
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

enum Found {
    Nothing,
    Dir,
    Link,
    Other,
    /// It cannot be told.
    Unknown,
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

fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".")
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    match (parent.is_empty(), name.is_empty()) {
        (true, _) => name.to_vec(),
        (_, true) => parent.to_vec(),
        _ => [parent, b"/", name].concat(),
    }
}

fn is_below(path: &[u8], above: &[u8]) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}
