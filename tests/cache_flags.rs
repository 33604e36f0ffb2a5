//! Flags that say which records of earlier builds count.

use std::time::Duration;

use crate::sandbox::{Sandbox, based as sandbox, build_it as build};

const STAGES: &str = "FROM base AS one\nRUN echo one > /one\nFROM base AS two\nENV A=1\nRUN echo two > /two\n\
                      FROM base\nCOPY --from=one /one /one\nCOPY --from=two /two /two\nRUN cat /one /two > /both\n";

/// Instructions that ran.
fn ran(sandbox: &Sandbox) -> Vec<String> {
    let told = sandbox.outcrop(&["explain", "--format", "json"]).ok().json();
    let steps = told["steps"].as_array().unwrap().iter();
    let ran = steps.filter(|step| step["outcome"] == "ran");
    ran.map(|step| step["instruction"].as_str().unwrap().to_owned()).collect()
}

fn id(sandbox: &Sandbox) -> String {
    sandbox.outcrop(&["inspect", "--format", "{{.Id}}", "it"]).ok().line()
}

#[test]
fn the_steps_of_named_stages_run_and_equal_content_stays() {
    let sandbox = sandbox(STAGES);
    build(&sandbox, &[]).ok();
    let before = id(&sandbox);
    let (one, two) = ("RUN /bin/sh -c echo one > /one", "RUN /bin/sh -c echo two > /two");
    for (flags, expected) in [
        (&["--no-cache-filter", "one"][..], &[one][..]),
        (&["--no-cache-filter", "1"], &[two]),
        (&["--no-cache-filter", "ONE,two"], &[one, two]),
        (&["--no-cache-filter", "one", "--no-cache-filter", "two"], &[one, two]),
    ] {
        build(&sandbox, flags).ok();
        assert_eq!(ran(&sandbox), expected, "{flags:?}");
        assert_eq!(id(&sandbox), before, "{flags:?}");
    }
    sandbox.check();
}

#[test]
fn a_stage_that_is_not_there_is_an_error_with_the_nearest_before_anything_runs() {
    let sandbox = sandbox(STAGES);
    build(&sandbox, &["--no-cache-filter", "twoo"])
        .fails(1)
        .complains("there is no stage `twoo` to run without the cache")
        .complains("did you mean `two`?");
    build(&sandbox, &["--no-cache-filter", "3"]).fails(1).complains("there is no stage `3`");
    assert_eq!(sandbox.outcrop(&["cache", "ls", "-q"]).ok().stdout(), "");
}

#[test]
fn a_step_that_ran_too_long_ago_runs_again_and_is_new_then() {
    let sandbox = sandbox("FROM base\nRUN echo one > /one\nENV A=1\nRUN echo two > /two\n");
    build(&sandbox, &[]).ok();
    let before = id(&sandbox);
    build(&sandbox, &["--cache-ttl", "1h"]).ok();
    assert_eq!(ran(&sandbox), [""; 0]);
    // Two hours pass for what was remembered.
    let pass = || {
        let index = sandbox.root().join("outcrop.db");
        let passed = std::process::Command::new("sqlite3")
            .arg(index)
            .arg("update cache_record set made_at = made_at - 7200000000000")
            .output()
            .unwrap();
        assert!(passed.status.success(), "{passed:?}");
    };
    pass();
    build(&sandbox, &[]).ok();
    assert_eq!(ran(&sandbox), [""; 0]);
    build(&sandbox, &["--cache-ttl", "3h"]).ok();
    assert_eq!(ran(&sandbox), [""; 0]);
    std::thread::sleep(Duration::from_millis(1100));
    let old = build(&sandbox, &["--cache-ttl", "1h"]).ok();
    assert!(old.stdout().contains("---> Not cached: its result is 2h"), "{}", old.stdout());
    assert_eq!(ran(&sandbox).len(), 2);
    sandbox.outcrop(&["explain"]).ok().says("old, and may be 1h");
    assert_eq!(id(&sandbox), before, "equal content keeps its layer and its time");
    // Its age counts from when it last ran.
    build(&sandbox, &["--cache-ttl", "1h"]).ok();
    assert_eq!(ran(&sandbox), [""; 0]);
    pass();
    build(&sandbox, &["--cache-ttl", "1h"]).ok();
    assert_eq!(ran(&sandbox).len(), 2);
    sandbox.check();
}

#[test]
fn a_ttl_that_is_no_duration_is_an_error() {
    let sandbox = sandbox("FROM base\nRUN echo one > /one\n");
    build(&sandbox, &["--cache-ttl", "tomorrow"])
        .fails(1)
        .complains("`tomorrow` in --cache-ttl is no duration");
}
