//! The lower end of a terminal: lines that stay, and below them lines that are drawn anew.

use std::fmt::Write as _;

/// Knows what it has drawn, so that it can draw over it. The cursor is hidden only within one write: however
/// outcrop ends, it is visible.
#[derive(Default)]
pub(super) struct Screen {
    /// Widths of the lines drawn last, top first; the cursor stands below them.
    drawn: Vec<usize>,
}

impl Screen {
    pub(super) fn is_empty(&self) -> bool {
        self.drawn.is_empty()
    }

    /// What to send to the terminal. `columns` is its width now: after a change of size a line drawn before may
    /// have been broken into several.
    pub(super) fn frame(&mut self, stay: &[String], live: &[String], columns: usize) -> String {
        let columns = columns.max(1);
        let up: usize = self.drawn.iter().map(|width| width.div_ceil(columns).max(1)).sum();
        let mut text = String::from("\x1b[?25l\r");
        if up > 0 {
            let _infallible = write!(text, "\x1b[{up}A");
        }
        // One erasure at the top where lines were broken, else line by line: less to flicker.
        if up != self.drawn.len() {
            text.push_str("\x1b[J");
        }
        for line in stay {
            let _infallible = write!(text, "{line}\x1b[K\r\n");
        }
        self.drawn.clear();
        for line in live {
            // A line that fills the last column leaves some terminals in doubt about where the cursor is.
            let (line, width) = fit(line, columns.saturating_sub(1));
            let _infallible = write!(text, "{line}\x1b[K\r\n");
            self.drawn.push(width);
        }
        text.push_str("\x1b[J\x1b[?25h");
        text
    }
}

/// Cuts to so many columns; colours (CSI sequences) have no width and are kept, so that they end.
fn fit(line: &str, columns: usize) -> (String, usize) {
    let mut shown = String::with_capacity(line.len());
    let mut width = 0;
    let mut cut = false;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        if letter == '\x1b' {
            shown.push(letter);
            for letter in letters.by_ref() {
                shown.push(letter);
                if letter != '[' && ('@'..='~').contains(&letter) {
                    break;
                }
            }
            continue;
        }
        cut |= width + columns_of(letter) > columns;
        if !cut {
            shown.push(letter);
            width += columns_of(letter);
        }
    }
    (shown, width)
}

/// East Asian wide letters and emoji take two columns, combining marks none; near enough for a cut.
fn columns_of(letter: char) -> usize {
    match u32::from(letter) {
        0x300..=0x36f | 0x200b..=0x200f | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f
        | 0x2e80..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1f64f
        | 0x1f680..=0x1f6ff
        | 0x1f900..=0x1f9ff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|&line| line.to_owned()).collect()
    }

    #[test]
    fn a_frame_covers_the_one_before() {
        let mut screen = Screen::default();
        assert_eq!(
            screen.frame(&[], &lines(&["a", "b"]), 80),
            "\x1b[?25l\ra\x1b[K\r\nb\x1b[K\r\n\x1b[J\x1b[?25h"
        );
        assert_eq!(
            screen.frame(&lines(&["done"]), &lines(&["b"]), 80),
            "\x1b[?25l\r\x1b[2Adone\x1b[K\r\nb\x1b[K\r\n\x1b[J\x1b[?25h"
        );
        assert_eq!(screen.frame(&[], &[], 80), "\x1b[?25l\r\x1b[1A\x1b[J\x1b[?25h");
    }

    #[test]
    fn a_narrower_terminal_has_broken_the_lines() {
        let mut screen = Screen::default();
        screen.frame(&[], &lines(&["123456789", "x"]), 10);
        let frame = screen.frame(&[], &lines(&["y"]), 4);
        assert!(frame.starts_with("\x1b[?25l\r\x1b[4A\x1b[J"), "{frame:?}");
    }

    #[test]
    fn what_does_not_fit_is_cut_by_its_width() {
        assert_eq!(fit("abc", 3), ("abc".into(), 3));
        assert_eq!(fit("日本語", 5), ("日本".into(), 4));
        assert_eq!(fit("\x1b[32mabc\x1b[0m", 2), ("\x1b[32mab\x1b[0m".into(), 2));
    }
}
