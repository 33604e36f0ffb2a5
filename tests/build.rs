//! Builds from the command line to the disk.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::Duration;

use crate::sandbox::{Outcome, Sandbox, based as sandbox, build_it as build, wait_until};

fn id(sandbox: &Sandbox, name: &str) -> String {
    sandbox.outcrop(&["inspect", "--format", "{{.Id}}", name]).ok().line()
}

fn cat(sandbox: &Sandbox, path: &str) -> String {
    sandbox.outcrop(&["run", "--rm", "--network", "none", "it", "cat", path]).ok().stdout()
}

/// The steps that ran and those that were cached, by number.
fn steps(outcome: &Outcome) -> (usize, usize) {
    let lines = outcome.lines();
    let count = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    (count("---> Running in"), count("---> Using cache"))
}

const FIVE: &str = "FROM base
RUN echo one > /one
RUN echo two > /two
COPY . /srv/
CMD [\"cat\", \"/srv/file\"]
";

#[test]
fn a_second_build_runs_nothing_and_gives_the_same_image() {
    let sandbox = sandbox(FIVE);
    sandbox.file("file", "hello\n");
    let first = build(&sandbox, &[]).ok().says("Step 1/5 : FROM base").says("Successfully tagged it:latest");
    assert_eq!(steps(&first), (2, 0));
    let image = id(&sandbox, "it");
    let second = build(&sandbox, &[]).ok();
    assert_eq!(steps(&second), (0, 4));
    assert_eq!(id(&sandbox, "it"), image);
    sandbox.outcrop(&["run", "--rm", "it"]).ok().says("hello");
    sandbox.outcrop(&["system", "check"]).ok();
}

#[test]
fn a_changed_file_runs_its_copy_and_what_stands_on_it() {
    let sandbox = sandbox("FROM base\nRUN echo one > /one\nCOPY file /file\nRUN cp /file /copy\n");
    sandbox.file("file", "1");
    build(&sandbox, &[]).ok();
    sandbox.file("file", "2");
    let again = build(&sandbox, &[]).ok();
    assert_eq!(steps(&again), (1, 1));
    assert_eq!(cat(&sandbox, "/copy"), "2");
    sandbox.file("file", "1");
    assert_eq!(steps(&build(&sandbox, &[]).ok()), (0, 3), "the first result is still known");
    assert_eq!(cat(&sandbox, "/copy"), "1");
}

#[test]
fn times_of_context_files_mean_nothing_and_modes_do() {
    let sandbox = sandbox("FROM base\nCOPY file /file\nRUN cp /file /copy\n");
    let file = sandbox.file("file", "1");
    build(&sandbox, &[]).ok();
    fs::write(&file, "1").unwrap();
    assert_eq!(steps(&build(&sandbox, &[]).ok()), (0, 2));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(steps(&build(&sandbox, &[]).ok()), (1, 0));
}

#[test]
fn a_label_runs_no_command_again() {
    let sandbox = sandbox("FROM base\nLABEL a=1\nRUN echo one > /one\n");
    build(&sandbox, &[]).ok();
    let before = id(&sandbox, "it");
    sandbox.dockerfile("FROM base\nLABEL a=2\nRUN echo one > /one\n");
    assert_eq!(steps(&build(&sandbox, &[]).ok()).0, 0);
    assert_ne!(id(&sandbox, "it"), before);
    sandbox.outcrop(&["inspect", "--format", "{{.Config.Labels.a}}", "it"]).ok().says("2");
}

#[test]
fn no_cache_runs_every_step() {
    let sandbox = sandbox(FIVE);
    build(&sandbox, &[]).ok();
    assert_eq!(steps(&build(&sandbox, &["--no-cache"]).ok()), (2, 0));
}

#[test]
fn a_failing_step_tells_place_code_and_last_output_and_leaves_nothing() {
    let sandbox = sandbox("FROM base\nRUN echo fine\n\nRUN echo so far; echo bad >&2; \\\n    exit 7\n");
    build(&sandbox, &[])
        .fails(1)
        .complains("Dockerfile, lines 4-5: RUN echo so far; echo bad >&2;")
        .complains("exit code: 7")
        .complains("bad");
    sandbox.outcrop(&["inspect", "it"]).fails(1);
    sandbox.outcrop(&["system", "check"]).ok();
    sandbox.dockerfile("FROM base\nRUN echo fine\n\nRUN echo better\n");
    assert_eq!(steps(&build(&sandbox, &[]).ok()), (1, 1), "what was done before the failure is kept");
}

#[test]
fn a_bad_dockerfile_runs_nothing_and_shows_the_place() {
    let sandbox = sandbox("FROM base\nRUN echo one\nRUNN echo two\n");
    let outcome =
        build(&sandbox, &[]).fails(1).complains("line 3").complains("RUNN").complains("did you mean `RUN`");
    assert!(!outcome.stdout().contains("Step 2"), "{}", outcome.stdout());
}

#[test]
fn a_base_that_is_nowhere_says_where_it_was_looked_for_and_how_to_get_one() {
    let sandbox = Sandbox::new();
    sandbox.dockerfile("FROM localhost:1/nothing/here\nRUN true\n");
    build(&sandbox, &[]).fails(1).complains("localhost:1/nothing/here").complains("hint:");
}

#[test]
fn stages_share_files_and_unused_ones_are_skipped() {
    let sandbox = sandbox(
        "FROM base AS unused\nRUN exit 1\nFROM base AS make\nRUN mkdir /out && echo made > /out/it && ln -s it /out/link\n\
         FROM base\nCOPY --from=make /out/ /got/\nCOPY --from=0 --chown=nobody /etc/passwd /got/passwd\n",
    );
    // `--from=0` needs the stage whose command fails.
    build(&sandbox, &[]).fails(1);
    sandbox.dockerfile(
        "FROM base AS unused\nRUN exit 1\nFROM base AS make\nRUN mkdir /out && echo made > /out/it && ln -s it /out/link\n\
         FROM base\nCOPY --from=make /out/ /got/\nCOPY --from=make --chown=nobody /etc/passwd /got/passwd\n",
    );
    build(&sandbox, &[]).ok().says_not("exit 1");
    assert_eq!(cat(&sandbox, "/got/link"), "made\n");
    let owner = sandbox.outcrop(&["run", "--rm", "it", "stat", "-c", "%u:%g", "/got/passwd"]).ok();
    assert_eq!(owner.line(), "65534:65534");
    assert_eq!(steps(&build(&sandbox, &[]).ok()).0, 0);
    sandbox.outcrop(&["build", "--target", "make", "-t", "made", "."]).ok();
}

#[test]
fn what_dockerignore_names_is_not_copied() {
    let sandbox = sandbox("FROM base\nCOPY . /all/\n");
    for file in ["keep", "a.log", "logs/b.log", "logs/important.log"] {
        sandbox.file(file, file);
    }
    sandbox.file(".dockerignore", "**/*.log\n!logs/important.log\n.dockerignore\nDockerfile\n");
    build(&sandbox, &[]).ok();
    let list = sandbox.outcrop(&["run", "--rm", "it", "find", "/all", "-type", "f"]).ok();
    let mut lines = list.lines();
    lines.sort();
    assert_eq!(lines, ["/all/keep", "/all/logs/important.log"]);
    sandbox.file("a.log", "changed");
    assert_eq!(steps(&build(&sandbox, &[]).ok()), (0, 1), "an ignored file decides nothing");
}

#[test]
fn every_instruction_leaves_an_image_that_runs() {
    let sandbox = sandbox(
        "FROM base\nENV A=1\nRUN echo $A > /a\nENV A=2\nWORKDIR /made/here\nUSER nobody\nCMD [\"pwd\"]\n",
    );
    build(&sandbox, &[]).ok();
    let ids = sandbox.outcrop(&["history", "-q", "--no-trunc", "it"]).ok().lines();
    assert_eq!(ids.len(), 7);
    assert_eq!(ids[0], id(&sandbox, "it"));
    let all = sandbox.outcrop(&["images", "-a", "-q", "--no-trunc"]).ok().lines();
    for image in &ids {
        assert!(all.contains(image), "{image} is not in images -a");
    }
    // Oldest last: base, ENV, RUN, ENV, WORKDIR, USER, CMD.
    sandbox.outcrop(&["run", "--rm", &ids[5], "sh", "-c", "echo $A; ls /"]).ok().says("1\n").says_not("made");
    sandbox.outcrop(&["run", "--rm", &ids[4], "cat", "/a"]).ok().says("1");
    sandbox.outcrop(&["run", "--rm", "it"]).ok().says("/made/here");
    sandbox.outcrop(&["run", "--rm", "it", "id", "-u"]).ok().says("65534");
}

#[test]
fn what_outcrop_mounts_is_in_no_layer() {
    let sandbox = Sandbox::new();
    // A base without /etc, /proc, /sys or /dev.
    let tree = sandbox.dir().join("tiny");
    fs::create_dir_all(tree.join("bin")).unwrap();
    fs::copy(crate::sandbox::find_on_path("busybox"), tree.join("bin/busybox")).unwrap();
    let archive = sandbox.dir().join("tiny.tar");
    let tar =
        std::process::Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&tree).arg("bin").status();
    assert!(tar.unwrap().success());
    sandbox.outcrop(&["import", archive.to_str().unwrap(), "tiny"]).ok();
    sandbox.dockerfile("FROM tiny\nRUN [\"/bin/busybox\", \"touch\", \"/bin/new\"]\n");
    build(&sandbox, &[]).ok();
    let db = sandbox.root().join("files.db");
    let rows = std::process::Command::new("sqlite3")
        .arg(&db)
        .arg("select path from files where layer = (select max(layer) from files) order by path")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(rows.stdout).unwrap(), "bin\nbin/new\n");
}

#[test]
fn independent_stages_run_at_once() {
    // Each waits for what the other does, through the build's own network namespace: the host's loopback.
    let sandbox = sandbox(
        "FROM base AS a\nRUN for i in $(seq 200); do nc -w 1 127.0.0.1 $PORT </dev/null 2>/dev/null && exit 0; usleep 50000; done; exit 1\n\
         FROM base AS b\nRUN nc -l -p $PORT -w 10 </dev/null; true\n\
         FROM base\nCOPY --from=a /etc/passwd /a\nCOPY --from=b /etc/passwd /b\n",
    );
    let port = (std::process::id() % 20000 + 20000).to_string();
    let text = fs::read_to_string(sandbox.context().join("Dockerfile")).unwrap().replace("$PORT", &port);
    sandbox.dockerfile(&text);
    build(&sandbox, &[]).ok();
}

#[test]
fn an_interrupt_stops_the_step_and_leaves_nothing() {
    let sandbox = sandbox("FROM base\nRUN echo begun; sleep 600\n");
    let mut command = sandbox.command(&["build", "--progress", "plain", "-t", "it", "."]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("begun") || line.contains("Step") {
        line.clear();
        assert_ne!(
            std::io::BufRead::read_line(&mut out, &mut line).unwrap(),
            0,
            "ended before the step began"
        );
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(wait_until(Duration::from_secs(20), || child.try_wait().unwrap().is_some()));
    assert_ne!(child.wait().unwrap().code(), Some(0));
    assert_eq!(sandbox.leftovers(), Vec::<String>::new());
    sandbox.outcrop(&["system", "check"]).ok();
}

#[test]
fn a_known_layer_is_put_on_another_stack_where_the_driver_keeps_whole_stacks() {
    let sandbox = Sandbox::new().driver("vfs");
    sandbox.base_image("base");
    sandbox.dockerfile(
        "FROM base AS one\nRUN echo one > /one; date > /dev/null\nFROM one\nRUN cat /one > /two\n",
    );
    build(&sandbox, &[]).ok();
    // Another step of equal content: other times, so another layer and another stack.
    std::thread::sleep(Duration::from_millis(1100));
    sandbox.dockerfile(
        "FROM base AS one\nRUN  echo one >/one; date > /dev/null\nFROM one\nRUN cat /one > /two\n",
    );
    sandbox.outcrop(&["build", "--target", "one", "-t", "one", "."]).ok();
    assert_eq!(steps(&build(&sandbox, &[]).ok()), (0, 2));
    assert_eq!(cat(&sandbox, "/two"), "one\n");
    sandbox.outcrop(&["system", "check"]).ok();
}

#[test]
fn a_build_after_its_image_was_removed_gives_it_again_on_every_driver() {
    for driver in ["overlay2", "vfs"] {
        let sandbox = Sandbox::new().driver(driver);
        sandbox.base_image("base");
        sandbox.dockerfile("FROM base\nRUN echo one > /one\nRUN echo two > /two\n");
        build(&sandbox, &[]).ok();
        sandbox.outcrop(&["rmi", "it"]).ok();
        sandbox.outcrop(&["system", "check"]).ok();
        build(&sandbox, &[]).ok();
        assert_eq!(cat(&sandbox, "/two"), "two\n", "{driver}");
        sandbox.outcrop(&["system", "check"]).ok();
    }
}

#[test]
fn a_command_has_the_network_that_its_run_says_and_else_the_build_s() {
    let namespace = std::fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
    let sandbox = sandbox(
        "FROM base\nRUN readlink /proc/self/ns/net > /as-the-build\n\
         RUN --network=none readlink /proc/self/ns/net > /none; ls /sys/class/net > /links\n\
         RUN --network=host readlink /proc/self/ns/net > /host\n",
    );
    for (given, is_the_hosts) in [("host", true), ("none", false)] {
        build(&sandbox, &["--network", given]).ok();
        let read = |file: &str| {
            sandbox.outcrop(&["run", "--rm", "--network", "none", "it", "cat", file]).ok().stdout()
        };
        assert_eq!(read("/as-the-build").trim() == namespace, is_the_hosts, "--network {given}");
        assert_ne!(read("/none").trim(), namespace);
        assert_eq!(read("/links"), "lo\n");
        assert_eq!(read("/host").trim(), namespace);
    }
    sandbox.check();
}

/// As deep as a layer may be read again, and no deeper.
#[test]
fn a_layer_that_could_not_be_read_again_is_not_made() {
    let nested = |levels: usize| {
        format!(
            "FROM base\nRUN for i in $(seq {levels}); do mkdir d && cd d || exit 1; done; echo deep > file\nRUN true\n"
        )
    };
    for driver in ["overlay2", "vfs"] {
        let sandbox = Sandbox::new().driver(driver);
        sandbox.base_image("base");
        sandbox.dockerfile(&nested(500));
        let refused = build(&sandbox, &[]).fails(1);
        refused.complains("`d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/...` cannot be in a layer: 501 directories");
        sandbox.dockerfile(&nested(499));
        build(&sandbox, &[]).ok();
        sandbox.outcrop(&["save", "-o", "deep.tar", "it"]).ok();
        let other = Sandbox::new().driver(driver);
        other.outcrop(&["load", "-i", sandbox.context().join("deep.tar").to_str().unwrap()]).ok();
        other.check();
        sandbox.check();
    }
}
