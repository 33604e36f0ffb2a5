//! How an error looks: what failed, each cause once, what to do.

use std::error::Error as _;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};

use outcrop::error::Error;

/// On standard error.
pub(crate) fn print(error: &Error) {
    let text = render(error, colours(io::stderr().is_terminal()));
    // Where standard error is gone too, the exit code still says it.
    let _gone = io::stderr().write_all(text.as_bytes());
}

/// <https://no-color.org>: set and not empty means no.
pub(crate) fn colours(terminal: bool) -> bool {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    terminal && set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb")
}

fn render(error: &Error, colours: bool) -> String {
    let paint = |code: &str, word: &str| match colours {
        true => format!("\x1b[{code}m{word}\x1b[0m"),
        false => word.to_owned(),
    };
    let mut text = format!("{}{}\n", paint("1;31", "error: "), error.message().trim_end());
    let mut said = error.message().to_owned();
    let mut cause = error.source();
    while let Some(next) = cause {
        let message = next.to_string();
        // Carriers of a cause (an io::Error around one of ours) say what it says.
        if !said.contains(message.trim_end()) {
            let mut lines = message.trim_end().lines();
            let _infallible =
                writeln!(text, "  {}{}", paint("1", "because: "), lines.next().unwrap_or_default());
            for line in lines {
                let _infallible = writeln!(text, "  {line}");
            }
            said = message;
        }
        cause = next.source();
    }
    if let Some(hint) = error.hint_text() {
        let _infallible = writeln!(text, "{}{hint}", paint("1;36", "hint: "));
    }
    text
}

#[cfg(test)]
mod tests {
    use outcrop::error::Context as _;

    use super::*;

    #[test]
    fn every_cause_is_said_once_and_the_hint_last() {
        let inner = Error::invalid("line 3: unknown instruction `RUNN`").hint("did you mean `RUN`?");
        let carried = io::Error::from(inner);
        let error = Err::<(), _>(carried).context(|| "reading `web/Dockerfile`").unwrap_err();
        assert_eq!(
            render(&error, false),
            "error: reading `web/Dockerfile`\n  because: line 3: unknown instruction `RUNN`\nhint: did you mean `RUN`?\n"
        );
    }

    #[test]
    fn a_cause_of_many_lines_is_indented() {
        let error = Error::invalid("parsing").because(Error::invalid("FROM a\n     ^ here\n"));
        assert_eq!(render(&error, false), "error: parsing\n  because: FROM a\n       ^ here\n");
    }
}
