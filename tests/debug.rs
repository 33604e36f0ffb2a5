//! A step that fails: what it left is kept, looked at, mended and taken for its result.

use std::fs;

use crate::sandbox::{Outcome, Sandbox, based as sandbox, build_it as build};

fn debug(sandbox: &Sandbox, script: &str) -> Outcome {
    sandbox.outcrop(&["debug", "--", "sh", "-c", script])
}

/// Failed steps that are kept, the latest first: name and state.
fn kept(sandbox: &Sandbox) -> Vec<String> {
    let format = "{{.Names}} {{.Status}}";
    let lines = sandbox.outcrop(&["ps", "-a", "--format", format]).ok().lines();
    lines.iter().map(|line| line.split(')').next().unwrap().to_owned() + ")").collect()
}

const FAILING: &str = "FROM base\nENV A=1\nWORKDIR /w\nRUN echo one > one\nUSER nobody\n\
                       RUN echo half > /tmp/half; test -e /tmp/mended\nRUN cat /tmp/half > /tmp/last\n";

#[test]
fn a_failed_step_is_a_container_that_has_ended() {
    for driver in ["overlay2", "vfs"] {
        let sandbox = Sandbox::new().driver(driver);
        sandbox.base_image("base");
        sandbox.dockerfile(FAILING);
        build(&sandbox, &[]).fails(1).complains(
            "`outcrop debug` opens a shell in what the step left (failed-1-6), `outcrop build --resume`",
        );
        assert_eq!(kept(&sandbox), ["failed-1-6 Exited (1)"], "{driver}");
        let labels = "{{index .Config.Labels \"outcrop.failed-step\"}}";
        let label = sandbox.outcrop(&["container", "inspect", "--format", labels, "failed-1-6"]).ok();
        assert_eq!(label.line(), "1/6");
        sandbox.outcrop(&["diff", "failed-1-6"]).ok().says("A /tmp/half");
        sandbox.check();
        sandbox.outcrop(&["rm", "failed-1-6"]).ok();
        assert_eq!(kept(&sandbox), [""; 0]);
        sandbox.check();
    }
}

#[test]
fn three_are_kept_the_oldest_go_and_none_where_none_is_wanted() {
    let sandbox = sandbox("FROM base\nRUN false\n");
    build(&sandbox, &["--no-keep-failed"]).fails(1);
    assert_eq!(kept(&sandbox), [""; 0]);
    for _ in 0..4 {
        build(&sandbox, &[]).fails(1);
    }
    let expected = ["failed-5-2 Exited (1)", "failed-4-2 Exited (1)", "failed-3-2 Exited (1)"];
    assert_eq!(kept(&sandbox), expected);
    sandbox.check();
    sandbox.outcrop(&["container", "prune", "-f"]).ok();
    assert_eq!(kept(&sandbox), [""; 0]);
    sandbox.check();
}

#[test]
fn debug_sees_what_the_step_saw() {
    let sandbox = sandbox(
        "FROM base AS other\nRUN echo other > /file\nFROM base\nENV A=1\nWORKDIR /tmp/w\nUSER nobody\nARG B=2\n\
         RUN --mount=target=/src --mount=from=other,target=/other --mount=type=tmpfs,target=/t \
         --mount=type=cache,target=/c,mode=0777 --mount=type=secret,id=token,mode=0444 echo kept > /c/kept; false\n",
    );
    sandbox.file("in", "context\n");
    let token = sandbox.dir().join("token");
    fs::write(&token, "correct-horse\n").unwrap();
    let secret = format!("id=token,src={}", token.display());
    build(&sandbox, &["--secret", &secret]).fails(1);
    let script = "echo $A $B $(id -u) $(pwd); cat /src/in /other/file /c/kept; grep -c ' /t ' /proc/mounts; \
                  cat /run/secrets/token";
    let without = debug(&sandbox, script).fails(1);
    without
        .complains("the secret `token` is not there: give it again with --secret")
        .complains("No such file");
    let with = sandbox.outcrop(&["debug", "--secret", &secret, "--", "sh", "-c", script]).ok();
    assert_eq!(with.stdout(), "1 2 65534 /tmp/w\ncontext\nother\nkept\n1\ncorrect-horse\n");
    let shell = sandbox.outcrop_with_input(&["debug"], b"echo $A; exit 5\n").fails(5);
    assert_eq!(shell.stdout(), "1\n");
    sandbox.check();
}

#[test]
fn a_mended_step_is_taken_for_its_result_and_remembered_by_no_record() {
    for driver in ["overlay2", "vfs"] {
        let sandbox = Sandbox::new().driver(driver);
        sandbox.base_image("base");
        sandbox.dockerfile(FAILING);
        build(&sandbox, &[]).fails(1);
        debug(&sandbox, "echo whole > /tmp/half").ok();
        build(&sandbox, &["--resume"]).ok();
        let seen = sandbox.outcrop(&["run", "--rm", "it", "cat", "/tmp/half", "/tmp/last"]).ok();
        assert_eq!(seen.stdout(), "whole\nwhole\n", "{driver}");
        sandbox.check();
        // It never succeeded by itself.
        build(&sandbox, &[]).fails(1);
        sandbox.check();
    }
}

#[test]
fn going_on_fails_where_there_is_nothing_to_go_on_from() {
    let sandbox = sandbox("FROM base\nRUN echo fine\n");
    let nothing = "the last build of this Dockerfile and context left no failed step to go on from";
    build(&sandbox, &["--resume"]).fails(1).complains(nothing);
    build(&sandbox, &[]).ok();
    build(&sandbox, &["--resume"]).fails(1).complains(nothing);
    sandbox.dockerfile("FROM base\nRUN echo one; false\n");
    build(&sandbox, &[]).fails(1);
    sandbox.dockerfile("FROM base\nRUN echo two; false\n");
    build(&sandbox, &["--resume"]).fails(1).complains("the step that failed is another one now");
    sandbox.check();
}

#[test]
fn two_failures_are_mended_one_after_the_other() {
    let sandbox =
        sandbox("FROM base\nRUN echo 1 > /one; false\nRUN echo 2 > /two; false\nRUN cat /one /two > /both\n");
    build(&sandbox, &[]).fails(1);
    build(&sandbox, &["--resume"]).fails(1).complains("failed-2-3");
    build(&sandbox, &["--resume"]).ok();
    assert_eq!(sandbox.outcrop(&["run", "--rm", "it", "cat", "/both"]).ok().stdout(), "1\n2\n");
    sandbox.check();
}

#[test]
fn what_holds_a_secret_is_not_kept() {
    let sandbox = sandbox("FROM base\nRUN --mount=type=secret,id=token cp /run/secrets/token /kept; false\n");
    let token = sandbox.dir().join("token");
    fs::write(&token, "correct-horse\n").unwrap();
    let secret = format!("id=token,src={}", token.display());
    build(&sandbox, &["--secret", &secret]).fails(1);
    assert_eq!(kept(&sandbox), [""; 0]);
    sandbox.outcrop(&["debug"]).fails(125).complains("no failed step of a build is kept");
    sandbox.check();
}

#[test]
fn a_build_on_a_terminal_opens_a_shell_in_what_failed_and_goes_on_from_there() {
    let sandbox = sandbox(FAILING);
    let (exe, root, run) = (env!("CARGO_BIN_EXE_outcrop"), sandbox.root(), sandbox.run_root());
    let line = format!("{exe} --root {} --run-root {} build --debug -t it .", root.display(), run.display());
    // script(1) makes the terminal.
    let mut script = std::process::Command::new("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]).current_dir(sandbox.context());
    script.env("HOME", sandbox.dir()).env("SHELL", "/bin/sh").env("TERM", "xterm");
    let typed = b"echo user $(id -u) in $(pwd) has $(cat /tmp/half)\ntouch /tmp/mended\nexit 7\n";
    let shell = Outcome::with_input(&mut script, typed);
    assert_eq!(shell.code(), Some(1), "{}", shell.stdout());
    assert!(shell.stdout().contains("user 65534 in /w has half"), "{}", shell.stdout());
    build(&sandbox, &["--resume"]).ok();
    sandbox.check();
}
