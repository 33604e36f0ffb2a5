//! Heredocs: scripts and files.

use super::*;

#[test]
fn a_heredoc_alone_is_the_script_of_a_run() {
    assert_steps(&[
        ("RUN <<EOF\na\n  b $X\nEOF\nUSER u", &["RUN /bin/sh -c a\n  b $X\n", "USER u"]),
        ("RUN <<-EOF\n\ta\n\t\tb\n \tc\n\tEOF", &["RUN /bin/sh -c a\nb\n \tc\n"]),
        ("RUN <<'EOF'\n# no comment\n\na \\\nb\nEOF", &["RUN /bin/sh -c # no comment\n\na \\\nb\n"]),
        ("RUN <<EOF\nEOF", &["RUN /bin/sh -c "]),
        (
            "RUN cat <<A >x && cat <<-B\na\nA\n\tb\n\tB",
            &["RUN /bin/sh -c cat <<A >x && cat <<-B\na\nA\n\tb\nB"],
        ),
        ("RUN <<EOF bash\na\nEOF", &["RUN /bin/sh -c <<EOF bash\na\nEOF"]),
        ("RUN 3<<EOF cat\na\nEOF", &["RUN /bin/sh -c 3<<EOF cat\na\nEOF"]),
        ("RUN a <<< b", &["RUN /bin/sh -c a <<< b"]),
        ("RUN [\"a\", \"<<EOF\"]", &["RUN a <<EOF"]),
        ("CMD cat <<EOF", &["CMD [\"/bin/sh\" \"-c\" \"cat <<EOF\"]"]),
        ("RUN --network=none <<EOF\na\nEOF", &["RUN /bin/sh -c a\n"]),
        ("ONBUILD RUN <<EOF\na\nEOF", &["ONBUILD RUN <<EOF\na\nEOF"]),
    ]);
}

#[test]
fn a_heredoc_with_a_shebang_is_a_program() {
    for (open, end) in [("<<EOF", "EOF"), ("<<-EOF", "\tEOF")] {
        let plan = plan(&format!("FROM debian\nRUN {open}\n#!/usr/bin/python3\nprint(1)\n{end}"));
        let Action::Run(run) = &last(&plan).steps[0].action else { panic!() };
        assert_eq!(run.args, ["/bin/sh", "-c", "/dev/pipes/EOF"]);
        assert_eq!(run.files.len(), 1);
        assert_eq!(run.files[0].path.to_str(), Some("/dev/pipes/EOF"));
        assert_eq!(run.files[0].bytes, b"#!/usr/bin/python3\nprint(1)\n");
        assert_eq!(run.files[0].mode, 0o755);
    }
    // The tabs go before the first characters are looked at.
    let plan = plan("FROM debian\nRUN <<-EOF\n\t#!/bin/x\n\ty\n\tEOF");
    let Action::Run(run) = &last(&plan).steps[0].action else { panic!() };
    assert_eq!(run.files[0].bytes, b"#!/bin/x\ny\n");
}

#[test]
fn heredocs_are_files_for_copy_and_add() {
    let plan = plan(
        "FROM debian\nARG V=1\nCOPY a <<x <<\"y\" <<-z b /d/\n$V '${V:+q}' \\$V\nx\n$V\ny\n\t$V\n\tz\nADD <<one /e\n1\none",
    );
    let steps = &last(&plan).steps;
    let Action::Copy(copy) = &steps[1].action else { panic!() };
    assert_eq!(copy.sources, [Source::Path("a".into()), Source::Path("b".into())]);
    let inline: Vec<_> = copy
        .inline
        .iter()
        .map(|file| (file.path.to_str().unwrap(), std::str::from_utf8(&file.bytes).unwrap(), file.mode))
        .collect();
    assert_eq!(inline, [("x", "1 'q' $V\n", 0o644), ("y", "$V\n", 0o644), ("z", "1\n", 0o644)]);
    assert_eq!(steps[1].created_by, "COPY a b <<x <<y <<z /d/");
    let Action::Copy(add) = &steps[2].action else { panic!() };
    assert_eq!((add.inline.len(), add.sources.len(), add.unpack), (1, 0, Unpack::Local));
}

#[test]
fn a_heredoc_must_end_and_cannot_be_a_destination() {
    assert_eq!(
        told(&refused("FROM debian\nRUN cat <<EOF\na\n EOF")),
        "error: reading `Dockerfile`\n  because: line 2: no line `EOF` ends the here-document\n  2 | RUN cat <<EOF\n    |         ^^^^^\nhint: write `EOF` alone on a line, without blanks around it"
    );
    assert_eq!(
        told(&refused("FROM debian\nCOPY a <<EOF\nx\nEOF")),
        "error: reading `Dockerfile`\n  because: line 2: a here-document cannot be the destination\n  2 | COPY a <<EOF\n    |        ^^^^^\nhint: write `COPY SOURCE... DESTINATION`"
    );
}
