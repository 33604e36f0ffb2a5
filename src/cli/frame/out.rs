//! Standard output. That its reader may go away (`outcrop images | head -1`) is no failure.

use std::error::Error as _;
use std::fmt;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use outcrop::error::{Context as _, Error, Result};

/// Buffered: verbs end with [`Out::done`], which says whether all of it was written. Not locked: progress may be
/// written from other threads meanwhile.
pub(crate) struct Out(BufWriter<Stdout>);

/// What an error says whose cause may be that nobody reads standard output any more.
pub(crate) const WRITING: &str = "writing to standard output";

impl Out {
    pub(super) fn new() -> Self {
        Out(BufWriter::new(io::stdout()))
    }
    pub(crate) fn line(&mut self, line: impl fmt::Display) -> Result<()> {
        writeln!(self.0, "{line}").context(|| WRITING)
    }
    pub(crate) fn text(&mut self, text: impl fmt::Display) -> Result<()> {
        write!(self.0, "{text}").context(|| WRITING)
    }
    pub(crate) fn done(mut self) -> Result<()> {
        self.0.flush().context(|| WRITING)
    }
    pub(crate) fn is_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }
}

/// The bytes themselves, for archives.
impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

pub(super) fn reader_is_gone(error: &Error) -> bool {
    let mut cause = error.source();
    let mut stdout = error.message() == WRITING;
    while let Some(error) = cause {
        stdout |= error.to_string() == WRITING;
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return stdout && error.kind() == io::ErrorKind::BrokenPipe;
        }
        cause = error.source();
    }
    false
}
