//! The binary: front doors only. What decides is in the library.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
