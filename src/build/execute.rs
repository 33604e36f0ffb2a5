//! A step that has to be done: a draft on the parent, the work in it, a layer of what changed.

use std::cell::RefCell;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::OFlags;

use super::stage::Stage;
use super::{Base, record};
use crate::context::Input;
use crate::context::copy::{self, Copied};
use crate::db::ContainerId;
use crate::error::{Context as _, Error, Result};
use crate::image::{CacheKey, ContentId};
use crate::job::{Event, StepAt, Stream};
use crate::network;
use crate::plan::{self, Action, Step};
use crate::rootfs::{self, Known, Layer};
use crate::runtime::{self, Spec};
use crate::snapshot::{Draft, Purpose};
use crate::sys::dir;

pub(super) enum Done {
    /// `None` for steps that leave no layer.
    Layer(Option<Layer>),
    /// The step made the same content as once before: that layer stays.
    Again(record::Hit),
    /// A file was not what the key says when it was copied.
    InputChanged(String),
}

/// How much of a failing command's output its error repeats.
const LAST_OUTPUT: usize = 2048;

pub(super) fn execute(
    stage: &Stage<'_>,
    base: &Base,
    work: Work<'_>,
    at: &StepAt,
    input: &[Input<'_>],
) -> Result<Done> {
    match &work.step.action {
        Action::Config => Ok(Done::Layer(None)),
        Action::Run(run) => run_step(stage, base, work, run, at),
        Action::Copy(what) => copy_step(stage, base, work, what, input),
        Action::Workdir { path, user } => workdir(stage, base, work, path, user),
    }
}

/// A step, and the key it has wherever it stands.
#[derive(Clone, Copy)]
pub(super) struct Work<'w> {
    pub(super) step: &'w Step,
    pub(super) key: CacheKey,
}

/// What the index says of this step's layer.
fn made<'m>(stage: &Stage<'m>, step: &'m Step) -> rootfs::Made<'m> {
    rootfs::Made {
        instruction: Some(&step.created_by),
        build: Some(stage.inputs.record),
        epoch: stage.inputs.epoch,
    }
}

fn draft<'s>(stage: &Stage<'s>, base: &Base) -> Result<Draft<'s>> {
    stage.engine.snapshots.draft(base.stack.chain(), Purpose::Layer)
}

fn pack(stage: &Stage<'_>, base: &Base, work: Work<'_>, draft: Draft<'_>, copied: &[Copied]) -> Result<Done> {
    let again = RefCell::new(None);
    let twin = |content: &ContentId| {
        let known = record::made_before(stage.engine, &work.key, content)?;
        let Some(known) = known else { return Ok(None) };
        let stands = stage.stands(&base.stack, known.layer.as_ref())?;
        Ok(again.borrow_mut().insert(known).layer.clone().filter(|_| stands))
    };
    let known =
        Known { files: copied.iter().map(|file| (&file.path[..], file.digest)).collect(), twin: Some(&twin) };
    let made = made(stage, work.step);
    let outcome =
        rootfs::pack(stage.engine, draft, &base.stack, &made, known, stage.inputs.lease, stage.job)?;
    Ok(match (outcome, again.into_inner()) {
        (rootfs::Outcome::Differs(path), _) => Done::InputChanged(path),
        (rootfs::Outcome::Layer(layer), Some(before)) if before.layer.as_ref() == Some(&layer) => {
            Done::Again(before)
        }
        (rootfs::Outcome::Layer(layer), _) => Done::Layer(Some(layer)),
    })
}

fn run_step(stage: &Stage<'_>, base: &Base, work: Work<'_>, run: &plan::Run, at: &StepAt) -> Result<Done> {
    let draft = draft(stage, base)?;
    let id = ContainerId::random();
    stage.job.report(Event::StepRunning { step: at.clone(), id: id.short().to_owned() });

    let mut spec = Spec::new(id.as_str(), draft.mount()?, run.args.clone());
    spec.env = env(run);
    spec.user.clone_from(&run.user);
    spec.cwd = if run.working_dir.is_empty() { "/".into() } else { run.working_dir.clone() };
    let network = match run.network {
        plan::Network::None => "none",
        plan::Network::Default | plan::Network::Host => "host",
    };
    network::configure(network::find(network)?, stage.inputs.host, &network::Names::default(), &mut spec);
    spec.files.extend(run.files.iter().map(|file| runtime::File {
        target: file.path.to_string_lossy().into_owned(),
        content: String::from_utf8_lossy(&file.bytes).into_owned(),
        mode: file.mode,
    }));

    let mut last = Vec::new();
    let mut output = |stream: Stream, bytes: &[u8]| {
        last.extend_from_slice(bytes);
        if last.len() > 2 * LAST_OUTPUT {
            last.drain(..last.len() - LAST_OUTPUT);
        }
        stage.job.report(Event::StepOutput { step: at.clone(), stream, bytes: bytes.to_vec() });
        Ok(())
    };
    let runtime = stage.engine.runtime()?;
    let ran = runtime::run(runtime, &spec, vec![draft.shadow()?], stage.job.cancel(), &mut output);
    let (exit, warnings) = ran.context(|| format!("running `{}`", shown(&run.args)))?;
    for warning in warnings {
        stage.job.warn(warning);
    }
    if exit.code != 0 {
        return Err(failed(run, &exit, &last));
    }
    pack(stage, base, work, draft, &[])
}

/// What is hidden goes before what is seen: each name once.
fn env(run: &plan::Run) -> Vec<String> {
    let name = |entry: &str| entry.split_once('=').map_or(entry, |(name, _)| name).to_owned();
    let hidden: Vec<String> = run.hidden_env.iter().map(|entry| name(entry)).collect();
    let seen = run.env.iter().filter(|entry| !hidden.contains(&name(entry)));
    seen.chain(&run.hidden_env).cloned().collect()
}

fn failed(run: &plan::Run, exit: &runtime::Exit, last: &[u8]) -> Error {
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

fn copy_step(
    stage: &Stage<'_>,
    base: &Base,
    work: Work<'_>,
    what: &plan::Copy,
    input: &[Input<'_>],
) -> Result<Done> {
    if let Some(archive) = input.iter().filter(|_| what.unpack).find_map(Input::first_archive) {
        return Err(Error::unsupported(format!(
            "ADD of an archive (`{archive}`) is not supported by this version"
        ))
        .hint("COPY it, and unpack it with a RUN step"));
    }
    let draft = draft(stage, base)?;
    let copied = {
        let root = draft.mounted()?;
        let owner = what.chown.as_deref().map(|owner| owner_of(root.as_fd(), owner)).transpose()?;
        let options = copy::Options { owner, mode: what.chmod };
        copy::into(root.as_fd(), &what.destination, input, &what.inline, options, stage.job)?
    };
    pack(stage, base, work, draft, &copied)
}

/// `--chown`: names are looked up in the image's own files; a number without a group is the group's too (Docker).
fn owner_of(root: BorrowedFd<'_>, owner: &str) -> Result<(u32, u32)> {
    if let Ok(number) = owner.parse() {
        return Ok((number, number));
    }
    let user = runtime::user::resolve(root, owner, &[])?;
    Ok((user.uid, user.gid))
}

fn workdir(stage: &Stage<'_>, base: &Base, work: Work<'_>, path: &str, user: &str) -> Result<Done> {
    let below = path.trim_matches('/').as_bytes();
    if !base.stack.layers().is_empty() {
        let view = base.stack.view(stage.engine)?;
        if dir::open_in_root(view.as_fd(), below, OFlags::PATH | OFlags::DIRECTORY).is_ok() {
            return Ok(Done::Layer(None));
        }
    }
    let draft = draft(stage, base)?;
    {
        let root = draft.mounted()?;
        let owner = if user.is_empty() { (0, 0) } else { owner_of(root.as_fd(), user)? };
        copy::make_dirs(root.as_fd(), below, owner).context(|| format!("making the directory `{path}`"))?;
    }
    pack(stage, base, work, draft, &[])
}
