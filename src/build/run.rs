//! RUN: a command in a container on the stage so far; what it changes is a layer.

use std::os::fd::AsFd as _;

use rustix::fs::OFlags;

use super::execute::{Done, Work, draft, pack};
use super::guard::Guard;
use super::mounts::{Mounts, Prepared};
use super::stage::Stage;
use super::{Base, failed};
use crate::container;
use crate::db::{ContainerId, ContainerRow};
use crate::error::{Context as _, Error, Result};
use crate::job::{Event, StepAt, Stream};
use crate::network;
use crate::plan;
use crate::runtime::{self, Capability, File, Seccomp, Spec};
use crate::snapshot::{Draft, Purpose};
use crate::sys::dir;

/// How much of a failing command's output its error repeats.
const LAST_OUTPUT: usize = 2048;

pub(super) fn run(
    stage: &Stage<'_>,
    base: &Base,
    work: Work<'_>,
    run: &plan::Run,
    at: &StepAt,
    mounts: &Mounts<'_>,
) -> Result<Done> {
    check_interpreter(stage, base)?;
    let draft = draft(stage, base)?;
    let id = ContainerId::random();
    let mut spec = spec(stage, &draft, &id, run)?;
    let held = match mounts.prepare(stage, &mut spec)? {
        Prepared::Ready(held) => held,
        Prepared::InputChanged(path) => return Ok(Done::InputChanged(path)),
    };
    stage.job.report(Event::StepRunning { step: at.clone(), id: id.short().to_owned() });

    let mut last = Vec::new();
    let mut output = |stream: Stream, bytes: &[u8]| {
        last.extend_from_slice(bytes);
        if last.len() > 2 * LAST_OUTPUT {
            last.drain(..last.len() - LAST_OUTPUT);
        }
        stage.job.report(Event::StepOutput { step: at.clone(), stream, bytes: bytes.to_vec() });
        Ok(())
    };
    let mut hold = held.descriptors()?;
    hold.push(draft.shadow()?);
    let runtime = stage.engine.runtime()?;
    let ran = runtime::run(runtime, &spec, hold, stage.job.cancel(), &mut output);
    drop(held);
    let (exit, warnings) = ran.context(|| format!("running `{}`", shown(&run.args)))?;
    for warning in warnings {
        stage.job.warn(warning);
    }
    if exit.code != 0 {
        let chain = work.chain;
        if let Err(problem) = failed::put_aside(stage, base, run, chain, at, draft, exit.code) {
            stage.job.warn(format!("the files of the failed step are not kept: {}", problem.one_line()));
        }
        return Err(error_of(run, &exit, &last));
    }
    let mut guard = Guard::of(run, stage.inputs.run);
    pack(stage, base, work, draft, &[], guard.as_mut())
}

/// What the step left when it failed, and what became of that since, is its result.
pub(super) fn resume(
    stage: &Stage<'_>,
    base: &Base,
    work: Work<'_>,
    run: &plan::Run,
    kept: &ContainerRow,
) -> Result<Done> {
    let doing = || format!("taking the files of {}", kept.name);
    if !container::is_idle(stage.engine, kept)? {
        return Err(Error::conflict(format!("{} is running", kept.name)).hint("leave its shell first"));
    }
    container::recover_dead(stage.engine, kept).context(doing)?;
    let draft = stage.engine.snapshots.copy(kept.snapshot, Purpose::Layer).context(doing)?;
    let mut guard = Guard::of(run, stage.inputs.run);
    Ok(match pack(stage, base, work, draft, &[], guard.as_mut())? {
        Done::Layer(Some(layer)) => Done::Unrecorded(layer),
        Done::Again(before) => before.layer.map_or(Done::Layer(None), Done::Unrecorded),
        done @ (Done::Layer(None) | Done::Unrecorded(_) | Done::InputChanged(_)) => done,
    })
}

/// One that the kernel looks for when it is needed, it looks for in the container.
fn check_interpreter(stage: &Stage<'_>, base: &Base) -> Result<()> {
    let Some(interpreter) = stage.interpreter.as_ref().filter(|one| !one.is_everywhere()) else {
        return Ok(());
    };
    let path = interpreter.path.as_os_str().as_encoded_bytes();
    let view = base.stack.view(stage.engine)?;
    match dir::open_in_root(view.as_fd(), path, OFlags::PATH) {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::unsupported(format!(
            "programs of this platform are run by {}, which the image does not have",
            interpreter.path.display()
        ))
        .hint("register it with the flag F, as qemu-user-static does: then the kernel holds it")),
    }
}

/// Without its mounts.
fn spec(stage: &Stage<'_>, draft: &Draft<'_>, id: &ContainerId, run: &plan::Run) -> Result<Spec> {
    let mut spec = Spec::new(id.as_str(), draft.mount()?, run.args.clone());
    spec.env = env(run);
    spec.user.clone_from(&run.user);
    spec.cwd = if run.working_dir.is_empty() { "/".into() } else { run.working_dir.clone() };
    let network = match run.network {
        plan::Network::None => "none",
        plan::Network::Default | plan::Network::Host => "host",
    };
    let names = network::Names { hostname: run.hostname.as_deref(), hosts: &run.resources.hosts };
    network::configure(network::find(network)?, stage.inputs.host, &names, &mut spec);
    spec.files.extend(run.files.iter().map(|file| File {
        mode: file.mode,
        ..File::plain(file.path.to_string_lossy(), file.bytes.clone())
    }));
    spec.shm_size = run.resources.shm_size.unwrap_or(spec.shm_size);
    spec.rlimits.clone_from(&run.resources.ulimits);
    spec.cgroup_parent.clone_from(&run.resources.cgroup_parent);
    if run.security == plan::Security::Insecure {
        spec.capabilities = Capability::all().collect();
        spec.seccomp = Seccomp::Unconfined;
        spec.masked_paths.clear();
        spec.read_only_paths.clear();
        spec.reaches_host = true;
    }
    Ok(spec)
}

/// What is hidden goes before what is seen: each name once.
fn env(run: &plan::Run) -> Vec<String> {
    let name = |entry: &str| entry.split_once('=').map_or(entry, |(name, _)| name).to_owned();
    let hidden: Vec<String> = run.hidden_env.iter().map(|entry| name(entry)).collect();
    let seen = run.env.iter().filter(|entry| !hidden.contains(&name(entry)));
    seen.chain(&run.hidden_env).cloned().collect()
}

fn error_of(run: &plan::Run, exit: &runtime::Exit, last: &[u8]) -> Error {
    let mut message = format!("`{}` failed, exit code: {}", shown(&run.args), exit.code);
    if let Some(problem) = &exit.problem {
        message = format!("{message} ({problem})");
    }
    let tail = String::from_utf8_lossy(&last[last.len().saturating_sub(LAST_OUTPUT)..]).into_owned();
    let lines: Vec<&str> = tail.trim_end().lines().collect();
    let lines = &lines[lines.len().saturating_sub(10)..];
    if lines.iter().any(|line| !line.is_empty()) {
        message.push_str("; its last output:");
        for line in lines {
            message.push_str("\n    ");
            message.push_str(line);
        }
    }
    let error = Error::invalid(message);
    match exit.code {
        137 => error.hint("137 is SIGKILL: often the host ran out of memory"),
        127 => error.hint("127 means that the command was not found in the image"),
        _ => error,
    }
}

/// `/bin/sh -c` is noise to who wrote the line.
fn shown(args: &[String]) -> String {
    match args {
        [shell, flag, line] if shell.ends_with("sh") && flag == "-c" => line.clone(),
        _ => args.join(" "),
    }
}
