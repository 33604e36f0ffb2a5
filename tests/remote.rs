//! ADD of files from the web and of git repositories.

use std::fs;

use crate::sandbox::{Outcome, Sandbox, build_it as build};
use crate::web_kit::{Daemon, Page, Repository, Web};

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.base_image("base");
    sandbox
}

fn run(sandbox: &Sandbox, line: &str) -> String {
    sandbox.outcrop(&["run", "--rm", "--network", "none", "it", "sh", "-c", line]).ok().stdout()
}

fn cached(outcome: &Outcome) -> usize {
    outcome.lines().iter().filter(|line| line.contains("---> Using cache")).count()
}

fn sha256(bytes: &[u8]) -> String {
    outcrop::image::Digest::of(bytes).to_string()
}

/// Nothing is being worked in any more.
fn is_tidy(sandbox: &Sandbox) {
    let left: Vec<_> = fs::read_dir(sandbox.root().join("trash")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    sandbox.check();
}

#[test]
fn a_file_from_the_web_has_its_name_mode_owner_and_time() {
    let (sandbox, web) = (sandbox(), Web::start());
    let dated = Page { last_modified: Some("Sun, 06 Nov 1994 08:49:37 GMT".into()), ..Page::of("dated") };
    web.page("/d/dated%20file.txt?x=1", dated);
    web.page("/plain", Page::of("plain"));
    web.page("/", Page::of("root"));
    sandbox.dockerfile(&format!(
        "FROM base\nADD {} /got/\nADD {} /named\nADD --chown=1:2 --chmod=640 {} /got/\nADD {} /got/\n",
        web.url("/d/dated%20file.txt?x=1"),
        web.url("/plain"),
        web.url("/plain"),
        web.url("/"),
    ));
    build(&sandbox, &[]).ok();
    let told = run(&sandbox, "cd /got; stat -c '%n %a %u:%g %Y' * ../named; cat * ../named");
    let expected = "__unnamed__ 600 0:0 0\ndated file.txt 600 0:0 784111777\nplain 640 1:2 0\n../named 600 0:0 0\n\
                    rootdatedplainplain";
    assert_eq!(told, expected);
    is_tidy(&sandbox);
}

#[test]
fn what_is_here_is_asked_about_again_and_not_fetched_again() {
    let (sandbox, web) = (sandbox(), Web::start());
    web.page("/f", Page::of("one").etag("\"1\""));
    let url = web.url("/f");
    sandbox.dockerfile(&format!("FROM base\nADD {url} /f\nRUN cat /f\nADD {url} /g\n"));
    build(&sandbox, &[]).ok();
    assert_eq!(web.asked(), ["200 /f"], "twice in one build is once");
    let again = build(&sandbox, &[]).ok();
    assert_eq!((cached(&again), web.asked()), (3, vec!["304 /f".to_owned()]));
    web.page("/f", Page::of("two").etag("\"2\""));
    let changed = build(&sandbox, &[]).ok();
    assert_eq!((cached(&changed), web.asked()), (0, vec!["200 /f".to_owned()]));
    assert_eq!(run(&sandbox, "cat /f"), "two");
    // Without any mark of a version it is fetched, and equal content still hits; so does another address's.
    web.page("/f", Page::of("one"));
    assert_eq!(cached(&build(&sandbox, &[]).ok()), 3);
    web.page("/other/f", Page::of("one"));
    sandbox.dockerfile(&format!("FROM base\nADD {} /f\n", web.url("/other/f")));
    assert_eq!(cached(&build(&sandbox, &[]).ok()), 1);
    is_tidy(&sandbox);
}

#[test]
fn a_file_whose_date_is_known_is_asked_about_by_date() {
    let (sandbox, web) = (sandbox(), Web::start());
    let dated = Page { last_modified: Some("Sun, 06 Nov 1994 08:49:37 GMT".into()), ..Page::of("dated") };
    web.page("/f", dated);
    sandbox.dockerfile(&format!("FROM base\nADD {} /f\n", web.url("/f")));
    build(&sandbox, &[]).ok();
    build(&sandbox, &["--no-cache"]).ok();
    assert_eq!(web.asked(), ["200 /f", "304 /f"]);
    assert_eq!(run(&sandbox, "stat -c %Y /f"), "784111777\n");
}

#[test]
fn a_checksum_pins_the_bytes_and_saves_the_request() {
    let (sandbox, web) = (sandbox(), Web::start());
    web.page("/f", Page::of("one"));
    let text = format!("FROM base\nADD --checksum={} {} /f\n", sha256(b"one"), web.url("/f"));
    sandbox.dockerfile(&text);
    build(&sandbox, &[]).ok();
    assert_eq!(cached(&build(&sandbox, &[]).ok()), 1);
    build(&sandbox, &["--no-cache"]).ok();
    assert_eq!(web.asked(), ["200 /f"]);
    assert_eq!(run(&sandbox, "cat /f"), "one");
    let (expected, got) = (sha256(b"two"), sha256(b"one"));
    sandbox.dockerfile(&format!("FROM base\nADD --checksum={expected} {} /f\n", web.url("/f")));
    build(&sandbox, &[])
        .fails(1)
        .complains(&format!("expected {expected}, got {got}"))
        .complains(&web.url("/f"))
        .complains("line 2: ADD");
    is_tidy(&sandbox);
}

#[test]
fn bytes_that_were_changed_in_the_cache_are_fetched_anew() {
    let (sandbox, web) = (sandbox(), Web::start());
    web.page("/f", Page::of("one").etag("\"1\""));
    sandbox.dockerfile(&format!("FROM base\nADD {} /f\n", web.url("/f")));
    build(&sandbox, &[]).ok();
    let kept = sandbox.root().join("cache/web").join(outcrop::image::Digest::of(b"one").hex());
    fs::write(kept, "bad").unwrap();
    build(&sandbox, &["--no-cache"]).ok();
    assert_eq!(run(&sandbox, "cat /f"), "one");
    assert_eq!(web.asked(), ["200 /f", "304 /f", "200 /f"]);
}

#[test]
fn a_bad_checksum_is_shown_in_its_place_before_anything_runs() {
    let sandbox = sandbox();
    for (line, complaint) in [
        ("ADD --checksum=md5:abc http://127.0.0.1:1/f /", "is no checksum"),
        ("ADD --checksum=sha256:abc http://127.0.0.1:1/f /", "is no checksum"),
        ("ADD --checksum=sha512:abc http://127.0.0.1:1/f /", "is no checksum"),
        ("ADD --checksum=sha256:abc f /", "is of a URL or a git repository"),
        ("ADD --checksum=sha256:abc http://127.0.0.1:1/f http://127.0.0.1:1/g /", "is of one source"),
        ("ADD --checksum=main https://127.0.0.1:1/f.git /", "is no commit id"),
        ("ADD https://127.0.0.1:1/f.git?what=1 /", "`what` means nothing"),
        ("COPY https://127.0.0.1:1/f.git /", "COPY takes no git repositories"),
        ("COPY git@host:f /", "COPY takes no git repositories"),
    ] {
        sandbox.dockerfile(&format!("FROM base\nRUN echo never\n{line}\n"));
        let outcome = build(&sandbox, &[]).fails(1).complains(complaint).complains("line 3").complains("^");
        assert!(!outcome.stdout().contains("never"), "{line}");
    }
}

#[test]
fn what_cannot_be_fetched_says_why_and_leaves_nothing() {
    let (sandbox, web) = (sandbox(), Web::start());
    web.page("/cut", Page { cut: Some(3), ..Page::of("longer") });
    web.page("/loop", Page { location: Some("/loop".into()), ..Page::status(302) });
    web.page("/nowhere", Page::status(301));
    web.page("/secret", Page { wants: Some("Bearer t".into()), ..Page::of("secret") });
    for (path, complaint) in [
        ("/none", "404"),
        ("/cut", "fetching"),
        ("/loop", "redirects more than"),
        ("/nowhere", "redirects to nowhere"),
        ("/secret", "401"),
    ] {
        let url = web.url(path);
        sandbox.dockerfile(&format!("FROM base\nADD {url} /f\n"));
        build(&sandbox, &[]).fails(1).complains(complaint).complains(&url);
        is_tidy(&sandbox);
    }
    sandbox.dockerfile("FROM base\nADD http://u:secret@127.0.0.1:1/f /f\n");
    let refused = build(&sandbox, &[]).fails(1).complains("cannot be reached");
    let because: Vec<String> =
        refused.stderr().lines().filter(|line| !line.contains("ADD http")).map(str::to_owned).collect();
    assert!(!because.concat().contains("secret"), "{because:?}");
}

#[test]
fn redirects_are_followed_and_the_name_is_that_of_the_address_written() {
    let (sandbox, web) = (sandbox(), Web::start());
    web.page("/latest", Page { location: Some("/v2.tar".into()), ..Page::status(302) });
    web.page("/v2.tar", Page::of("two"));
    sandbox.dockerfile(&format!("FROM base\nADD {} /got/\n", web.url("/latest")));
    build(&sandbox, &[]).ok();
    assert_eq!(run(&sandbox, "cd /got; ls; cat latest"), "latest\ntwo");
}

#[test]
fn secrets_of_the_build_authorize() {
    let (sandbox, web) = (sandbox(), Web::start());
    web.page("/token", Page { wants: Some("Bearer abc".into()), ..Page::of("1") });
    web.page("/basic", Page { wants: Some("Basic dTpw".into()), ..Page::of("2") });
    sandbox.file("token", "abc\n");
    let token = format!("id=HTTP_AUTH_TOKEN_127.0.0.1,src={}", sandbox.context().join("token").display());
    sandbox.dockerfile(&format!("FROM base\nADD {} /1\n", web.url("/token")));
    build(&sandbox, &["--secret", &token]).ok();
    sandbox.dockerfile(&format!("FROM base\nADD http://u:p@{}/basic /2\n", web.address));
    build(&sandbox, &[]).ok();
}

#[test]
fn a_repository_is_checked_out_at_what_the_address_names() {
    let sandbox = sandbox();
    let repository = Repository::new(&sandbox, "it");
    repository.file("file", "one");
    repository.file("dir/script", "#!/bin/sh\n");
    std::os::unix::fs::symlink("file", repository.dir.join("link")).unwrap();
    repository.git(&["add", "-A"]);
    repository.git(&["update-index", "--chmod=+x", "dir/script"]);
    repository.git(&["commit", "-q", "-m", "one"]);
    let first = repository.git(&["rev-parse", "HEAD"]);
    repository.git(&["tag", "-a", "-m", "tag", "v1"]);
    repository.git(&["branch", "old"]);
    repository.file("file", "two");
    repository.git(&["commit", "-q", "-a", "-m", "two"]);
    let tag = repository.git(&["rev-parse", "v1"]);
    let daemon = Daemon::start(&sandbox);
    let url = daemon.url("it");
    for (source, content) in [
        (url.clone(), "two"),
        (format!("{url}#main"), "two"),
        (format!("{url}#v1"), "one"),
        (format!("{url}#refs/heads/old"), "one"),
        (format!("{url}#{first}"), "one"),
        (format!("{url}?tag=v1"), "one"),
        (format!("{url}?branch=old&commit={}", &first[..9]), "one"),
    ] {
        sandbox.dockerfile(&format!("FROM base\nADD {source} /got\n"));
        build(&sandbox, &[]).ok();
        assert_eq!(run(&sandbox, "cat /got/file"), content, "{source}");
    }
    let told = run(&sandbox, "cd /got; ls -A; stat -c '%a %u:%g' file dir/script .; readlink link");
    assert_eq!(told, "dir\nfile\nlink\n644 0:0\n755 0:0\n755 0:0\nfile\n");
    // The same content is the same step, whatever it is called.
    sandbox.dockerfile(&format!("FROM base\nADD --checksum={tag} {url}?ref=v1 /got\n"));
    assert_eq!(cached(&build(&sandbox, &[]).ok()), 1);
    sandbox.dockerfile(&format!("FROM base\nADD {url}#v1:dir /sub\n"));
    build(&sandbox, &[]).ok();
    assert_eq!(run(&sandbox, "ls -A /sub"), "script\n");
    is_tidy(&sandbox);
}

/// A power cut may leave files without their content.
#[test]
fn a_repository_whose_mark_is_empty_is_begun_again() {
    let sandbox = sandbox();
    let repository = Repository::new(&sandbox, "it");
    repository.file("file", "one");
    repository.commit();
    let daemon = Daemon::start(&sandbox);
    sandbox.dockerfile(&format!("FROM base\nADD {} /got\n", daemon.url("it")));
    build(&sandbox, &[]).ok();
    let kept = fs::read_dir(sandbox.root().join("cache/git")).unwrap().flatten().map(|entry| entry.path());
    let kept: Vec<_> = kept.filter(|path| path.is_dir()).collect();
    assert_eq!(kept.len(), 1);
    for name in ["complete", "HEAD", "config"] {
        fs::write(kept[0].join(name), "").unwrap();
    }
    repository.file("file", "two");
    repository.commit();
    build(&sandbox, &[]).ok();
    assert_eq!(run(&sandbox, "cat /got/file"), "two");
    assert_ne!(fs::read_to_string(kept[0].join("complete")).unwrap(), "");
    is_tidy(&sandbox);
}

#[test]
fn the_git_directory_is_kept_where_it_is_asked_for() {
    let sandbox = sandbox();
    let repository = Repository::new(&sandbox, "it");
    repository.file("file", "one");
    let commit = repository.commit();
    let daemon = Daemon::start(&sandbox);
    let url = daemon.url("it");
    sandbox.dockerfile(&format!("FROM base\nADD --keep-git-dir=true {url} /got/\n"));
    build(&sandbox, &[]).ok();
    assert_eq!(run(&sandbox, "cat /got/.git/HEAD"), format!("{commit}\n"));
    assert!(run(&sandbox, "cat /got/.git/config").contains(&url));
    assert_eq!(cached(&build(&sandbox, &[]).ok()), 1, "its index is another, and the step the same");
    sandbox.dockerfile(&format!("FROM base\nADD {url}?keep-git-dir=1 /got/\n"));
    assert_eq!(cached(&build(&sandbox, &[]).ok()), 1);
    is_tidy(&sandbox);
}

#[test]
fn submodules_come_along_unless_they_are_not_wanted() {
    let sandbox = sandbox();
    let inner = Repository::new(&sandbox, "inner");
    inner.file("deep", "inside");
    inner.commit();
    let daemon = Daemon::start(&sandbox);
    let outer = Repository::new(&sandbox, "outer");
    outer.file("file", "outside");
    outer.git(&["submodule", "--quiet", "add", &daemon.url("inner"), "sub"]);
    outer.commit();
    let url = daemon.url("outer");
    sandbox.dockerfile(&format!("FROM base\nADD {url} /got/\n"));
    build(&sandbox, &[]).ok();
    assert_eq!(
        run(&sandbox, "cd /got; find . -type f | sort; cat sub/deep"),
        "./.gitmodules\n./file\n./sub/deep\ninside"
    );
    assert_eq!(cached(&build(&sandbox, &[]).ok()), 1);
    inner.file("deep", "changed");
    inner.commit();
    outer.git(&["-C", "sub", "pull", "-q", "origin", "main"]);
    outer.commit();
    build(&sandbox, &[]).ok();
    assert_eq!(run(&sandbox, "cat /got/sub/deep"), "changed");
    sandbox.dockerfile(&format!("FROM base\nADD {url}?submodules=false /got/\n"));
    build(&sandbox, &[]).ok();
    assert_eq!(run(&sandbox, "ls -A /got/sub"), "");
    is_tidy(&sandbox);
}

#[test]
fn a_repository_cannot_reach_into_the_host() {
    let sandbox = sandbox();
    let inner = Repository::new(&sandbox, "inner");
    inner.file("deep", "inside");
    inner.commit();
    let outer = Repository::new(&sandbox, "outer");
    let path = format!("file://{}", inner.dir.display());
    outer.git(&["submodule", "--quiet", "add", &path, "sub"]);
    std::os::unix::fs::symlink("/etc", outer.dir.join("link")).unwrap();
    outer.commit();
    let daemon = Daemon::start(&sandbox);
    sandbox.dockerfile(&format!("FROM base\nADD {} /got/\n", daemon.url("outer")));
    build(&sandbox, &[])
        .fails(1)
        .complains("getting its submodules")
        .complains("transport 'file' not allowed");
    sandbox.dockerfile(&format!("FROM base\nADD {}?submodules=0#:link /got/\n", daemon.url("outer")));
    build(&sandbox, &[]).fails(1).complains("the commit has no directory `link`");
    is_tidy(&sandbox);
}

#[test]
fn what_a_repository_has_not_is_said_and_leaves_nothing() {
    let sandbox = sandbox();
    let repository = Repository::new(&sandbox, "it");
    repository.file("file", "one");
    let commit = repository.commit();
    let daemon = Daemon::start(&sandbox);
    let url = daemon.url("it");
    let none = "0123456789012345678901234567890123456789";
    for (source, complaint) in [
        (format!("{url}#nobranch"), "has no branch or tag `nobranch`"),
        (format!("{url}#{}", &commit[..8]), "all 40 digits"),
        (format!("{url}#{none}"), none),
        (format!("{url}?checksum=00ff&ref=main"), "expected 00ff, got "),
        (format!("{url}#main:nodir"), "has no directory `nodir`"),
        (daemon.url("nothing"), "there is no repository"),
        ("git://127.0.0.1:1/it".to_owned(), "cannot be reached"),
        ("ssh://nobody@127.0.0.1:1/it".to_owned(), "getting `ssh://nobody@127.0.0.1:1/it`"),
    ] {
        sandbox.dockerfile(&format!("FROM base\nADD {source} /got/\n"));
        build(&sandbox, &[]).fails(1).complains(complaint).complains("hint:");
        is_tidy(&sandbox);
    }
}

#[test]
fn a_host_without_git_says_so() {
    let sandbox = sandbox();
    sandbox.dockerfile("FROM base\nADD git://127.0.0.1:1/it /got/\n");
    let mut command = sandbox.command(&["build", "-t", "it", "."]);
    Outcome::of(command.env("PATH", "/nowhere")).fails(1).complains("there is no `git` on this host");
}
