//! COPY and ADD of local trees: what comes out in the layer, by BuildKit's rules.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

use crate::sandbox::{Outcome, Sandbox};

fn build(sandbox: &Sandbox, dockerfile: &str) -> Outcome {
    sandbox.dockerfile(dockerfile);
    sandbox.outcrop(&["build", "--progress", "plain", "-t", "it", "."])
}

/// `mode owner type path` of everything below `/got`, links with their target.
fn got(sandbox: &Sandbox) -> Vec<String> {
    let list = "cd /; find got | sort | while read f; do \
                stat -c '%a %u:%g %F %n' \"$f\" | sed 's/regular empty file/file/; s/regular file/file/; s/directory/dir/; s/symbolic link/link/'; done";
    sandbox.outcrop(&["run", "--rm", "--network", "none", "it", "sh", "-c", list]).ok().lines()
}

fn paths(sandbox: &Sandbox) -> Vec<String> {
    got(sandbox).iter().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect()
}

fn cat(sandbox: &Sandbox, path: &str) -> String {
    sandbox.outcrop(&["run", "--rm", "--network", "none", "it", "cat", path]).ok().stdout()
}

fn base() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.base_image("base");
    sandbox
}

fn steps(outcome: &Outcome) -> (usize, usize) {
    let lines = outcome.lines();
    let count = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    (count("---> Running in"), count("---> Using cache"))
}

#[test]
fn symbolic_modes_are_of_each_files_own_mode() {
    let sandbox = base();
    sandbox.file("dir/sub/plain", "p");
    let script = sandbox.file("dir/script", "s");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o744)).unwrap();
    build(
        &sandbox,
        "FROM base\nARG MODE=u=rwX,go=\nCOPY --chmod=$MODE dir /got/\nCOPY --chmod=a+x --chown=1:2 <<EOF /got/here\nx\nEOF\n",
    )
    .ok();
    assert_eq!(
        got(&sandbox),
        [
            "755 0:0 dir got",
            "755 1:2 file got/here",
            "700 0:0 file got/script",
            "700 0:0 dir got/sub",
            "600 0:0 file got/sub/plain"
        ]
    );
    sandbox.check();
}

#[test]
fn what_is_excluded_is_left_out_below_each_source() {
    let sandbox = base();
    for file in ["a.md", "b.txt", "src/c.md", "src/d.txt", "src/keep/e.md", "src/keep/f.txt"] {
        sandbox.file(file, file);
    }
    build(&sandbox, "FROM base\nCOPY --exclude=*.md --exclude=Dockerfile . /got/\n").ok();
    assert_eq!(
        paths(&sandbox),
        [
            "got",
            "got/b.txt",
            "got/src",
            "got/src/c.md",
            "got/src/d.txt",
            "got/src/keep",
            "got/src/keep/e.md",
            "got/src/keep/f.txt"
        ]
    );
    build(&sandbox, "FROM base\nCOPY --exclude=**/*.md --exclude=keep --exclude=!keep/f.txt src /got/\n")
        .ok();
    assert_eq!(paths(&sandbox), ["got", "got/d.txt", "got/keep", "got/keep/f.txt"]);
    build(&sandbox, "FROM base\nCOPY --exclude=*.md *.* /got/\n").ok();
    assert_eq!(paths(&sandbox), ["got", "got/b.txt"]);
    build(&sandbox, "FROM base\nCOPY --exclude=**/*.md src /got/\n").ok();
    sandbox.file("src/c.md", "changed");
    let again = build(&sandbox, "FROM base\nCOPY --exclude=**/*.md src /got/\n").ok();
    assert_eq!(steps(&again), (0, 1), "what is excluded decides nothing");
    build(&sandbox, "FROM base\nCOPY --exclude=[ src /got/\n").fails(1).complains("line 2");
}

#[test]
fn parents_are_kept_from_the_pivot_on() {
    let sandbox = base();
    for file in ["x/a.txt", "x/y/b.txt", "x/y/c.go", "z/b.txt", "z/deep/d.go"] {
        sandbox.file(file, file);
    }
    fs::set_permissions(sandbox.context().join("x/y"), fs::Permissions::from_mode(0o750)).unwrap();
    build(&sandbox, "FROM base\nCOPY --parents ./x/a.txt x/y/b.txt /got/\n").ok();
    assert_eq!(
        got(&sandbox),
        [
            "755 0:0 dir got",
            "755 0:0 dir got/x",
            "644 0:0 file got/x/a.txt",
            "750 0:0 dir got/x/y",
            "644 0:0 file got/x/y/b.txt"
        ]
    );
    build(&sandbox, "FROM base\nCOPY --parents x/./y/*.txt /got/\n").ok();
    assert_eq!(paths(&sandbox), ["got", "got/y", "got/y/b.txt"]);
    build(&sandbox, "FROM base\nCOPY --parents **/*.go /got/\n").ok();
    assert_eq!(
        paths(&sandbox),
        ["got", "got/x", "got/x/y", "got/x/y/c.go", "got/z", "got/z/deep", "got/z/deep/d.go"]
    );
    build(&sandbox, "FROM base\nCOPY --parents --exclude=**/d.go z /got/\n").ok();
    assert_eq!(paths(&sandbox), ["got", "got/z", "got/z/b.txt", "got/z/deep"]);
    build(&sandbox, "FROM base\nCOPY --parents x/nowhere /got/\n")
        .fails(1)
        .complains("`x/nowhere` is not in");
}

#[test]
fn a_linked_copy_stands_on_nothing_and_hits_on_every_base() {
    for driver in ["overlay2", "vfs"] {
        let sandbox = Sandbox::new().driver(driver);
        sandbox.base_image("base");
        sandbox.file("file", "linked");
        let text = |first: &str| {
            format!(
                "FROM base\nRUN {first}\nCOPY --link --chown=nobody file /got/sub/\nRUN cat /got/sub/file > /read\n"
            )
        };
        build(&sandbox, &text("mkdir -m 700 /got && echo one > /got/one")).ok();
        assert_eq!(cat(&sandbox, "/read"), "linked", "{driver}");
        assert!(paths(&sandbox).contains(&"got/one".to_owned()));
        let again = build(&sandbox, &text("mkdir /got && echo two > /got/two")).ok();
        assert_eq!(steps(&again), (2, 1), "{driver}: the copy hits, whatever is below");
        assert_eq!(
            got(&sandbox)[1..],
            ["755 65534:65534 dir got/sub", "644 65534:65534 file got/sub/file", "644 0:0 file got/two"]
        );
        sandbox.dockerfile(&text("echo three > /three"));
        sandbox.outcrop(&["build", "--no-cache", "-t", "it", "."]).ok();
        assert_eq!(cat(&sandbox, "/read"), "linked", "{driver}: made again, on another base");
        sandbox.check();
    }
    // A link below means nothing to it: it is replaced by the directory.
    let sandbox = base();
    sandbox.file("file", "linked");
    build(&sandbox, "FROM base\nRUN mkdir /real && ln -s /real /got\nCOPY --link file /got/\n").ok();
    assert_eq!(got(&sandbox), ["755 0:0 dir got", "644 0:0 file got/file"]);
}

#[test]
fn a_wildcard_that_matches_nothing_copies_nothing_and_makes_nothing() {
    let sandbox = base();
    build(&sandbox, "FROM base\nCOPY none* /got/\n").ok();
    assert_eq!(paths(&sandbox), Vec::<String>::new());
    sandbox.file("a[b]/one", "1");
    sandbox.file("a[b]/two", "2");
    build(&sandbox, "FROM base\nCOPY a[[]b]/o* /got/\n").ok();
    assert_eq!(paths(&sandbox), ["got", "got/one"]);
    build(&sandbox, "FROM base\nCOPY none /got/\n").fails(1).complains("`none` is not in the build context");
}

#[test]
fn a_source_above_the_context_is_taken_from_its_root_and_that_is_told() {
    let sandbox = base();
    sandbox.file("x", "inside");
    fs::write(sandbox.dir().join("x"), "outside").unwrap();
    build(&sandbox, "FROM base\nCOPY ../x /got\n").ok().says("`../x` would lead out of the build context");
    assert_eq!(cat(&sandbox, "/got"), "inside");
}

#[test]
fn an_owner_by_name_is_looked_up_in_the_image_and_decides() {
    let sandbox = base();
    sandbox.file("f", "f");
    let text = |uid: u32| {
        format!(
            "FROM base\nRUN echo 'me:x:{uid}:77::/:/bin/sh' >> /etc/passwd; echo 'us:x:88:' >> /etc/group\nCOPY --chown=me f /got/a\nCOPY --chown=me:us f /got/b\nCOPY --chown=9 f /got/c\nCOPY --chown=9:us f /got/d\n"
        )
    };
    build(&sandbox, &text(66)).ok();
    let owners = |sandbox: &Sandbox| {
        got(sandbox)[1..].iter().map(|l| l.split(' ').nth(1).unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(owners(&sandbox), ["66:77", "66:88", "9:9", "9:88"]);
    build(&sandbox, &text(55)).ok();
    assert_eq!(owners(&sandbox), ["55:77", "55:88", "9:9", "9:88"]);
    build(&sandbox, "FROM base\nCOPY --chown=nosuch f /f\n").fails(1).complains("nosuch");
}

/// An archive of `dir/{file,link,tool}` and a fifo, made by the tool of that name.
fn archive(sandbox: &Sandbox, name: &str, flags: &[&str]) {
    let tree = sandbox.dir().join("tree");
    if !tree.exists() {
        fs::create_dir_all(tree.join("dir")).unwrap();
        fs::write(tree.join("dir/file"), "packed").unwrap();
        fs::write(tree.join("dir/tool"), "#!").unwrap();
        fs::set_permissions(tree.join("dir/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
        fs::hard_link(tree.join("dir/file"), tree.join("dir/same")).unwrap();
        symlink("file", tree.join("dir/link")).unwrap();
    }
    let tar = Command::new("tar")
        .args(["--sort=name", "--owner=5", "--group=6", "--mtime=@1600000000", "-cf"])
        .arg(sandbox.context().join(name))
        .args(flags)
        .arg("-C")
        .arg(&tree)
        .arg("dir")
        .status();
    assert!(tar.unwrap().success());
}

const UNPACKED: [&str; 6] = [
    "755 0:0 dir got",
    "755 5:6 dir got/dir",
    "644 5:6 file got/dir/file",
    "777 5:6 link got/dir/link",
    "644 5:6 file got/dir/same",
    "4755 5:6 file got/dir/tool",
];

#[test]
fn add_unpacks_archives_of_every_kind_by_their_bytes() {
    let sandbox = base();
    for (name, flags) in
        [("plain", &[][..]), ("gz", &["-z"]), ("bz2.odd", &["-j"]), ("xz", &["-J"]), ("zst", &["--zstd"])]
    {
        archive(&sandbox, name, flags);
        build(&sandbox, &format!("FROM base\nADD {name} /got\n")).ok();
        assert_eq!(got(&sandbox), UNPACKED, "{name}");
        assert_eq!(cat(&sandbox, "/got/dir/link"), "packed");
    }
    let links = sandbox.outcrop(&["run", "--rm", "it", "stat", "-c", "%h", "/got/dir/same"]).ok();
    assert_eq!(links.line(), "2");
    let again = build(&sandbox, "FROM base\nADD zst /got\n").ok();
    assert_eq!(steps(&again), (0, 1));
    sandbox.check();
}

#[test]
fn add_copies_what_is_no_archive_and_what_is_not_to_be_unpacked() {
    let sandbox = base();
    archive(&sandbox, "a.tar", &[]);
    sandbox.file("plain.txt", "text");
    let gzip = Command::new("gzip").arg("-k").arg(sandbox.context().join("plain.txt")).status();
    assert!(gzip.unwrap().success());
    build(&sandbox, "FROM base\nADD plain.txt plain.txt.gz /got/\nADD --unpack=false a.tar /got/\n").ok();
    assert_eq!(paths(&sandbox), ["got", "got/a.tar", "got/plain.txt", "got/plain.txt.gz"]);
    build(&sandbox, "FROM base\nCOPY a.tar /got/\n").ok();
    assert_eq!(paths(&sandbox), ["got", "got/a.tar"], "COPY unpacks nothing");
    build(&sandbox, "FROM base\nADD --chown=nobody a.tar plain.txt /got/\n").ok();
    let lines = got(&sandbox);
    assert_eq!(lines.iter().filter(|line| line.contains(" 65534:65534 ")).count(), lines.len(), "{lines:#?}");
    assert!(lines.contains(&"4755 65534:65534 file got/dir/tool".to_owned()));
}

#[test]
fn an_archive_leads_nowhere_but_below_its_destination() {
    let sandbox = base();
    let bytes = b"evil";
    let python = "import io,sys,tarfile\nt=tarfile.open(sys.argv[1],'w')\n\
                  def f(n,**k):\n  i=tarfile.TarInfo(n)\n  for a,b in k.items(): setattr(i,a,b)\n  t.addfile(i,io.BytesIO(b'evil') if i.isreg() else None)\n";
    let write = |name: &str, body: &str| {
        let out = sandbox.context().join(name);
        let made =
            Command::new("python3").arg("-c").arg(format!("{python}{body}\nt.close()")).arg(&out).status();
        assert!(made.unwrap().success());
    };
    write("dots.tar", "f('../../evil',size=4)");
    write("link.tar", "f('way',type=tarfile.SYMTYPE,linkname='/etc')\nf('way/evil',size=4)");
    write("deleting.tar", "f('.wh.passwd',size=0)");
    build(&sandbox, "FROM base\nADD dots.tar /etc/\n").fails(1).complains("unpacking `dots.tar`");
    build(&sandbox, "FROM base\nADD deleting.tar /etc/\n").fails(1).complains("`.wh.`");
    build(&sandbox, "FROM base\nADD link.tar /got/\n").ok();
    let left = sandbox.outcrop(&["run", "--rm", "it", "ls", "/etc"]).ok();
    assert_eq!(left.lines().iter().filter(|name| name.contains("evil")).count(), 0, "{bytes:?}");
    // A bomb: what it would become is far more than it may. It is one stream again and again, as to compress all takes long.
    let bomb = Command::new("python3")
        .arg("-c")
        .arg(
            "import tarfile,lzma,sys\n\
             i=tarfile.TarInfo('zeros'); i.size=1<<42\n\
             o=open(sys.argv[1],'wb')\n\
             o.write(lzma.compress(i.tobuf(),preset=0)); z=lzma.compress(bytes(1<<24),preset=0)\n\
             [o.write(z) for _ in range(160)]\no.close()",
        )
        .arg(sandbox.context().join("bomb.tar.xz"))
        .status();
    assert!(bomb.unwrap().success());
    build(&sandbox, "FROM base\nADD bomb.tar.xz /got/\n")
        .fails(1)
        .complains("bomb.tar.xz")
        .complains("holds more than");
    sandbox.check();
}

#[test]
fn an_archive_is_known_by_its_bytes() {
    let sandbox = base();
    archive(&sandbox, "a.tar", &[]);
    build(&sandbox, "FROM base\nADD a.tar /got\n").ok();
    let before = fs::read(sandbox.context().join("a.tar")).unwrap();
    let mut after = before.clone();
    let at = after.windows(6).position(|bytes| bytes == b"packed").unwrap();
    after[at] = b'P';
    fs::write(sandbox.context().join("a.tar"), after).unwrap();
    build(&sandbox, "FROM base\nADD a.tar /got\n").ok();
    assert_eq!(cat(&sandbox, "/got/dir/file"), "Packed");
}
