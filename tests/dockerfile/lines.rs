//! Lines, comments and directives.

use super::*;

#[test]
fn lines_are_joined_and_comments_between_them_left_out() {
    assert_steps(&[
        ("RUN a \\\n b", &["RUN /bin/sh -c a  b"]),
        ("RUN a \\  \t\n# comment\n   # another\n  b", &["RUN /bin/sh -c a   b"]),
        ("RUN a \\\n\n\n  b", &["RUN /bin/sh -c a   b"]),
        ("RUN a\\\nb", &["RUN /bin/sh -c ab"]),
        ("RUN a # no comment", &["RUN /bin/sh -c a # no comment"]),
        ("   run a", &["RUN /bin/sh -c a"]),
        ("\tRuN\ta", &["RUN /bin/sh -c a"]),
        ("RUN a \\", &["RUN /bin/sh -c a"]),
        ("RUN a \\\\", &["RUN /bin/sh -c a \\\\"]),
        ("RUN \\\n  a", &["RUN /bin/sh -c a"]),
        ("RUN a\\b", &["RUN /bin/sh -c a\\b"]),
        ("# first\nRUN a\n#last", &["RUN /bin/sh -c a"]),
        ("ENV A=1 \\\n    B=2 \\\n    # C=3 \\\n    D=4", &["ENV A=1 B=2 D=4"]),
    ]);
}

#[test]
fn every_step_knows_its_lines() {
    let plan = plan("\n# c\nFROM debian\nRUN a \\\n# c\n b\n\nRUN <<E\nx\nE\nUSER u");
    let stage = last(&plan);
    let lines: Vec<_> = stage.steps.iter().map(|step| step.at.lines).collect();
    assert_eq!((stage.at.lines, lines), ((3, 3), vec![(4, 6), (8, 10), (11, 11)]));
    assert_eq!(stage.at.text, "FROM debian");
    assert_eq!(stage.steps[0].at.text, "RUN a  b");
    assert_eq!(stage.steps[1].at.text, "RUN <<E");
    assert_eq!(stage.steps[0].at.file, "Dockerfile");
}

#[test]
fn windows_line_ends_and_a_byte_order_mark_change_nothing() {
    let text = "# escape=\\\nFROM debian\nRUN a \\\n  b\nRUN <<E\nx\nE\n";
    let windows = format!("\u{feff}{}", text.replace('\n', "\r\n"));
    let (unix, windows) = (plan(text), plan(&windows));
    assert_eq!(history(last(&unix))[0], history(last(&windows))[0]);
    // The body of a here-document is kept as it is written.
    assert_eq!(history(last(&unix))[1], "RUN /bin/sh -c x\n");
    assert_eq!(history(last(&windows))[1], "RUN /bin/sh -c x\r\n");
}

#[test]
fn directives_stand_first_and_once() {
    let run = |text: &str| history(last(&plan(text))).join("; ");
    assert_eq!(run("# escape=`\nFROM debian\nRUN a `\n  c:\\x\\"), "RUN /bin/sh -c a   c:\\x\\");
    assert_eq!(
        run("#syntax=docker/dockerfile:1\n# ESCAPE = ` \nFROM debian\nRUN a `\nb"),
        "RUN /bin/sh -c a b"
    );
    // Behind a comment, an empty line, an unknown directive or an instruction it is a comment.
    for before in ["# comment\n", "\n", "# unknown=1\n", "ARG A\n", "#\n"] {
        assert_eq!(run(&format!("{before}# escape=`\nFROM debian\nRUN a \\\nb")), "RUN /bin/sh -c a b");
    }
    assert_eq!(run("# check=skip=all\nFROM debian\nRUN a"), "RUN /bin/sh -c a");
    assert_eq!(
        told(&refused("# escape=\\\n# escape=`\nFROM debian")),
        "error: reading `Dockerfile`\n  because: line 2: the directive `escape` stands here twice\n  2 | # escape=`\n    | ^^^^^^^^^^\nhint: keep one of them"
    );
    assert_eq!(
        told(&refused("# escape=^\nFROM debian")),
        "error: reading `Dockerfile`\n  because: line 1: `^` is no escape character\n  1 | # escape=^\n    | ^^^^^^^^^^\nhint: the escape character is a backslash or a backtick"
    );
    let warnings = |text: &str| plan(text).warnings;
    assert!(warnings("# syntax=docker.io/docker/dockerfile:1.7@sha256:00\nFROM debian").is_empty());
    assert_eq!(
        warnings("# syntax=example/lang\nFROM debian"),
        ["Dockerfile: `# syntax=example/lang` names another language; this is read as a Dockerfile"]
    );
}
