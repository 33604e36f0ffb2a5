//! Steps that are found wherever they stand: COPY, ADD and WORKDIR by what they write and what they see on the way there.

use crate::sandbox::{Outcome, Sandbox};

fn build(sandbox: &Sandbox, dockerfile: &str) -> Outcome {
    sandbox.dockerfile(dockerfile);
    sandbox.outcrop(&["build", "--progress", "plain", "-t", "it", "."]).ok()
}

/// Which steps were found, in order, as one letter each: hit or ran.
fn steps(sandbox: &Sandbox) -> String {
    let told = sandbox.outcrop(&["explain", "--format", "json"]).ok().stdout();
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let word = |step: &serde_json::Value| match (step["outcome"].as_str(), step["key_kind"].as_str()) {
        (Some("ran"), _) => 'r',
        (Some("hit"), Some("content")) => 'c',
        (Some("hit"), Some("chain")) => 'h',
        other => panic!("{other:?}"),
    };
    told["steps"].as_array().unwrap().iter().map(word).collect()
}

fn sandbox(driver: &str) -> Sandbox {
    let sandbox = Sandbox::new().driver(driver);
    sandbox.base_image("base");
    sandbox.file("a", "a\n");
    sandbox.file("dir/b", "b\n");
    sandbox
}

#[test]
fn what_is_moved_or_stands_on_something_else_is_not_copied_again() {
    for driver in ["overlay2", "vfs"] {
        let sandbox = sandbox(driver);
        build(&sandbox, "FROM base\nWORKDIR /work/in\nCOPY a /x/\nCOPY dir .\nCMD [\"ls\"]\n");
        assert_eq!(steps(&sandbox), "rrrr", "{driver}");
        build(&sandbox, "FROM base\nCOPY dir /work/in\nCOPY a /x/\nWORKDIR /work/in\n");
        assert_eq!(steps(&sandbox), "rcr", "{driver}: /work/in is not there yet, and is there then");
        build(
            &sandbox,
            "FROM base\nRUN echo > /first\nWORKDIR /work/in\nCOPY dir .\nCOPY a /x/\nRUN ls /x /work/in\n",
        );
        assert_eq!(steps(&sandbox), "rcccr", "{driver}");
        let run =
            sandbox.outcrop(&["run", "--rm", "--network", "none", "it", "cat", "/x/a", "b", "/first"]).ok();
        assert_eq!(run.stdout(), "a\nb\n\n", "{driver}");
        build(
            &sandbox,
            "FROM base\nRUN echo > /first\nWORKDIR /work/in\nCOPY dir .\nCOPY a /x/\nRUN ls /x /work/in\n",
        );
        assert_eq!(steps(&sandbox), "hhhhh", "{driver}");
        sandbox.check();
    }
}

#[test]
fn what_a_copy_meets_on_its_way_decides() {
    for (before, after) in [
        ("true", "mkdir -m 700 /x"),
        ("mkdir /x", "mkdir /x; chown 5 /x"),
        ("mkdir /x", "mkdir /x; echo other > /x/a"),
        ("mkdir /x", "mkdir /y; ln -s y /x"),
        ("mkdir /y; ln -s y /x", "mkdir -m 711 /y; ln -s y /x"),
        ("mkdir /y /z; ln -s y /x", "mkdir /y /z; ln -s z /x"),
    ] {
        let sandbox = sandbox("overlay2");
        let dockerfile = |made: &str| format!("FROM base\nRUN {made}\nCOPY a /x/\n");
        build(&sandbox, &dockerfile(before));
        build(&sandbox, &dockerfile(&format!("{before}; echo more > /more")));
        assert_eq!(steps(&sandbox), "rc", "{before}");
        build(&sandbox, &dockerfile(after));
        assert_eq!(steps(&sandbox), "rr", "{after}");
    }
}

#[test]
fn an_owner_s_name_counts_by_the_numbers_it_has_there() {
    let sandbox = sandbox("overlay2");
    let dockerfile = |number: u32, more: &str| {
        format!(
            "FROM base\nRUN echo me:x:{number}:7::/: > /etc/passwd; {more}\nUSER me\nWORKDIR /home/me\n\
             COPY --chown=me a ./\n"
        )
    };
    build(&sandbox, &dockerfile(5, "true"));
    build(&sandbox, &dockerfile(5, "echo > /more"));
    assert_eq!(steps(&sandbox), "rrcc");
    build(&sandbox, &dockerfile(6, "true"));
    assert_eq!(steps(&sandbox), "rrrr");
}

#[test]
fn what_is_unpacked_may_go_anywhere_and_is_known_on_its_own_stack_alone() {
    let sandbox = sandbox("overlay2");
    let mut tar = std::process::Command::new("tar");
    Outcome::of(tar.args(["-cf", "it.tar", "-C", "dir", "b"]).current_dir(sandbox.context())).ok();
    build(&sandbox, "FROM base\nADD it.tar a /x/\n");
    build(&sandbox, "FROM base\nRUN echo > /more\nADD it.tar a /x/\n");
    assert_eq!(steps(&sandbox), "rr");
    build(&sandbox, "FROM base\nRUN echo > /more\nADD a /x/\n");
    build(&sandbox, "FROM base\nADD a /x/\n");
    assert_eq!(steps(&sandbox), "c");
}

#[test]
fn an_image_is_as_new_as_the_newest_of_its_steps() {
    let sandbox = sandbox("overlay2");
    let created = || sandbox.outcrop(&["inspect", "--format", "{{.Created}}", "it"]).ok().line();
    build(&sandbox, "FROM base\nCOPY a /x/\n");
    let first = created();
    build(&sandbox, "FROM base\nRUN echo > /more\nCOPY a /x/\n");
    assert_eq!(steps(&sandbox), "rc");
    let second = created();
    assert!(second > first, "{first} {second}");
    build(&sandbox, "FROM base\nRUN echo > /more\nCOPY a /x/\n");
    assert_eq!(created(), second);
    build(&sandbox, "FROM base\nCOPY a /x/\n");
    assert_eq!(created(), first);
}

// ---- times ----

/// Seconds of the modification times of `/x/a` and `/x/b`.
fn times(sandbox: &Sandbox) -> Vec<i64> {
    let told =
        sandbox.outcrop(&["run", "--rm", "--network", "none", "it", "stat", "-c", "%Y", "/x/a", "/x/b"]).ok();
    told.lines().iter().map(|line| line.parse().unwrap()).collect()
}

fn touch(path: &std::path::Path, seconds: u64) {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn what_did_not_change_keeps_its_time_and_what_did_is_not_older_than_the_last_build() {
    let sandbox = Sandbox::new();
    sandbox.base_image("base");
    let place = |at: &str, a: &str, times: [u64; 2]| {
        let written = [(format!("{at}/a"), a), (format!("{at}/b"), "b\n")];
        for ((path, text), time) in written.into_iter().zip(times) {
            touch(&sandbox.file(path, text), time);
        }
    };
    let build = |at: &str, more: &[&str]| {
        let context = sandbox.context().join(at);
        std::fs::write(context.join("Dockerfile"), "FROM base\nCOPY a b /x/\n").unwrap();
        let arguments = [&["build", "-t", "it"], more, &[context.to_str().unwrap()]].concat();
        sandbox.outcrop(&arguments).ok();
    };
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;

    place("one", "1\n", [1_000, 2_000]);
    build("one", &[]);
    assert_eq!(times(&sandbox), [1_000, 2_000]);
    let before = now();
    place("one", "2\n", [500, 9_000]);
    build("one", &[]);
    let [a, b] = times(&sandbox)[..] else { panic!() };
    assert!((before..=now()).contains(&a), "{a}");
    assert_eq!(b, 2_000);
    // A clone elsewhere, with one file changed and newer than all builds, in a time to come.
    let later = u64::try_from(now()).unwrap() + 1_000;
    place("two", "3\n", [later, later]);
    build("two", &[]);
    assert_eq!(times(&sandbox), [i64::try_from(later).unwrap(), 2_000]);
    // Where times are said, nothing else counts.
    place("two", "4\n", [3_000, 3_000]);
    build("two", &["--build-arg", "SOURCE_DATE_EPOCH=4000"]);
    assert_eq!(times(&sandbox), [3_000, 3_000]);
    sandbox.check();
}
