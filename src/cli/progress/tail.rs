//! The last lines a process has said, made fit to stand inside of a view.

use std::collections::VecDeque;

pub(super) struct Tail {
    lines: VecDeque<String>,
    /// Behind the last line break.
    partial: Vec<u8>,
    keep: usize,
}

/// Of a line without an end only its end is kept.
const LONGEST: usize = 4096;

impl Tail {
    pub(super) fn new(keep: usize) -> Self {
        Tail { lines: VecDeque::new(), partial: Vec::new(), keep }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if self.partial.len() > LONGEST {
                self.partial.drain(..self.partial.len() - LONGEST);
            }
            if piece.ends_with(b"\n") {
                let line = clean(&self.partial);
                self.partial.clear();
                if line.is_empty() {
                    continue;
                }
                if self.lines.len() == self.keep {
                    self.lines.pop_front();
                }
                self.lines.push_back(line);
            }
        }
    }

    /// What is not ended yet is the last one.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.lines.iter().cloned().collect();
        lines.extend(Some(clean(&self.partial)).filter(|line| !line.is_empty()));
        let surplus = lines.len().saturating_sub(self.keep);
        lines.drain(..surplus);
        lines
    }
}

/// What a terminal would show of a line: what overwrites the beginning wins, escape sequences and control
/// characters are gone, tabs are spaces.
pub(super) fn clean(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches(['\n', '\r', ' ']);
    let text = text.rsplit('\r').find(|part| !part.is_empty()).unwrap_or_default();
    let mut shown = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\t' => shown.push_str("    "),
            '\x1b' => match letters.next() {
                // CSI: up to a letter of @ to ~.
                Some('[') => while letters.next().is_some_and(|letter| !('@'..='~').contains(&letter)) {},
                // OSC: up to BEL or ESC \.
                Some(']') => {
                    while let Some(letter) = letters.next() {
                        if letter == '\x07' || (letter == '\x1b' && letters.next_if_eq(&'\\').is_some()) {
                            break;
                        }
                    }
                }
                _ => {}
            },
            _ if letter.is_control() => {}
            _ => shown.push(letter),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_and_the_unfinished_one_shows() {
        let mut tail = Tail::new(2);
        tail.push(b"one\ntwo\nthr");
        assert_eq!(tail.lines(), ["two", "thr"]);
        tail.push(b"ee\n\nfo\xc3");
        tail.push(b"\xb6\n");
        assert_eq!(tail.lines(), ["three", "foö"]);
    }

    #[test]
    fn a_line_looks_as_on_a_terminal() {
        assert_eq!(clean(b"10%\r50%\r100%\r\n"), "100%");
        assert_eq!(clean(b"\x1b[1;32mgreen\x1b[0m \x1b]0;title\x07x\ty\x08"), "green x    y");
        assert_eq!(clean(b"\x1b["), "");
    }
}
