//! The binary: front doors only. What decides is in the library.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    // First of all: the outer half of a container must be a process with one thread.
    match std::env::args_os().nth(1).as_deref().and_then(|argument| argument.to_str()) {
        Some("__init") => helper(outcrop::runtime::init::main),
        Some("__wake") => helper(outcrop::container::wake),
        _ => cli::main(),
    }
}

fn helper(work: fn() -> outcrop::error::Result<()>) -> ExitCode {
    use std::io::Write;
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _unheard = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(125)
        }
    }
}
