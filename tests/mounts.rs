//! What RUN is given beside its root: mounts of every type, what they leave, and what they decide.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::Duration;

use crate::sandbox::{Outcome, Sandbox, based as sandbox, build_it as build, wait_until};

fn cat(sandbox: &Sandbox, path: &str) -> String {
    sandbox.outcrop(&["run", "--rm", "--network", "none", "it", "cat", path]).ok().stdout()
}

/// How many commands ran.
fn ran(outcome: &Outcome) -> usize {
    outcome.lines().iter().filter(|line| line.contains("---> Running in")).count()
}

/// What the newest layer holds, path by path.
fn newest_layer(sandbox: &Sandbox) -> String {
    let query = "select path from files where layer = (select max(layer) from files) order by path";
    let db = sandbox.root().join("files.db");
    let rows = std::process::Command::new("sqlite3").arg(&db).arg(query).output().unwrap();
    String::from_utf8(rows.stdout).unwrap()
}

#[test]
fn files_of_the_context_are_there_while_the_command_runs_and_in_no_layer() {
    let sandbox = sandbox(
        "FROM base\nWORKDIR /w\nRUN --mount=target=src,source=lib cat src/file src/deep/er > /out; ls src > /list\n",
    );
    sandbox.file("lib/file", "one\n");
    sandbox.file("lib/deep/er", "two\n");
    sandbox.file("lib/ignored", "three\n");
    sandbox.file("other", "four\n");
    sandbox.file(".dockerignore", "lib/ignored\n");
    build(&sandbox, &[]).ok();
    assert_eq!(newest_layer(&sandbox), "list\nout\n");
    assert_eq!((cat(&sandbox, "/out"), cat(&sandbox, "/list")), ("one\ntwo\n".into(), "deep\nfile\n".into()));
    sandbox.check();
}

#[test]
fn a_mount_of_the_context_is_an_input_of_its_bytes_alone() {
    let sandbox = sandbox("FROM base\nRUN --mount=target=/src,source=lib cp -a /src /out\n");
    let file = sandbox.file("lib/file", "one");
    sandbox.file("other", "1");
    sandbox.file("lib/ignored", "1");
    sandbox.file(".dockerignore", "lib/ignored\n");
    std::os::unix::fs::chown(&file, Some(1234), Some(1234)).unwrap();
    assert_eq!(ran(&build(&sandbox, &[]).ok()), 1);
    let owner = sandbox.outcrop(&["run", "--rm", "it", "stat", "-c", "%u:%g %a", "/out/file"]).ok();
    assert_eq!(owner.line(), "0:0 644");
    sandbox.file("other", "2");
    sandbox.file("lib/ignored", "2");
    sandbox.file("lib/file", "one");
    assert_eq!(ran(&build(&sandbox, &[]).ok()), 0, "what is not mounted, and times, decide nothing");
    sandbox.file("lib/file", "two");
    assert_eq!(ran(&build(&sandbox, &[]).ok()), 1);
    assert_eq!(cat(&sandbox, "/out/file"), "two");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(ran(&build(&sandbox, &[]).ok()), 1);
    sandbox.dockerfile("FROM base\nRUN --mount=target=/other,source=lib cp -a /src /out\n");
    build(&sandbox, &[]).fails(1);
}

#[test]
fn a_mount_can_be_written_to_only_where_it_says_so_and_then_nothing_stays() {
    for driver in ["overlay2", "vfs"] {
        let sandbox = Sandbox::new().driver(driver);
        sandbox.base_image("base");
        sandbox.file("lib/file", "one");
        for (number, from) in ["", "from=base,", "from=made,"].into_iter().enumerate() {
            // Another name each time: of equal layers there is one.
            let out = format!("out{number}");
            let source = if from.is_empty() { "lib" } else { "etc" };
            let text = |access: &str, command: &str| {
                format!(
                    "FROM base AS made\nRUN echo x > /etc/x\nFROM base\nRUN --mount={from}source={source},target=/m{access} {command}\n"
                )
            };
            sandbox.dockerfile(&text("", "echo new > /m/new"));
            build(&sandbox, &[]).fails(1).complains("Read-only file system");
            sandbox.dockerfile(
                &text(",rw", "echo new > /m/new && echo y > /m/passwd && cat /m/new > /OUT")
                    .replace("OUT", &out),
            );
            build(&sandbox, &[]).ok();
            let read = cat(&sandbox, &format!("/{out}"));
            assert_eq!((newest_layer(&sandbox), read), (format!("{out}\n"), "new\n".into()));
            sandbox.dockerfile(&text(",rw", "test ! -e /m/new && ls /m > /out"));
            build(&sandbox, &[]).ok();
        }
        assert_eq!(fs::read_dir(sandbox.context().join("lib")).unwrap().count(), 1);
        sandbox.check();
    }
}

#[test]
fn a_stage_that_was_made_again_with_equal_content_is_the_same_mount() {
    let text = |comment: &str| {
        format!(
            "FROM base AS made\nRUN echo {comment}; mkdir /d && echo content > /d/file\n\
             FROM base\nRUN --mount=from=made,source=/d,target=/d cat /d/file > /out\n"
        )
    };
    let sandbox = sandbox(&text("first"));
    build(&sandbox, &[]).ok();
    sandbox.dockerfile(&text("second"));
    assert_eq!(ran(&build(&sandbox, &[]).ok()), 1, "the stage alone");
    assert_eq!(cat(&sandbox, "/out"), "content\n");
    sandbox.dockerfile(&text("third; mkdir /x").replace("content", "other"));
    assert_eq!(ran(&build(&sandbox, &[]).ok()), 2);
    assert_eq!(cat(&sandbox, "/out"), "other\n");
}

#[test]
fn a_file_and_nothing_at_all_can_be_mounted_and_links_in_a_source_are_followed() {
    let sandbox = sandbox(
        "FROM base AS made\nRUN mkdir /real && echo it > /real/file && ln -s real /link && ln -s /etc/../real/file /file\n\
         FROM base\nRUN --mount=from=made,source=link/file,target=/a/b/c --mount=from=made,source=file,target=/f \
         --mount=from=scratch,target=/none --mount=from=scratch,target=/some,rw \
         cat /a/b/c /f > /out && ls /none >> /out && touch /some/x\n",
    );
    build(&sandbox, &[]).ok();
    assert_eq!((newest_layer(&sandbox), cat(&sandbox, "/out")), ("out\n".into(), "it\nit\n".into()));
    sandbox.dockerfile("FROM base\nRUN --mount=from=base,source=/nowhere,target=/x true\n");
    build(&sandbox, &[]).fails(1).complains("`nowhere` is not in the image `base`");
    sandbox.dockerfile("FROM base\nRUN --mount=source=nowhere,target=/x true\n");
    build(&sandbox, &[]).fails(1).complains("`nowhere` is not in the build context");
}

#[test]
fn a_stage_that_is_only_mounted_is_needed_and_one_that_nobody_uses_is_not() {
    let sandbox = sandbox(
        "FROM base AS unused\nRUN exit 1\nFROM base AS made\nRUN echo it > /file\n\
         FROM base\nRUN --mount=from=made,target=/made cp /made/file /file\n",
    );
    build(&sandbox, &[]).ok();
    assert_eq!(cat(&sandbox, "/file"), "it\n");
}

#[test]
fn memory_is_empty_bounded_executable_and_gone() {
    let sandbox = sandbox(
        "FROM base\nRUN --mount=type=tmpfs,target=/tmp,size=1m --mount=type=tmpfs,target=/new/dir \
         stat -f -c %T /tmp > /out; df -k /tmp | tail -1 | tr -s ' ' | cut -d ' ' -f 2 >> /out; \
         stat -c %a /tmp >> /out; cp /bin/busybox /new/dir/ && /new/dir/busybox echo ran >> /out; \
         ! dd if=/dev/zero of=/tmp/big bs=1M count=2\n",
    );
    build(&sandbox, &[]).ok();
    assert_eq!(
        (newest_layer(&sandbox), cat(&sandbox, "/out")),
        ("out\n".into(), "tmpfs\n1024\n1777\nran\n".into())
    );
    sandbox.dockerfile("FROM base\nRUN --mount=type=tmpfs,target=/t,ro touch /t/x\n");
    build(&sandbox, &[]).fails(1).complains("Read-only file system");
}

/// No file below holds these bytes.
#[track_caller]
fn nowhere_below(dir: &std::path::Path, bytes: &str) {
    let found =
        std::process::Command::new("grep").args(["-r", "-l", "-a", "-F", bytes]).arg(dir).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}

#[test]
fn a_secret_is_a_file_or_a_variable_and_nowhere_in_the_store() {
    for runtime in ["outcrop", "runc"] {
        let sandbox = Sandbox::new().variable("OUTCROP_RUNTIME", runtime).variable("TOKEN", "quite-secret-2");
        sandbox.base_image("base");
        sandbox.file("key", "quite-secret-1");
        sandbox.file(".dockerignore", "key");
        sandbox.dockerfile(
            "FROM base\nRUN --mount=type=secret,id=key --mount=type=secret,id=TOKEN,env=VAR,required \
             --mount=type=secret,source=TOKEN,dst=/a/b,mode=0440,uid=1,gid=2 --mount=type=secret,id=none,target=/none \
             test \"$(cat /run/secrets/key)\" = quite-secret-1 || exit 1; test $VAR = quite-secret-2 || exit 2; \
             test \"$(cat /a/b)\" = quite-secret-2 || exit 3; test ! -e /none || exit 4; \
             stat -c '%n %a %u:%g' /run/secrets/key /a/b > /out; ! echo x > /a/b\n",
        );
        // What the Dockerfile itself says is history.
        let text = fs::read_to_string(sandbox.context().join("Dockerfile")).unwrap();
        sandbox.dockerfile(&text.replace("quite-secret-", "quite-'sec'ret-"));
        let secrets = ["--secret", "id=key,src=key", "--secret", "id=TOKEN"];
        assert_eq!(ran(&build(&sandbox, &secrets).ok()), 1);
        assert_eq!(newest_layer(&sandbox), "out\n");
        assert_eq!(cat(&sandbox, "/out"), "/run/secrets/key 400 0:0\n/a/b 440 1:2\n");
        nowhere_below(&sandbox.root(), "quite-secret");
        nowhere_below(&sandbox.run_root(), "quite-secret");
        sandbox.file("key", "another-secret");
        assert_eq!(ran(&build(&sandbox, &secrets).ok()), 0, "its value decides nothing");
        sandbox.check();
    }
}

#[test]
fn a_secret_that_was_not_given_is_an_error_where_it_is_required_before_anything_runs() {
    let sandbox = sandbox(
        "FROM base\nRUN echo ran\nRUN --mount=type=secret,id=key,required=true cat /run/secrets/key\n",
    );
    let outcome = build(&sandbox, &[])
        .fails(1)
        .complains("line 3: the secret `key` was not given")
        .complains("hint: build with `--secret id=key,src=FILE`");
    assert_eq!(ran(&outcome), 0);
    sandbox.file("key", "it");
    build(&sandbox, &["--secret", "id=key,src=key"]).ok();
    sandbox
        .dockerfile("FROM base\nRUN --mount=type=secret,id=key test -e /run/secrets/key; echo $? > /out\n");
    build(&sandbox, &[]).ok();
    assert_eq!(cat(&sandbox, "/out"), "1\n");
    build(&sandbox, &["--secret", "id=key,src=key"]).ok();
    assert_eq!(cat(&sandbox, "/out"), "0\n", "whether it is there decides");
    for (wrong, why) in [
        ("key", "is not KEY=VALUE"),
        ("src=key", "has no id"),
        ("id=key,src=nowhere", "reading the secret `nowhere`"),
        ("id=key,type=vault", "there is no type `vault`"),
    ] {
        build(&sandbox, &["--secret", wrong]).fails(1).complains(why);
    }
}

/// Counts its own runs in a cache.
const COUNTS: &str = "FROM base\nARG N\nRUN --mount=type=cache,target=/c,sharing=SHARING echo $N >> /c/log; cat /c/log > /out\n";

#[test]
fn a_cache_outlives_builds_and_decides_nothing_by_itself() {
    for runtime in ["outcrop", "runc"] {
        let sandbox = Sandbox::new().variable("OUTCROP_RUNTIME", runtime);
        sandbox.base_image("base");
        let text = COUNTS.replace("SHARING", "shared");
        sandbox.dockerfile(&text);
        build(&sandbox, &["--build-arg", "N=1"]).ok();
        assert_eq!((newest_layer(&sandbox), cat(&sandbox, "/out")), ("out\n".into(), "1\n".into()));
        build(&sandbox, &["--build-arg", "N=2"]).ok();
        assert_eq!(cat(&sandbox, "/out"), "1\n2\n");
        sandbox.dockerfile(&text.replace("shared", "locked,id=other"));
        assert_eq!(ran(&build(&sandbox, &["--build-arg", "N=2"]).ok()), 0, "neither id nor sharing decides");
        sandbox.dockerfile(&text.replace("shared", "shared,ro"));
        build(&sandbox, &["--build-arg", "N=2"]).ok().says("Read-only file system");
        assert_eq!(cat(&sandbox, "/out"), "1\n2\n");
        sandbox.dockerfile(&text.replace("/c", "/d"));
        assert_eq!(ran(&build(&sandbox, &["--build-arg", "N=2"]).ok()), 1, "the target decides");
        assert_eq!(cat(&sandbox, "/out"), "2\n", "and names the cache");
        build(&sandbox, &["--build-arg", "N=2", "--build-arg", "BUILDKIT_CACHE_MOUNT_NS=ns"]).ok();
        build(&sandbox, &["--no-cache", "--build-arg", "N=3", "--build-arg", "BUILDKIT_CACHE_MOUNT_NS=ns"])
            .ok();
        assert_eq!(cat(&sandbox, "/out"), "3\n", "a namespace is a world of its own");
        sandbox.check();
    }
}

#[test]
fn a_new_cache_has_the_mode_owner_and_content_that_the_mount_says() {
    let sandbox = sandbox(
        "FROM base AS made\nRUN mkdir -m 750 /d && echo content > /d/file && chown 3:4 /d\n\
         FROM base\nRUN --mount=type=cache,target=/a --mount=type=cache,target=/b,mode=0700,uid=1,gid=2 \
         --mount=type=cache,target=/c,from=made,source=/d stat -c '%n %a %u:%g' /a /b /c > /out; cat /c/file >> /out; rm /c/file\n\
         RUN --mount=type=cache,target=/again,id=/c,from=made,source=/d ls /again >> /out; echo end >> /out\n",
    );
    build(&sandbox, &[]).ok();
    assert_eq!(cat(&sandbox, "/out"), "/a 755 0:0\n/b 700 1:2\n/c 750 3:4\ncontent\nend\n");
    sandbox.dockerfile(
        "FROM base\nRUN --mount=type=cache,target=/a mkdir /a/sub && echo it > /a/sub/file\n\
         RUN --mount=type=cache,id=/a,source=sub,target=/s cp /s/file /out\n",
    );
    build(&sandbox, &[]).ok();
    assert_eq!(cat(&sandbox, "/out"), "it\n");
}

#[test]
fn one_command_may_mount_a_locked_cache_twice() {
    let sandbox = sandbox(
        "FROM base\nRUN --mount=type=cache,id=x,sharing=locked,target=/a --mount=type=cache,id=x,sharing=locked,target=/b \
         echo it > /a/file && cp /b/file /out\n",
    );
    build(&sandbox, &[]).ok();
    assert_eq!(cat(&sandbox, "/out"), "it\n");
}

/// Builds that have come as far as to run their command.
fn begun(sandbox: &Sandbox, arg: &str) -> std::process::Child {
    let args =
        ["build", "--progress", "plain", "--build-arg", arg, "-t", arg.split('=').next_back().unwrap(), "."];
    let mut command = sandbox.command(&args);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("begun") {
        line.clear();
        let read = std::io::BufRead::read_line(&mut out, &mut line).unwrap();
        assert_ne!(read, 0, "ended before its command began");
    }
    std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
    child
}

/// Says `begun`, waits for a file of the cache `/go`, and notes which build it was in `/c`.
fn waiting(sharing: &str) -> String {
    format!(
        "FROM base\nARG N\nRUN --mount=type=cache,target=/go --mount=type=cache,target=/c,sharing={sharing} \
         echo begun; while test ! -e /go/$N; do usleep 10000; done; echo $N >> /c/log; cat /c/log > /out\n"
    )
}

/// Lets the command of a build go on.
fn let_go(sandbox: &Sandbox, n: &str) {
    let go = sandbox.root().join("cache/mounts");
    let place = wait_for_place(&go, "/go");
    fs::write(place.join("data").join(n), "").unwrap();
}

fn wait_for_place(caches: &std::path::Path, id: &str) -> std::path::PathBuf {
    let find = || {
        let dirs = fs::read_dir(caches).ok()?.flatten();
        let mut places = dirs.map(|dir| dir.path().join("0"));
        places.find(|place| {
            fs::read_to_string(place.join("about")).is_ok_and(|about| about.contains(&format!("\"/{id}\"")))
        })
    };
    assert!(wait_until(Duration::from_secs(20), || find().is_some()));
    find().unwrap()
}

fn out_of(sandbox: &Sandbox, name: &str) -> String {
    sandbox.outcrop(&["run", "--rm", "--network", "none", name, "cat", "/out"]).ok().stdout()
}

#[test]
fn two_processes_share_a_cache_or_get_one_each() {
    for (sharing, second) in [("shared", "1\n2\n"), ("private", "2\n")] {
        let sandbox = sandbox(&waiting(sharing));
        let mut one = begun(&sandbox, "N=1");
        let mut two = begun(&sandbox, "N=2");
        let_go(&sandbox, "1");
        assert!(one.wait().unwrap().success());
        let_go(&sandbox, "2");
        assert!(two.wait().unwrap().success());
        assert_eq!(
            (out_of(&sandbox, "1"), out_of(&sandbox, "2")),
            ("1\n".into(), second.into()),
            "{sharing}"
        );
        sandbox.check();
    }
}

#[test]
fn a_locked_cache_is_waited_for_and_comes_free_when_its_holder_is_killed() {
    let sandbox = sandbox(&waiting("locked"));
    let mut one = begun(&sandbox, "N=1");
    let mut args = vec!["build", "--progress", "plain", "--build-arg", "N=2", "-t", "2", "."];
    let two = sandbox.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A third one gives up waiting.
    args[4] = "N=3";
    let mut three = sandbox.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = std::io::BufReader::new(three.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("waiting for the cache `/c`") {
        line.clear();
        assert_ne!(
            std::io::BufRead::read_line(&mut out, &mut line).unwrap(),
            0,
            "ended without having waited"
        );
        assert!(!line.starts_with("begun"));
    }
    let pid = rustix::process::Pid::from_child(&three);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(!three.wait().unwrap().success());
    one.kill().unwrap();
    one.wait().unwrap();
    let_go(&sandbox, "2");
    let two = two.wait_with_output().unwrap();
    assert!(two.status.success(), "{}", String::from_utf8_lossy(&two.stderr));
    assert_eq!(out_of(&sandbox, "2"), "2\n");
    sandbox.outcrop(&["system", "prune", "-f"]).ok();
    sandbox.check();
}

/// A base image with what `ssh-add` needs.
fn base_with_ssh_add(sandbox: &Sandbox) {
    let tool = |name: &str| crate::sandbox::find_on_path(name);
    let tree = sandbox.context().join("tools");
    fs::create_dir_all(tree.join("usr/bin")).unwrap();
    let program = tool("ssh-add");
    crate::sandbox::copy_program(&program, &tree.join("usr/bin/ssh-add"));
    let libraries = std::process::Command::new("ldd").arg(&program).output().unwrap();
    for word in
        String::from_utf8(libraries.stdout).unwrap().split_whitespace().filter(|word| word.starts_with('/'))
    {
        let to = tree.join(&word[1..]);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(word, to).unwrap();
    }
    sandbox.base_image("plain");
    sandbox.dockerfile("FROM plain\nCOPY tools/ /\n");
    sandbox.outcrop(&["build", "-q", "-t", "base", "."]).ok();
    fs::remove_dir_all(sandbox.context().join("tools")).unwrap();
}

const LISTS_KEYS: &str = "FROM base\nUSER nobody\n\
    RUN --mount=type=ssh,uid=65534 test $SSH_AUTH_SOCK = /run/buildkit/ssh_agent.0 && ssh-add -l > /tmp/out; ! ssh-add -D\n\
    RUN --mount=type=ssh,id=other,target=/x --mount=type=ssh,target=agent,mode=0666 cat /tmp/out; test ! -e /x && SSH_AUTH_SOCK=/agent ssh-add -l\n";

fn key_pair(sandbox: &Sandbox, name: &str) -> String {
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
        .arg(sandbox.dir().join(name))
        .output()
        .unwrap();
    assert!(made.status.success());
    let print =
        std::process::Command::new("ssh-keygen").arg("-lf").arg(sandbox.dir().join(name)).output().unwrap();
    String::from_utf8(print.stdout).unwrap().split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn keys_sign_through_an_agent_of_the_builds_own() {
    let sandbox = Sandbox::new();
    base_with_ssh_add(&sandbox);
    sandbox.dockerfile(LISTS_KEYS);
    let fingerprint = key_pair(&sandbox, "key");
    // Others may read it: what is a mistake for ssh is none here.
    fs::set_permissions(sandbox.dir().join("key"), fs::Permissions::from_mode(0o644)).unwrap();
    let lines =
        build(&sandbox, &["--ssh", &format!("default={}", sandbox.dir().join("key").display())]).ok().lines();
    assert_eq!(lines.iter().filter(|line| line.contains(&fingerprint)).count(), 2, "{lines:#?}");
    assert_eq!(fs::read_dir(sandbox.run_root().join("ssh")).unwrap().count(), 0);
    let secret = fs::read_to_string(sandbox.dir().join("key")).unwrap();
    nowhere_below(&sandbox.root(), secret.lines().nth(1).unwrap());
    sandbox.dockerfile("FROM base\nRUN --mount=type=ssh,required true\n");
    build(&sandbox, &[]).fails(1).complains("line 2: the ssh agent `default` was not given");
    sandbox.file("nothing", "no key");
    build(&sandbox, &["--ssh", "default=nothing"]).fails(1).complains("ssh-add cannot use it");
    build(&sandbox, &["--ssh", "default=nowhere"]).fails(1).complains("looking at `nowhere` in --ssh");
}

#[test]
fn the_callers_agent_answers_in_the_container() {
    let sandbox = Sandbox::new();
    base_with_ssh_add(&sandbox);
    sandbox.dockerfile(LISTS_KEYS);
    let fingerprint = key_pair(&sandbox, "key");
    let socket = sandbox.dir().join("agent");
    let mut agent = std::process::Command::new("ssh-agent")
        .arg("-D")
        .arg("-a")
        .arg(&socket)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    assert!(wait_until(Duration::from_secs(10), || socket.exists()));
    let added = std::process::Command::new("ssh-add")
        .arg("-q")
        .arg(sandbox.dir().join("key"))
        .env("SSH_AUTH_SOCK", &socket)
        .status();
    assert!(added.unwrap().success());
    build(&sandbox, &["--ssh", "default"]).fails(1).complains("SSH_AUTH_SOCK names no agent");
    let outcome = Outcome::of(
        sandbox
            .command(&["build", "--progress", "plain", "--ssh", "default", "."])
            .env("SSH_AUTH_SOCK", &socket),
    );
    let by_name = sandbox.outcrop(&[
        "build",
        "--no-cache",
        "--progress",
        "plain",
        "--ssh",
        &format!("default={}", socket.display()),
        ".",
    ]);
    agent.kill().unwrap();
    agent.wait().unwrap();
    for outcome in [outcome, by_name] {
        let lines = outcome.ok().lines();
        assert_eq!(lines.iter().filter(|line| line.contains(&fingerprint)).count(), 2, "{lines:#?}");
    }
}

#[test]
fn an_insecure_command_runs_only_where_that_is_allowed() {
    for runtime in ["outcrop", "runc"] {
        let sandbox = Sandbox::new().variable("OUTCROP_RUNTIME", runtime);
        sandbox.base_image("base");
        let text = "FROM base\nRUN echo ran\nRUN --security=insecure grep CapEff /proc/self/status > /out; \
            grep Seccomp: /proc/self/status >> /out; mknod /zero c 1 5 && dd if=/zero of=/dev/null bs=1 count=1 && rm /zero; \
            mkdir /m && mount -t tmpfs none /m && umount /m && rmdir /m && test -w /proc/sys/kernel/hostname && test -w /sys && echo done >> /out\n";
        sandbox.dockerfile(text);
        let refused = build(&sandbox, &[])
            .fails(1)
            .complains("line 3: an insecure RUN is not allowed")
            .complains("--allow security.insecure");
        assert_eq!(ran(&refused), 0);
        build(&sandbox, &["--allow", "security.insecure", "--allow", "network.host"]).ok();
        let out = cat(&sandbox, "/out");
        // All that this test has itself.
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let capabilities = status.lines().find(|line| line.starts_with("CapEff:")).unwrap();
        assert_eq!(out, format!("{capabilities}\nSeccomp:\t0\ndone\n"));
        assert_eq!(newest_layer(&sandbox), "out\n");
        sandbox.dockerfile(&text.replace("insecure", "sandbox"));
        build(&sandbox, &[]).fails(1).says("Not cached: insecure").complains("permission denied");
    }
    let sandbox = sandbox("FROM base\nRUN true\n");
    build(&sandbox, &["--allow", "security.all"]).fails(1).complains("unknown entitlement `security.all`");
    build(&sandbox, &["--allow", "device"]).fails(1).complains("RUN --device is not supported");
}

#[test]
fn names_and_limits_reach_the_command_and_decide_but_addresses_do_not() {
    let sandbox = sandbox(
        "FROM base\nRUN grep -c db /etc/hosts > /out; grep up /etc/hosts >> /out; df -k /dev/shm | tail -1 | tr -s ' ' | cut -d ' ' -f 2 >> /out; \
         ulimit -n >> /out; ulimit -Hn >> /out\n",
    );
    let with = |host: &str, shm: &str, files: &str, parent: &str| {
        let flags =
            ["--add-host", host, "--add-host", "up:host-gateway", "--shm-size", shm, "--ulimit", files];
        ran(&build(&sandbox, &[&flags[..], &["--cgroup-parent", parent]].concat()).ok())
    };
    assert_eq!(with("db:10.0.0.1", "2m", "nofile=100:200", "one"), 1);
    assert_eq!(cat(&sandbox, "/out"), "1\n127.0.0.1\tup\n2048\n100\n200\n");
    assert_eq!(newest_layer(&sandbox), "out\n");
    assert_eq!(with("db:10.0.0.2", "2m", "nofile=100:200", "two/three"), 0);
    assert_eq!(with("db2:10.0.0.2", "2m", "nofile=100:200", "one"), 1);
    assert_eq!(with("db:10.0.0.2", "3m", "nofile=100:200", "one"), 1);
    assert_eq!(with("db:10.0.0.2", "2m", "nofile=99:200", "one"), 1);
    build(&sandbox, &["--cgroup-parent", "../x"]).fails(1).complains("leads upwards");
    for parent in ["one", "two/three", "two"] {
        for top in ["", "unified", "devices"] {
            let _other_hosts_have_others =
                fs::remove_dir(std::path::Path::new("/sys/fs/cgroup").join(top).join(parent));
        }
    }
}

#[test]
fn what_caches_take_is_told_and_the_unused_ones_are_pruned() {
    let sandbox = sandbox(
        "FROM base\nARG N\nRUN --mount=type=cache,target=/c head -c 5000 /dev/zero > /c/file; head -c 5000 /c/file > /out\n",
    );
    let cache_line = |sandbox: &Sandbox| {
        let lines = sandbox.outcrop(&["system", "df"]).ok().lines();
        let line = lines.into_iter().find(|line| line.starts_with("Build Cache")).unwrap();
        line.split_whitespace().skip(2).map(str::to_owned).collect::<Vec<_>>()
    };
    build(&sandbox, &["--build-arg", "N=1"]).ok();
    sandbox.outcrop(&["rmi", "it"]).ok();
    assert_eq!(cache_line(&sandbox), ["3", "0", "10kB", "10kB"]);
    let verbose = sandbox.outcrop(&["system", "df", "-v"]).ok().stdout();
    let line =
        verbose.lines().find(|line| line.contains("exec.cachemount")).unwrap_or_else(|| panic!("{verbose}"));
    assert!(line.contains("5kB"), "{line}");

    sandbox.dockerfile(&waiting("shared"));
    let mut running = begun(&sandbox, "N=2");
    sandbox.outcrop(&["system", "prune", "-f"]).ok();
    assert!(wait_for_place(&sandbox.root().join("cache/mounts"), "/go").is_dir(), "one in use stays");
    let_go(&sandbox, "2");
    assert!(running.wait().unwrap().success());
    sandbox.outcrop(&["system", "prune", "-f"]).ok();
    assert_eq!(fs::read_dir(sandbox.root().join("cache/mounts")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(sandbox.root().join("trash")).unwrap().count(), 0);
    sandbox.check();
}
