//! Containers from the command line: what runs, what is left of it, and what it never touches.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use outcrop::container;
use outcrop::engine::{self, Engine};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Signal, kill_process};

use crate::crash::steps;
use crate::sandbox::{Outcome, Sandbox, wait_until};

/// With an image `base` of busybox.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.base_image("base");
    sandbox
}

fn run(sandbox: &Sandbox, args: &[&str]) -> Outcome {
    let mut all = vec!["run", "--rm", "--network", "none"];
    all.extend(args);
    sandbox.outcrop(&all)
}

/// What a shell script in a container prints.
fn sh(sandbox: &Sandbox, flags: &[&str], script: &str) -> String {
    let mut args = flags.to_vec();
    args.extend(["base", "sh", "-c", script]);
    run(sandbox, &args).ok().stdout()
}

/// A container of `base` that has run a script, and stays.
fn ran(sandbox: &Sandbox, name: &str, script: &str) {
    sandbox.outcrop(&["run", "--name", name, "--network", "none", "base", "sh", "-c", script]).ok();
}

/// Starts outcrop and waits until the container prints a line.
fn started(sandbox: &Sandbox, args: &[&str]) -> Child {
    let mut child = sandbox.command(args).stdout(Stdio::piped()).spawn().unwrap();
    let mut byte = [0];
    let out = child.stdout.as_mut().unwrap();
    while byte != *b"\n" {
        assert_eq!(out.read(&mut byte).unwrap(), 1, "the container ended before it said something");
    }
    child
}

/// Its exit code, unless it takes too long.
fn ended(child: &mut Child) -> Option<i32> {
    let in_time = wait_until(Duration::from_secs(20), || child.try_wait().unwrap().is_some());
    if !in_time {
        child.kill().unwrap();
    }
    let code = child.wait().unwrap().code();
    assert!(in_time, "it does not end");
    code
}

/// An image `seed`: the base with /opt/a and /opt/b.
fn seed(sandbox: &Sandbox) {
    ran(sandbox, "seed", "mkdir -m 750 /opt; echo a > /opt/a; echo b > /opt/b");
    sandbox.outcrop(&["commit", "seed", "seed"]).ok();
    sandbox.outcrop(&["rm", "seed"]).ok();
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

fn status(sandbox: &Sandbox) -> Vec<String> {
    sandbox.outcrop(&["ps", "-a", "--format", "{{.Names}} {{.State}}"]).ok().lines()
}

fn inspect(sandbox: &Sandbox, name: &str, format: &str) -> String {
    sandbox.outcrop(&["container", "inspect", "--format", format, name]).ok().line()
}

#[test]
fn the_exit_code_is_the_containers() {
    let sandbox = sandbox();
    for (script, code) in [("exit 3", 3), ("kill -9 $$ & exit 0", 0), ("exit 255", 255)] {
        assert_eq!(run(&sandbox, &["base", "sh", "-c", script]).code(), Some(code), "{script}");
    }
    run(&sandbox, &["base", "nonsense"])
        .fails(127)
        .complains("exec: \"nonsense\": executable file not found in $PATH");
    run(&sandbox, &["base", "/etc/passwd"]).fails(126).complains("permission denied");
    run(&sandbox, &["--bogus", "base", "true"]).fails(125).complains("unknown flag `--bogus`");
    run(&sandbox, &["--pull", "never", "absent", "true"])
        .fails(125)
        .complains("No such image: absent:latest");
    run(&sandbox, &["-w", "tmp", "base", "true"]).fails(125).complains("needs to be an absolute path");
    run(&sandbox, &["--cap-add", "FLY", "base", "true"])
        .fails(125)
        .complains("invalid CapAdd: unknown capability: \"FLY\"");
    assert_eq!(status(&sandbox), Vec::<String>::new(), "--rm removes, whatever came of it");
}

#[test]
fn an_image_that_is_nowhere_says_where_it_was_looked_for() {
    let sandbox = Sandbox::new();
    let outcome = run(&sandbox, &["127.0.0.1:1/absent", "true"]).fails(125);
    let said = outcome.stderr();
    assert!(said.starts_with("Unable to find image '127.0.0.1:1/absent:latest' locally\n"), "{said}");
    for words in
        ["the image `127.0.0.1:1/absent:latest` is not here and cannot be pulled", "outcrop bootstrap"]
    {
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn standard_streams_are_handed_on() {
    let sandbox = sandbox();
    let outcome = run(&sandbox, &["base", "sh", "-c", "echo out; echo err >&2"]).ok();
    assert_eq!((outcome.stdout().as_str(), outcome.stderr().as_str()), ("out\n", "err\n"));
    let input = vec![b'x'; 300_000];
    let args = ["run", "--rm", "-i", "base", "sh", "-c", "cat; echo end"];
    let echoed = sandbox.outcrop_with_input(&args, &input).ok();
    assert_eq!(echoed.output.stdout, [&input[..], b"end\n"].concat());
    let args = ["run", "--rm", "base", "cat"];
    assert_eq!(
        sandbox.outcrop_with_input(&args, b"unread").ok().stdout(),
        "",
        "without -i there is no input"
    );
    let args = ["run", "--rm", "-a", "stderr", "base", "sh", "-c", "echo out; echo err >&2"];
    assert_eq!(sandbox.outcrop(&args).ok().stdout(), "");
    // A reader that goes away ends what writes.
    let mut child = sandbox.command(&["run", "--rm", "base", "yes"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(ended(&mut child), Some(1));
}

#[test]
fn flags_say_how_the_command_runs() {
    let sandbox = sandbox();
    fs::write(sandbox.context().join("vars"), "# comment\nFILE=1\nBOTH=file\n").unwrap();
    let mut command = sandbox.command(&[
        "run",
        "--rm",
        "--network",
        "none",
        "-h",
        "me",
        "-e",
        "A=1",
        "-eBOTH=flag",
        "-e",
        "FROM_HERE",
        "-e",
        "NOT_HERE",
        "--env-file",
        "vars",
        "-w",
        "/made/here",
        "-u",
        "nobody",
        "base",
        "sh",
        "-c",
        "env; pwd; id -u; hostname",
    ]);
    command.env("FROM_HERE", "yes").env_remove("NOT_HERE");
    let mut lines = Outcome::of(&mut command).ok().lines();
    lines.sort();
    let expected = [
        "/made/here",
        "65534",
        "A=1",
        "BOTH=flag",
        "FILE=1",
        "FROM_HERE=yes",
        "HOME=/",
        "HOSTNAME=me",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PWD=/made/here",
        "SHLVL=1",
        "me",
    ];
    assert_eq!(lines, expected);
    assert_eq!(run(&sandbox, &["--entrypoint", "echo", "base", "a", "-l"]).ok().stdout(), "a -l\n");
    assert_eq!(sh(&sandbox, &["--ulimit", "nofile=100:200"], "ulimit -Sn; ulimit -Hn"), "100\n200\n");
    assert_eq!(sh(&sandbox, &["--add-host", "db:10.1.1.1"], "grep db /etc/hosts"), "10.1.1.1\tdb\n");
    let mounts = sh(&sandbox, &["--tmpfs", "/fast:size=64k"], "grep ' /fast ' /proc/mounts | cut -d' ' -f3");
    assert_eq!(mounts, "tmpfs\n");
    run(&sandbox, &["--read-only", "base", "touch", "/x"]).fails(1).complains("Read-only file system");
}

#[test]
fn a_container_is_confined() {
    let sandbox = sandbox();
    let seen = sh(&sandbox, &[], "grep -E '^(Seccomp|CapEff|NoNewPrivs):' /proc/self/status");
    assert_eq!(seen, "CapEff:\t00000000a80425fb\nNoNewPrivs:\t0\nSeccomp:\t2\n");
    let flags =
        ["--cap-drop", "ALL", "--security-opt", "seccomp=unconfined", "--security-opt", "no-new-privileges"];
    let seen = sh(&sandbox, &flags, "grep -E '^(Seccomp|CapEff|NoNewPrivs):' /proc/self/status");
    assert_eq!(seen, "CapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t0\n");
    assert_eq!(
        sh(&sandbox, &[], "ls /sys/class/net; ls -d /proc/[0-9]* | wc -l | grep -q '^[1-4]$'"),
        "lo\n"
    );
    let dir = sandbox.dir().to_str().unwrap().to_owned();
    let leaked = sh(
        &sandbox,
        &[],
        &format!("grep -c {dir} /proc/self/mountinfo | grep -v '^1$'; ls -l /proc/self/fd"),
    );
    assert!(!leaked.contains("ingest") && !leaked.contains("lease"), "{leaked}");
}

#[test]
fn directories_and_files_of_the_host_are_mounted() {
    let sandbox = sandbox();
    sandbox.file("shared/a", "from the host\n");
    let here = sandbox.context();
    let shared = format!("{}/shared", here.display());
    let rw = format!("{shared}:/data");
    assert_eq!(sh(&sandbox, &["-v", &rw], "cat /data/a; echo back > /data/b"), "from the host\n");
    assert_eq!(fs::read_to_string(here.join("shared/b")).unwrap(), "back\n");
    run(&sandbox, &["-v", &format!("{rw}:ro"), "base", "touch", "/data/c"])
        .fails(1)
        .complains("Read-only file system");
    let mount = format!("type=bind,source={shared}/a,target=/etc/new,readonly");
    assert_eq!(sh(&sandbox, &["--mount", &mount], "cat /etc/new"), "from the host\n");
    let relative = sh(&sandbox, &["-v", "./shared:/data:ro"], "cat /data/b");
    assert_eq!(relative, "back\n");
    let absent = format!("type=bind,source={shared}/absent,target=/x");
    run(&sandbox, &["--mount", &absent, "base", "true"])
        .fails(125)
        .complains("bind source path does not exist");
    sh(&sandbox, &["-v", &format!("{shared}/made:/x")], "true");
    assert!(here.join("shared/made").is_dir(), "-v makes what is missing");
    run(&sandbox, &["-v", "/a:b", "base", "true"]).fails(125).complains("mount path must be absolute");
}

#[test]
fn a_volume_keeps_what_is_written_and_begins_with_what_the_image_has() {
    let sandbox = sandbox();
    seed(&sandbox);
    let on = |target: &str, script: &str| {
        let volume = format!("data:{target}");
        run(&sandbox, &["-v", &volume, "seed", "sh", "-c", script]).ok().stdout()
    };
    assert_eq!(on("/opt", "cat /opt/a; stat -c %a /opt; echo 1 > /opt/kept"), "a\n750\n");
    assert_eq!(on("/other", "cat /other/kept; ls /other"), "1\na\nb\nkept\n");
    let data = sandbox.root().join("volumes/data/_data");
    assert_eq!(fs::read_to_string(data.join("kept")).unwrap(), "1\n");
    sh(&sandbox, &["-v", "/tmp/nameless"], "echo x > /tmp/nameless/x");
    let volumes = || fs::read_dir(sandbox.root().join("volumes")).unwrap().count();
    assert_eq!(volumes(), 1, "--rm takes a nameless one along");
    sandbox.outcrop(&["create", "--name", "box", "-v", "/tmp/nameless", "base", "true"]).ok();
    assert_eq!(volumes(), 2);
    sandbox.outcrop(&["rm", "-v", "box"]).ok();
    assert_eq!(volumes(), 1);
}

#[test]
fn a_container_that_cannot_be_made_leaves_no_volume() {
    let sandbox = sandbox();
    let volumes = sandbox.root().join("volumes");
    fs::write(volumes.join("broken"), "").unwrap();
    let more = ["-v", "/nameless", "-v", "broken:/b", "base", "true"];
    run(&sandbox, &more).fails(125).complains("making volume broken for /b");
    let left: Vec<_> = fs::read_dir(&volumes).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["broken"]);
}

#[test]
fn containers_of_one_image_do_not_see_each_other_and_leave_it_as_it_was() {
    let sandbox = sandbox();
    let export = |name: &str| sandbox.outcrop(&["export", name]).ok().output.stdout;
    let layers = || tree(&sandbox.root().join("overlay2"));
    let before = layers();
    sandbox.outcrop(&["create", "--name", "pure", "base", "true"]).ok();
    let pure = export("pure");
    ran(&sandbox, "one", "echo 1 > /one; rm -r /etc; echo x >> /bin/busybox; chmod 700 /tmp");
    ran(&sandbox, "two", "ls /one || echo none > /two; echo 2 >> /etc/passwd; mkdir /one");
    assert_eq!(export("pure"), pure);
    assert_ne!(export("one"), pure);
    let seen = sandbox.outcrop(&[
        "run",
        "--rm",
        "base",
        "sh",
        "-c",
        "ls -d /one /two /etc/passwd; wc -c < /bin/busybox",
    ]);
    assert!(seen.stdout().starts_with("/etc/passwd\n"), "{}", seen.stdout());
    sandbox.outcrop(&["rm", "one", "two", "pure"]).ok();
    sandbox.outcrop(&["create", "--name", "pure", "base", "true"]).ok();
    assert_eq!(export("pure"), pure, "byte for byte");
    sandbox.outcrop(&["rm", "pure"]).ok();
    assert_eq!(layers(), before, "the image's tree is what it was, and nothing else is left");
    sandbox.check();
}

/// The names in a tar.
fn listing(tar: &[u8]) -> Vec<String> {
    let outcome = Outcome::with_input(std::process::Command::new("tar").arg("t"), tar).ok();
    outcome.lines().iter().map(|name| name.trim_end_matches('/').to_owned()).collect()
}

/// Every file below, with all that tells whether it was changed.
fn tree(root: &Path) -> Vec<(String, u64, u32, i64, i64)> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let stat = fs::symlink_metadata(&path).unwrap();
        // The driver's own directory changes as snapshots come and go.
        if path != root {
            found.push((
                path.display().to_string(),
                stat.size(),
                stat.mode(),
                stat.mtime(),
                stat.mtime_nsec(),
            ));
        }
        if stat.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found.sort();
    found
}

#[test]
fn names_are_unique_and_checked() {
    let sandbox = sandbox();
    let id = sandbox.outcrop(&["create", "--name", "web", "base", "true"]).ok().line();
    assert_eq!(id.len(), 64);
    let taken = format!(
        "Conflict. The container name \"/web\" is already in use by container \"{id}\". You have to remove (or rename) that container to be able to reuse that name."
    );
    sandbox.outcrop(&["run", "--name", "web", "base", "true"]).fails(125).complains(&taken);
    sandbox
        .outcrop(&["create", "--name", "a b", "base", "true"])
        .fails(1)
        .complains("Invalid container name (a b)");
    let made_up = sandbox.outcrop(&["create", "base", "true"]).ok().line();
    let name =
        sandbox.outcrop(&["ps", "-a", "--format", "{{.Names}}", "-f", &format!("id={made_up}")]).ok().line();
    assert_eq!(name.split('_').count(), 2, "{name}");
    sandbox.outcrop(&["rm", &id[..6], &format!("/{name}")]).ok().says(&format!("{}\n/{name}\n", &id[..6]));
    sandbox.outcrop(&["rm", "web"]).fails(1).complains("No such container: web");
    sandbox.outcrop(&["rm", "-f", "web"]).ok();
    assert_eq!(status(&sandbox), Vec::<String>::new());
}

/// Its row says that it runs before its process is there.
#[test]
fn what_is_only_being_started_is_removed_by_force() {
    let sandbox = sandbox();
    let script = "#!/bin/sh\n[ \"$1\" = --version ] || sleep 1\nPATH=${PATH#*:} exec crun \"$@\"\n";
    let slow = sandbox.file("slow/crun", script);
    fs::set_permissions(&slow, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", slow.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let args = ["--runtime", "crun", "run", "--name", "box", "--network", "none", "base", "sleep", "100"];
    let mut child = sandbox.command(&args).env("PATH", path).spawn().unwrap();
    let runs = || sandbox.outcrop(&["ps", "--format", "{{.Names}}"]).ok().line() == "box";
    assert!(wait_until(Duration::from_secs(20), runs));
    let shown =
        sandbox.outcrop(&["inspect", "--format", "{{.State.Status}} {{.State.Pid}}", "box"]).ok().line();
    assert_eq!(shown, "running 0");
    sandbox.outcrop(&["rm", "-f", "box"]).ok();
    assert_eq!(ended(&mut child), Some(137));
    assert_eq!(sandbox.outcrop(&["ps", "-aq"]).ok().stdout(), "");
    sandbox.check();
}

/// A container that goes when it ends waits for no disk: nothing of it is to outlive a power cut.
#[test]
fn what_goes_with_its_container_is_not_written_to_disk() {
    let sandbox = sandbox();
    let root = |flags: &[&str]| {
        let args = [&["run", "--network", "none"], flags, &["base", "grep", " / / ", "/proc/self/mountinfo"]]
            .concat();
        sandbox.outcrop(&args).ok().line()
    };
    assert!(root(&["--rm"]).contains("volatile"));
    let kept = root(&["--name", "kept"]);
    assert!(kept.contains(" overlay ") && !kept.contains("volatile"), "{kept}");
    // One whose runtime was killed has mount points to take away, in its own mount.
    let mut child = started(
        &sandbox,
        &["run", "--rm", "--network", "none", "-v", "/etc:/deep/etc", "base", "sh", "-c", "echo; sleep 60"],
    );
    child.kill().unwrap();
    child.wait().unwrap();
    sandbox.outcrop(&["tag", "base", "again"]).ok();
    assert_eq!(status(&sandbox), ["kept exited"]);
}

#[test]
fn lists_are_dockers() {
    let sandbox = sandbox();
    ran(&sandbox, "writer", "echo x > /new; exit 0");
    sandbox
        .outcrop(&["create", "--name", "idle", "--label", "a=b", "base", "sh", "-c", "echo a; sleep 100"])
        .ok();
    assert_eq!(sandbox.outcrop(&["ps"]).ok().lines().len(), 1, "nothing runs");
    let format = "{{.Names}}|{{.Image}}|{{.Command}}|{{.Status}}|{{.Ports}}|{{.Networks}}|{{.Labels}}";
    let mut lines = sandbox.outcrop(&["ps", "-a", "--format", format]).ok().lines();
    let writer = lines.pop().unwrap();
    assert!(
        writer.starts_with("writer|base|\"sh -c 'echo x > /ne…\"|Exited (0) ")
            && writer.ends_with(" ago||none|"),
        "{writer}"
    );
    assert_eq!(lines, ["idle|base|\"sh -c 'echo a; slee…\"|Created||host|a=b"]);
    let table = sandbox.outcrop(&["ps", "-as"]).ok().lines();
    let headings: Vec<&str> = table[0].split_whitespace().collect();
    assert_eq!(
        headings,
        ["CONTAINER", "ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES", "SIZE"]
    );
    let image = sandbox.busybox_archive();
    let bytes = fs::metadata(image).unwrap().len();
    let sizes = sandbox.outcrop(&["ps", "-as", "--format", "{{.Names}} {{.Size}}"]).ok().lines();
    assert!(
        sizes[0].starts_with("idle 0B (virtual ") && sizes[1].starts_with("writer 2B (virtual "),
        "{sizes:?} {bytes}"
    );
    for (filter, names) in [
        ("status=created", vec!["idle"]),
        ("exited=0", vec!["writer"]),
        ("label=a", vec!["idle"]),
        ("name=rit", vec!["writer"]),
        ("ancestor=base", vec!["idle", "writer"]),
        ("since=writer", vec!["idle"]),
        ("before=idle", vec!["writer"]),
    ] {
        let found = sandbox.outcrop(&["ps", "-a", "--filter", filter, "--format", "{{.Names}}"]).ok().lines();
        assert_eq!(found, names, "{filter}");
    }
    assert_eq!(sandbox.outcrop(&["ps", "-lq"]).ok().lines().len(), 1);
    assert_eq!(sandbox.outcrop(&["ps", "-n", "5", "-q", "--no-trunc"]).ok().lines()[0].len(), 64);
    sandbox.outcrop(&["container", "prune", "-f"]).ok().says("Total reclaimed space: 2B\n");
    assert_eq!(status(&sandbox), Vec::<String>::new());
}

#[test]
fn a_diff_shows_what_was_added_changed_and_deleted() {
    let sandbox = sandbox();
    ran(
        &sandbox,
        "box",
        "echo x > /root/new; echo more >> /etc/passwd; rm /etc/group; mkdir -p /var/a/b; cat /bin/busybox > /dev/null; touch /home; rm /bin/ls; chmod 1777 /tmp",
    );
    let expected = [
        "C /bin",
        "D /bin/ls",
        "C /etc",
        "D /etc/group",
        "C /etc/passwd",
        "C /home",
        "C /root",
        "A /root/new",
        "C /var",
        "A /var/a",
        "A /var/a/b",
    ];
    assert_eq!(sandbox.outcrop(&["diff", "box"]).ok().lines(), expected);
    let mount = format!("{}:/mnt/here", sandbox.context().display());
    sandbox.outcrop(&["run", "--name", "idle", "-v", &mount, "base", "true"]).ok();
    assert_eq!(
        sandbox.outcrop(&["diff", "idle"]).ok().stdout(),
        "",
        "mount points are not the container's doing"
    );
}

#[test]
fn a_directory_that_was_emptied_is_deleted_name_by_name() {
    let sandbox = sandbox();
    ran(&sandbox, "emptied", "rm /etc/passwd /etc/group; echo n > /etc/new");
    let expected = ["C /etc", "D /etc/group", "A /etc/new", "D /etc/passwd"];
    assert_eq!(sandbox.outcrop(&["diff", "emptied"]).ok().lines(), expected);
    seed(&sandbox);
    let changed = |name: &str, script: &str| {
        sandbox.outcrop(&["run", "--name", name, "seed", "sh", "-c", script]).ok();
        sandbox.outcrop(&["diff", name]).ok().lines()
    };
    assert_eq!(
        changed("replaced", "rm -r /opt; mkdir /opt; echo n > /opt/a"),
        ["C /opt", "C /opt/a", "D /opt/b"]
    );
    assert_eq!(changed("gone", "rm -r /opt"), ["D /opt"]);
    assert_eq!(changed("file", "rm -r /opt; touch /opt"), ["C /opt"]);
}

#[test]
fn a_commit_holds_just_the_change_and_runs() {
    for driver in ["overlay2", "vfs"] {
        let sandbox = Sandbox::new().driver(driver);
        sandbox.base_image("base");
        ran(&sandbox, "box", "echo words > /new; rm -f /etc/group");
        let before = sandbox.outcrop(&["export", "box"]).ok().output.stdout;
        let change = "CMD [\"cat\", \"/new\"]";
        let args = ["commit", "-m", "a change", "-a", "me", "-c", change, "-c", "ENV A=1", "box", "made:1"];
        let id = sandbox.outcrop(&args).ok().line();
        assert_eq!(run(&sandbox, &["made:1"]).ok().stdout(), "words\n", "{driver}");
        run(&sandbox, &["made:1", "cat", "/etc/group"]).fails(1);
        let shown = |format: &str| sandbox.outcrop(&["inspect", "--format", format, "made:1"]).ok().line();
        assert_eq!(
            shown("{{.Id}} {{.Author}} {{.Comment}} {{len .RootFS.Layers}}"),
            format!("{id} me a change 2")
        );
        assert_eq!(shown("{{index .Config.Env 0}} {{.Config.Cmd}}"), "A=1 [cat /new]");
        let size = sandbox.outcrop(&["history", "--format", "{{.Size}} {{.Comment}}", "made:1"]).ok().lines();
        assert_eq!(size[0], "6B a change", "{driver}");
        assert_eq!(
            sandbox.outcrop(&["export", "box"]).ok().output.stdout,
            before,
            "the container is as it was"
        );
        assert_eq!(sandbox.outcrop(&["start", "-a", "box"]).code(), Some(0));
        sandbox.outcrop(&["rm", "box"]).ok();
        sandbox.check();
    }
}

#[test]
fn a_running_container_is_shown_committed_and_removed_by_force() {
    let sandbox = sandbox();
    let args = ["run", "--name", "box", "base", "sh", "-c", "echo x > /new; echo ready; sleep 60"];
    let mut child = started(&sandbox, &args);
    assert_eq!(status(&sandbox), ["box running"]);
    assert_eq!(
        sandbox.outcrop(&["diff", "box"]).ok().lines(),
        ["A /new"],
        "its mount points are not its own"
    );
    sandbox.outcrop(&["commit", "box", "made"]).ok();
    let tar = sandbox.outcrop(&["export", "box"]).ok().output.stdout;
    let names = listing(&tar);
    assert!(names.contains(&"etc/passwd".into()) && names.contains(&"new".into()), "{names:?}");
    assert!(!names.contains(&"etc/resolv.conf".into()), "{names:?}");
    assert_eq!(run(&sandbox, &["made", "ls", "/new"]).ok().stdout(), "/new\n");
    sandbox.outcrop(&["rm", "box"]).fails(1).complains(
        "cannot remove container \"/box\": container is running: stop the container before removing or force remove",
    );
    sandbox.outcrop(&["start", "-a", "box"]).fails(125);
    sandbox.outcrop(&["rm", "-f", "box"]).ok();
    assert_eq!(ended(&mut child), Some(137));
    assert_eq!(status(&sandbox), Vec::<String>::new());
}

#[test]
fn what_goes_when_it_ends_takes_its_nameless_volumes_along_though_outcrop_was_killed() {
    let sandbox = sandbox();
    let args = ["run", "--rm", "-v", "/nameless", "-v", "named:/n", "base", "sh", "-c", "echo; sleep 60"];
    let mut child = started(&sandbox, &args);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(wait_until(Duration::from_secs(10), || status(&sandbox).is_empty()));
    sandbox.outcrop(&["tag", "base", "again"]).ok();
    let left = fs::read_dir(sandbox.root().join("volumes")).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["named"]);
}

/// A process heeds a signal when its write(2) has ended, however much that writes.
#[test]
fn a_container_that_is_paused_writes_nothing() {
    let sandbox = sandbox();
    let script = "dd if=/dev/zero of=/from bs=1M count=128; echo ready
        while :; do dd if=/from of=/to bs=128M count=1; done 2>/dev/null";
    let mut child =
        started(&sandbox, &["run", "--name", "box", "--network", "none", "base", "sh", "-c", script]);
    let engine = Engine::open(&engine::Options {
        root: sandbox.root(),
        run: sandbox.run_root(),
        driver: None,
        storage: Default::default(),
        runtime: None,
        exe: env!("CARGO_BIN_EXE_outcrop").into(),
        path: std::env::var_os("PATH").unwrap(),
    });
    let engine = engine.unwrap();
    let row = container::resolve(&engine, "box").unwrap();
    let written = engine.snapshots.driver().path(row.snapshot).join("to");
    let size = || fs::metadata(&written).map(|file| file.len()).ok();
    for _ in 0..10 {
        assert!(wait_until(Duration::from_secs(20), || size().is_some_and(|size| size > 0)));
        let frozen = container::freeze(&engine, &row).unwrap();
        let before = size();
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(size(), before);
        drop(frozen);
    }
    drop(engine);
    sandbox.outcrop(&["rm", "-f", "box"]).ok();
    assert_eq!(ended(&mut child), Some(137));
}

/// Of the processes whose command line is this one, as proc(5) calls them.
fn states(command: &str) -> Vec<char> {
    let of = |entry: fs::DirEntry| {
        let line = fs::read_to_string(entry.path().join("cmdline")).ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        (line.replace('\0', " ").trim() == command).then_some(stat.rsplit_once(") ")?.1.chars().next()?)
    };
    fs::read_dir("/proc").unwrap().flatten().filter_map(of).collect()
}

#[test]
fn what_was_stopped_before_a_pause_stays_so() {
    let sandbox = sandbox();
    // A child of the shell's is `sh` until it is `sleep`.
    let script = "sleep 4711 & until grep -q sleep /proc/$!/comm; do :; done; kill -STOP $!\n\
                  sleep 4712 & echo ready; wait";
    let mut child =
        started(&sandbox, &["run", "--name", "box", "--network", "none", "base", "sh", "-c", script]);
    let is_as_left = || states("sleep 4711") == ['T'] && states("sleep 4712") == ['S'];
    assert!(wait_until(Duration::from_secs(20), is_as_left));
    sandbox.outcrop(&["commit", "box", "made"]).ok();
    // What is let go on may have to wait for a processor.
    assert!(
        wait_until(Duration::from_secs(20), is_as_left),
        "{:?} {:?}",
        states("sleep 4711"),
        states("sleep 4712")
    );
    sandbox.outcrop(&["rm", "-f", "box"]).ok();
    ended(&mut child);
}

#[test]
fn a_container_goes_on_though_the_commit_that_paused_it_was_killed() {
    let sandbox = sandbox();
    let args =
        ["run", "--name", "box", "--network", "none", "base", "sh", "-c", "echo ready; exec sleep 4713"];
    let mut child = started(&sandbox, &args);
    let runs = || states("sleep 4713") == ['S'];
    assert!(wait_until(Duration::from_secs(20), runs));
    let commit = || sandbox.command(&["commit", "box", "made"]);
    let mut paused = Vec::new();
    for step in 1.. {
        let mut look = || paused.extend((states("sleep 4713") == ['T']).then_some(step));
        if steps::run_beside(commit(), step, sandbox.dir(), &mut look).before.is_none() || paused.len() == 3 {
            break;
        }
    }
    assert!(!paused.is_empty(), "it is paused at no step");
    for step in paused {
        steps::run(commit(), Some(step), sandbox.dir());
        assert!(wait_until(Duration::from_secs(20), runs), "{:?}", states("sleep 4713"));
    }
    sandbox.outcrop(&["rm", "-f", "box"]).ok();
    ended(&mut child);
    sandbox.check();
}

#[test]
fn killed_outcrop_leaves_a_container_that_has_ended() {
    let sandbox = sandbox();
    for (name, flags) in [("stays", &[][..]), ("goes", &["--rm"][..])] {
        let mut args = vec!["run", "--name", name];
        args.extend(flags);
        args.extend(["base", "sh", "-c", "echo x > /new; echo ready; sleep 60"]);
        let mut child = started(&sandbox, &args);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            wait_until(Duration::from_secs(5), || sandbox.leftovers().is_empty()),
            "{:?}",
            sandbox.leftovers()
        );
    }
    // What held the container for the killed process may take a moment to end.
    let gone = || status(&sandbox) == ["stays exited"];
    assert!(wait_until(Duration::from_secs(10), gone), "{:?}", status(&sandbox));
    let format = "{{.Status}}";
    let shown = sandbox.outcrop(&["ps", "-a", "--format", format]).ok().line();
    assert!(shown.starts_with("Exited (137) "), "{shown}");
    assert_eq!(sandbox.outcrop(&["diff", "stays"]).ok().lines(), ["A /new"]);
    let locks = fs::read_dir(sandbox.root().join("locks")).unwrap().map(|entry| entry.unwrap().file_name());
    let leases: Vec<_> = locks.filter(|name| name.to_str().unwrap().starts_with("lease-")).collect();
    assert!(leases.is_empty(), "{leases:?}");
    sandbox.outcrop(&["rm", "stays"]).ok();
}

#[test]
fn a_killed_runtime_takes_its_container_along() {
    let sandbox = sandbox();
    let mut child = started(&sandbox, &["run", "--name", "box", "base", "sh", "-c", "echo ready; sleep 60"]);
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let inits = fs::read_to_string(children).unwrap();
    let init = Pid::from_raw(inits.trim().parse().unwrap()).unwrap();
    kill_process(init, Signal::KILL).unwrap();
    assert_eq!(ended(&mut child), Some(125));
    assert_eq!(status(&sandbox), ["box exited"]);
    assert_eq!(
        sandbox.outcrop(&["diff", "box"]).ok().stdout(),
        "",
        "mount points that it could not take away"
    );
}

#[test]
fn signals_are_handed_on() {
    let sandbox = sandbox();
    let script = "trap 'echo got; exit 7' TERM; trap 'exit 8' INT; echo ready; while :; do sleep 0.05; done";
    let args = ["run", "--rm", "base", "sh", "-c", script];
    for (given, code) in [(Signal::TERM, 7), (Signal::INT, 8)] {
        let mut child = started(&sandbox, &args);
        signal(&child, given);
        assert_eq!(ended(&mut child), Some(code));
    }
    // A first process without handlers ignores it; at the third one it is killed.
    let mut child = started(&sandbox, &["run", "--rm", "base", "sh", "-c", "echo ready; exec sleep 60"]);
    let mut given = 0;
    // Of two that come before it looks at the first it sees one (signal(7)).
    while given < 100 && child.try_wait().unwrap().is_none() {
        signal(&child, Signal::TERM);
        given += 1;
        wait_until(Duration::from_millis(200), || child.try_wait().unwrap().is_some());
    }
    assert_eq!(ended(&mut child), Some(137));
    assert!(given >= 3, "{given}");
}

#[test]
fn a_container_is_started_again_with_what_it_wrote() {
    let sandbox = sandbox();
    let id = sandbox
        .outcrop(&[
            "create",
            "-i",
            "--cidfile",
            "id",
            "base",
            "sh",
            "-c",
            "read a; echo $a >> /log; cat /log",
        ])
        .ok()
        .line();
    assert_eq!(fs::read_to_string(sandbox.context().join("id")).unwrap(), id);
    assert_eq!(sandbox.outcrop_with_input(&["start", "-ai", &id[..12]], b"one\n").ok().stdout(), "one\n");
    assert_eq!(sandbox.outcrop_with_input(&["start", "-ai", &id], b"two\n").ok().stdout(), "one\ntwo\n");
    sandbox
        .outcrop(&["create", "--cidfile", "id", "base", "true"])
        .fails(1)
        .complains("container ID file found");
    sandbox.outcrop(&["create", "--entrypoint", "", "base"]).fails(1).complains("no command specified");
}

#[test]
fn a_container_is_inspected_in_dockers_words() {
    let sandbox = sandbox();
    let here = sandbox.context().display().to_string();
    let bind = format!("{here}:/data:ro");
    let id = sandbox
        .outcrop(&[
            "create", "--name", "box", "-v", &bind, "-e", "A=1", "--memory", "64m", "base", "sh", "-c",
            "exit 4",
        ])
        .ok()
        .line();
    let shown = |format: &str| inspect(&sandbox, "box", format);
    assert_eq!(shown("{{.Id}} {{.Name}} {{.Path}} {{.Args}}"), format!("{id} /box sh [-c exit 4]"));
    assert_eq!(shown("{{.State.Status}} {{.State.Running}} {{.State.Pid}}"), "created false 0");
    assert_eq!(shown("{{.HostConfig.Binds}} {{.HostConfig.NetworkMode}}"), format!("[{bind}] host"));
    assert_eq!(shown("{{.HostConfig.Memory}} {{.HostConfig.AutoRemove}}"), "67108864 false");
    assert_eq!(shown("{{(index .Mounts 0).Source}} {{(index .Mounts 0).RW}}"), format!("{here} false"));
    assert_eq!(shown("{{json .Config.Env}} {{.Config.Image}}"), "[\"A=1\"] base");
    sandbox.outcrop(&["start", "-a", "box"]).fails(4);
    assert_eq!(shown("{{.State.Status}} {{.State.ExitCode}}"), "exited 4");
}

/// A terminal: what a person sees and types, and what outcrop has.
fn terminal() -> (fs::File, OwnedFd) {
    use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let person = openpt(flags).unwrap();
    unlockpt(&person).unwrap();
    let outcrops = ioctl_tiocgptpeer(&person, flags).unwrap();
    (person.into(), outcrops)
}

#[test]
fn with_a_terminal_a_person_can_type() {
    let sandbox = sandbox();
    let (mut person, theirs) = terminal();
    let size = rustix::termios::Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&person, size).unwrap();
    let before = rustix::termios::tcgetattr(&theirs).unwrap().local_modes;
    let ours = || Stdio::from(theirs.try_clone().unwrap());
    let script = "tty; stty size; echo $TERM; read line; echo \"<$line>\"; exit 9";
    let mut child = sandbox
        .command(&["run", "--rm", "-it", "base", "sh", "-c", script])
        .stdin(ours())
        .stdout(ours())
        .stderr(ours())
        .spawn()
        .unwrap();
    let mut seen = String::new();
    let mut until = |person: &mut fs::File, text: &str| {
        let mut byte = [0];
        while !seen.ends_with(text) {
            let mut polled = [PollFd::new(person, PollFlags::IN)];
            let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
            let ready = rustix::event::poll(&mut polled, Some(&limit)).unwrap();
            assert_eq!(ready, 1, "after `{seen}` comes nothing");
            person.read_exact(&mut byte).unwrap();
            seen.push(char::from(byte[0]));
        }
    };
    until(&mut person, "/dev/pts/0\r\n33 77\r\nxterm\r\n");
    person.write_all(b"typed\r").unwrap();
    until(&mut person, "<typed>\r\n");
    assert_eq!(ended(&mut child), Some(9));
    assert_eq!(rustix::termios::tcgetattr(&theirs).unwrap().local_modes, before, "the terminal is as it was");
    run(&sandbox, &["-it", "base", "true"]).fails(125).complains("the input device is not a TTY");
}

/// Its row and its tree go with a sweep, which another process may be busy with.
#[test]
fn a_container_that_is_going_holds_no_image() {
    let sandbox = sandbox();
    let sweep = fs::File::create(sandbox.root().join("locks/lease-sweep")).unwrap();
    rustix::fs::flock(&sweep, rustix::fs::FlockOperation::LockExclusive).unwrap();
    run(&sandbox, &["base", "true"]).ok();
    let count = |sql: &str| {
        let index = rusqlite::Connection::open(sandbox.root().join("outcrop.db")).unwrap();
        index.query_row(sql, (), |row| row.get::<_, u64>(0)).unwrap()
    };
    assert_eq!(count("select count(*) from container where state = 'removing'"), 1);
    sandbox.outcrop(&["images", "--format", "{{.Containers}}"]).ok().says("0");
    sandbox.outcrop(&["rmi", "base"]).ok().says("Deleted: sha256:");
    sandbox.check();
    drop(sweep);
    sandbox.outcrop(&["image", "prune", "-f"]).ok();
    assert_eq!(count("select (select count(*) from image) + (select count(*) from container)"), 0);
    sandbox.check();
}
