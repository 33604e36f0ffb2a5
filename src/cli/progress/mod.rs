//! What users see while a verb works: classic lines, a live view, JSON, or nothing.

mod live;
mod plain;
mod raw;
mod screen;
mod tail;
mod words;

use std::io::{self, IsTerminal};
use std::sync::Arc;

use outcrop::job::{Event, Report};

use crate::cli::frame::colours;
use live::Live;
use plain::Plain;
use raw::Raw;

/// `--progress`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// A live view where both outputs are a terminal, else plain
    #[default]
    Auto,
    /// The classic builder's lines, on standard output
    Plain,
    /// A live view on standard error
    Tty,
    /// Nothing
    Quiet,
    /// One JSON object a line, on standard output
    #[value(name = "rawjson")]
    RawJson,
}

/// Shows events while it lives; dropped, the view is completed and the terminal left as it was.
pub(crate) struct Progress {
    report: Arc<dyn Report>,
    live: Option<Arc<Live>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    Out,
    Err,
}

impl Progress {
    /// Of a verb whose output is its progress: `build`, `pull`.
    pub(crate) fn of(mode: Mode) -> Self {
        Self::on(mode, Stream::Out)
    }

    /// Of work on the way to something else, whose output belongs to it: what `run` pulls first.
    pub(crate) fn aside(mode: Mode) -> Self {
        Self::on(mode, Stream::Err)
    }

    fn on(mode: Mode, stream: Stream) -> Self {
        let terminal = io::stderr().is_terminal();
        let live = match mode {
            Mode::Auto => terminal && (stream == Stream::Err || io::stdout().is_terminal()),
            Mode::Tty => terminal,
            Mode::Plain | Mode::Quiet | Mode::RawJson => false,
        };
        let terminal = if live { rustix::io::dup(io::stderr()).ok() } else { None };
        if let Some(terminal) = terminal {
            let live = Arc::new(Live::start(terminal.into(), colours(true)));
            return Progress { report: live.clone(), live: Some(live) };
        }
        let report: Arc<dyn Report> = match (mode, stream) {
            (Mode::Quiet, _) => Arc::new(Quiet),
            (Mode::RawJson, Stream::Out) => Arc::new(Raw::new(io::stdout())),
            (Mode::RawJson, Stream::Err) => Arc::new(Raw::new(io::stderr())),
            (Mode::Auto | Mode::Plain | Mode::Tty, Stream::Out) => Arc::new(Plain::new(io::stdout())),
            (Mode::Auto | Mode::Plain | Mode::Tty, Stream::Err) => Arc::new(Plain::new(io::stderr())),
        };
        Progress { report, live: None }
    }

    /// For [`crate::cli::Context::job`].
    pub(crate) fn report(&self) -> Arc<dyn Report> {
        self.report.clone()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(live) = &self.live {
            live.finish();
        }
    }
}

/// The last output of a step that fails is in its error.
struct Quiet;

impl Report for Quiet {
    fn event(&self, _: &Event) {}
}
