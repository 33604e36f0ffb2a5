//! Where builds take things from: registries asked again and not, servers that hang, several builds at once.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use outcrop::image::{Digest, ImageConfig};

use crate::registry_kit::{Image, Layout, RealRegistry};
use crate::sandbox::{Outcome, Sandbox, find_on_path, wait_until};
use crate::web_kit::{Daemon, Page, Repository, Web};

fn build(sandbox: &Sandbox, more: &[&str]) -> Outcome {
    let mut args = vec!["build", "--progress", "plain"];
    args.extend(more);
    args.push(".");
    sandbox.outcrop(&args)
}

/// What the build leaves at `path`, by way of a directory.
fn built(sandbox: &Sandbox, more: &[&str], path: &str) -> String {
    let out = sandbox.context().join("out");
    let _fresh = fs::remove_dir_all(&out);
    build(sandbox, &[more, &["-o", "out"]].concat()).ok();
    fs::read_to_string(out.join(path)).unwrap()
}

/// An archive of `file`, saying this.
fn archive(sandbox: &Sandbox, text: &str, more: &[&str]) -> Vec<u8> {
    let tree = sandbox.dir().join("archived");
    fs::create_dir_all(&tree).unwrap();
    fs::write(tree.join("file"), text).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--owner=0", "--group=0", "--mtime=@1600000000"]).args(more).arg("-C").arg(&tree);
    tar.args(["-cf", "-", "file"]).output().unwrap().stdout
}

/// Puts an image with `file`, saying this, and busybox if it is to run, into the registry; its digest.
fn push(sandbox: &Sandbox, registry: &RealRegistry, name: &str, text: &str, runs: bool) -> String {
    let mut tars = vec![archive(sandbox, text, &[])];
    if runs {
        tars.insert(0, fs::read(sandbox.busybox_archive()).unwrap());
    }
    let config = ImageConfig { architecture: "amd64".into(), os: "linux".into(), ..ImageConfig::default() };
    let image = Image::made(&tars, config);
    let layout = sandbox.dir().join(format!("layout-{}", Digest::of(&image.manifest_raw).hex()));
    let layout = match layout.exists() {
        true => Layout { dir: layout, index_raw: None },
        false => Layout::single(&layout, &image),
    };
    registry.push(&layout, name);
    Digest::of(&image.manifest_raw).to_string()
}

#[test]
fn a_tag_is_resolved_again_only_where_that_is_asked_for() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    let (app, tool) = (format!("{}/app:1", registry.address), format!("{}/tool:1", registry.address));
    push(&sandbox, &registry, "app:1", "one", true);
    push(&sandbox, &registry, "tool:1", "one", false);
    sandbox.dockerfile(&format!(
        "FROM {app}\nCOPY --from={tool} /file /copied\nRUN --mount=from={tool},target=/t cat /t/file /file > /seen\n"
    ));
    let all = |more: &[&str]| {
        let seen = built(&sandbox, more, "seen");
        let out = sandbox.context().join("out");
        let rest = ["file", "copied"].map(|name| fs::read_to_string(out.join(name)).unwrap());
        (seen, rest.concat())
    };
    assert_eq!(all(&[]), ("oneone".into(), "oneone".into()));
    push(&sandbox, &registry, "tool:1", "two", false);
    assert_eq!(all(&[]), ("oneone".into(), "oneone".into()), "what is here serves");
    assert_eq!(all(&["--no-cache"]), ("oneone".into(), "oneone".into()));
    assert_eq!(all(&["--pull"]), ("twoone".into(), "onetwo".into()));
    push(&sandbox, &registry, "app:1", "three", true);
    assert_eq!(all(&[]), ("twoone".into(), "onetwo".into()));
    assert_eq!(all(&["--pull"]), ("twothree".into(), "threetwo".into()));
    assert_eq!(all(&[]), ("twothree".into(), "threetwo".into()), "it is the one that is here now");
    drop(registry);
    assert_eq!(all(&[]), ("twothree".into(), "threetwo".into()));
    let id = sandbox.outcrop(&["inspect", "-f", "{{.Id}}", &app]).ok().line();
    build(&sandbox, &["--pull"]).fails(1).complains(&app);
    assert_eq!(sandbox.outcrop(&["inspect", "-f", "{{.Id}}", &app]).ok().line(), id);
    sandbox.check();
}

#[test]
fn a_digest_names_one_image_whatever_becomes_of_its_tag() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    let digest = push(&sandbox, &registry, "app:1", "one", false);
    push(&sandbox, &registry, "app:1", "two", false);
    let address = registry.address;
    for name in [format!("{address}/app@{digest}"), format!("{address}/app:1@{digest}")] {
        sandbox.dockerfile(&format!("FROM {name}\nCOPY Dockerfile /d\nCOPY --from={name} /file /copied\n"));
        assert_eq!(built(&sandbox, &[], "copied"), "one");
        assert_eq!(built(&sandbox, &["--pull"], "file"), "one");
    }
    sandbox.dockerfile(&format!("FROM {address}/app:1\nCOPY Dockerfile /d\n"));
    assert_eq!(built(&sandbox, &[], "file"), "two", "the digest gave the tag nothing");
    let none = digest.replace(|digit: char| digit.is_ascii_digit(), "0");
    sandbox.dockerfile(&format!("FROM {address}/app@{none}\nCOPY Dockerfile /d\n"));
    build(&sandbox, &[]).fails(1).complains(&none);
    drop(registry);
    sandbox.dockerfile(&format!("FROM {address}/app@{digest}\nCOPY Dockerfile /other\n"));
    assert_eq!(built(&sandbox, &[], "file"), "one", "it is here");
    sandbox.check();
}

#[test]
fn an_archive_from_the_web_is_unpacked_where_that_is_asked_for() {
    let (sandbox, web) = (Sandbox::new(), Web::start());
    let bytes = archive(&sandbox, "packed", &["-z"]);
    web.page("/a.tar.gz", Page::of(bytes.clone()));
    let (url, checksum) = (web.url("/a.tar.gz"), Digest::of(&bytes).to_string());
    let add = |flags: &str| {
        sandbox.dockerfile(&format!("FROM scratch\nADD {flags} {url} /got/\n"));
    };
    for flags in ["--unpack", "--unpack=true", &format!("--unpack=true --checksum={checksum}")] {
        add(flags);
        assert_eq!(built(&sandbox, &[], "got/file"), "packed", "{flags}");
    }
    for flags in ["", "--unpack=false", &format!("--unpack=false --checksum={checksum}")] {
        add(flags);
        build(&sandbox, &["-o", "kept"]).ok();
        assert_eq!(fs::read(sandbox.context().join("kept/got/a.tar.gz")).unwrap(), bytes, "{flags}");
    }
    let other = Digest::of(b"other").to_string();
    add(&format!("--unpack --checksum={other}"));
    build(&sandbox, &["-o", "none"]).fails(1).complains(&other).complains(&checksum);
    assert!(!sandbox.context().join("none").exists());
    // A file that is no archive is itself.
    web.page("/text", Page::of("text"));
    sandbox.dockerfile(&format!("FROM scratch\nADD --unpack=true {} /got/\n", web.url("/text")));
    assert_eq!(built(&sandbox, &[], "got/text"), "text");
    sandbox.check();
}

#[test]
fn a_checksum_may_be_a_longer_one() {
    let (sandbox, web) = (Sandbox::new(), Web::start());
    web.page("/f", Page::of("abc").etag("1"));
    let sha512 = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                  2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
    let sha384 = "sha384:cb00753f45a35e8bb5a03d699ac65007272c32ab0eded163\
                  1a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7";
    let add = |checksum: &str| {
        sandbox.dockerfile(&format!("FROM scratch\nADD --checksum={checksum} {} /f\n", web.url("/f")));
    };
    for checksum in [sha512, sha384] {
        add(checksum);
        assert_eq!(built(&sandbox, &[], "f"), "abc");
        add(&checksum.replace('a', "b").replace("shb", "sha"));
        build(&sandbox, &["-o", "none"])
            .fails(1)
            .complains("is not what --checksum says")
            .complains(checksum);
    }
    assert_eq!(web.asked(), ["200 /f", "304 /f", "304 /f", "304 /f"]);
    web.page("/f", Page::of("abd").etag("2"));
    add(sha512);
    build(&sandbox, &["-o", "none"]).fails(1).complains("is not what --checksum says");
    assert!(!sandbox.context().join("none").exists());
    is_tidy(&sandbox);
}

/// Stands before another server. While it hangs, it answers with the first bytes only, and keeps the connection.
struct Before {
    port: u16,
    hangs: Arc<AtomicBool>,
    reached: Arc<AtomicBool>,
}

impl Before {
    fn start(behind: String, first: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (hangs, reached) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
        let before = Before { port, hangs: hangs.clone(), reached: reached.clone() };
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let (client, server) = (connection.unwrap(), TcpStream::connect(&behind).unwrap());
                let (mut asks, mut asked) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _gone = std::io::copy(&mut asks, &mut asked);
                    let _gone = asked.shutdown(std::net::Shutdown::Write);
                });
                let (hangs, reached) = (hangs.clone(), reached.clone());
                std::thread::spawn(move || answer(client, server, first, &hangs, &reached));
            }
        });
        before
    }
}

fn answer(
    mut client: TcpStream,
    mut server: TcpStream,
    first: usize,
    hangs: &AtomicBool,
    reached: &AtomicBool,
) {
    if !hangs.load(Ordering::SeqCst) {
        let _gone = std::io::copy(&mut server, &mut client);
        let _gone = client.shutdown(std::net::Shutdown::Both);
        return;
    }
    let mut bytes = vec![0; first];
    let count = server.read(&mut bytes).unwrap_or(0);
    let _gone = client.write_all(&bytes[..count]);
    reached.store(true, Ordering::SeqCst);
    while hangs.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(10));
    }
    for end in [client, server] {
        let _gone = end.shutdown(std::net::Shutdown::Both);
    }
}

fn spawn(sandbox: &Sandbox, more: &[&str]) -> Child {
    let args = [&["build", "--progress", "plain"], more, &["."]].concat();
    sandbox.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn ssh_key(sandbox: &Sandbox) -> PathBuf {
    let key = sandbox.dir().join("key");
    let made = Command::new(find_on_path("ssh-keygen"))
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key)
        .status();
    assert!(made.unwrap().success());
    key
}

/// Nothing that was begun is left.
#[track_caller]
fn is_tidy(sandbox: &Sandbox) {
    let trash = sandbox.root().join("trash");
    let left = Command::new("find").arg(&trash).args(["-mindepth", "1", "-ls"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&left.stdout), "");
    sandbox.check();
}

#[test]
fn a_build_that_is_killed_while_it_fetches_leaves_nothing_in_the_way() {
    let (sandbox, web) = (Sandbox::new(), Web::start());
    web.page("/file", Page::of(vec![b'x'; 300_000]));
    let repository = Repository::new(&sandbox, "it");
    repository.file("file", "in git");
    repository.commit();
    let daemon = Daemon::start(&sandbox);
    let behind = daemon.url("it").trim_start_matches("git://").split('/').next().unwrap().to_owned();
    for (behind, first, source, at) in [
        (web.address.to_string(), 5000, "http://127.0.0.1:PORT/file", "got/file"),
        (behind, 20, "git://127.0.0.1:PORT/it", "got/file"),
    ] {
        let before = Before::start(behind, first);
        let source = source.replace("PORT", &before.port.to_string());
        sandbox.dockerfile(&format!("FROM scratch\nADD {source} /got/\n"));
        let mut killed = spawn(&sandbox, &[]);
        assert!(wait_until(Duration::from_secs(60), || before.reached.load(Ordering::SeqCst)));
        killed.kill().unwrap();
        killed.wait().unwrap();
        before.hangs.store(false, Ordering::SeqCst);
        // Its own helpers are gone with it.
        let works = |left: &String| left.contains("git") && !left.contains("daemon");
        assert!(wait_until(Duration::from_secs(20), || !sandbox.leftovers().iter().any(works)));
        assert!(!built(&sandbox, &[], at).is_empty(), "{source}");
        is_tidy(&sandbox);
    }
}

#[test]
fn an_agent_of_a_build_that_is_killed_is_gone_with_its_socket() {
    let sandbox = Sandbox::new();
    sandbox.base_image("base");
    let key = ssh_key(&sandbox);
    sandbox.dockerfile("FROM base\nRUN --mount=type=ssh echo up > /dev/null; sleep 600\n");
    let sockets = || fs::read_dir(sandbox.run_root().join("ssh")).map_or(0, Iterator::count);
    let mut killed = spawn(&sandbox, &["--network", "none", "--ssh", &format!("default={}", key.display())]);
    let sleeps = || sandbox.leftovers().iter().any(|left| left.contains("sleep 600"));
    assert!(wait_until(Duration::from_secs(60), || sockets() > 0 && sleeps()));
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(
        wait_until(Duration::from_secs(20), || sandbox.leftovers().is_empty()),
        "{:?}",
        sandbox.leftovers()
    );
    // The way to it goes with the next build that opens one.
    sandbox.dockerfile("FROM base\nRUN --mount=type=ssh test -S $SSH_AUTH_SOCK\n");
    build(&sandbox, &["--network", "none", "--ssh", &format!("default={}", key.display())]).ok();
    assert_eq!(sockets(), 0);
    sandbox.check();
}

#[test]
fn builds_of_one_repository_at_the_same_time_do_not_disturb_each_other() {
    let sandbox = Sandbox::new();
    let repository = Repository::new(&sandbox, "it");
    for n in 0..50 {
        repository.file(&format!("dir/{n}"), &"x".repeat(n * 100));
    }
    repository.commit();
    let daemon = Daemon::start(&sandbox);
    sandbox.outcrop(&["images"]).ok();
    for round in 0..2 {
        repository.file("file", &round.to_string());
        repository.commit();
        let mut builds: Vec<Child> = (0..3)
            .map(|n| {
                let file = format!("Dockerfile.{n}");
                sandbox.file(&file, format!("FROM scratch\nADD {}#main /got{n}/\n", daemon.url("it")));
                spawn(&sandbox, &["-f", &file, "-o", &format!("out{n}")])
            })
            .collect();
        for (n, build) in builds.iter_mut().enumerate() {
            assert!(build.wait().unwrap().success());
            let at = sandbox.context().join(format!("out{n}/got{n}"));
            assert_eq!(fs::read_to_string(at.join("file")).unwrap(), round.to_string());
            assert_eq!(fs::read_dir(at.join("dir")).unwrap().count(), 50);
        }
    }
    is_tidy(&sandbox);
}

#[test]
fn mounts_of_every_kind_are_the_same_under_every_runtime_and_driver() {
    for (runtime, driver) in [
        ("outcrop", "overlay2"),
        ("runc", "overlay2"),
        ("crun", "overlay2"),
        ("outcrop", "vfs"),
        ("runc", "vfs"),
    ] {
        let sandbox = Sandbox::new().driver(driver).variable("OUTCROP_RUNTIME", runtime);
        sandbox.base_image("base");
        sandbox.file("src/file", "context");
        sandbox.file("named/file", "named");
        sandbox.dockerfile(
            "FROM base AS other\nRUN mkdir /d && echo stage > /d/file\nFROM dir AS whole\nFROM base\n\
             COPY --from=whole /file /whole\nCOPY --from=dir file /named\n\
             RUN --mount=source=src,target=/a --mount=from=other,source=/d,target=/b --mount=from=dir,target=/c,rw \
             --mount=type=tmpfs,target=/t,size=1m --mount=from=other,source=/d/file,target=/one \
             cat /a/file /b/file /c/file /one > /seen; echo x > /c/new; ! echo x > /a/new; ! echo x > /one; \
             echo t > /t/f && cat /t/f >> /seen; df -k /t | tail -1 | tr -s ' ' | cut -d ' ' -f 2 >> /seen\n\
             RUN ls -A / | grep -c '^[abct]$'; test ! -e /one && test ! -e /t/f && echo clean >> /seen\n",
        );
        let seen = built(&sandbox, &["--network", "none", "--build-context", "dir=named"], "seen");
        assert_eq!(seen, "contextstage\nnamedstage\nt\n1024\nclean\n", "{runtime} {driver}");
        let out = sandbox.context().join("out");
        assert_eq!(
            ["whole", "named"].map(|name| fs::read_to_string(out.join(name)).unwrap()).concat(),
            "namednamed"
        );
        for gone in ["a", "b", "c", "t", "one"] {
            assert!(!out.join(gone).exists(), "/{gone} by {runtime} on {driver}");
        }
        assert!(!sandbox.context().join("named/new").exists());
        sandbox.check();
    }
}

#[test]
fn an_agent_is_reached_under_every_runtime() {
    let sandbox = Sandbox::new();
    sandbox.base_image("base");
    let key = ssh_key(&sandbox);
    for runtime in ["outcrop", "runc", "crun"] {
        sandbox.dockerfile(&format!(
            "FROM base\nRUN --mount=type=ssh,uid=5,mode=0620 test -S $SSH_AUTH_SOCK && stat -c '%u:%g %a' $SSH_AUTH_SOCK > /{runtime}\n"
        ));
        let ssh = format!("default={}", key.display());
        let args = ["--runtime", runtime, "build", "--network", "none", "--ssh", &ssh, "-o", "out", "."];
        sandbox.outcrop(&args).ok();
        let seen = fs::read_to_string(sandbox.context().join("out").join(runtime)).unwrap();
        assert_eq!(seen, "5:0 620\n", "{runtime}");
    }
    sandbox.check();
}
