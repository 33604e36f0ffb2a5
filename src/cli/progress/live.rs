//! A view on a terminal: finished steps scroll up, one line each; what runs stays below with its time and the
//! last lines it said.

use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use outcrop::job::{Event, LayerOutcome, Phase, Report, StepAt};

use super::screen::Screen;
use super::tail::{Tail, clean};
use super::words;
use crate::cli::format::{percent, size_exact};

/// Between two drawings: about 12 a second.
const TICK: Duration = Duration::from_millis(80);
/// Lines of output below a running step, where there is room.
const OUTPUT_LINES: usize = 6;

pub(super) struct Live {
    shared: Arc<Shared>,
    drawer: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    terminal: File,
    state: Mutex<State>,
    finished: Condvar,
    screen: Mutex<Screen>,
}

#[derive(Default)]
struct State {
    /// Lines that stay and are not yet drawn.
    stay: Vec<String>,
    steps: Vec<Running>,
    layers: Vec<Layer>,
    works: Vec<Work>,
    done: usize,
    total: usize,
    start: Option<Instant>,
    finished: bool,
    colours: bool,
}

struct Running {
    step: StepAt,
    start: Instant,
    cached: bool,
    tail: Tail,
}

struct Layer {
    name: String,
    phase: Phase,
    done: u64,
    total: Option<u64>,
}

struct Work {
    id: u64,
    what: String,
    done: u64,
    total: Option<u64>,
    start: Instant,
}

impl Live {
    pub(super) fn start(terminal: File, colours: bool) -> Self {
        let state = Mutex::new(State { colours, ..State::default() });
        let shared = Arc::new(Shared { terminal, state, finished: Condvar::new(), screen: Mutex::default() });
        let drawn = shared.clone();
        let drawer =
            std::thread::Builder::new().name("progress".into()).spawn(move || drawn.draw_until_finished());
        // Without a thread there is only the last drawing.
        Live { shared, drawer: Mutex::new(drawer.ok()) }
    }

    /// Draws what stays, erases the rest. Idempotent.
    pub(super) fn finish(&self) {
        self.shared.lock().finished = true;
        self.shared.finished.notify_all();
        let drawer = self.drawer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(drawer) = drawer {
            // It holds no promise to anybody; that it panicked was said by the panic.
            let _panicked = drawer.join();
        }
        self.shared.draw();
    }
}

impl Report for Live {
    fn event(&self, event: &Event) {
        self.shared.lock().event(event);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw_until_finished(&self) {
        let mut state = self.lock();
        loop {
            // Events wake nobody: however many there are, the terminal is drawn at one pace.
            let waited = self.finished.wait_timeout(state, TICK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if state.finished {
                return;
            }
            drop(state);
            self.draw();
            state = self.lock();
        }
    }

    fn draw(&self) {
        // Looked up each time: the user may have changed it.
        let size = rustix::termios::tcgetwinsize(&self.terminal).ok();
        let columns = size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(80);
        let rows = size.map(|size| usize::from(size.ws_row)).filter(|rows| *rows > 0).unwrap_or(24);
        let mut screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        let (stay, live) = {
            let mut state = self.lock();
            let live = if state.finished { Vec::new() } else { state.view(Instant::now(), columns, rows) };
            (std::mem::take(&mut state.stay), live)
        };
        if stay.is_empty() && live.is_empty() && screen.is_empty() {
            return;
        }
        let frame = screen.frame(&stay, &live, columns);
        // Where the terminal is gone, outcrop will hear of it.
        let _gone = (&self.terminal).write_all(frame.as_bytes());
    }
}

impl State {
    fn event(&mut self, event: &Event) {
        match event {
            Event::StepStarted { step } => {
                self.start.get_or_insert_with(Instant::now);
                self.total = step.total;
                // What ends without a word (FROM scratch) has ended when its stage goes on.
                if let Some(silent) = self.steps.iter().position(|running| running.step.stage == step.stage) {
                    let silent = self.steps.remove(silent);
                    self.step_ended("✔", "32", &silent.step, words::time(silent.start.elapsed()));
                }
                self.steps.push(Running {
                    step: step.clone(),
                    start: Instant::now(),
                    cached: false,
                    tail: Tail::new(OUTPUT_LINES),
                });
            }
            Event::StepCached { step } => {
                if let Some(running) = self.running(step) {
                    running.cached = true;
                }
            }
            Event::StepMissed { why, .. } => self.stay.push(format!("   not cached: {why}")),
            Event::StepRunning { .. } => {}
            Event::StepOutput { step, bytes, .. } => {
                if let Some(running) = self.running(step) {
                    running.tail.push(bytes);
                }
            }
            Event::StepDone { step, took, .. } => {
                let cached = self.running(step).is_some_and(|running| running.cached);
                self.steps.retain(|running| running.step.number != step.number);
                let time = if cached { "CACHED".into() } else { words::time(*took) };
                self.step_ended("✔", "32", step, time);
            }
            Event::StepFailed { step, took } => {
                self.steps.retain(|running| running.step.number != step.number);
                self.step_ended("✘", "31", step, words::time(*took));
            }
            Event::Built { image, took } => {
                self.stay.push(format!("Successfully built {} in {}", image.short(), words::time(*took)));
            }
            Event::Tagged { name, .. } => self.stay.push(format!("Successfully tagged {name}")),
            Event::LayerStarted { layer, total } => {
                self.layers.push(Layer { name: layer.clone(), phase: Phase::Waiting, done: 0, total: *total })
            }
            Event::LayerProgress { layer, phase, done, total } => {
                if let Some(known) = self.layers.iter_mut().find(|known| known.name == *layer) {
                    (known.phase, known.done, known.total) = (*phase, *done, total.or(known.total));
                }
            }
            Event::LayerDone { layer, how } => {
                self.layers.retain(|known| known.name != *layer);
                let colour = if *how == LayerOutcome::Failed { "31" } else { "32" };
                let line = format!("{}: {}", layer, self.paint(colour, &words::outcome(how)));
                self.stay.push(line);
            }
            Event::Pulling { .. }
            | Event::Pulled { .. }
            | Event::Pushing { .. }
            | Event::Copying { .. }
            | Event::Pushed { .. } => {
                self.stay.extend(words::transfer(event).unwrap_or_default());
            }
            Event::WorkStarted { id, what, total } => {
                let start = Instant::now();
                self.works.push(Work { id: *id, what: what.clone(), done: 0, total: *total, start });
            }
            Event::WorkProgress { id, done } => {
                if let Some(work) = self.works.iter_mut().find(|work| work.id == *id) {
                    work.done = *done;
                }
            }
            Event::WorkDone { id } => self.works.retain(|work| work.id != *id),
            Event::Note(text) => self.stay.extend(text.lines().map(|line| clean(line.as_bytes()))),
            Event::Warning(text) => {
                let word = self.paint("33", "WARNING:");
                self.stay.push(format!("{word} {}", clean(text.as_bytes())));
            }
            Event::Findings(findings) => {
                let mut lines: Vec<String> =
                    words::findings(findings).iter().map(|line| clean(line.as_bytes())).collect();
                lines[0] = self.paint("33", &lines[0]);
                self.stay.append(&mut lines);
            }
        }
    }

    fn running(&mut self, step: &StepAt) -> Option<&mut Running> {
        self.steps.iter_mut().find(|running| running.step.number == step.number)
    }

    fn step_ended(&mut self, mark: &str, colour: &str, step: &StepAt, time: String) {
        self.done += 1;
        let line = self.step_line(&self.paint(colour, mark), &time, step);
        self.stay.push(line);
    }

    fn step_line(&self, mark: &str, time: &str, step: &StepAt) -> String {
        format!("{mark} {time:>7}  {} {}", self.paint("2", &words::place(step)), clean(step.text.as_bytes()))
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// What is under way, in as many rows as there are, one left for the cursor.
    fn view(&self, now: Instant, columns: usize, rows: usize) -> Vec<String> {
        let spinner = self.paint("36", spinner(self.start.map_or(Duration::ZERO, |start| now - start)));
        let works: Vec<&Work> = self.works.iter().filter(|work| now - work.start > TICK).collect();
        let heads = self.steps.len() + self.layers.len() + works.len();
        let footer = usize::from(self.start.is_some() && heads > 0);
        let room = rows.saturating_sub(1 + footer);
        let below = room.saturating_sub(heads).checked_div(self.steps.len()).unwrap_or(0).min(OUTPUT_LINES);
        let mut lines = Vec::new();
        for running in &self.steps {
            lines.push(self.step_line(&spinner, &words::time(now - running.start), &running.step));
            let said = running.tail.lines();
            for line in &said[said.len().saturating_sub(below)..] {
                lines.push(self.paint("2", &format!("           │ {line}")));
            }
        }
        for layer in &self.layers {
            let amount = amount(layer.done, layer.total, columns);
            lines.push(format!("{}: {:<11} {amount}", layer.name, words::phase(layer.phase)));
        }
        for work in works {
            lines.push(format!(
                "{spinner} {:>7}  {}{}",
                words::time(now - work.start),
                work.what,
                share(work)
            ));
        }
        let hidden = lines.len().saturating_sub(room);
        if hidden > 0 {
            lines.truncate(room.saturating_sub(1));
            lines.push(format!("and {} more", hidden + 1));
        }
        if let Some(start) = self.start.filter(|_| footer > 0) {
            let total = words::time(now - start);
            lines.push(
                self.paint("1", &format!("Building {total}, {} of {} steps done", self.done, self.total)),
            );
        }
        lines
    }
}

fn spinner(time: Duration) -> &'static str {
    const FRAMES: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
    let frame = usize::try_from(time.as_millis() / TICK.as_millis() % 10).unwrap_or(0);
    FRAMES[frame]
}

/// `[======>      ]  2.1MB/7.8MB`
fn amount(done: u64, total: Option<u64>, columns: usize) -> String {
    let Some(total) = total else {
        return if done == 0 { String::new() } else { size_exact(done) };
    };
    let numbers = format!("{}/{}", size_exact(done.min(total)), size_exact(total));
    let width: usize = if columns >= 100 { 50 } else { 20 };
    if columns < 60 {
        return numbers;
    }
    let filled = u128::from(done.min(total)) * 50 / u128::from(total.max(1));
    let filled = usize::try_from(filled).unwrap_or(0) * width / 50;
    let tip = if filled < width { ">" } else { "" };
    format!("[{}{tip}{}]  {numbers}", "=".repeat(filled), " ".repeat(width - filled - tip.len()))
}

fn share(work: &Work) -> String {
    match work.total {
        Some(total) => format!(" {}", percent(work.done, total)),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use outcrop::image::{Digest, ImageId};
    use outcrop::job::Stream;

    use super::*;

    fn step(number: usize, stage: Option<&str>) -> StepAt {
        StepAt { number, total: 3, stage: stage.map(str::to_owned), text: format!("RUN step {number}") }
    }

    fn image() -> ImageId {
        ImageId(Digest::from_bytes([0xab; 32]))
    }

    #[test]
    fn what_runs_is_below_and_what_is_done_stays() {
        let mut state = State::default();
        let (first, second) = (step(1, None), step(2, None));
        state.event(&Event::StepStarted { step: first.clone() });
        state.event(&Event::StepCached { step: first.clone() });
        state.event(&Event::StepDone { step: first, image: image(), took: Duration::ZERO });
        state.event(&Event::StepStarted { step: second.clone() });
        let bytes = b"one\ntwo\nthree\n".to_vec();
        state.event(&Event::StepOutput { step: second.clone(), stream: Stream::Out, bytes });
        assert_eq!(state.stay, ["✔  CACHED  [1/3] RUN step 1"]);
        let now = state.steps[0].start;
        state.start = Some(now);
        let later = now + Duration::from_millis(2400);
        assert_eq!(
            state.view(later, 80, 24),
            [
                "⠋    2.4s  [2/3] RUN step 2",
                "           │ one",
                "           │ two",
                "           │ three",
                "Building 2.4s, 1 of 3 steps done"
            ]
        );
        // Five rows: the cursor's, the step, the footer, and two for the output.
        let lower = state.view(later, 80, 5);
        assert_eq!(lower[1..3], ["           │ two", "           │ three"]);
        assert_eq!(lower.len(), 4);
        state.event(&Event::StepFailed { step: second, took: Duration::from_secs(3) });
        assert_eq!(state.stay[1], "✘    3.0s  [2/3] RUN step 2");
        assert_eq!(state.view(later, 80, 24), Vec::<String>::new());
    }

    #[test]
    fn more_than_the_terminal_holds_is_counted() {
        let mut state = State::default();
        for number in 1..=9 {
            state.event(&Event::StepStarted { step: step(number, Some(&number.to_string())) });
        }
        let view = state.view(Instant::now(), 80, 6);
        assert_eq!(view.len(), 5);
        assert_eq!(view[3], "and 6 more");
    }

    #[test]
    fn a_step_that_ends_silently_ends_with_the_next_of_its_stage() {
        let mut state = State::default();
        state.event(&Event::StepStarted { step: step(1, None) });
        state.event(&Event::StepStarted { step: step(2, None) });
        assert_eq!(state.steps.len(), 1);
        assert_eq!(state.done, 1);
    }

    /// What a terminal of this size shows after these bytes, without the spaces at the ends of lines.
    fn shown(bytes: &[u8], columns: usize, rows: usize) -> Vec<String> {
        let mut screen = vec![vec![' '; columns]; rows];
        let (mut row, mut column) = (0, 0);
        let text = String::from_utf8_lossy(bytes);
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            match letter {
                '\r' => column = 0,
                '\n' if row + 1 == rows => {
                    screen.remove(0);
                    screen.push(vec![' '; columns]);
                }
                '\n' => row += 1,
                '\x1b' => {
                    assert_eq!(letters.next(), Some('['));
                    let mut number = String::new();
                    let end = loop {
                        match letters.next().unwrap() {
                            end @ '@'..='~' => break end,
                            digit => number.push(digit),
                        }
                    };
                    match end {
                        'A' => row = row.saturating_sub(number.parse().unwrap()),
                        'K' => screen[row][column.min(columns)..].fill(' '),
                        'J' => {
                            screen[row][column.min(columns)..].fill(' ');
                            screen[row + 1..].iter_mut().for_each(|line| line.fill(' '));
                        }
                        'h' | 'l' => assert_eq!(number, "?25"),
                        'm' => {}
                        other => panic!("the terminal does not know {other}"),
                    }
                }
                letter => {
                    assert!(column < columns, "no line is broken: {text:?}");
                    screen[row][column] = letter;
                    column += 1;
                }
            }
        }
        let lines = screen.into_iter().map(|line| line.into_iter().collect::<String>().trim_end().to_owned());
        lines.filter(|line| !line.is_empty()).collect()
    }

    #[test]
    fn a_terminal_shows_the_running_step_and_then_only_what_is_done() {
        use rustix::{pty, termios};
        let master = pty::openpt(pty::OpenptFlags::RDWR | pty::OpenptFlags::NOCTTY).unwrap();
        pty::grantpt(&master).unwrap();
        pty::unlockpt(&master).unwrap();
        let slave = pty::ptsname(&master, Vec::new()).unwrap();
        let slave = File::options().read(true).write(true).open(slave.to_str().unwrap()).unwrap();
        let size = termios::Winsize { ws_row: 6, ws_col: 40, ws_xpixel: 0, ws_ypixel: 0 };
        termios::tcsetwinsize(&slave, size).unwrap();
        let mut master = File::from(master);
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let received = bytes.clone();
        let reader = std::thread::spawn(move || {
            let mut piece = [0; 4096];
            // EIO is the end: nobody holds the other side.
            while let Ok(count @ 1..) = std::io::Read::read(&mut master, &mut piece) {
                received.lock().unwrap().extend_from_slice(&piece[..count]);
            }
        });
        let wait_for = |text: &str| {
            while !String::from_utf8_lossy(&bytes.lock().unwrap()).contains(text) {
                std::thread::sleep(TICK / 4);
            }
        };

        let live = Live::start(slave, true);
        for number in 1..=3 {
            let step = step(number, None);
            live.event(&Event::StepStarted { step: step.clone() });
            let said = format!("output {number} {}\n", "long ".repeat(20)).into_bytes();
            live.event(&Event::StepOutput { step: step.clone(), stream: Stream::Out, bytes: said });
            wait_for(&format!("output {number}"));
            live.event(&Event::StepDone { step, image: image(), took: Duration::from_millis(240) });
        }
        live.event(&Event::Built { image: image(), took: Duration::from_millis(720) });
        live.finish();
        drop(live);
        reader.join().unwrap();
        let bytes = bytes.lock().unwrap().clone();

        let last_step = bytes.windows(8).rposition(|window| window == b"output 3").unwrap();
        let end =
            last_step + bytes[last_step..].windows(6).position(|window| window == b"\x1b[?25h").unwrap();
        let during = shown(&bytes[..end], 40, 6);
        assert_eq!(during[..2], ["✔    0.2s  [1/3] RUN step 1", "✔    0.2s  [2/3] RUN step 2"]);
        assert!(during[2].ends_with("s  [3/3] RUN step 3"), "{during:?}");
        assert_eq!(during[3], "           │ output 3 long long long lo");
        assert!(
            during[4].starts_with("Building ") && during[4].ends_with(", 2 of 3 steps done"),
            "{during:?}"
        );
        assert_eq!(
            shown(&bytes, 40, 6),
            [
                "✔    0.2s  [1/3] RUN step 1",
                "✔    0.2s  [2/3] RUN step 2",
                "✔    0.2s  [3/3] RUN step 3",
                "Successfully built abababababab in 0.7s"
            ]
        );
        assert!(bytes.ends_with(b"\x1b[?25h"), "the cursor is visible");
    }

    #[test]
    fn bars_grow_with_the_bytes() {
        assert_eq!(amount(0, Some(2_000_000), 80), "[>                   ]  0B/2MB");
        assert_eq!(amount(1_000_000, Some(2_000_000), 80), "[==========>         ]  1MB/2MB");
        assert_eq!(amount(2_000_000, Some(2_000_000), 80), "[====================]  2MB/2MB");
        assert_eq!(amount(1_000_000, Some(2_000_000), 40), "1MB/2MB");
        assert_eq!(amount(1_500, None, 80), "1.5kB");
    }
}
