//! Exact trees that BuildKit's documentation and its own tests promise, where no judge here is new enough to be asked.

use crate::sandbox::Sandbox;

/// What `dockerfile` leaves below `/out` of its target, as `path` or `path: text`.
fn out(sandbox: &Sandbox, target: &str) -> String {
    let dir = sandbox.dir().join(format!("out-{target}"));
    let output = format!("type=local,dest={}", dir.display());
    sandbox.outcrop(&["build", "--network", "none", "--target", target, "-o", &output, "."]).ok();
    let mut found = Vec::new();
    let top = dir.join("out");
    let mut open = vec![top.clone()];
    while let Some(at) = open.pop() {
        for entry in std::fs::read_dir(&at).unwrap().flatten() {
            let path = entry.path();
            let name = path.strip_prefix(&top).unwrap().to_str().unwrap().to_owned();
            if entry.file_type().unwrap().is_dir() {
                found.push(format!("{name}/"));
                open.push(path);
            } else {
                found.push(name);
            }
        }
    }
    found.sort();
    found.join(" ")
}

fn sandbox(dockerfile: &str, files: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.base_image("base");
    for file in files {
        sandbox.file(file, file);
    }
    sandbox.dockerfile(dockerfile);
    sandbox
}

#[test]
fn parents_of_a_stage_begin_at_the_last_pivot() {
    let made = "FROM base AS made\nWORKDIR /test\nRUN mkdir -p a/b/c/d/e a/b2/c/d/e a/b/c2/d/e a/b/c2/d/e2 && \
                touch a/b/c/d/foo a/b/c/d/e/bay a/b2/c/d/e/bar a/b/c2/d/e/baz a/b/c2/d/e2/baz\n";
    let whole = "b/ b/c/ b/c/d/ b/c/d/e/ b/c/d/e/bay b/c/d/foo";
    let deep = "test/ test/a/ test/a/b/ test/a/b/c/ test/a/b/c/d/ test/a/b/c/d/e/ test/a/b/c/d/e/bay test/a/b/c/d/foo";
    let cases = [
        ("middle", "/test/a/b/./c/d", "c/ c/d/ c/d/e/ c/d/e/bay c/d/foo"),
        ("end", "/test/a/b/c/d/.", deep),
        ("start", "./test/a/b/c/d", deep),
        ("first", "/test/a/./b/./c", whole),
        ("wildcard", "/test/a/./*/c", &format!("{whole} b2/ b2/c/ b2/c/d/ b2/c/d/e/ b2/c/d/e/bar")),
        ("doublewildcard", "/test/a/b*/./c/**/e", "c/ c/d/ c/d/e/ c/d/e/bar c/d/e/bay"),
        (
            "doubleinputs",
            "/test/a/b/c*/./d/**/baz /test/a/b*/./c/**/bar",
            "c/ c/d/ c/d/e/ c/d/e/bar d/ d/e/ d/e/baz d/e2/ d/e2/baz",
        ),
    ];
    let stages = cases.map(|(name, sources, _)| {
        format!("FROM scratch AS {name}\nCOPY --from=made --parents {sources} /out/\n")
    });
    let sandbox = sandbox(&format!("{made}{}", stages.concat()), &[]);
    for (name, sources, expected) in cases {
        assert_eq!(out(&sandbox, name), expected, "{sources}");
    }
    sandbox.check();
}

#[test]
fn parents_of_the_context_as_the_reference_shows_them() {
    let sandbox = sandbox(
        "FROM scratch AS no_parents\nCOPY ./x/a.txt ./y/a.txt /out/\n\
         FROM scratch AS parents\nCOPY --parents ./x/a.txt ./y/a.txt /out/\n\
         FROM scratch AS pivot\nCOPY --parents ./x/./y/*.txt /out/\n\
         FROM scratch AS relative\nWORKDIR /out\nCOPY --parents x/y/b.tx* .\n\
         FROM scratch AS packages\nCOPY --parents ./packages/./*/package.json /out/\n\
         FROM scratch AS everywhere\nCOPY --parents ./**/package.json /out/\n",
        &[
            "x/a.txt",
            "y/a.txt",
            "x/y/b.txt",
            "packages/a/package.json",
            "packages/a/src",
            "packages/b/package.json",
            "package.json",
        ],
    );
    for (target, expected) in [
        ("no_parents", "a.txt"),
        ("parents", "x/ x/a.txt y/ y/a.txt"),
        ("pivot", "y/ y/b.txt"),
        ("relative", "x/ x/y/ x/y/b.txt"),
        ("packages", "a/ a/package.json b/ b/package.json"),
        (
            "everywhere",
            "package.json packages/ packages/a/ packages/a/package.json packages/b/ packages/b/package.json",
        ),
    ] {
        assert_eq!(out(&sandbox, target), expected, "{target}");
    }
}

#[test]
fn what_is_excluded_as_the_reference_shows_it() {
    let sandbox = sandbox(
        "FROM scratch AS one\nCOPY --exclude=*.txt hom* /out/\n\
         FROM scratch AS two\nCOPY --exclude=*.txt --exclude=*.md hom* /out/\n\
         FROM scratch AS add\nADD --exclude=*.txt --exclude=*.md hom* /out/\n\
         FROM scratch AS in_directories\nCOPY --exclude=**/*.txt --exclude=b dir /out/\n\
         FROM scratch AS back\nCOPY --exclude=* --exclude=!b/*.md dir /out/\n\
         FROM scratch AS of_parents\nCOPY --parents --exclude=dir/b/** --exclude=dir/*.txt dir /out/\n\
         FROM scratch AS linked\nCOPY --link --exclude=**/*.txt dir /out/\n",
        &["home.txt", "home.md", "home.go", "homely", "dir/a.txt", "dir/a.md", "dir/b/c.txt", "dir/b/c.md"],
    );
    for (target, expected) in [
        ("one", "home.go home.md homely"),
        ("two", "home.go homely"),
        ("add", "home.go homely"),
        ("in_directories", "a.md"),
        ("back", "b/ b/c.md"),
        ("of_parents", "dir/ dir/a.md dir/b/"),
        ("linked", "a.md b/ b/c.md"),
    ] {
        assert_eq!(out(&sandbox, target), expected, "{target}");
    }
}
