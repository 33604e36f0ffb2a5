//! What a cache hit means, and who runs a step.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use crate::sandbox::{Outcome, Sandbox, based as sandbox};

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

// ---- cache ls, inspect, prune ----

/// Three steps of 1, 2 and 3 MB that no image has any more, used in that order.
fn three_forgotten() -> Sandbox {
    let sandbox = sandbox("");
    for megabytes in 1..=3 {
        sandbox.dockerfile(&format!("FROM base\nRUN head -c {megabytes}000000 /dev/zero > /zeros\n"));
        build(&sandbox);
        sandbox.outcrop(&["rmi", "it"]).ok();
        std::thread::sleep(Duration::from_millis(5));
    }
    sandbox
}

fn cached(sandbox: &Sandbox) -> Vec<String> {
    sandbox.outcrop(&["cache", "ls", "--format", "{{.Size}} {{.Frees}} {{.Uses}}"]).ok().lines()
}

#[test]
fn the_cache_is_listed_the_latest_used_first_with_what_removal_frees() {
    let sandbox = three_forgotten();
    assert_eq!(cached(&sandbox), ["3MB 3MB 0", "2MB 2MB 0", "1MB 1MB 0"]);
    sandbox.dockerfile("FROM base\nRUN head -c 1000000 /dev/zero > /zeros\n");
    build(&sandbox);
    assert_eq!(cached(&sandbox), ["1MB 0B 1", "3MB 3MB 0", "2MB 2MB 0"], "an image has it now");
    let ids = sandbox.outcrop(&["cache", "ls", "-q", "--filter", "text=3000000"]).ok().line();
    let shown = sandbox.outcrop(&["cache", "inspect", &ids]).ok().stdout();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown[0]["Frees"], 3_000_000);
    assert_eq!(shown[0]["Key"]["run"]["args"][2], "head -c 3000000 /dev/zero > /zeros");
    sandbox.outcrop(&["cache", "inspect", "999"]).fails(1).complains("No such cache record: 999");
}

#[test]
fn the_least_recently_used_go_until_the_rest_fits() {
    let sandbox = three_forgotten();
    sandbox
        .outcrop(&["cache", "prune", "--keep-storage", "3MB", "--dry-run"])
        .ok()
        .says("would be reclaimed: 3MB");
    assert_eq!(cached(&sandbox).len(), 3);
    let pruned = sandbox.outcrop(&["cache", "prune", "-f", "--keep-storage", "3MB"]).ok();
    assert_eq!(pruned.lines().last().unwrap(), "Total reclaimed space: 3MB");
    assert_eq!(cached(&sandbox), ["3MB 3MB 0"]);
    sandbox.outcrop(&["cache", "prune", "-f", "--max-age", "1h"]).ok().says("Total reclaimed space: 0B");
    sandbox.outcrop(&["cache", "prune", "-f"]).ok().says("Total reclaimed space: 3MB");
    assert_eq!(cached(&sandbox), Vec::<String>::new());
    let usage =
        std::process::Command::new("du").args(["-sm"]).arg(sandbox.root().join("overlay2")).output().unwrap();
    let megabytes: u64 =
        String::from_utf8(usage.stdout).unwrap().split('\t').next().unwrap().parse().unwrap();
    assert!(megabytes < 3, "{megabytes} MB are left on disk");
    sandbox.check();
}

#[test]
fn what_images_have_is_forgotten_only_with_all() {
    let sandbox = sandbox("FROM base\nRUN head -c 1000000 /dev/zero > /zeros\nENV A=1\n");
    build(&sandbox);
    sandbox.outcrop(&["cache", "prune", "-f"]).ok().says("Total reclaimed space: 0B");
    assert_eq!(cached(&sandbox).len(), 2);
    sandbox.outcrop(&["cache", "prune", "-f", "-a"]).ok().says("Total reclaimed space: 0B");
    assert_eq!(cached(&sandbox), Vec::<String>::new());
    assert_eq!(steps(&build(&sandbox)), (1, 0));
    sandbox
        .outcrop(&["cache", "prune", "--keep-storage", "much"])
        .fails(1)
        .complains("`much` in --keep-storage is no size");
    sandbox.outcrop(&["cache", "prune", "--max-age", "1d"]).fails(1).complains("`1d` in --max-age is no age");
}

// ---- why a step ran ----

/// The lines of `explain` for one step, without its first two.
fn why(sandbox: &Sandbox, step: u32) -> Vec<String> {
    let lines = sandbox.outcrop(&["explain", &step.to_string()]).ok().lines();
    lines.into_iter().skip(3).map(|line| line.trim().to_owned()).collect()
}

#[test]
fn a_miss_names_the_files_that_made_it() {
    let sandbox = sandbox("FROM base\nCOPY src /src\nRUN cat /src/a > /out\n");
    for name in ["a", "b", "c", "keep"] {
        sandbox.file(format!("src/{name}"), name);
    }
    build(&sandbox).says_not("Not cached");
    assert_eq!(why(&sandbox, 2), ["this step has not been seen before"]);
    sandbox.file("src/a", "another");
    std::fs::remove_file(sandbox.context().join("src/b")).unwrap();
    sandbox.file("src/d", "new");
    let file = std::fs::File::open(sandbox.context().join("src/c")).unwrap();
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let old = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";
    let change = format!("src/a changed (sha256 {}.. -> sha256 ae448ac8..)", &old[..8]);
    build(&sandbox)
        .says(&format!(" ---> Not cached: {change}, and 3 more\n"))
        .says(" ---> Not cached: what `COPY src /src` left changed\n");
    assert_eq!(
        why(&sandbox, 2),
        [change.as_str(), "src/b is gone", "src/c has another mode (0644 -> 0600)", "src/d is new"]
    );
    assert_eq!(why(&sandbox, 3), ["what `COPY src /src` left changed"]);
    build(&sandbox);
    assert_eq!(why(&sandbox, 2), Vec::<String>::new());
    let json = sandbox.outcrop(&["explain", "--build", "2", "--format", "json"]).ok().stdout();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["steps"][0]["why"][0]["what"], "file");
    assert_eq!(json["steps"][0]["why"][0]["old"], format!("sha256:{old}"));
    sandbox.check();
}

#[test]
fn a_miss_names_the_variable_the_command_or_the_base_that_made_it() {
    let text = |version: &str, command: &str| {
        format!(
            "FROM base\nARG VERSION={version}\nRUN {command} $VERSION > /out\nWORKDIR /there\nRUN pwd > /pwd\n"
        )
    };
    let sandbox = sandbox(&text("1.2", "echo"));
    build(&sandbox);
    sandbox.dockerfile(&text("1.3", "echo"));
    let again = build(&sandbox);
    assert_eq!(why(&sandbox, 3), ["VERSION: 1.2 -> 1.3"], "{}", again.stdout());
    sandbox.dockerfile(&text("1.3", "printf"));
    build(&sandbox);
    assert_eq!(
        why(&sandbox, 3),
        ["the command changed: `/bin/sh -c echo $VERSION > /out` -> `/bin/sh -c printf $VERSION > /out`"]
    );
    sandbox
        .outcrop(&["build", "--explain", "--no-cache", "-t", "it", "."])
        .ok()
        .says("every step was to run");
    sandbox.outcrop(&["cache", "prune", "-f", "-a"]).ok();
    build(&sandbox).says(" ---> Not cached: its result is no longer in the cache");
    sandbox.outcrop(&["explain", "99"]).fails(1).complains("has nothing to tell of a step 99");
    sandbox.outcrop(&["explain", "--build", "99"]).fails(1).complains("there is no build 99");
}

#[test]
fn lists_of_files_go_with_the_records_that_name_them() {
    let sandbox = sandbox("FROM base\nCOPY src /src\n");
    sandbox.file("src/a", "a");
    build(&sandbox);
    let lists = || std::fs::read_dir(sandbox.root().join("cache/inputs")).unwrap().count();
    assert_eq!(lists(), 1);
    sandbox.outcrop(&["cache", "prune", "-f"]).ok();
    assert_eq!(lists(), 1, "an image has the layer");
    sandbox.outcrop(&["cache", "prune", "-f", "-a"]).ok();
    assert_eq!(lists(), 0);
}
