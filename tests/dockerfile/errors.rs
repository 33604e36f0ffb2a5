//! What is refused, where it stands, and what to do.

use super::*;

#[test]
fn every_error_shows_its_place_and_what_to_do() {
    let table: &[(&str, &str, &str, &str)] = &[
        ("RUNN x", "unknown instruction `RUNN`", "^^^^", "did you mean `RUN`?"),
        (
            "INCLUDE x",
            "unknown instruction `INCLUDE`",
            "^^^^^^^",
            "the instructions are ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL MAINTAINER ONBUILD RUN SHELL STOPSIGNAL USER VOLUME WORKDIR",
        ),
        ("COPY --form=a b c", "unknown flag `--form`", "     ^^^^^^^^", "did you mean `--from`?"),
        (
            "COPY --zzzzzz b c",
            "unknown flag `--zzzzzz`",
            "     ^^^^^^^^",
            "COPY takes --from --chown --chmod --link --parents --exclude",
        ),
        ("USER --x u", "unknown flag `--x`", "     ^^^", "USER takes no flags"),
        ("COPY --from a b", "`--from` has no value", "     ^^^^^^", "write `--from=value`, without a blank"),
        (
            "COPY --from=a --from=b c d",
            "`--from` stands here twice",
            "              ^^^^^^^^",
            "keep one of them",
        ),
        ("COPY a", "COPY needs a source and a destination", "     ^", "write `COPY SOURCE... DESTINATION`"),
        ("ADD", "ADD needs a source and a destination", "^^^", "write `ADD SOURCE... DESTINATION`"),
        (
            "COPY --chmod=u+q a /",
            "`u+q` is no mode",
            "     ^^^^^^^^^^^",
            "write it in octal, as in `755`, or as changes, as in `u=rwX,go=rX`",
        ),
        (
            "COPY https://e.org/x /",
            "COPY takes no URLs",
            "     ^^^^^^^^^^^^^^^",
            "ADD does, or a RUN step that fetches it",
        ),
        (
            "COPY --chmod=888 a b",
            "`888` is no mode between 0 and 07777",
            "     ^^^^^^^^^^^",
            "write it in octal, as in `755`, or as changes, as in `u=rwX,go=rX`",
        ),
        (
            "COPY --chmod=rwx! a b",
            "`rwx!` is no mode",
            "     ^^^^^^^^^^^^",
            "write it in octal, as in `755`, or as changes, as in `u=rwX,go=rX`",
        ),
        ("COPY \"a b\" /c", "the `\"` has no partner", "     ^^", "close it, or write it escaped"),
        (
            "COPY --from=0 a b",
            "stage `0` would copy from itself",
            "     ^^^^^^^^",
            "a stage copies from stages above it; files of its own are moved with RUN",
        ),
        (
            "COPY --from=1 a b",
            "there is no stage 1",
            "     ^^^^^^^^",
            "stages are counted from 0; the last is 0",
        ),
        (
            "COPY --from=$X a b",
            "`--from=$X`: variables mean nothing here",
            "     ^^^^^^^^^",
            "name a stage that is `FROM` the variable, and copy from that stage",
        ),
        ("RUN", "RUN needs a command", "^^^", "write `RUN make`"),
        (
            "RUN --network=hots x",
            "`hots` is no network of a RUN",
            "    ^^^^^^^^^^^^^^",
            "did you mean `host`?",
        ),
        (
            "RUN [\"a\", 1]",
            "the JSON form holds something that is no word",
            "    ^^^^^^^^",
            "put every word in double quotes, as in `[\"sleep\", \"1\"]`",
        ),
        (
            "SHELL /bin/bash -c",
            "SHELL needs the JSON form",
            "^^^^^^^^^^^^^^^^^^",
            "write `SHELL [\"/bin/bash\", \"-c\"]`, with double quotes",
        ),
        (
            "SHELL []",
            "SHELL needs the JSON form",
            "^^^^^^^^",
            "write `SHELL [\"/bin/bash\", \"-c\"]`, with double quotes",
        ),
        ("ENV A", "`A` has no value", "    ^", "write `ENV A=value`"),
        ("ENV", "ENV needs at least one argument", "^^^", "write `NAME=value`"),
        (
            "ENV A=1 B",
            "`B` has no `=`",
            "        ^",
            "write every one as NAME=value, and quote a value with blanks in it",
        ),
        ("ENV =1", "a name is missing before the `=`", "    ^^", "write `NAME=value`"),
        ("LABEL ${A}=1", "the name is empty", "      ^^^^^^", "a variable in it may not be set"),
        (
            "ENV A=${B:?set-it}",
            "B: set-it",
            "      ^^^^^^^^^^^^",
            "give it with --build-arg, or with ENV or ARG above",
        ),
        ("ARG", "ARG needs at least one name", "^^^", "write `ARG NAME` or `ARG NAME=default`"),
        ("ARG =1", "a name is missing before the `=`", "    ^^", "write `ARG NAME=default`"),
        (
            "EXPOSE http",
            "`http` is no port",
            "       ^^^^",
            "write `80`, `8000-8010` or `53/udp`; the protocols are tcp, udp and sctp",
        ),
        (
            "EXPOSE 80/icmp",
            "`icmp` is no protocol",
            "       ^^^^^^^",
            "write `80`, `8000-8010` or `53/udp`; the protocols are tcp, udp and sctp",
        ),
        ("STOPSIGNAL SIGTREM", "`SIGTREM` is no signal", "           ^^^^^^^", "did you mean `TERM`?"),
        (
            "STOPSIGNAL 99",
            "`99` is no signal",
            "           ^^",
            "write a name as in `SIGTERM`, or a number from 1 to 64",
        ),
        ("USER", "USER needs an argument", "^^^^", "write `USER name` or `USER uid:gid`"),
        ("VOLUME [\"\"]", "the path of a volume is empty", "       ^^^^", "write `VOLUME /data`"),
        (
            "HEALTHCHECK",
            "HEALTHCHECK needs CMD or NONE",
            "^^^^^^^^^^^",
            "write `HEALTHCHECK CMD command` or `HEALTHCHECK NONE`",
        ),
        (
            "HEALTHCHECK curl x",
            "`curl` is neither CMD nor NONE",
            "            ^^^^",
            "write `HEALTHCHECK CMD command` or `HEALTHCHECK NONE`",
        ),
        (
            "HEALTHCHECK --interval=5 CMD x",
            "`5` is no duration",
            "            ^^^^^^^^^^^^",
            "write a number with its unit, as in `30s`, `1m30s` or `500ms`",
        ),
        (
            "HEALTHCHECK --retries=-1 CMD x",
            "`-1` is no number of retries",
            "            ^^^^^^^^^^^^",
            "write `--retries=3`",
        ),
        ("ONBUILD", "ONBUILD needs an instruction", "^^^^^^^", "write `ONBUILD RUN make`"),
        (
            "ONBUILD ONBUILD RUN x",
            "ONBUILD cannot be a trigger of ONBUILD",
            "        ^^^^^^^",
            "ONBUILD takes every instruction but ONBUILD, FROM and MAINTAINER",
        ),
        (
            "ONBUILD FROM x",
            "FROM cannot be a trigger of ONBUILD",
            "        ^^^^",
            "ONBUILD takes every instruction but ONBUILD, FROM and MAINTAINER",
        ),
        ("ONBUILD RUNN x", "unknown instruction `RUNN`", "        ^^^^", "did you mean `RUN`?"),
        (
            "COPY a[b /c",
            "`a[b` is not a well-formed pattern",
            "     ^^^",
            "a `[` needs its `]` and a range needs both ends; write `\\[` for the character itself",
        ),
        (
            "RUN [\"a\\u0000\"]",
            "the JSON form holds something that is no word",
            "    ^^^^^^^^^^^",
            "put every word in double quotes, as in `[\"sleep\", \"1\"]`",
        ),
        (
            "FROM a b",
            "FROM takes an image, and `AS` with a name",
            "       ^",
            "write `FROM IMAGE` or `FROM IMAGE AS NAME`",
        ),
        ("FROM", "FROM needs an image", "^^^^", "write `FROM IMAGE` or `FROM IMAGE AS NAME`"),
        (
            "FROM a AS 1b",
            "`1b` cannot be the name of a stage",
            "          ^^",
            "a name begins with a letter and goes on with letters, digits, `-`, `_` and `.`",
        ),
        (
            "FROM $NO",
            "the base `$NO` is empty",
            "     ^^^",
            "declare `ARG NO=default` before the first FROM, or give it with --build-arg",
        ),
        (
            "FROM --platform=a/b/c/d x",
            "`a/b/c/d` is not a platform",
            "     ^^^^^^^^^^^^^^^^^^",
            "write os/architecture[/variant], as in linux/arm64 or linux/arm/v7",
        ),
    ];
    for (line, message, carets, hint) in table {
        let error = refused(&format!("FROM debian\n{line}"));
        assert_eq!(
            told(&error),
            format!(
                "error: reading `Dockerfile`\n  because: line 2: {message}\n  2 | {line}\n    | {carets}\nhint: {hint}"
            )
        );
        assert_eq!(error.kind(), Kind::Invalid, "{line}");
    }
}

#[test]
fn what_a_later_version_can_do_is_refused_by_name() {
    let error = refused("FROM debian\nRUN --device=d x");
    assert_eq!(error.kind(), Kind::Unsupported);
    let first = told(&error).lines().nth(1).unwrap().to_owned();
    assert_eq!(first, "  because: line 2: `RUN --device` is not supported by this version");
    // What is not done is not refused.
    assert_eq!(steps_of("COPY --link=false a b"), ["COPY a b"]);
    assert_eq!(steps_of("ONBUILD COPY --link a b"), ["ONBUILD COPY --link a b"]);
    plan("FROM debian AS unused\nRUN --device=d x\nFROM debian");
}

#[test]
fn errors_stand_on_the_line_they_are_on() {
    assert_eq!(
        told(&refused("FROM debian\nENV A=1 \\\n  # more\n\tB=2 \\\n\tC D=3\n")),
        "error: reading `Dockerfile`\n  because: line 5: `C` has no `=`\n  5 | \tC D=3\n    | \t^\nhint: write every one as NAME=value, and quote a value with blanks in it"
    );
    assert_eq!(
        told(&refused("FROM debian\n\nLABEL é=\"ü\" \\\n ñ=${X:?ö}")),
        "error: reading `Dockerfile`\n  because: line 4: X: ö\n  4 |  ñ=${X:?ö}\n    |    ^^^^^^^\nhint: give it with --build-arg, or with ENV or ARG above"
    );
}

#[test]
fn stages_are_found_or_named() {
    let two = "FROM debian AS first\nFROM debian AS second\n";
    assert_eq!(
        told(&refused("FROM debian AS a\nCOPY --from=b x y\nFROM debian AS b")),
        "error: reading `Dockerfile`\n  because: line 2: stage `b` begins further down\n  2 | COPY --from=b x y\n    |      ^^^^^^^^\nhint: a stage copies only from stages above it: move that stage up"
    );
    // Two that copy from each other begin with that.
    let told_of_circle =
        told(&refused("FROM debian AS a\nCOPY --from=b x y\nFROM debian AS b\nCOPY --from=a x y"));
    assert!(told_of_circle.contains("line 2: stage `b` begins further down"), "{told_of_circle}");
    let target = |target: &str| {
        let options = PlanOptions { target: Some(target.into()), ..amd64() };
        plan_with(two, &options, &images()).map(|plan| plan.target.0).map_err(|error| told(&error))
    };
    assert_eq!(target("FIRST"), Ok(0));
    assert_eq!(target("1"), Ok(1));
    assert_eq!(
        target("secnd"),
        Err("error: reading `Dockerfile`\n  because: no stage is called `secnd`\nhint: did you mean `second`?".into())
    );
    assert_eq!(
        target("2"),
        Err("error: reading `Dockerfile`\n  because: no stage is called `2`\nhint: the stages are first, second".into())
    );
}

#[test]
fn a_base_that_is_not_there_says_where_it_was_looked_for() {
    assert_eq!(
        told(&refused("FROM debian\nFROM --platform=linux/arm64 debain")),
        "error: reading `Dockerfile`\n  because: line 2: the base image `debain`\n  2 | FROM --platform=linux/arm64 debain\n    |                             ^^^^^^\n  because: looked in the store and at docker.io\nhint: check the name"
    );
    assert_eq!(
        told(&refused("FROM b AS a\nFROM debian AS b\nFROM a")),
        "error: reading `Dockerfile`\n  because: line 1: the base image `b`\n  1 | FROM b AS a\n    |      ^\n  because: looked in the store and at docker.io\nhint: the stage `b` begins further down; a stage stands only on stages above it"
    );
}

#[test]
fn a_file_begins_with_from() {
    for (text, message) in [
        ("", "because: the file has no instructions\nhint: a Dockerfile begins with FROM"),
        ("# nothing\n\n", "because: the file has no instructions\nhint: a Dockerfile begins with FROM"),
        (
            "RUN x\nFROM debian",
            "because: line 1: RUN stands before the first FROM\n  1 | RUN x\n    | ^^^\nhint: begin with `FROM image`; only ARG may stand before it",
        ),
        (
            "ARG A",
            "because: line 1: the file ends without a FROM\n  1 | ARG A\n    | ^^^^^\nhint: add `FROM image`",
        ),
    ] {
        assert_eq!(told(&refused(text)), format!("error: reading `Dockerfile`\n  {message}"));
    }
}

#[test]
fn a_variable_that_empties_a_base_is_named() {
    assert_eq!(
        told(&refused("FROM debian:$TAG")),
        "error: reading `Dockerfile`\n  because: line 1: the base image `debian:`\n  1 | FROM debian:$TAG\n    |      ^^^^^^^^^^^\n  because: looked in the store and at docker.io\nhint: `TAG` is not set: declare `ARG TAG=default` before the first FROM, or give it with --build-arg"
    );
}

#[test]
fn what_is_no_text_is_refused_with_its_line() {
    let error = |bytes: &[u8]| told(&Dockerfile::read("-", bytes).unwrap_err());
    assert_eq!(
        error(b"FROM debian\nRUN \xff"),
        "error: reading `-`\n  because: line 2: the text is not UTF-8\nhint: save it as UTF-8"
    );
    assert!(error(b"\xff\xfeF\0").ends_with("hint: it looks like UTF-16; save it as UTF-8"));
    assert_eq!(
        error(b"FROM debian\nRUN a\0b"),
        "error: reading `-`\n  because: line 2: the file holds a NUL byte\n  2 | RUN a\0b\n    |      ^\nhint: is it a text file?"
    );
    assert!(Dockerfile::read("-", b"FROM debian").is_ok());
}

#[test]
fn a_trigger_that_cannot_be_done_is_shown_at_its_from() {
    let error = |trigger: &str| {
        let images = with("base", &format!(r#"{{"OnBuild":["{trigger}"]}}"#));
        told(&plan_with("FROM base", &amd64(), &images).unwrap_err())
    };
    assert_eq!(
        error("RUN --device=d x"),
        "error: reading `Dockerfile`\n  because: line 1: the trigger `RUN --device=d x` of ONBUILD: `RUN --device` is not supported by this version\n  1 | FROM base\n    |      ^^^^"
    );
    assert_eq!(
        error("FROM x"),
        "error: reading `Dockerfile`\n  because: line 1: the trigger `FROM x` of ONBUILD cannot be read\n  1 | FROM base\n    |      ^^^^\nhint: ONBUILD and FROM cannot be triggers"
    );
    assert!(error("RUN x\\nRUN y").contains("hint: a trigger is one instruction"));
}
