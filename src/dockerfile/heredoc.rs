//! Here-documents: the word that opens one, and its body.

use super::expand::{Mode, expand};
use super::source::{Problem, Span};

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Heredoc {
    /// What ends it, without quotes; also the name of the file it becomes.
    pub(super) name: String,
    /// No part of the word is quoted: variables in the body mean something.
    pub(super) expands: bool,
    /// `<<-`: tabs at the beginning of each line go.
    pub(super) chomps: bool,
    /// With its line ends, as written.
    pub(super) body: String,
}

impl Heredoc {
    /// Reads `<<NAME`, `3<<-"NAME"`; `None` where the word opens no here-document.
    pub(super) fn open(word: &str) -> Result<Option<Heredoc>, String> {
        let digits = word.len() - word.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let Some(rest) = word[digits..].strip_prefix("<<") else { return Ok(None) };
        let (rest, chomps) = rest.strip_prefix('-').map_or((rest, false), |rest| (rest, true));
        if rest.is_empty() || rest.contains('<') {
            return Ok(None);
        }
        let read = |raw_quotes| {
            let mode = Mode { raw_quotes, keep_unset: true, ..Mode::default() };
            expand(rest, '\\', mode, &|_| None).map_err(|fault| fault.message)
        };
        let (plain, quoted) = (read(false)?, read(true)?);
        let [name] = &plain.words[..] else { return Ok(None) };
        let quotes = |text: &str| text.matches(['\'', '"']).count();
        let expands = quoted.words.first().is_some_and(|quoted| quotes(quoted) == quotes(name));
        Ok(Some(Heredoc { name: name.clone(), expands, chomps, body: String::new() }))
    }

    /// All that a line opens, each with its place.
    pub(super) fn all_of(line: &str) -> Result<Vec<(Heredoc, Span)>, Problem> {
        let mode = Mode { raw_quotes: true, raw_escapes: true, keep_unset: true, ..Mode::default() };
        // A line whose quotes do not match opens none; whoever runs it complains.
        let words = expand(line, '\\', mode, &|_| None).map(|line| line.words).unwrap_or_default();
        let mut from = 0;
        let mut all = Vec::new();
        for word in words {
            let found = line[from..].find(&word).map(|at| from + at);
            let span = found.map_or(0..line.len(), |at| at..at + word.len());
            from = found.map_or(from, |at| at + word.len());
            match Heredoc::open(&word) {
                Ok(None) => {}
                Ok(Some(heredoc)) => all.push((heredoc, span)),
                Err(message) => return Err(Problem::invalid(span, message)),
            }
        }
        Ok(all)
    }

    pub(super) fn ends_with(&self, line: &str) -> bool {
        let line = line.trim_end_matches(['\r', '\n']);
        let line = if self.chomps { line.trim_start_matches('\t') } else { line };
        line == self.name
    }

    /// The body, its leading tabs gone where the word asks for it.
    pub(super) fn content(&self) -> String {
        if !self.chomps {
            return self.body.clone();
        }
        self.body.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_opens_a_heredoc_or_not() {
        for word in [
            "<<EOF",
            "<<'EOF'",
            "<<\"EOF\"",
            "<<-EOF",
            "<<-'EOF'",
            "3<<EOF",
            "<<EO\"F\"",
            "<< EOF",
            "<<- EOF",
        ] {
            let heredoc = Heredoc::open(word).unwrap().unwrap();
            assert_eq!(heredoc.name, "EOF", "{word}");
            assert_eq!(heredoc.chomps, word.contains('-'), "{word}");
            assert_eq!(heredoc.expands, !word.contains(['\'', '"']), "{word}");
        }
        for word in ["", "EOF", "<<", "<<-", "<EOF", "<<<EOF", "<<EOF sh"] {
            assert_eq!(Heredoc::open(word).unwrap(), None, "{word}");
        }
        for word in ["<<'EOF", "<<\"EOF", "<<EOF'", "<<EOF\""] {
            assert!(Heredoc::open(word).is_err(), "{word}");
        }
    }

    #[test]
    fn a_line_opens_its_heredocs_in_order() {
        let names = |line: &str| -> Vec<String> {
            Heredoc::all_of(line).unwrap().into_iter().map(|(heredoc, _)| heredoc.name).collect()
        };
        assert_eq!(names("RUN <<EOF <<-'E2' sh"), ["EOF", "E2"]);
        assert_eq!(names("RUN << -EOF"), Vec::<String>::new());
        assert_eq!(names("RUN '<<EOF' \"<<EOF\""), Vec::<String>::new());
        assert_eq!(names("RUN cat <<$EOF"), ["$EOF"]);
        assert_eq!(names("RUN echo 'open <<EOF"), Vec::<String>::new());
    }

    #[test]
    fn leading_tabs_go_and_blanks_stay() {
        let mut heredoc = Heredoc::open("<<-EOF").unwrap().unwrap();
        heredoc.body = "\t\ta\n\t b\n\tc".into();
        assert_eq!(heredoc.content(), "a\n b\nc");
        assert!(heredoc.ends_with("\t\tEOF\r\n") && !heredoc.ends_with(" EOF"));
    }
}
