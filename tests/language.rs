//! The corners of the Dockerfile language, where BuildKit's frontend is the measure.

use outcrop::dockerfile::PlanOptions;
use outcrop::plan::{Action, Base, Run};

use crate::dockerfile::{amd64, args, history, images, last, plan, plan_with, refused, told, with};
use crate::sandbox::Sandbox;

fn run_of(text: &str) -> Run {
    let plan = plan(text);
    match &last(&plan).steps.last().unwrap().action {
        Action::Run(run) => run.clone(),
        other => panic!("{other:?}"),
    }
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

// ---- arguments and variables ----

#[test]
fn a_stage_on_a_stage_sees_the_image_s_environment_before_arguments_of_the_same_name() {
    let text = "FROM debian AS a\nENV V=env\nARG V=arg\nARG W=w\nRUN x";
    assert_eq!(run_of(text).env, [PATH, "V=arg", "W=w"]);
    assert_eq!(run_of(&format!("{text}\nFROM a\nRUN y")).env, [PATH, "V=env", "W=w"]);
    // And an ARG of its own goes before it again.
    assert_eq!(run_of(&format!("{text}\nFROM a\nARG V=more\nRUN y")).env, [PATH, "V=more", "W=w"]);
}

#[test]
fn arguments_on_one_line_see_those_before_them() {
    let steps = |text: &str| history(last(&plan(text))).join("; ");
    assert_eq!(steps("FROM debian\nARG A=1 B=${A}2 C=$B$D D=4"), "ARG A=1 B=12 C=12 D=4");
    assert_eq!(steps("ARG A=1 B=${A}2\nARG C=$B-$A\nFROM debian\nARG C B"), "ARG C=12-1 B=12");
    assert_eq!(steps("ARG A=1\nARG A=${A}2\nFROM debian\nARG A"), "ARG A=12");
    assert_eq!(steps("ARG A\nFROM debian\nARG A\nARG B=${A-unset}"), "ARG A; ARG B=unset");
    assert_eq!(steps("ARG A=\nFROM debian\nARG A\nARG B=${A-unset}"), "ARG A=; ARG B=");
    assert_eq!(steps("FROM debian\nARG A=1\nARG A\nARG A=3"), "ARG A=1; ARG A; ARG A=3");
    // What stands before FROM is unknown in a stage that does not declare it.
    assert_eq!(steps("ARG A=1\nFROM debian\nARG B=${A-unset}"), "ARG B=unset");
}

#[test]
fn a_given_argument_goes_before_every_default_even_one_that_cannot_be_read() {
    let given = args(&[("A", "given")]);
    let plan = plan_with("ARG A=${X:?no}\nFROM debian\nARG A=${Y:?no}", &given, &images()).unwrap();
    assert_eq!(history(last(&plan)), ["ARG A=given"]);
    assert_eq!(
        told(&refused("ARG A=1 B=${X:?no}\nFROM debian")),
        "error: reading `Dockerfile`\n  because: line 1: X: no\n  1 | ARG A=1 B=${X:?no}\n    |         ^^^^^^^^^^\nhint: give it with --build-arg, or with ENV or ARG above"
    );
}

#[test]
fn platform_arguments_are_set_even_where_they_are_empty() {
    let text = "FROM debian AS Last\nARG TARGETVARIANT TARGETSTAGE BUILDARCH\nRUN x";
    assert_eq!(
        history(last(&plan(text))),
        [
            "ARG TARGETVARIANT= TARGETSTAGE=last BUILDARCH=amd64",
            "RUN |3 TARGETVARIANT= TARGETSTAGE=last BUILDARCH=amd64 /bin/sh -c x"
        ]
    );
    assert!(plan("FROM debian${TARGETVARIANT:+-$TARGETVARIANT}").warnings.is_empty());
    assert_eq!(
        history(last(&plan("FROM debian\nARG TARGETSTAGE=mine\nARG TARGETSTAGE"))),
        ["ARG TARGETSTAGE=mine", "ARG TARGETSTAGE=default"]
    );
}

#[test]
fn arguments_for_scanners_reach_no_environment() {
    let run = run_of("FROM debian\nARG BUILDKIT_SBOM_SCAN_STAGE=true OTHER=1\nRUN x");
    assert_eq!(run.env, [PATH, "OTHER=1"]);
}

#[test]
fn a_given_proxy_goes_before_what_env_says_and_leaves_no_trace() {
    let options = args(&[("HTTP_PROXY", "http://given"), ("ftp_proxy", ""), ("all_proxy", "socks")]);
    let plan = plan_with("FROM debian\nENV http_proxy=http://env\nRUN x", &options, &images()).unwrap();
    let Action::Run(run) = &last(&plan).steps[1].action else { panic!() };
    assert_eq!(
        run.hidden_env,
        ["HTTP_PROXY=http://given", "http_proxy=http://given", "ALL_PROXY=socks", "all_proxy=socks"]
    );
    assert_eq!(run.env, [PATH, "http_proxy=http://env"]);
    assert_eq!(last(&plan).steps[1].created_by, "RUN /bin/sh -c x");
}

// ---- SOURCE_DATE_EPOCH ----

/// The epoch, what was asked for it, and the history.
fn dated(text: &str, given: &[(&str, &str)]) -> (Option<i64>, String, String) {
    let images = images();
    let plan = plan_with(text, &args(given), &images).unwrap_or_else(|error| panic!("{}", told(&error)));
    let asked = images.asked.borrow().iter().filter(|asked| !asked.contains("debian")).cloned().collect();
    (plan.epoch, asked, history(last(&plan)).join("; "))
}

#[test]
fn an_epoch_is_a_number_given_or_declared_before_from() {
    const E: &str = "SOURCE_DATE_EPOCH";
    let none = String::new;
    assert_eq!(
        dated("FROM debian\nARG SOURCE_DATE_EPOCH", &[]),
        (None, none(), "ARG SOURCE_DATE_EPOCH".into())
    );
    let stage = "FROM debian\nARG SOURCE_DATE_EPOCH";
    assert_eq!(dated(stage, &[(E, "5")]), (Some(5), none(), "ARG SOURCE_DATE_EPOCH=5".into()));
    let global = format!("ARG N=7\nARG SOURCE_DATE_EPOCH=${{N}}0\n{stage}");
    assert_eq!(dated(&global, &[]), (Some(70), none(), "ARG SOURCE_DATE_EPOCH=70".into()));
    assert_eq!(dated(&global, &[(E, "-5")]), (Some(-5), none(), "ARG SOURCE_DATE_EPOCH=-5".into()));
    // Given empty, it is taken away.
    assert_eq!(dated(&global, &[(E, "")]), (None, none(), "ARG SOURCE_DATE_EPOCH".into()));
    // In a stage alone it is a variable like others.
    assert_eq!(dated("FROM debian\nARG SOURCE_DATE_EPOCH=5", &[]).0, None);
}

#[test]
fn an_epoch_may_be_the_time_of_the_context_or_of_what_a_stage_adds() {
    let stage = "FROM debian\nARG SOURCE_DATE_EPOCH";
    let context = dated(&format!("ARG SOURCE_DATE_EPOCH=context\n{stage}"), &[]);
    assert_eq!(context, (None, "Context".into(), "ARG SOURCE_DATE_EPOCH".into()));
    let sum = "0".repeat(64);
    let text = format!(
        "ARG SOURCE_DATE_EPOCH=SRC\nARG V=1\nFROM scratch AS src\nARG P=a-$V SUM=sha256:{sum}\nADD --checksum=$SUM https://e.org/$P.tar /\n{stage}"
    );
    assert_eq!(
        dated(&text, &[("V", "2")]),
        (
            Some(7),
            format!(
                "Http(HttpSource {{ url: \"https://e.org/a-2.tar\", checksum: Some(Sha256(sha256:{sum})) }})"
            ),
            "ARG SOURCE_DATE_EPOCH=7".into()
        )
    );
    let git = format!("FROM scratch AS src\nADD --keep-git-dir=true https://e.org/a /\n{stage}");
    let (epoch, asked, _) = dated(&git, &[("SOURCE_DATE_EPOCH", "src")]);
    assert_eq!((epoch, asked.starts_with("Git(")), (Some(7), true));
    // A context of that name goes before the stage.
    let options =
        PlanOptions { contexts: ["src".to_owned()].into(), ..args(&[("SOURCE_DATE_EPOCH", "src")]) };
    let images = images();
    plan_with(&git, &options, &images).unwrap();
    assert_eq!(images.asked.borrow()[0], "Named(\"src\")");
}

#[test]
fn what_cannot_date_a_build_is_shown() {
    const HINT: &str = "hint: a stage that dates the build is `FROM scratch`, ARGs, and one ADD of a URL or a git repository";
    for (stage, line, shown) in [
        (
            "FROM debian AS s\nADD https://e.org/a /",
            2,
            "it does not stand on scratch\n  2 | FROM debian AS s\n    |      ^^^^^^",
        ),
        ("FROM scratch AS s", 2, "it adds nothing\n  2 | FROM scratch AS s\n    |      ^^^^^^^"),
        ("FROM scratch AS s\nCOPY a /", 3, "it holds more than ARG and ADD\n  3 | COPY a /\n    | ^^^^"),
        (
            "FROM scratch AS s\nADD a /",
            3,
            "what it adds is neither a URL nor a git repository\n  3 | ADD a /\n    |     ^",
        ),
        (
            "FROM scratch AS s\nADD https://e.org/a https://e.org/b /",
            3,
            "it adds more than one thing\n  3 | ADD https://e.org/a https://e.org/b /\n    |     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^",
        ),
    ] {
        let error = refused(&format!("ARG SOURCE_DATE_EPOCH=s\n{stage}\nFROM debian"));
        assert_eq!(
            told(&error),
            format!(
                "error: reading `Dockerfile`\n  because: line {line}: the stage `s` cannot say SOURCE_DATE_EPOCH: {shown}\n{HINT}"
            )
        );
    }
    assert_eq!(
        told(&refused("ARG SOURCE_DATE_EPOCH=soon\nFROM debian")),
        "error: reading `Dockerfile`\n  because: line 1: SOURCE_DATE_EPOCH is `soon`, which is no number, not `context` and no stage\n  1 | ARG SOURCE_DATE_EPOCH=soon\n    |     ^^^^^^^^^^^^^^^^^^^^^^\nhint: give it in seconds since 1970, as in `--build-arg SOURCE_DATE_EPOCH=1700000000`, or name a stage"
    );
    let given = plan_with("FROM debian", &args(&[("SOURCE_DATE_EPOCH", "soon")]), &images());
    assert!(told(&given.unwrap_err()).contains("because: SOURCE_DATE_EPOCH is `soon`, which is no number"));
}

// ---- stages ----

#[test]
fn scratch_begins_with_a_path_and_the_root_as_its_directory() {
    let plan = plan("FROM scratch\nLABEL a=b");
    assert_eq!(
        serde_json::to_value(&*last(&plan).steps[0].config).unwrap(),
        serde_json::json!({ "Env": [PATH], "WorkingDir": "/", "Labels": { "a": "b" } })
    );
}

#[test]
fn the_working_directory_of_a_base_is_made_clean() {
    for (base, expected) in [("/app/", "/app"), ("/a/./b/../c", "/a/c"), ("", ""), ("app", "/app")] {
        let plan = plan_with(
            "FROM base\nUSER u",
            &amd64(),
            &with("base", &serde_json::json!({ "WorkingDir": base }).to_string()),
        )
        .unwrap();
        assert_eq!(last(&plan).steps[0].config.working_dir, expected, "{base}");
    }
}

#[test]
fn a_platform_means_something_before_an_image_alone() {
    let text = "FROM --platform=linux/arm64 debian AS a\nFROM --platform=linux/s390x a AS b\nFROM --platform=linux/arm64 scratch\nCOPY --from=b / /";
    let plan = plan(text);
    let platforms: Vec<_> = plan.stages.iter().map(|stage| stage.platform.to_string()).collect();
    assert_eq!(platforms, ["linux/arm64", "linux/arm64", "linux/amd64"]);
    assert_eq!(
        plan.warnings,
        [
            "Dockerfile: line 2: `--platform` means nothing before a stage or scratch, which is for linux/arm64",
            "Dockerfile: line 3: `--platform` means nothing before a stage or scratch, which is for linux/amd64",
        ]
    );
}

#[test]
fn a_stage_called_as_an_image_stands_in_its_place_below() {
    let plan = plan("FROM debian AS scratch\nRUN x\nFROM Scratch\nFROM debian AS Debian\nFROM debian");
    let bases: Vec<_> = plan.stages.iter().map(|stage| stage.base.clone()).collect();
    assert!(matches!(bases[1], Base::Stage(stage) if stage.0 == 0));
    assert_eq!(bases[2], Base::Image("debian".into()));
    assert!(matches!(bases[3], Base::Stage(stage) if stage.0 == 2));
}

#[test]
fn a_number_that_is_no_stage_is_no_image_either() {
    for (number, message) in [("-1", "there is no stage -1"), ("7", "there is no stage 7")] {
        let error = refused(&format!("FROM debian\nCOPY --from={number} a b"));
        assert!(told(&error).contains(message), "{}", told(&error));
    }
}

// ---- forms ----

#[test]
fn an_empty_value_of_a_flag_is_none() {
    let steps = |text: &str| history(last(&plan(text))).join("; ");
    assert_eq!(steps("FROM --platform= debian\nCOPY --from= --chown= a b"), "COPY a b");
    assert_eq!(
        steps("FROM debian\nHEALTHCHECK --interval= --retries= CMD x"),
        r#"HEALTHCHECK &{["CMD-SHELL" "x"] "0s" "0s" "0s" "0s" '\x00'}"#
    );
}

#[test]
fn a_run_without_a_program_is_refused_and_a_cmd_without_one_is_none() {
    assert_eq!(
        told(&refused("FROM debian\nRUN []")),
        "error: reading `Dockerfile`\n  because: line 2: the list names no program\n  2 | RUN []\n    |     ^^\nhint: write `RUN [\"program\", \"argument\"]`"
    );
    let plan = plan("FROM debian\nCMD [\"a\"]\nCMD []\nENTRYPOINT");
    let steps = &last(&plan).steps;
    assert_eq!(steps[1].config.cmd, None);
    assert_eq!(steps[2].config.entrypoint, Some(vec!["/bin/sh".into(), "-c".into(), String::new()]));
}

#[test]
fn a_heredoc_stands_behind_what_only_the_shell_can_expand() {
    let run = run_of("FROM debian\nRUN echo ${X:=y} ${Z:0:3} $((1<<2)) && cat <<E\nFROM nothing\nE");
    assert_eq!(run.args[2], "echo ${X:=y} ${Z:0:3} $((1<<2)) && cat <<E\nFROM nothing\nE");
}

#[test]
fn a_heredoc_keeps_every_carriage_return() {
    let run = run_of("FROM debian\r\nRUN <<E\r\na\r\r\n\r\nb\nE\r\n");
    assert_eq!(run.args[2], "a\r\r\n\r\nb\n");
}

#[test]
fn another_language_is_named_where_it_cannot_be_read() {
    assert_eq!(
        told(&refused("// syntax=example/lang:1\nhello\n")),
        "error: `syntax=example/lang:1` names another language; this was read as a Dockerfile\n  because: reading `Dockerfile`\n  because: line 1: unknown instruction `//`\n  1 | // syntax=example/lang:1\n    | ^^\nhint: the instructions are ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL MAINTAINER ONBUILD RUN SHELL STOPSIGNAL USER VOLUME WORKDIR"
    );
    let options = args(&[("BUILDKIT_SYNTAX", "example/lang")]);
    let plan = plan_with("#!/usr/bin/env x\n# syntax=docker/dockerfile:1\nFROM debian", &options, &images());
    assert_eq!(
        plan.unwrap().warnings,
        [
            "Dockerfile: the build argument `BUILDKIT_SYNTAX=example/lang` names another language; this is read as a Dockerfile"
        ]
    );
}

// ---- from the command line to the disk ----

#[test]
fn a_run_sees_each_name_once() {
    let sandbox = Sandbox::new();
    sandbox.base_image("base");
    sandbox.dockerfile("FROM base\nENV http_proxy=env\nRUN env | grep -i proxy | sort > /seen\n");
    sandbox.outcrop(&["build", "-t", "it", "--build-arg", "HTTP_PROXY=given", "."]).ok();
    let seen = sandbox.outcrop(&["run", "--rm", "it", "cat", "/seen"]).ok().stdout();
    assert_eq!(seen, "HTTP_PROXY=given\nhttp_proxy=given\n");
    // Another proxy is no reason to run again.
    let again = sandbox.outcrop(&["build", "--progress", "plain", "--build-arg", "HTTP_PROXY=other", "."]);
    again.ok().says("Using cache");
    sandbox.check();
}

#[test]
fn a_host_name_is_given_with_a_build_argument() {
    let sandbox = Sandbox::new();
    sandbox.base_image("base");
    sandbox.dockerfile("FROM base\nRUN cat /etc/hostname > /seen && hostname >> /seen\n");
    for name in ["one", "two.example"] {
        let given = format!("BUILDKIT_SANDBOX_HOSTNAME={name}");
        let built =
            sandbox.outcrop(&["build", "--progress", "plain", "-t", "it", "--build-arg", &given, "."]).ok();
        assert!(!built.stdout().contains("Using cache"), "another name is another result");
        assert_eq!(
            sandbox.outcrop(&["run", "--rm", "it", "cat", "/seen"]).ok().stdout(),
            format!("{name}\n{name}\n")
        );
    }
    let given = args(&[("BUILDKIT_SANDBOX_HOSTNAME", "a b")]);
    let error = plan_with("FROM debian\nRUN x", &given, &images()).unwrap_err();
    assert!(
        told(&error).contains("is `a b`, which is no host name\n  2 | RUN x\n    | ^^^"),
        "{}",
        told(&error)
    );
    sandbox.check();
}

#[test]
fn an_epoch_before_the_first_from_dates_the_image() {
    let sandbox = Sandbox::new();
    sandbox.base_image("base");
    sandbox.file("file", "x");
    sandbox.dockerfile(
        "ARG SOURCE_DATE_EPOCH=1000000000\nFROM base\nRUN test -z \"$SOURCE_DATE_EPOCH\"\nARG SOURCE_DATE_EPOCH\nRUN echo $SOURCE_DATE_EPOCH > /seen\nCOPY file /file\n",
    );
    sandbox.outcrop(&["build", "-t", "it", "."]).ok();
    let created = sandbox.outcrop(&["inspect", "--format", "{{.Created}}", "it"]).ok().line();
    assert_eq!(created, "2001-09-09T01:46:40Z");
    let shown = sandbox
        .outcrop(&["run", "--rm", "it", "sh", "-c", "cat /seen; stat -c %Y /seen /file"])
        .ok()
        .stdout();
    assert_eq!(shown, "1000000000\n1000000000\n1000000000\n");
    // What is given goes before it.
    sandbox.outcrop(&["build", "-t", "it", "--build-arg", "SOURCE_DATE_EPOCH=1100000000", "."]).ok();
    let created = sandbox.outcrop(&["inspect", "--format", "{{.Created}}", "it"]).ok().line();
    assert_eq!(created, "2004-11-09T11:33:20Z");
    sandbox.check();
}

#[test]
fn a_platform_that_was_asked_for_is_what_the_config_says() {
    let sandbox = Sandbox::new();
    sandbox.base_image("base");
    sandbox.dockerfile("FROM --platform=$BUILDPLATFORM base\nLABEL a=b\n");
    let said = |args: &[&str]| {
        sandbox.outcrop(&[&["build", "--progress", "plain", "-t", "it"], args, &["."]].concat()).ok();
        let form = "{{.Os}}/{{.Architecture}} {{len .RootFS.Layers}} {{.Config.Labels}}";
        sandbox.outcrop(&["inspect", "--format", form, "it"]).ok().line()
    };
    let own = said(&[]);
    let host = own.split(' ').next().unwrap();
    assert_eq!(said(&["--platform", "linux/riscv64"]), own.replace(host, "linux/riscv64"));
    assert_eq!(said(&["--platform", "linux/arm/v6"]), own.replace(host, "linux/arm"));
    assert_eq!(said(&["--platform", host]), own);
    sandbox.check();
}
