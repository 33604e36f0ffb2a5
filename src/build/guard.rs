//! Secrets that reappear in the layer of the step they were given to: looked for in what is packed, while it is packed.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memmem::Finder;

use super::Given;
use crate::error::{Error, Result};
use crate::layer::{Kind, Part, Row};
use crate::plan;

/// Shorter ones are found by accident.
const SHORTEST: usize = 8;
/// Bytes that are gathered before they are searched.
const GATHERED: usize = 256 << 10;

pub(super) struct Guard {
    secrets: Vec<Secret>,
    allowed: bool,
    /// What of the file at hand was not searched yet; without its line breaks too, as base64 is often broken into lines.
    plain: Window,
    joined: Window,
    /// Secrets that the file at hand was found to hold: indices.
    here: BTreeSet<usize>,
}

struct Secret {
    id: String,
    raw: Finder<'static>,
    /// What is the same of its base64 wherever it begins and whatever stands around it.
    encoded: Vec<Finder<'static>>,
}

impl Guard {
    /// `None` where the command is given no secret to look for.
    pub(super) fn of(run: &plan::Run, given: &Given) -> Option<Self> {
        let ids: BTreeSet<&str> = run
            .mounts
            .iter()
            .filter_map(|mount| match mount {
                plan::Mount::Secret(secret) => Some(&secret.id[..]),
                _ => None,
            })
            .collect();
        let secret = |id: &str| Secret::new(id, &given.secrets.get(id)?.0);
        let secrets: Vec<Secret> = ids.into_iter().filter_map(secret).collect();
        if secrets.is_empty() {
            return None;
        }
        let longest = |finders: &mut dyn Iterator<Item = &Finder<'static>>| {
            finders.map(|finder| finder.needle().len()).max().unwrap_or(0)
        };
        let plain = Window::new(longest(&mut secrets.iter().map(|secret| &secret.raw)));
        let joined = Window::new(longest(&mut secrets.iter().flat_map(|secret| &secret.encoded)));
        Some(Guard { secrets, allowed: given.allow_secret_leak, plain, joined, here: BTreeSet::new() })
    }

    /// A leak is told and no error.
    pub(super) fn allow(&mut self) {
        self.allowed = true;
    }

    /// For [`crate::layer::PackOptions::watch`]. `found` gets a sentence for each leak; unless they are allowed the
    /// first is an error.
    pub(super) fn watch<'g>(
        &'g mut self,
        found: &'g mut Vec<String>,
    ) -> impl FnMut(&Row, Part<'_>) -> Result<()> + 'g {
        move |row, part| {
            let before = found.len();
            match part {
                Part::Member => self.member(row, found),
                Part::Bytes(bytes) => self.bytes(row, bytes, found),
                Part::End => self.end(row, found),
            }
            match found.get(before) {
                Some(leak) if !self.allowed => Err(Error::invalid(leak.clone())
                    .hint("remove it in the same RUN step, or go on all the same with --allow-secret-leak")),
                _ => Ok(()),
            }
        }
    }

    /// What is known of a member before its bytes.
    fn member(&mut self, row: &Row, found: &mut Vec<String>) {
        let removed = row.kind == Kind::Whiteout;
        for secret in &self.secrets {
            let mut tell = |what: String| found.push(format!("the secret `{}` is {what}", secret.id));
            if !removed && secret.is_in(&row.path) {
                tell("in the name of a file".into());
            }
            if secret.is_in(&row.target) {
                tell(format!("in the target of {}", self.shown(row)));
            }
            for (name, value) in &row.xattrs {
                if secret.is_in(name) || secret.is_in(value) {
                    tell(format!("in an attribute of {}", self.shown(row)));
                }
            }
        }
        self.plain.clear();
        self.joined.clear();
        self.here.clear();
    }

    fn bytes(&mut self, row: &Row, bytes: &[u8], found: &mut Vec<String>) {
        for piece in bytes.chunks(GATHERED) {
            self.plain.add(piece);
            for line in piece.split(|byte| matches!(byte, b'\n' | b'\r')) {
                self.joined.add(line);
            }
            if self.plain.is_full() || self.joined.is_full() {
                self.search(row, found);
            }
        }
    }

    fn end(&mut self, row: &Row, found: &mut Vec<String>) {
        self.search(row, found);
        self.plain.clear();
        self.joined.clear();
    }

    fn search(&mut self, row: &Row, found: &mut Vec<String>) {
        for (n, secret) in self.secrets.iter().enumerate() {
            let how = if secret.raw.find(&self.plain.bytes).is_some() {
                ""
            } else if secret.encoded.iter().any(|encoded| encoded.find(&self.joined.bytes).is_some()) {
                ", as base64"
            } else {
                continue;
            };
            if self.here.insert(n) {
                found.push(format!("the secret `{}` is in {}{how}", secret.id, self.shown(row)));
            }
        }
        self.plain.slide();
        self.joined.slide();
    }

    /// A name that is a secret itself is not shown.
    fn shown(&self, row: &Row) -> String {
        match self.secrets.iter().any(|secret| secret.is_in(&row.path)) {
            true => "a file whose name holds one".into(),
            false => format!("`/{}`", row.path.escape_ascii()),
        }
    }
}

impl Secret {
    /// Line breaks at its end do not count. `None`: too short.
    fn new(id: &str, bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r'))? + 1;
        let bytes = &bytes[..end];
        if bytes.len() < SHORTEST {
            return None;
        }
        let encoded: BTreeSet<String> = (0..3).flat_map(|before| encoded(bytes, before)).collect();
        let finder = |needle: &[u8]| Finder::new(needle).into_owned();
        Some(Secret {
            id: id.to_owned(),
            raw: finder(bytes),
            encoded: encoded.iter().map(|text| finder(text.as_bytes())).collect(),
        })
    }

    fn is_in(&self, bytes: &[u8]) -> bool {
        self.raw.find(bytes).is_some() || self.encoded.iter().any(|encoded| encoded.find(bytes).is_some())
    }
}

/// The digits that `bytes` alone decide where so many bytes are before them, modulo three; both alphabets.
fn encoded(bytes: &[u8], before: usize) -> [String; 2] {
    let whole = [&vec![0; before][..], bytes].concat();
    let from = [0, 2, 3][before];
    let to = whole.len() * 8 / 6;
    [STANDARD_NO_PAD, URL_SAFE_NO_PAD].map(|engine| engine.encode(&whole)[from..to].to_owned())
}

/// The end of a stream, long enough that nothing is missed where two pieces meet.
struct Window {
    bytes: Vec<u8>,
    /// Of what is looked for.
    longest: usize,
}

impl Window {
    fn new(longest: usize) -> Self {
        Window { bytes: Vec::new(), longest }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Searched now, each byte is searched some two times at most.
    fn is_full(&self) -> bool {
        self.bytes.len() >= GATHERED + 2 * self.longest
    }

    /// Keeps what a match may begin with.
    fn slide(&mut self) {
        let keep = self.longest.saturating_sub(1).min(self.bytes.len());
        self.bytes.drain(..self.bytes.len() - keep);
    }

    fn clear(&mut self) {
        self.bytes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};

    fn guard(secret: &[u8]) -> Guard {
        let secret = Secret::new("it", secret).unwrap();
        let (raw, encoded) = (secret.raw.needle().len(), secret.encoded[0].needle().len() + 2);
        Guard {
            secrets: vec![secret],
            allowed: true,
            plain: Window::new(raw),
            joined: Window::new(encoded),
            here: BTreeSet::new(),
        }
    }

    /// What is found in a file that comes in these pieces.
    fn found(secret: &[u8], pieces: &[&[u8]]) -> Vec<String> {
        let mut guard = guard(secret);
        let row = Row::bare(b"file".to_vec(), Kind::File);
        let mut found = Vec::new();
        {
            let mut watch = guard.watch(&mut found);
            watch(&row, Part::Member).unwrap();
            for piece in pieces {
                watch(&row, Part::Bytes(piece)).unwrap();
            }
            watch(&row, Part::End).unwrap();
        }
        found
    }

    const SECRET: &[u8] = b"\xfb\xff\xfe-hunter2-\x00\xff";
    const RAW: &str = "the secret `it` is in `/file`";
    const ENCODED: &str = "the secret `it` is in `/file`, as base64";

    #[test]
    fn base64_is_found_at_every_place_in_both_alphabets_and_broken_into_lines() {
        for before in 0..7 {
            for after in 0..4 {
                let all = [&b"abcdefg"[..before], SECRET, &b"hijk"[..after]].concat();
                for text in [
                    STANDARD.encode(&all),
                    STANDARD_NO_PAD.encode(&all),
                    URL_SAFE.encode(&all),
                    URL_SAFE_NO_PAD.encode(&all),
                ] {
                    let (one, two) = text.as_bytes().split_at(text.len() / 2);
                    assert_eq!(found(SECRET, &[one, b"\r\n", two]), [ENCODED], "{before} {after} {text}");
                }
            }
        }
    }

    #[test]
    fn what_lies_across_pieces_is_found_and_told_once() {
        let filling = vec![b'x'; 300 << 10];
        for cut in 0..=SECRET.len() {
            let (one, two) = SECRET.split_at(cut);
            assert_eq!(found(SECRET, &[&filling, one, two, &filling, SECRET]), [RAW], "{cut}");
            assert_eq!(found(SECRET, &[&[&filling[..], one].concat(), two]), [RAW], "{cut}");
        }
        assert_eq!(found(SECRET, &[&filling, &SECRET[1..]]), [""; 0]);
    }

    #[test]
    fn names_targets_and_attributes_are_looked_at() {
        let mut guard = guard(b"12345678");
        let mut found = Vec::new();
        let mut row = Row::bare(b"x".to_vec(), Kind::File);
        row.xattrs.insert(b"user.one".to_vec(), b"<12345678>".to_vec());
        let named = Row { path: b"12345678".to_vec(), ..row.clone() };
        let linked = Row { target: b"12345678".to_vec(), ..Row::bare(b"l".to_vec(), Kind::Symlink) };
        for row in [row, named, linked] {
            guard.watch(&mut found)(&row, Part::Member).unwrap();
        }
        assert_eq!(
            found,
            [
                "the secret `it` is in an attribute of `/x`",
                "the secret `it` is in the name of a file",
                "the secret `it` is in an attribute of a file whose name holds one",
                "the secret `it` is in the target of `/l`",
            ]
        );
    }

    #[test]
    fn short_ones_and_ends_of_lines_do_not_count() {
        assert!(Secret::new("it", b"1234567\r\n").is_none());
        assert!(Secret::new("it", b"\n\n").is_none());
        assert_eq!(found(b"12345678\n", &[b"<12345678>"]), [RAW]);
    }
}
