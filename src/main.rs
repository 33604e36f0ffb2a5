//! The binary: front doors only. What decides is in the library.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    // First of all: the outer half of a container must be a process with one thread.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "__init") {
        return init();
    }
    cli::main()
}

fn init() -> ExitCode {
    use std::io::Write;
    match outcrop::runtime::init::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _unheard = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(125)
        }
    }
}
