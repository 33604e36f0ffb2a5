//! What a cache hit means, and who runs a step.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use crate::sandbox::{Outcome, Sandbox};

fn sandbox(dockerfile: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.base_image("base");
    sandbox.dockerfile(dockerfile);
    sandbox
}

const BUILD: [&str; 6] = ["build", "--progress", "plain", "-t", "it", "."];

fn build(sandbox: &Sandbox) -> Outcome {
    sandbox.outcrop(&BUILD).ok()
}

/// The steps that ran and those that were cached, by number.
fn steps(outcome: &Outcome) -> (usize, usize) {
    let lines = outcome.lines();
    let count = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    (count("---> Running in"), count("---> Using cache"))
}

fn id(sandbox: &Sandbox) -> String {
    sandbox.outcrop(&["inspect", "--format", "{{.Id}}", "it"]).ok().line()
}

#[test]
fn a_step_that_makes_equal_content_again_keeps_its_layer_and_what_stands_on_it_hits() {
    for driver in ["overlay2", "vfs"] {
        let sandbox = Sandbox::new().driver(driver);
        sandbox.base_image("base");
        sandbox.dockerfile(
            "FROM base AS make\nCOPY in /in\nRUN grep -v '^#' /in > /out\n\
             FROM base\nCOPY --from=make /out /out\nRUN cat /out > /copy\n",
        );
        sandbox.file("in", "# one\nkept\n");
        build(&sandbox);
        let before = id(&sandbox);
        // Times in layers are whole seconds.
        std::thread::sleep(Duration::from_millis(1100));
        sandbox.file("in", "# two\nkept\n");
        let again = build(&sandbox);
        assert_eq!(steps(&again), (1, 2), "{driver}: {}", again.stdout());
        assert_eq!(id(&sandbox), before, "{driver}");
        sandbox.check();
    }
}

#[test]
fn a_whole_rebuild_to_equal_content_is_the_same_image() {
    let sandbox = sandbox("FROM base\nRUN echo one > /one\nENV A=1\nRUN echo two > /two\n");
    build(&sandbox);
    let before = id(&sandbox);
    std::thread::sleep(Duration::from_millis(1100));
    let again = sandbox.outcrop(&["build", "--progress", "plain", "--no-cache", "-t", "it", "."]).ok();
    assert_eq!(steps(&again), (2, 0));
    assert_eq!(id(&sandbox), before);
    sandbox.check();
}

#[test]
fn two_builds_at_once_run_a_step_once() {
    let sandbox = sandbox("FROM base\nRUN sleep 1; cat /proc/sys/kernel/random/uuid > /once\n");
    let start = |tag: &str| {
        let mut command = sandbox.command(&["build", "--progress", "plain", "-t", tag, "."]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let builds: Vec<_> = ["a", "b", "c"].map(start).into();
    let mut ran = 0;
    for build in builds {
        let output = build.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        ran += text.matches("---> Running in").count();
    }
    assert_eq!(ran, 1);
    let read =
        |tag: &str| sandbox.outcrop(&["run", "--rm", "--network", "none", tag, "cat", "/once"]).ok().line();
    assert_eq!(read("a"), read("b"));
    assert_eq!(read("b"), read("c"));
}

#[test]
fn when_the_build_that_runs_a_step_is_killed_the_one_that_waits_runs_it() {
    let sandbox = sandbox("FROM base\nRUN echo begun; sleep 2\n");
    let start = || {
        let mut command = sandbox.command(&BUILD);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut first = start();
    let mut lines = BufReader::new(first.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "begun"));
    let mut second = start();
    let mut told = BufReader::new(second.stdout.take().unwrap()).lines();
    assert!(told.any(|line| line.unwrap().contains("another build is at this very step")));
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!(told.filter(|line| line.as_ref().unwrap().contains("---> Running in")).count(), 1);
    assert!(second.wait().unwrap().success());
    sandbox.check();
}
