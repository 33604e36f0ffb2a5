//! What people get wrong on the command line and in Dockerfiles: the whole complaint, as they see it.

use crate::sandbox::Sandbox;

/// Builds this Dockerfile; what is said on standard error.
fn complaint(sandbox: &Sandbox, dockerfile: &str) -> String {
    sandbox.dockerfile(dockerfile);
    let said = sandbox.outcrop(&["build", "."]).fails(1).stderr();
    said.strip_prefix("error: building `.`\n  because: ").unwrap_or(&said).to_owned()
}

#[test]
fn wrong_dockerfiles_are_shown_with_their_place() {
    let sandbox = Sandbox::new();
    for (dockerfile, expected) in [
        (
            "FROM scratch\nRUNN echo\n",
            "reading `Dockerfile`
  because: line 2: unknown instruction `RUNN`
    2 | RUNN echo
      | ^^^^
hint: did you mean `RUN`?
",
        ),
        (
            "FROM scratch\nCOPY --form=x a b\n",
            "reading `Dockerfile`
  because: line 2: unknown flag `--form`
    2 | COPY --form=x a b
      |      ^^^^^^^^
hint: did you mean `--from`?
",
        ),
        (
            "FROM scratch\nCOPY [\"a\", \"b\"\n",
            "reading `Dockerfile`
  because: line 2: `[a,` is not a well-formed pattern
    2 | COPY [\"a\", \"b\"
      |      ^^^^^
hint: a `[` needs its `]` and a range needs both ends; write `\\[` for the character itself
",
        ),
        (
            "",
            "reading `Dockerfile`
  because: the file has no instructions
hint: a Dockerfile begins with FROM
",
        ),
        (
            "FROM scratch\nCOPY --chmod=7 --chmod=8 a /\n",
            "reading `Dockerfile`
  because: line 2: `--chmod` stands here twice
    2 | COPY --chmod=7 --chmod=8 a /
      |                ^^^^^^^^^
hint: keep one of them
",
        ),
    ] {
        assert_eq!(complaint(&sandbox, dockerfile), expected, "{dockerfile}");
    }
}

#[test]
fn what_copy_does_not_find_is_named_and_why() {
    let sandbox = Sandbox::new();
    sandbox.file("present", "");
    sandbox.file("ignored", "");
    sandbox.file(".dockerignore", "ignored\n");
    assert_eq!(
        complaint(&sandbox, "FROM scratch\nCOPY absent /\n"),
        "Dockerfile, line 2: COPY absent /
  because: `absent` is not in the build context
hint: sources are looked for from the root of the build context
"
    );
    assert_eq!(
        complaint(&sandbox, "FROM scratch\nCOPY present ignored /\n"),
        "Dockerfile, line 2: COPY present ignored /
  because: `ignored` is excluded from the build context by .dockerignore
hint: take the pattern out of .dockerignore, or add one with `!` after it
"
    );
}

#[test]
fn a_base_image_that_does_not_exist_says_where_it_was_looked_for() {
    let sandbox = Sandbox::new();
    // Nobody listens there.
    let said = complaint(&sandbox, "FROM localhost:1/nothing:7\n");
    assert_eq!(
        said,
        "reading `Dockerfile`
  because: line 1: the base image `localhost:1/nothing:7`
    1 | FROM localhost:1/nothing:7
      |      ^^^^^^^^^^^^^^^^^^^^^
  because: the base image `localhost:1/nothing:7` is not here and cannot be pulled
  because: looking for `localhost:1/nothing:7` at localhost:1
  because: localhost:1 cannot be reached
  because: Connection refused (os error 111)
hint: `outcrop images` lists what is here; `outcrop import` and `outcrop bootstrap` make base images without a registry
"
    );
}

#[test]
fn a_failing_step_says_its_line_its_code_and_its_last_output() {
    let sandbox = Sandbox::new();
    sandbox.base_image("base");
    assert_eq!(
        complaint(&sandbox, "FROM base\nRUN echo before; \\\n  echo why >&2; exit 7\n"),
        "Dockerfile, lines 2-3: RUN echo before;   echo why >&2; exit 7
  because: `echo before;   echo why >&2; exit 7` failed, exit code: 7; its last output:
      before
      why
hint: `outcrop debug` opens a shell in what the step left (failed-1-2), `outcrop build --resume` goes on from there
"
    );
}

#[test]
fn wrong_commands_are_refused_with_a_suggestion() {
    let sandbox = Sandbox::new();
    for (args, code, expected) in [
        (
            &["buidl", "."][..],
            1,
            "error: `buidl` is not a command of `outcrop`\nhint: did you mean `build`? `outcrop --help` shows what there is\n",
        ),
        (
            &["build", "--no-cach", "."],
            125,
            "error: outcrop build: unknown flag `--no-cach`\nhint: did you mean `--no-cache`? `outcrop build --help` shows what there is\n",
        ),
        (
            &["build"],
            1,
            "error: outcrop build: missing <PATH|URL|->\nhint: `outcrop build --help` shows what there is\n",
        ),
        (
            &["build", "DIR/absent"],
            1,
            "error: build context `DIR/absent`\n  because: No such file or directory (os error 2)\nhint: name the directory that holds the files to copy\n",
        ),
        (
            &["build", "-f", "absent", "."],
            1,
            "error: reading `absent`\n  because: No such file or directory (os error 2)\nhint: name the Dockerfile with -f FILE\n",
        ),
        (
            &["build", "."],
            1,
            "error: reading `Dockerfile`\n  because: No such file or directory (os error 2)\nhint: name the Dockerfile with -f FILE\n",
        ),
    ] {
        let dir = sandbox.dir().to_str().unwrap();
        let args: Vec<String> = args.iter().map(|arg| arg.replace("DIR", dir)).collect();
        let said = sandbox.outcrop(&args).fails(code).stderr();
        assert_eq!(said.replace(dir, "DIR"), expected, "{args:?}");
    }
    assert!(!sandbox.root().exists(), "what is wrong on its face opens no store");
}
