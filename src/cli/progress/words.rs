//! The sentences that several renderers say alike.

use std::time::Duration;

use outcrop::job::{Event, LayerOutcome, Phase, StepAt};

/// What Docker says once it is certain; `None` for what is under way.
pub(super) fn transfer(event: &Event) -> Option<Vec<String>> {
    Some(match event {
        Event::Pulling { name, tag } => vec![format!("{tag}: Pulling from {name}")],
        Event::LayerDone { layer, how } => vec![format!("{layer}: {}", outcome(how))],
        Event::Pushing { repository } => vec![format!("The push refers to repository [{repository}]")],
        Event::Copying { from, to } => vec![format!("Copying {from} to {to}")],
        Event::Pushed { tag, digest, size } => vec![format!("{tag}: digest: {digest} size: {size}")],
        Event::Pulled { name, digest, fresh } => {
            let status = if *fresh { "Downloaded newer image for" } else { "Image is up to date for" };
            vec![format!("Digest: {digest}"), format!("Status: {status} {name}")]
        }
        _ => return None,
    })
}

/// What checks found, as a list.
pub(super) fn findings(findings: &[String]) -> Vec<String> {
    let count = match findings.len() {
        1 => "1 warning found".to_owned(),
        many => format!("{many} warnings found"),
    };
    let list = findings.iter().map(|finding| format!(" - {finding}"));
    std::iter::once(format!("{count} (--check shows the lines):")).chain(list).collect()
}

pub(super) fn outcome(how: &LayerOutcome) -> String {
    match how {
        LayerOutcome::AlreadyExists => "Already exists".into(),
        LayerOutcome::PullComplete => "Pull complete".into(),
        LayerOutcome::Pushed => "Pushed".into(),
        LayerOutcome::AlreadyThere => "Layer already exists".into(),
        LayerOutcome::Mounted(from) => format!("Mounted from {from}"),
        LayerOutcome::Copied => "Copied".into(),
        LayerOutcome::Converted => "Converted".into(),
        LayerOutcome::Failed => "Failed".into(),
    }
}

pub(super) fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Waiting => "Waiting",
        Phase::Downloading => "Downloading",
        Phase::Verifying => "Verifying",
        Phase::Extracting => "Extracting",
        Phase::Compressing => "Compressing",
        Phase::Uploading => "Pushing",
        Phase::Copying => "Copying",
    }
}

/// `[3/5]`, and with its stage where there are several: `[build 3/9]`.
pub(super) fn place(step: &StepAt) -> String {
    match &step.stage {
        Some(stage) => format!("[{stage} {}/{}]", step.number, step.total),
        None => format!("[{}/{}]", step.number, step.total),
    }
}

/// `0.4s`, `59.9s`, `1m05s`, `2h03m`.
pub(super) fn time(took: Duration) -> String {
    let tenths = took.as_millis() / 100;
    let seconds = tenths / 10;
    match seconds {
        0..60 => format!("{seconds}.{}s", tenths % 10),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}
