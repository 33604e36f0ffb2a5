//! Events as JSON, one object a line, for programs. Every object has `event` and `time` (seconds since the
//! renderer began); sizes are bytes, durations seconds, ids whole.

use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use outcrop::job::{Event, LayerOutcome, Report, StepAt, Stream};
use serde_json::{Value, json};

use super::words;

pub(super) struct Raw<W> {
    start: Instant,
    out: Mutex<W>,
}

impl<W: Write + Send> Raw<W> {
    pub(super) fn new(out: W) -> Self {
        Raw { start: Instant::now(), out: Mutex::new(out) }
    }
}

impl<W: Write + Send> Report for Raw<W> {
    fn event(&self, event: &Event) {
        let mut object = json!({ "time": seconds(self.start.elapsed()) });
        if let (Value::Object(object), Value::Object(fields)) = (&mut object, describe(event)) {
            object.extend(fields);
        }
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        // Where the reader is gone the work goes on: nobody asked to stop it.
        let _gone = writeln!(out, "{object}").and_then(|()| out.flush());
    }
}

fn describe(event: &Event) -> Value {
    match event {
        Event::StepStarted { step } => json!({ "event": "step-started", "step": place(step) }),
        Event::StepCached { step } => json!({ "event": "step-cached", "step": place(step) }),
        Event::StepMissed { step, why } => {
            json!({ "event": "step-missed", "step": place(step), "why": why })
        }
        Event::StepRunning { step, id } => {
            json!({ "event": "step-running", "step": place(step), "container": id })
        }
        Event::StepOutput { step, stream, bytes } => json!({
            "event": "step-output",
            "step": place(step),
            "stream": match stream { Stream::Out => "stdout", Stream::Err => "stderr" },
            "text": String::from_utf8_lossy(bytes),
        }),
        Event::StepDone { step, image, took } => {
            json!({ "event": "step-done", "step": place(step), "image": image, "took": seconds(*took) })
        }
        Event::StepFailed { step, took } => {
            json!({ "event": "step-failed", "step": place(step), "took": seconds(*took) })
        }
        Event::Built { image, took } => json!({ "event": "built", "image": image, "took": seconds(*took) }),
        Event::Tagged { name, image } => json!({ "event": "tagged", "name": name, "image": image }),
        Event::Pulling { name, tag } => json!({ "event": "pulling", "name": name, "tag": tag }),
        Event::LayerStarted { layer, total } => {
            json!({ "event": "layer-started", "layer": layer, "total": total })
        }
        Event::LayerProgress { layer, phase, done, total } => json!({
            "event": "layer-progress",
            "layer": layer,
            "phase": words::phase(*phase).to_lowercase(),
            "done": done,
            "total": total,
        }),
        Event::LayerDone { layer, how } => {
            let (how, from) = match how {
                LayerOutcome::Mounted(from) => ("mounted".to_owned(), Some(from)),
                how => (words::outcome(how).to_lowercase().replace(' ', "-"), None),
            };
            let mut done = json!({ "event": "layer-done", "layer": layer, "how": how });
            if let Some(from) = from {
                done["from"] = json!(from);
            }
            done
        }
        Event::Pulled { name, digest, fresh } => {
            json!({ "event": "pulled", "name": name, "digest": digest, "fresh": fresh })
        }
        Event::Pushing { repository } => json!({ "event": "pushing", "repository": repository }),
        Event::Copying { from, to } => json!({ "event": "copying", "from": from, "to": to }),
        Event::Pushed { tag, digest, size } => {
            json!({ "event": "pushed", "tag": tag, "digest": digest, "size": size })
        }
        Event::WorkStarted { id, what, total } => {
            json!({ "event": "work-started", "id": id, "what": what, "total": total })
        }
        Event::WorkProgress { id, done } => json!({ "event": "work-progress", "id": id, "done": done }),
        Event::WorkDone { id } => json!({ "event": "work-done", "id": id }),
        Event::Note(text) => json!({ "event": "note", "text": text }),
        Event::Warning(text) => json!({ "event": "warning", "text": text }),
        Event::Findings(findings) => json!({ "event": "findings", "findings": findings }),
    }
}

fn place(step: &StepAt) -> Value {
    json!({ "number": step.number, "total": step.total, "stage": step.stage, "text": step.text })
}

/// To the millisecond.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_one_object() {
        let raw = Raw::new(Vec::new());
        let step = StepAt { number: 1, total: 2, stage: None, text: "RUN x".into() };
        raw.event(&Event::StepStarted { step: step.clone() });
        raw.event(&Event::StepOutput { step, stream: Stream::Err, bytes: b"two\nlines\xff".to_vec() });
        let text = String::from_utf8(raw.out.into_inner().unwrap()).unwrap();
        let mut objects: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for object in &mut objects {
            assert!(object.as_object_mut().unwrap().remove("time").unwrap().is_f64());
        }
        let step = json!({ "number": 1, "total": 2, "stage": null, "text": "RUN x" });
        assert_eq!(
            objects,
            [
                json!({ "event": "step-started", "step": step }),
                json!({ "event": "step-output", "step": step, "stream": "stderr", "text": "two\nlines\u{fffd}" }),
            ]
        );
    }
}
