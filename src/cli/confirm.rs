//! The question before something is removed.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use outcrop::error::{Context as _, Result};

/// Asks on standard output and reads a line of standard input; whatever is not `y` is no.
pub(super) fn confirm(warning: &str) -> Result<bool> {
    let asking = || "asking whether to go on";
    let mut stdout = std::io::stdout();
    write!(stdout, "{warning}\nAre you sure you want to continue? [y/N] ").context(asking)?;
    stdout.flush().context(asking)?;
    // Where nobody types the answer, its line break is not seen.
    if !std::io::stdin().is_terminal() {
        writeln!(stdout).context(asking)?;
    }
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).context(asking)?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}
