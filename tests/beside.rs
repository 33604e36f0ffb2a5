//! Two verbs at once: before each of its visible steps one of them stops, and the other runs from its beginning to its
//! end. What was seen before, and acted upon afterwards, shows here.
//!
//! `OUTCROP_STEPS` is how many steps of each pair are tried; `OUTCROP_SEED` decides which.

use std::fs;
use std::process::Command;

use crate::crash::steps;
use crate::differential::number;
use crate::differential::random::Random;
use crate::sandbox::{Outcome, Sandbox};

/// Lines of commands, whose words are set apart by `, `.
struct Pair<'p> {
    /// Brings the store to where it begins, and says what is done meanwhile.
    prepare: &'p dyn Fn() -> String,
    stopped: &'p str,
    /// Those that fail have nothing to do.
    after: &'p [&'p str],
}

fn command(sandbox: &Sandbox, line: &str) -> Command {
    sandbox.command(&line.split(", ").collect::<Vec<_>>())
}

/// Whoever waits for the one that stands still gives up after a while.
fn patient(sandbox: &Sandbox, line: &str) -> Command {
    let ours = command(sandbox, line);
    let mut patient = Command::new("timeout");
    patient.args(["--signal=KILL", "2"]).arg(ours.get_program()).args(ours.get_args());
    for (name, value) in ours.get_envs() {
        match value {
            Some(value) => patient.env(name, value),
            None => patient.env_remove(name),
        };
    }
    patient.current_dir(ours.get_current_dir().unwrap());
    patient
}

/// What both came to.
struct Met {
    step: String,
    stopped: (Option<i32>, String),
    meanwhile: Outcome,
}

fn at_each_step(sandbox: &Sandbox, pair: &Pair<'_>, judge: &dyn Fn(&Met)) {
    let tidy = || pair.after.iter().for_each(|line| drop(Outcome::of(&mut command(sandbox, line))));
    (pair.prepare)();
    let whole = steps::run(command(sandbox, pair.stopped), None, sandbox.dir());
    assert_eq!(whole.code, Some(0), "{}", whole.said);
    tidy();
    let mut steps: Vec<usize> = (1..=whole.steps).collect();
    let mut random = Random::new(number("OUTCROP_SEED", 1));
    let most = usize::try_from(number("OUTCROP_STEPS", 12)).unwrap();
    while steps.len() > most {
        steps.remove(random.below(steps.len()));
    }
    for step in steps {
        let line = (pair.prepare)();
        let mut meanwhile = None;
        let mut run_other = || meanwhile = Some(Outcome::of(&mut patient(sandbox, &line)));
        let ran = steps::run_beside(command(sandbox, pair.stopped), step, sandbox.dir(), &mut run_other);
        let Some(meanwhile) = meanwhile else { continue };
        let step = format!("{step}: {}", ran.before.unwrap_or_default());
        judge(&Met { step, stopped: (ran.code, ran.said), meanwhile });
        sandbox.check();
        tidy();
    }
}

#[test]
fn a_volume_is_pruned_or_taken_up_and_never_half_of_both() {
    let sandbox = Sandbox::new();
    sandbox.base_image("base");
    let volumes = sandbox.root().join("volumes");
    let prepare = || {
        sandbox.outcrop(&["create", "--name", "giver", "-v", "/data", "base", "true"]).ok();
        sandbox.outcrop(&["rm", "giver"]).ok();
        let volume = fs::read_dir(&volumes).unwrap().next().unwrap().unwrap().file_name();
        let volume = volume.to_str().unwrap();
        fs::write(volumes.join(volume).join("_data/kept"), "").unwrap();
        format!("create, --name, taker, -v, {volume}:/data, base, ls, /data")
    };
    let pair = Pair {
        prepare: &prepare,
        stopped: "system, prune, --force, --volumes",
        after: &["rm, -v, taker", "system, prune, --force, --volumes"],
    };
    at_each_step(&sandbox, &pair, &|met| {
        assert_eq!(met.stopped.0, Some(0), "{}: {}", met.step, met.stopped.1);
        // Where prune had not yet looked at the containers, it has taken this one along.
        if met.meanwhile.code() == Some(0) && !sandbox.outcrop(&["ps", "-aq"]).ok().stdout().is_empty() {
            sandbox.outcrop(&["start", "-a", "taker"]).ok();
        }
    });
}

const COUNTS: &str = "n=$(cat /a 2> /dev/null || echo 0); n=$((n + 1)); echo $n > /a; echo $n > /b";

/// Both files say the same number.
fn is_of_one_moment(sandbox: &Sandbox, image: &str) {
    let show = ["run", "--rm", "--network", "none", image, "cat", "/a", "/b"];
    let shown = sandbox.outcrop(&show).ok().stdout();
    let (a, b) = shown.trim().split_once('\n').unwrap();
    assert_eq!(a, b);
}

#[test]
fn a_container_that_is_started_while_it_is_committed_is_committed_as_it_was_at_one_moment() {
    let sandbox = Sandbox::new();
    sandbox.base_image("base");
    sandbox.outcrop(&["create", "--network", "none", "--name", "box", "base", "sh", "-c", COUNTS]).ok();
    let prepare = || {
        sandbox.outcrop(&["start", "-a", "box"]).ok();
        "start, -a, box".to_owned()
    };
    let pair = Pair { prepare: &prepare, stopped: "commit, box, made", after: &["rmi, made"] };
    at_each_step(&sandbox, &pair, &|met| {
        assert_eq!(met.stopped.0, Some(0), "{}: {}", met.step, met.stopped.1);
        is_of_one_moment(&sandbox, "made");
    });
}

#[test]
fn a_container_that_is_removed_while_it_is_committed_is_committed_whole_or_not() {
    let sandbox = Sandbox::new();
    sandbox.base_image("base");
    let script = "for n in 1 2 3 4 5 6 7 8 9; do mkdir /d$n; echo $n > /d$n/n; done";
    let prepare = || {
        sandbox.outcrop(&["run", "--network", "none", "--name", "box", "base", "sh", "-c", script]).ok();
        "rm, box".to_owned()
    };
    let pair = Pair { prepare: &prepare, stopped: "commit, box, made", after: &["rmi, made", "rm, box"] };
    at_each_step(&sandbox, &pair, &|met| {
        if met.stopped.0 == Some(0) {
            let count = "cat /d?/n | wc -l";
            let show = ["run", "--rm", "--network", "none", "made", "sh", "-c", count];
            assert_eq!(sandbox.outcrop(&show).ok().line(), "9", "{}", met.step);
        } else {
            let said = ["was removed meanwhile", "No such container: box"];
            let found = said.iter().any(|said| met.stopped.1.contains(said));
            assert!(found, "{}: {}", met.step, met.stopped.1);
        }
    });
}
