//! The classic builder's lines, each step's last one with its time; where there are stages, each line with its
//! stage. Scripts read these: they change only with reason.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use outcrop::job::{Event, Phase, Report, StepAt};

use super::words;
use crate::cli::format::percent;

pub(super) struct Plain<W>(Mutex<State<W>>);

struct State<W> {
    out: W,
    /// What steps have said since their last line break, by number; only where stages run side by side.
    partial: HashMap<usize, Vec<u8>>,
    /// The last thing written was no line break: a step's output, as it came.
    mid_line: bool,
    phases: HashMap<String, Phase>,
    /// Layers go, they do not come.
    pushing: bool,
    works: HashMap<u64, Work>,
    failed: HashSet<usize>,
}

struct Work {
    what: String,
    total: Option<u64>,
    /// When it began, or was last spoken of.
    since: Instant,
    spoken: bool,
}

/// Longer than that without a line break, and a line is broken.
const LONGEST: usize = 64 * 1024;
/// Work is spoken of when it takes longer, and then again after each of the second.
const PATIENCE: Duration = Duration::from_secs(1);
const REPEAT: Duration = Duration::from_secs(10);

impl<W: Write + Send> Plain<W> {
    pub(super) fn new(out: W) -> Self {
        Plain(Mutex::new(State {
            out,
            partial: HashMap::new(),
            mid_line: false,
            phases: HashMap::new(),
            pushing: false,
            works: HashMap::new(),
            failed: HashSet::new(),
        }))
    }
}

impl<W: Write + Send> Report for Plain<W> {
    fn event(&self, event: &Event) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.event(event);
        // Where the reader is gone the work goes on: nobody asked to stop it.
        let _gone = state.out.flush();
    }
}

impl<W: Write> State<W> {
    fn event(&mut self, event: &Event) {
        match event {
            Event::StepStarted { step } => {
                self.step_line(step, &format!("Step {}/{} : {}", step.number, step.total, step.text));
            }
            Event::StepCached { step } => self.step_line(step, " ---> Using cache"),
            Event::StepMissed { step, why } => self.step_line(step, &format!(" ---> Not cached: {why}")),
            Event::StepRunning { step, id } => self.step_line(step, &format!(" ---> Running in {id}")),
            Event::StepOutput { step, bytes, .. } => self.output(step, bytes),
            Event::StepDone { step, image, took } => {
                self.end_output(step);
                self.step_line(step, &format!(" ---> {}  {}", image.short(), words::time(*took)));
            }
            Event::StepFailed { step, took } => {
                self.end_output(step);
                if self.failed.insert(step.number) {
                    self.step_line(step, &format!(" ---> Failed  {}", words::time(*took)));
                }
            }
            Event::Built { image, .. } => self.line(&format!("Successfully built {}", image.short())),
            Event::Tagged { name, .. } => self.line(&format!("Successfully tagged {name}")),
            Event::LayerStarted { layer, .. } => {
                let begins = if self.pushing { "Preparing" } else { "Pulling fs layer" };
                self.line(&format!("{layer}: {begins}"));
            }
            Event::LayerProgress { layer, phase, .. } => self.phase(layer, *phase),
            Event::Pulling { .. }
            | Event::LayerDone { .. }
            | Event::Pulled { .. }
            | Event::Pushing { .. }
            | Event::Copying { .. }
            | Event::Pushed { .. } => {
                self.pushing = match event {
                    Event::Pushing { .. } | Event::Copying { .. } => true,
                    Event::Pulling { .. } | Event::Pushed { .. } => false,
                    _ => self.pushing,
                };
                for line in words::transfer(event).unwrap_or_default() {
                    self.line(&line);
                }
            }
            Event::WorkStarted { id, what, total } => {
                let work = Work { what: what.clone(), total: *total, since: Instant::now(), spoken: false };
                self.works.insert(*id, work);
            }
            Event::WorkProgress { id, done } => self.work(*id, *done),
            Event::WorkDone { id } => drop(self.works.remove(id)),
            Event::Note(text) => self.line(text),
            Event::Warning(text) => self.line(&format!("WARNING: {text}")),
            Event::Findings(findings) => {
                for line in words::findings(findings) {
                    self.line(&line);
                }
            }
        }
    }

    fn line(&mut self, line: &str) {
        let start = if std::mem::take(&mut self.mid_line) { "\n" } else { "" };
        let _gone = writeln!(self.out, "{start}{line}");
    }

    fn step_line(&mut self, step: &StepAt, line: &str) {
        match &step.stage {
            Some(stage) => self.line(&format!("[{stage}] {line}")),
            None => self.line(line),
        }
    }

    /// As it comes where nothing else can come between, else by lines.
    fn output(&mut self, step: &StepAt, bytes: &[u8]) {
        let Some(stage) = &step.stage else {
            let _gone = self.out.write_all(bytes);
            self.mid_line = bytes.last().map_or(self.mid_line, |last| *last != b'\n');
            return;
        };
        let mut partial = self.partial.remove(&step.number).unwrap_or_default();
        partial.extend_from_slice(bytes);
        let whole = match partial.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None if partial.len() > LONGEST => partial.len(),
            None => 0,
        };
        for line in partial[..whole].split_inclusive(|byte| *byte == b'\n') {
            self.output_line(stage, line);
        }
        partial.drain(..whole);
        self.partial.insert(step.number, partial);
    }

    fn output_line(&mut self, stage: &str, line: &[u8]) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut whole = format!("[{stage}] ").into_bytes();
        whole.extend_from_slice(line);
        whole.push(b'\n');
        let _gone = self.out.write_all(&whole);
    }

    fn end_output(&mut self, step: &StepAt) {
        let rest = self.partial.remove(&step.number).filter(|rest| !rest.is_empty());
        if let (Some(rest), Some(stage)) = (rest, &step.stage) {
            self.output_line(stage, &rest);
        }
    }

    /// Docker without a terminal says these once for each layer, and no numbers.
    fn phase(&mut self, layer: &str, phase: Phase) {
        if self.phases.insert(layer.to_owned(), phase) == Some(phase) {
            return;
        }
        let said = match phase {
            Phase::Waiting => "Waiting",
            Phase::Verifying => "Verifying Checksum",
            Phase::Extracting => "Download complete",
            Phase::Downloading | Phase::Compressing | Phase::Uploading | Phase::Copying => return,
        };
        self.line(&format!("{layer}: {said}"));
    }

    fn work(&mut self, id: u64, done: u64) {
        let Some(work) = self.works.get_mut(&id) else { return };
        if work.since.elapsed() < if work.spoken { REPEAT } else { PATIENCE } {
            return;
        }
        work.spoken = true;
        work.since = Instant::now();
        let line = match work.total {
            Some(total) => format!("{}: {}", work.what, percent(done, total)),
            None => work.what.clone(),
        };
        self.line(&line);
    }
}

#[cfg(test)]
mod tests {
    use outcrop::image::{Digest, ImageId};
    use outcrop::job::{LayerOutcome, Stream};

    use super::*;

    fn said(events: &[Event]) -> String {
        let plain = Plain::new(Vec::new());
        for event in events {
            plain.event(event);
        }
        String::from_utf8(plain.0.into_inner().unwrap().out).unwrap()
    }

    fn image() -> ImageId {
        ImageId(Digest::from_bytes([0xab; 32]))
    }

    fn step(number: usize, stage: Option<&str>, text: &str) -> StepAt {
        StepAt { number, total: 3, stage: stage.map(str::to_owned), text: text.into() }
    }

    fn output(step: &StepAt, text: &str) -> Event {
        Event::StepOutput { step: step.clone(), stream: Stream::Out, bytes: text.into() }
    }

    #[test]
    fn a_build_speaks_the_classic_lines() {
        let from = step(1, None, "FROM debian");
        let run = step(2, None, "RUN make");
        let copy = step(3, None, "COPY . /");
        let took = Duration::from_millis(1234);
        let text = said(&[
            Event::StepStarted { step: from.clone() },
            Event::StepDone { step: from, image: image(), took: Duration::ZERO },
            Event::StepStarted { step: run.clone() },
            Event::StepRunning { step: run.clone(), id: "3f2a9c0d1e4b".into() },
            output(&run, "half a "),
            output(&run, "line\nand one without an end"),
            Event::StepDone { step: run, image: image(), took },
            Event::StepStarted { step: copy.clone() },
            Event::StepCached { step: copy.clone() },
            Event::StepDone { step: copy, image: image(), took: Duration::ZERO },
            Event::Built { image: image(), took },
            Event::Tagged { name: "web:latest".into(), image: image() },
        ]);
        assert_eq!(
            text,
            "Step 1/3 : FROM debian\n ---> abababababab  0.0s\n\
             Step 2/3 : RUN make\n ---> Running in 3f2a9c0d1e4b\nhalf a line\nand one without an end\n ---> abababababab  1.2s\n\
             Step 3/3 : COPY . /\n ---> Using cache\n ---> abababababab  0.0s\n\
             Successfully built abababababab\nSuccessfully tagged web:latest\n"
        );
    }

    #[test]
    fn stages_side_by_side_are_told_apart_line_by_line() {
        let a = step(1, Some("a"), "RUN one");
        let b = step(2, Some("b"), "RUN two");
        let text = said(&[
            Event::StepStarted { step: a.clone() },
            Event::StepStarted { step: b.clone() },
            output(&a, "x"),
            output(&b, "y\nz"),
            output(&a, "x\n"),
            Event::StepFailed { step: b, took: Duration::from_secs(61) },
            Event::StepDone { step: a, image: image(), took: Duration::ZERO },
        ]);
        assert_eq!(
            text,
            "[a] Step 1/3 : RUN one\n[b] Step 2/3 : RUN two\n[b] y\n[a] xx\n[b] z\n[b]  ---> Failed  1m01s\n\
             [a]  ---> abababababab  0.0s\n"
        );
    }

    #[test]
    fn a_pull_says_what_docker_says_without_a_terminal() {
        let progress =
            |phase, done| Event::LayerProgress { layer: "31e352740f53".into(), phase, done, total: Some(9) };
        let text = said(&[
            Event::Pulling { name: "library/alpine".into(), tag: "latest".into() },
            Event::LayerDone { layer: "aaaaaaaaaaaa".into(), how: LayerOutcome::AlreadyExists },
            Event::LayerStarted { layer: "31e352740f53".into(), total: Some(9) },
            progress(Phase::Downloading, 3),
            progress(Phase::Downloading, 9),
            progress(Phase::Verifying, 9),
            progress(Phase::Extracting, 1),
            progress(Phase::Extracting, 9),
            Event::LayerDone { layer: "31e352740f53".into(), how: LayerOutcome::PullComplete },
            Event::Pulled { name: "alpine:latest".into(), digest: "sha256:12".into(), fresh: true },
        ]);
        assert_eq!(
            text,
            "latest: Pulling from library/alpine\naaaaaaaaaaaa: Already exists\n31e352740f53: Pulling fs layer\n\
             31e352740f53: Verifying Checksum\n31e352740f53: Download complete\n31e352740f53: Pull complete\n\
             Digest: sha256:12\nStatus: Downloaded newer image for alpine:latest\n"
        );
    }
}
