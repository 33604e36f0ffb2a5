//! Where a build's files come from: archives, repositories, addresses, and contexts with names.

use std::fs;
use std::process::Command;

use crate::sandbox::{Outcome, Sandbox, find_on_path};
use crate::web_kit::{Daemon, Page, Repository, Web};

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.base_image("base");
    sandbox
}

fn build<'a>(sandbox: &Sandbox, args: &[&'a str]) -> Outcome {
    let all: Vec<&'a str> =
        ["build", "--progress", "plain", "-t", "it"].into_iter().chain(args.iter().copied()).collect();
    sandbox.outcrop(&all)
}

fn run(sandbox: &Sandbox, line: &str) -> String {
    sandbox.outcrop(&["run", "--rm", "--network", "none", "it", "sh", "-c", line]).ok().stdout()
}

fn cached(outcome: &Outcome) -> usize {
    outcome.lines().iter().filter(|line| line.contains("---> Using cache")).count()
}

/// A tar of the sandbox's context.
fn tar(sandbox: &Sandbox, how: &[&str]) -> Vec<u8> {
    let output = Command::new("tar")
        .args(how)
        .args(["-cf", "-", "."])
        .current_dir(sandbox.context())
        .output()
        .unwrap();
    assert!(output.status.success());
    output.stdout
}

/// Nothing is being worked in any more.
fn is_tidy(sandbox: &Sandbox) {
    let left: Vec<_> = fs::read_dir(sandbox.root().join("trash")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    sandbox.check();
}

const ALL: &str = "FROM base\nCOPY . /all/\n";

#[test]
fn an_archive_on_standard_input_is_a_context_however_it_is_compressed() {
    let sandbox = sandbox();
    sandbox.dockerfile(ALL);
    sandbox.file("dir/file", "one");
    sandbox.file("left/out", "x");
    sandbox.file(".dockerignore", "left\n.dockerignore\nDockerfile\n");
    let mut first = None;
    for how in [&[][..], &["-z"], &["--zstd"]] {
        let args = ["build", "--progress", "plain", "-t", "it", "-"];
        let built = sandbox.outcrop_with_input(&args, &tar(&sandbox, how)).ok();
        assert_eq!(cached(&built), usize::from(first.is_some()), "{how:?}");
        let files = run(&sandbox, "cd /all; find . -type f; cat dir/file; stat -c %u:%g dir/file");
        assert_eq!(files, "./dir/file\none0:0\n");
        first = Some(files);
    }
    is_tidy(&sandbox);
}

#[test]
fn a_dockerfile_inside_an_archive_is_named_from_its_root_with_its_own_ignore_file() {
    let sandbox = sandbox();
    sandbox.file("sub/My.Dockerfile", ALL);
    sandbox.file("sub/My.Dockerfile.dockerignore", "b\nsub\n.dockerignore\n");
    sandbox.file(".dockerignore", "a\n");
    sandbox.file("a", "a");
    sandbox.file("b", "b");
    let archive = tar(&sandbox, &[]);
    let args = ["build", "-t", "it", "-f", "sub/My.Dockerfile", "-"];
    sandbox.outcrop_with_input(&args, &archive).ok();
    assert_eq!(run(&sandbox, "ls -A /all"), "a\n");
    sandbox
        .outcrop_with_input(&["build", "-t", "it", "-"], &archive)
        .fails(1)
        .complains("holds no `Dockerfile`");
    sandbox.outcrop_with_input(&["build", "-t", "it", "-f", "-", "-"], &archive).fails(1).complains("both");
    is_tidy(&sandbox);
}

#[test]
fn a_link_in_an_archive_leads_nowhere_but_into_it() {
    let sandbox = sandbox();
    std::os::unix::fs::symlink("/etc/hostname", sandbox.context().join("Dockerfile")).unwrap();
    let args = ["build", "-t", "it", "-"];
    sandbox.outcrop_with_input(&args, &tar(&sandbox, &[])).fails(1).complains("holds no `Dockerfile`");
    sandbox
        .outcrop_with_input(&args, b"\x1f\x8b\x08 is no gzip")
        .fails(1)
        .complains("unpacking the build context");
    is_tidy(&sandbox);
}

#[test]
fn a_dockerfile_on_standard_input_may_have_a_directory() {
    let sandbox = sandbox();
    sandbox.file("file", "one");
    sandbox.outcrop_with_input(&["build", "-t", "it", "-f", "-", "."], ALL.as_bytes()).ok();
    assert_eq!(run(&sandbox, "cat /all/file"), "one");
    let alone = b"FROM base\nCOPY file /\n";
    sandbox
        .outcrop_with_input(&["build", "-t", "it", "-"], alone)
        .fails(1)
        .complains("there is no build context");
    sandbox.file("dockerfile", ALL);
    build(&sandbox, &["."]).ok();
}

#[test]
fn an_address_is_an_archive_or_a_dockerfile() {
    let (sandbox, web) = (sandbox(), Web::start());
    sandbox.dockerfile(ALL);
    sandbox.file("file", "one");
    web.page("/x.tar.gz", Page::of(tar(&sandbox, &["-z"])));
    web.page("/Dockerfile", Page::of("FROM base\nRUN echo two > /file\n"));
    build(&sandbox, &[&web.url("/x.tar.gz")]).ok();
    assert_eq!(run(&sandbox, "cat /all/file"), "one");
    build(&sandbox, &[&web.url("/Dockerfile")]).ok();
    assert_eq!(run(&sandbox, "cat /file"), "two\n");
    build(&sandbox, &[&web.url("/none")]).fails(1).complains("404");
    build(&sandbox, &["nowhere"]).fails(1).complains("build context `nowhere`");
    is_tidy(&sandbox);
}

#[test]
fn a_repository_is_a_context_with_its_reference_and_directory() {
    let sandbox = sandbox();
    let repository = Repository::new(&sandbox, "it");
    repository.file("Dockerfile", ALL);
    repository.file("sub/Dockerfile", "FROM base\nCOPY . /sub/\n");
    repository.file("sub/file", "one");
    repository.commit();
    repository.git(&["tag", "v1"]);
    repository.file("sub/file", "two");
    repository.commit();
    let daemon = Daemon::start(&sandbox);
    let (url, local) = (daemon.url("it"), format!("file://{}", repository.dir.display()));
    build(&sandbox, &[&url]).ok();
    assert_eq!(run(&sandbox, "ls -A /all; cat /all/sub/file"), "Dockerfile\nsub\ntwo");
    assert_eq!(cached(&build(&sandbox, &[&local]).ok()), 1);
    build(&sandbox, &[&format!("{url}#v1:sub")]).ok();
    assert_eq!(run(&sandbox, "cat /sub/file"), "one");
    build(&sandbox, &[&format!("{url}?tag=v1&subdir=sub")]).ok();
    build(&sandbox, &["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", &url]).ok();
    assert_eq!(run(&sandbox, "ls -A /all"), ".git\nDockerfile\nsub\n");
    let args = ["build", "-t", "it", "-f", "-", &url];
    sandbox.outcrop_with_input(&args, b"FROM base\nCOPY sub/file /other\n").ok();
    assert_eq!(run(&sandbox, "cat /other"), "two");
    build(&sandbox, &[&format!("{url}#none")]).fails(1).complains("has no branch or tag `none`");
    is_tidy(&sandbox);
}

#[test]
fn a_named_directory_stands_for_an_image_wherever_one_is_named() {
    let sandbox = sandbox();
    sandbox.base_image("localhost/real");
    for (file, text) in
        [("d/file", "one"), ("d/not", "x"), ("d/.dockerignore", "not\n.dockerignore\n"), ("c/x", "")]
    {
        sandbox.file(file, text);
    }
    sandbox.file(
        "c/Dockerfile",
        "FROM src AS whole\nFROM base\nCOPY --from=src /file /copied\nCOPY --from=docker.io/library/src:latest . /all/\n\
         COPY --from=whole / /whole/\nRUN --mount=from=src,target=/m cp /m/file /mounted\n",
    );
    let args = ["--build-context", "src=d", "c"];
    build(&sandbox, &args).ok();
    let told = run(&sandbox, "cat /copied /mounted /whole/file; ls -A /all; stat -c %u:%g:%a /copied");
    assert_eq!(told, "oneoneonefile\n0:0:644\n");
    let again = build(&sandbox, &args).ok();
    assert_eq!(cached(&again), 4);
    sandbox.file("d/file", "two");
    build(&sandbox, &args).ok();
    assert_eq!(run(&sandbox, "cat /copied /mounted /whole/file"), "twotwotwo");
    build(&sandbox, &["--build-context", "src=d", "--target", "whole", "c"]).ok();
    sandbox.outcrop(&["layers", "it"]).ok();
    is_tidy(&sandbox);
}

#[test]
fn a_context_takes_the_place_of_a_stage_of_its_name() {
    let sandbox = sandbox();
    sandbox.file("d/made", "by hand");
    sandbox
        .dockerfile("FROM base AS made\nRUN echo never; exit 1\nFROM base\nCOPY --from=made /made /made\n");
    build(&sandbox, &["--build-context", "made=d", "."]).ok().says_not("never");
    assert_eq!(run(&sandbox, "cat /made"), "by hand");
}

#[test]
fn a_named_image_stands_for_another_and_a_layout_for_one() {
    let sandbox = sandbox();
    sandbox.dockerfile("FROM base\nRUN echo other > /other\n");
    sandbox.outcrop(&["build", "-t", "other", "."]).ok();
    sandbox.dockerfile("FROM no.such.host/x:1\nRUN cat /other > /seen\n");
    build(&sandbox, &["--build-context", "no.such.host/x:1=docker-image://other", "."]).ok();
    assert_eq!(run(&sandbox, "cat /seen"), "other\n");
    let layout = sandbox.dir().join("layout");
    let umoci = |args: &[&str]| {
        let output = Command::new(find_on_path("umoci")).args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let (place, image) = (layout.to_str().unwrap(), format!("{}:v1", layout.display()));
    umoci(&["init", "--layout", place]);
    umoci(&["new", "--image", &image]);
    sandbox.file("put", "from the layout");
    let put = sandbox.context().join("put");
    umoci(&["insert", "--image", &image, put.to_str().unwrap(), "/put"]);
    sandbox.dockerfile("FROM base\nCOPY --from=lay /put /put\n");
    let value = format!("lay=oci-layout://{image}");
    build(&sandbox, &["--build-context", &value, "."]).ok();
    assert_eq!(run(&sandbox, "cat /put"), "from the layout");
    let value = format!("lay=oci-layout://{}:none", layout.display());
    build(&sandbox, &["--build-context", &value, "."]).fails(1).complains("the build context `lay`");
    is_tidy(&sandbox);
}

#[test]
fn a_named_repository_and_a_named_address_are_files() {
    let (sandbox, web) = (sandbox(), Web::start());
    let repository = Repository::new(&sandbox, "it");
    repository.file("dir/file", "in git");
    repository.commit();
    web.page("/f", Page::of("on the web"));
    let daemon = Daemon::start(&sandbox);
    sandbox.dockerfile("FROM base\nCOPY --from=git file /git\nCOPY --from=web context /web\n");
    let (git, url) = (format!("git={}#main:dir", daemon.url("it")), format!("web={}", web.url("/f")));
    build(&sandbox, &["--build-context", &git, "--build-context", &url, "."]).ok();
    assert_eq!(run(&sandbox, "cat /git /web"), "in giton the web");
    is_tidy(&sandbox);
}

#[test]
fn a_context_that_cannot_be_is_refused_by_its_name() {
    let sandbox = sandbox();
    sandbox.dockerfile("FROM base\n");
    sandbox.file("file", "");
    for (value, complaint) in [
        ("x", "NAME=VALUE"),
        ("=x", "NAME=VALUE"),
        ("X=.", "`X=.` in --build-context"),
        ("x=nowhere", "the directory `nowhere`"),
        ("x=file", "is no directory"),
        ("x=target:y", "no target `y`"),
        ("x=docker-image://A", "in --build-context"),
    ] {
        build(&sandbox, &["--build-context", value, "."]).fails(1).complains(complaint);
    }
}

#[test]
fn digests_of_images_that_are_here_name_them() {
    let sandbox = sandbox();
    let id = sandbox.outcrop(&["inspect", "--format", "{{.Id}}", "base"]).ok().line();
    sandbox.dockerfile(&format!("FROM {id}\nCOPY --from={id} /etc/passwd /copied\n"));
    build(&sandbox, &["."]).ok();
    assert_eq!(run(&sandbox, "wc -l < /copied"), "2\n");
}

#[test]
fn what_is_ignored_whole_is_not_walked() {
    let sandbox = sandbox();
    sandbox.dockerfile(ALL);
    sandbox.file(".dockerignore", "big\n.dockerignore\nDockerfile\n");
    sandbox.file("file", "one");
    sandbox.file("big/x/y", "");
    // Reading a directory marks the time, unless the filesystem keeps none: relatime does when it is this old.
    let aged = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
    let big = fs::File::open(sandbox.context().join("big")).unwrap();
    big.set_times(fs::FileTimes::new().set_accessed(aged)).unwrap();
    build(&sandbox, &["."]).ok();
    let after = fs::metadata(sandbox.context().join("big")).unwrap().accessed().unwrap();
    assert_eq!(after, aged, "it was read");
    assert_eq!(run(&sandbox, "ls -A /all"), "file\n");
}

/// The image's seconds since 1970; `None`: those of now.
fn dated(sandbox: &Sandbox, name: &str) -> Option<i64> {
    let created = sandbox.outcrop(&["inspect", "--format", "{{.Created}}", name]).ok().line();
    let seconds = Command::new("date").args(["-u", "+%s", "-d", &created]).output().unwrap().stdout;
    let seconds: i64 = String::from_utf8(seconds).unwrap().trim().parse().unwrap();
    (seconds < 1_750_000_000).then_some(seconds)
}

const DATED: &str =
    "ARG SOURCE_DATE_EPOCH=context\nFROM base\nARG SOURCE_DATE_EPOCH\nLABEL at=$SOURCE_DATE_EPOCH\n";
const SUNDAY: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

#[test]
fn a_build_may_have_the_time_of_its_context() {
    let (sandbox, web) = (sandbox(), Web::start());
    sandbox.dockerfile(DATED);
    build(&sandbox, &["."]).ok();
    assert_eq!(dated(&sandbox, "it"), None, "a directory has no time");

    let archive = tar(&sandbox, &["--mtime=@1600000000"]);
    sandbox.outcrop_with_input(&["build", "-t", "it", "-"], &archive).ok();
    assert_eq!(dated(&sandbox, "it"), Some(1_600_000_000));
    web.page("/plain.tar", Page::of(archive.clone()));
    web.page("/dated.tar", Page::of(archive).modified(SUNDAY));
    web.page("/Dockerfile", Page::of(DATED).modified(SUNDAY));
    for (path, expected) in
        [("/plain.tar", 1_600_000_000), ("/dated.tar", 784_111_777), ("/Dockerfile", 784_111_777)]
    {
        build(&sandbox, &[&web.url(path)]).ok();
        assert_eq!(dated(&sandbox, "it"), Some(expected), "{path}");
    }

    let repository = Repository::new(&sandbox, "it");
    repository.file("Dockerfile", DATED);
    repository.commit();
    repository.git(&["tag", "-a", "-m", "it", "v1"]);
    let daemon = Daemon::start(&sandbox);
    build(&sandbox, &[&daemon.url("it")]).ok();
    assert_eq!(dated(&sandbox, "it"), Some(1_700_000_000));
    build(&sandbox, &[&format!("{}#v1", daemon.url("it"))]).ok();
    let label = sandbox.outcrop(&["inspect", "--format", "{{.Config.Labels.at}}", "it"]).ok().line();
    assert_eq!(label, "1700000000");
    is_tidy(&sandbox);
}

#[test]
fn a_build_may_have_the_time_of_what_a_stage_adds_or_of_another_context() {
    let (sandbox, web) = (sandbox(), Web::start());
    sandbox.file("file", "x");
    let archive = tar(&sandbox, &["-z", "--mtime=@1600000000"]);
    let sum = Command::new("sha256sum").arg(sandbox.context().join("file")).output().unwrap().stdout;
    let sum = String::from_utf8(sum).unwrap()[..64].to_owned();
    web.page("/file", Page::of("x").modified(SUNDAY));
    web.page("/undated", Page::of("x"));
    web.page("/x.tar.gz", Page::of(archive));
    let repository = Repository::new(&sandbox, "it");
    repository.file("a", "a");
    repository.commit();
    let daemon = Daemon::start(&sandbox);
    for (add, expected) in [
        (web.url("/file"), Some(784_111_777)),
        (web.url("/undated"), None),
        // With its digest it is no matter what the server says.
        (format!("--checksum=sha256:{sum} {}", web.url("/file")), None),
        (web.url("/x.tar.gz"), Some(1_600_000_000)),
        (daemon.url("it"), Some(1_700_000_000)),
    ] {
        sandbox.dockerfile(&format!(
            "ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS src\nADD {add} /\nFROM base\nCOPY --from=src / /src\n"
        ));
        build(&sandbox, &["."]).ok();
        assert_eq!(dated(&sandbox, "it"), expected, "{add}");
    }
    sandbox.dockerfile("ARG SOURCE_DATE_EPOCH=other\nFROM base\nLABEL a=b\n");
    for (value, expected) in [
        (daemon.url("it"), Some(1_700_000_000)),
        (web.url("/file"), Some(784_111_777)),
        (sandbox.context().to_string_lossy().into_owned(), None),
    ] {
        build(&sandbox, &["--build-context", &format!("other={value}"), "."]).ok();
        assert_eq!(dated(&sandbox, "it"), expected, "{value}");
    }
    let url = web.url("/gone");
    sandbox.dockerfile(&format!(
        "ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS src\nADD {url} /\nFROM base\nLABEL a=b\n"
    ));
    let carets = "^".repeat(url.len());
    build(&sandbox, &["."]).fails(1).complains("SOURCE_DATE_EPOCH is the time of this").complains(&carets);
    is_tidy(&sandbox);
}

#[test]
fn an_ignore_file_beside_its_dockerfile_stands_for_the_one_of_the_context() {
    let sandbox = sandbox();
    sandbox.file("sub/My.Dockerfile", ALL);
    sandbox.file(".dockerignore", "a\nsub\n");
    sandbox.file("a", "a");
    sandbox.file("b", "b");
    sandbox.outcrop(&["build", "-t", "it", "-f", "sub/My.Dockerfile", "."]).ok();
    assert_eq!(run(&sandbox, "ls -A /all"), ".dockerignore\nb\n");
    sandbox.file("sub/My.Dockerfile.dockerignore", "b\nsub\n.dockerignore\n");
    sandbox.outcrop(&["build", "-t", "it", "-f", "sub/My.Dockerfile", "."]).ok();
    assert_eq!(run(&sandbox, "ls -A /all"), "a\n");
    is_tidy(&sandbox);
}
