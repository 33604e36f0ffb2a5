//! The Dockerfile language from outside: text and options in, a plan or an error out, both compared whole.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use outcrop::dockerfile::{Dated, Dockerfile, PlanOptions, Resolver};
use outcrop::error::{Error, Kind, Result};
use outcrop::image::{ImageConfig, Platform};
use outcrop::plan::{Action, Base, CopyFrom, Plan, Source, Stage, Unpack};

/// Base images by name; what is not here does not exist.
#[derive(Default)]
pub(crate) struct Images {
    known: BTreeMap<String, ImageConfig>,
    pub(crate) asked: std::cell::RefCell<Vec<String>>,
}

impl Resolver for Images {
    fn base(&self, reference: &str, platform: &Platform) -> Result<ImageConfig> {
        self.asked.borrow_mut().push(format!("{reference} {platform}"));
        match self.known.get(reference) {
            Some(config) => Ok(config.clone()),
            None => Err(Error::not_found("looked in the store and at docker.io").hint("check the name")),
        }
    }

    fn time(&self, of: &Dated) -> Result<Option<i64>> {
        self.asked.borrow_mut().push(format!("{of:?}"));
        Ok(matches!(of, Dated::Http(_) | Dated::Git(_)).then_some(7))
    }
}

pub(crate) fn images() -> Images {
    let mut images = Images::default();
    images.known.insert("debian".into(), ImageConfig::default());
    images
}

pub(crate) fn with(name: &str, config: &str) -> Images {
    let mut images = images();
    let config =
        format!(r#"{{"architecture":"amd64","os":"linux","config":{config},"rootfs":{{"type":"layers"}}}}"#);
    images.known.insert(name.into(), serde_json::from_str(&config).unwrap());
    images
}

pub(crate) fn amd64() -> PlanOptions {
    let platform: Platform = "linux/amd64".parse().unwrap();
    PlanOptions { platform: platform.clone(), build_platform: platform, ..PlanOptions::default() }
}

pub(crate) fn args(pairs: &[(&str, &str)]) -> PlanOptions {
    let build_args = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    PlanOptions { build_args, ..amd64() }
}

pub(crate) fn plan_with(text: &str, options: &PlanOptions, images: &Images) -> Result<Plan> {
    Dockerfile::parse("Dockerfile", text)?.plan(options, images)
}

pub(crate) fn plan(text: &str) -> Plan {
    plan_with(text, &amd64(), &images()).unwrap_or_else(|error| panic!("{}", told(&error)))
}

pub(crate) fn last(plan: &Plan) -> &Stage {
    &plan.stages[plan.target.0]
}

/// As the command line prints it.
pub(crate) fn told(error: &Error) -> String {
    let mut text = format!("error: {error}");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        write!(text, "\n  because: {cause}").unwrap();
        source = cause.source();
    }
    if let Some(hint) = error.hint_text() {
        write!(text, "\nhint: {hint}").unwrap();
    }
    text
}

pub(crate) fn refused(text: &str) -> Error {
    plan_with(text, &amd64(), &images()).map(|plan| format!("{plan:?}")).expect_err(text)
}

pub(crate) fn history(stage: &Stage) -> Vec<&str> {
    stage.steps.iter().map(|step| step.created_by.as_str()).collect()
}

#[test]
fn the_demonstration_is_planned_as_it_is_written() {
    let plan = plan(
        "FROM debian\nRUN apt-get update\nRUN apt-get install -y nginx\nCOPY . /var/www/html/\n\
         CMD [\"nginx\", \"-g\", \"daemon off;\"]\n",
    );
    assert_eq!(plan.step_count(), 5);
    let stage = last(&plan);
    assert_eq!(stage.base, Base::Image("debian".into()));
    assert_eq!(
        history(stage),
        [
            "RUN /bin/sh -c apt-get update",
            "RUN /bin/sh -c apt-get install -y nginx",
            "COPY . /var/www/html/",
            "CMD [\"nginx\" \"-g\" \"daemon off;\"]",
        ]
    );
    let texts: Vec<_> = stage.steps.iter().map(|step| (step.at.lines, step.at.text.as_str())).collect();
    assert_eq!(texts[2], ((4, 4), "COPY . /var/www/html/"));
    assert_eq!(texts[3].1, "CMD [\"nginx\", \"-g\", \"daemon off;\"]");
    let Action::Run(run) = &stage.steps[0].action else { panic!() };
    assert_eq!(run.args, ["/bin/sh", "-c", "apt-get update"]);
    assert_eq!(run.env, ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]);
    let Action::Copy(copy) = &stage.steps[2].action else { panic!() };
    assert_eq!(
        (&copy.from, &copy.sources[..], &*copy.destination),
        (&CopyFrom::Context, &[Source::Path(".".into())][..], "/var/www/html/")
    );
    assert_eq!(stage.steps[3].config.cmd, Some(vec!["nginx".into(), "-g".into(), "daemon off;".into()]));
}

#[test]
fn an_unknown_instruction_is_shown_with_the_one_that_was_meant() {
    let error = Dockerfile::parse("web/Dockerfile", "FROM debian\n\n  RUNN apt-get update\n").unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert_eq!(
        told(&error),
        "error: reading `web/Dockerfile`\n  because: line 3: unknown instruction `RUNN`\n  3 |   RUNN apt-get update\n    |   ^^^^\nhint: did you mean `RUN`?"
    );
}

/// The histories of the steps below `FROM debian`.
fn steps_of(text: &str) -> Vec<String> {
    history(last(&plan(&format!("FROM debian\n{text}")))).into_iter().map(str::to_owned).collect()
}

fn assert_steps(table: &[(&str, &[&str])]) {
    for (text, expected) in table {
        assert_eq!(steps_of(text), *expected, "{text}");
    }
}

// ---- lines ----

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

// ---- forms ----

#[test]
fn commands_have_a_shell_form_and_a_json_form() {
    assert_steps(&[
        ("RUN [\"a\", \"b c\"]", &["RUN a b c"]),
        ("RUN  [ \"a\" , \"\\u0062\" ] ", &["RUN a b"]),
        ("RUN [ -f x ] && y", &["RUN /bin/sh -c [ -f x ] && y"]),
        ("RUN ['a']", &["RUN /bin/sh -c ['a']"]),
        ("RUN [\"a\",]", &["RUN /bin/sh -c [\"a\",]"]),
        ("CMD a  b", &["CMD [\"/bin/sh\" \"-c\" \"a  b\"]"]),
        ("CMD []", &["CMD []"]),
        ("CMD [\"a\\tb\"]", &["CMD [\"a\\tb\"]"]),
        ("ENTRYPOINT [\"a\"]", &["ENTRYPOINT [\"a\"]"]),
        ("ENTRYPOINT []", &["ENTRYPOINT []"]),
        (
            "SHELL [\"/bin/bash\", \"-c\"]\nRUN a\nCMD b",
            &["SHELL [/bin/bash -c]", "RUN /bin/bash -c a", "CMD [\"/bin/bash\" \"-c\" \"b\"]"],
        ),
        ("VOLUME [\"/a b\", \"/c\"]", &["VOLUME [/a b /c]"]),
        ("VOLUME /a  /b", &["VOLUME [/a /b]"]),
        ("COPY [\"a b\", \"/c d/\"]", &["COPY a b /c d/"]),
        ("COPY a b /c/", &["COPY a b /c/"]),
    ]);
    assert_eq!(
        plan("FROM debian\nRUN ['a', 'b']\nRUN [ \"$A\" = b ]\nRUN [\"a\",]").warnings,
        [
            "Dockerfile: line 2: `['a', 'b']` is no JSON and is taken as plain words; JSON strings stand in double quotes with commas between",
            "Dockerfile: line 4: `[\"a\",]` is no JSON and is taken as plain words; JSON strings stand in double quotes with commas between",
        ]
    );
}

#[test]
fn names_and_values_have_a_new_and_an_old_form() {
    assert_steps(&[
        ("ENV A=1 B=2", &["ENV A=1 B=2"]),
        ("ENV A='x y' B=\"z w\" C=u\\ v", &["ENV A=x y B=z w C=u v"]),
        ("ENV A=", &["ENV A="]),
        ("ENV A=\"\"", &["ENV A="]),
        ("ENV A=b=c", &["ENV A=b=c"]),
        ("ENV A b  c ", &["ENV A=b  c"]),
        ("ENV A \"b c\" d", &["ENV A=b c d"]),
        ("ENV A b=c", &["ENV A=b=c"]),
        ("LABEL \"com.example.v\"=\"1 \\\"2\\\"\" x=y", &["LABEL com.example.v=1 \"2\" x=y"]),
        ("LABEL desc some words", &["LABEL desc=some words"]),
        ("LABEL a=\"x\\\n  y\"", &["LABEL a=x  y"]),
        ("ARG A\nARG B=1 C=\"2 3\" D", &["ARG A", "ARG B=1 C=2 3 D"]),
    ]);
}

#[test]
fn the_other_instructions_say_what_buildkit_says() {
    assert_steps(&[
        ("EXPOSE 80 443/tcp 53/UDP", &["EXPOSE [443/tcp 53/udp 80/tcp]"]),
        ("EXPOSE 8000-8002", &["EXPOSE [8000/tcp 8001/tcp 8002/tcp]"]),
        ("ARG P=\"1 2/udp\"\nEXPOSE $P", &["ARG P=1 2/udp", "EXPOSE [1/tcp 2/udp]"]),
        ("STOPSIGNAL SIGQUIT", &["STOPSIGNAL SIGQUIT"]),
        ("USER app:1000", &["USER app:1000"]),
        ("MAINTAINER A B <a@b>", &["MAINTAINER A B <a@b>"]),
        ("HEALTHCHECK NONE", &[r#"HEALTHCHECK &{["NONE"] "0s" "0s" "0s" "0s" '\x00'}"#]),
        (
            "HEALTHCHECK --interval=1m30s --timeout=500ms --retries=3 --start-period=2s --start-interval=1s cmd curl -f x",
            &[r#"HEALTHCHECK &{["CMD-SHELL" "curl -f x"] "1m30s" "500ms" "2s" "1s" '\x03'}"#],
        ),
        ("HEALTHCHECK CMD [\"a\", \"b\"]", &[r#"HEALTHCHECK &{["CMD" "a" "b"] "0s" "0s" "0s" "0s" '\x00'}"#]),
        ("ONBUILD RUN make \\\n  all", &["ONBUILD RUN make   all"]),
        ("COPY --chown=app:app --chmod=0755 a /b", &["COPY --chown=app:app --chmod=0755 a /b"]),
        ("ADD a.tar.gz /b/", &["ADD a.tar.gz /b/"]),
        ("WORKDIR /a/../b/\nWORKDIR c\nWORKDIR ../d e", &["WORKDIR /b", "WORKDIR /b/c", "WORKDIR /b/d e"]),
    ]);
}

#[test]
fn the_configuration_grows_step_by_step() {
    let plan = plan(
        "FROM debian\nENV A=1\nEXPOSE 80\nVOLUME /v\nUSER u\nWORKDIR /w\nLABEL l=m\nSTOPSIGNAL 9\n\
         HEALTHCHECK --retries=2 CMD x\nSHELL [\"s\"]\nENTRYPOINT [\"e\"]\nCMD [\"c\"]\nONBUILD RUN x\nENV A=2 B=3",
    );
    let steps = &last(&plan).steps;
    let json = |index: usize| serde_json::to_value(&*steps[index].config).unwrap();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(json(0), serde_json::json!({ "Env": [path, "A=1"] }));
    assert_eq!(
        json(steps.len() - 1),
        serde_json::json!({
            "User": "u",
            "ExposedPorts": { "80/tcp": {} },
            "Env": [path, "A=2", "B=3"],
            "Entrypoint": ["e"],
            "Cmd": ["c"],
            "Healthcheck": { "Test": ["CMD-SHELL", "x"], "Retries": 2 },
            "ArgsEscaped": true,
            "Volumes": { "/v": {} },
            "WorkingDir": "/w",
            "OnBuild": ["RUN x"],
            "Labels": { "l": "m" },
            "StopSignal": "9",
            "Shell": ["s"],
        })
    );
    assert!(matches!(&steps[4].action, Action::Workdir { path, user } if path == "/w" && user == "u"));
    assert!(matches!(steps[0].action, Action::Config));
    assert!(matches!(last(&self::plan("FROM debian\nWORKDIR /")).steps[0].action, Action::Config));
}

#[test]
fn an_entrypoint_takes_a_cmd_away_that_is_not_its_own() {
    let base = || with("base", r#"{"Cmd":["theirs"],"Entrypoint":["old"]}"#);
    let cmd = |text: &str| {
        let plan = plan_with(text, &amd64(), &base()).unwrap();
        last(&plan).steps.last().unwrap().config.cmd.clone().map(|cmd| cmd.join(" "))
    };
    assert_eq!(cmd("FROM base\nENTRYPOINT [\"e\"]"), None);
    assert_eq!(cmd("FROM base\nCMD [\"ours\"]\nENTRYPOINT [\"e\"]").as_deref(), Some("ours"));
    assert_eq!(cmd("FROM base\nUSER u").as_deref(), Some("theirs"));
    assert_eq!(cmd("FROM base AS a\nCMD [\"ours\"]\nFROM a\nENTRYPOINT [\"e\"]"), None);
}

// ---- heredocs ----

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

// ---- variables ----

#[test]
fn one_instruction_sees_one_value() {
    assert_eq!(
        steps_of("ENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc"),
        ["ENV abc=hello", "ENV abc=bye def=hello", "ENV ghi=bye"]
    );
}

#[test]
fn variables_mean_something_in_these_instructions_and_nothing_in_the_others() {
    let head = "ARG V=v\nENV E=$V\n";
    for (text, expected) in [
        ("ENV A=$V", "ENV A=v"),
        ("ENV $V=1", "ENV v=1"),
        ("LABEL $V=$E", "LABEL v=v"),
        ("COPY --chown=$V $E /$V/", "COPY --chown=v v /v/"),
        ("ADD [\"$V\", \"/$V/\"]", "ADD v /v/"),
        ("USER $V", "USER v"),
        ("WORKDIR /$V", "WORKDIR /v"),
        ("VOLUME /$V", "VOLUME [/v]"),
        ("EXPOSE ${NO:-80}", "EXPOSE [80/tcp]"),
        ("STOPSIGNAL ${NO:-9}", "STOPSIGNAL 9"),
        ("ARG B=$V", "ARG B=v"),
        ("RUN $V", "RUN |1 V=v /bin/sh -c $V"),
        ("CMD $V", "CMD [\"/bin/sh\" \"-c\" \"$V\"]"),
        ("ENTRYPOINT [\"$V\"]", "ENTRYPOINT [\"$V\"]"),
        ("SHELL [\"$V\"]", "SHELL [$V]"),
        ("MAINTAINER $V", "MAINTAINER $V"),
        ("ONBUILD RUN $V", "ONBUILD RUN $V"),
        ("LABEL a='$V'", "LABEL a=$V"),
        ("LABEL a=\\$V", "LABEL a=$V"),
    ] {
        assert_eq!(steps_of(&format!("{head}{text}"))[2], expected, "{text}");
    }
}

#[test]
fn arguments_live_in_their_stage_and_in_those_built_on_it() {
    let text = "ARG G=global\nARG H\nFROM debian AS a\nRUN 1\nARG G\nARG S=stage\nARG N\nRUN 2\nFROM a\nRUN 3\nFROM debian\nRUN 4";
    let all = |options: &PlanOptions| -> Vec<String> {
        let text = text.to_owned() + "\nFROM debian\nCOPY --from=1 / /\nCOPY --from=2 / /";
        let plan = plan_with(&text, options, &images()).unwrap();
        plan.stages.iter().flat_map(|stage| history(stage)).map(str::to_owned).collect()
    };
    assert_eq!(
        all(&amd64()),
        [
            "RUN /bin/sh -c 1",
            "ARG G=global",
            "ARG S=stage",
            "ARG N",
            "RUN |3 G=global S=stage N= /bin/sh -c 2",
            "RUN |3 G=global S=stage N= /bin/sh -c 3",
            "RUN /bin/sh -c 4",
            "COPY / /",
            "COPY / /",
        ]
    );
    let given = all(&args(&[("G", "g"), ("S", "s"), ("N", "n"), ("H", "h")]));
    assert_eq!(given[4], "RUN |3 G=g S=s N=n /bin/sh -c 2");
}

#[test]
fn a_run_sees_the_image_s_environment_and_the_arguments() {
    let env = |text: &str, options: &PlanOptions| {
        let images = with("base", r#"{"Env":["PATH=/p","E=env"]}"#);
        let plan = plan_with(text, options, &images).unwrap();
        let Action::Run(run) = &last(&plan).steps.last().unwrap().action else { panic!() };
        (run.env.join(" "), run.hidden_env.join(" "))
    };
    let none = String::new;
    assert_eq!(env("FROM base\nARG A=1\nARG B\nRUN x", &amd64()), ("PATH=/p E=env A=1".into(), none()));
    // Of one name, what was said last.
    assert_eq!(env("FROM base\nARG E\nRUN x", &amd64()), ("PATH=/p E=env".into(), none()));
    assert_eq!(env("FROM base\nARG E=arg\nRUN x", &amd64()), ("PATH=/p E=arg".into(), none()));
    assert_eq!(
        env("FROM base\nARG F=arg\nENV F=env\nRUN x", &args(&[("F", "cli")])),
        ("PATH=/p E=env F=env".into(), none())
    );
    assert_eq!(
        env("FROM base\nARG F\nENV F=${F:-d}\nRUN x", &args(&[("F", "cli")])),
        ("PATH=/p E=env F=cli".into(), none())
    );
    // Proxies need no ARG and stay out of sight.
    let proxy = args(&[("http_proxy", "h"), ("NO_PROXY", "n")]);
    assert_eq!(
        env("FROM base\nRUN x", &proxy),
        ("PATH=/p E=env".into(), "NO_PROXY=n no_proxy=n HTTP_PROXY=h http_proxy=h".into())
    );
    assert_eq!(
        env("FROM base\nARG http_proxy\nRUN x", &proxy),
        ("PATH=/p E=env http_proxy=h".into(), "NO_PROXY=n no_proxy=n HTTP_PROXY=h".into())
    );
}

#[test]
fn platform_arguments_are_there_for_from_and_for_who_declares_them() {
    let mut images = images();
    images.known.insert("tool-arm64".into(), ImageConfig::default());
    let mut options = amd64();
    options.platform = "linux/arm64/v8".parse().unwrap();
    let text =
        "FROM --platform=$BUILDPLATFORM tool-${TARGETARCH}\nARG TARGETPLATFORM TARGETVARIANT BUILDOS\nRUN x";
    let plan = plan_with(text, &options, &images).unwrap();
    assert_eq!(last(&plan).platform.to_string(), "linux/amd64");
    assert_eq!(
        history(last(&plan))[1],
        "RUN |3 TARGETPLATFORM=linux/arm64/v8 TARGETVARIANT=v8 BUILDOS=linux /bin/sh -c x"
    );
    assert_eq!(*images.asked.borrow(), ["tool-arm64 linux/amd64"]);
}

#[test]
fn a_build_argument_that_no_arg_takes_is_warned_about() {
    let options =
        args(&[("VERSIN", "1"), ("HTTP_PROXY", "p"), ("SOURCE_DATE_EPOCH", "7"), ("TARGETARCH", "x")]);
    let plan = plan_with(
        "FROM debian\nARG VERSION\nARG EMPTY\nWORKDIR /$VERSON/${VERSON}\nUSER $EMPTY${EMPTY:-u}\nADD $AA /b/$AA",
        &options,
        &images(),
    );
    assert_eq!(plan.map(|plan| plan.warnings).map_err(|error| told(&error)), Err(
        "error: reading `Dockerfile`\n  because: line 6: the source is empty\n  6 | ADD $AA /b/$AA\n    |     ^^^\nhint: a variable in it may not be set".to_owned()
    ));
    let plan = plan_with(
        "FROM debian\nARG VERSION=1\nWORKDIR /$VERSON/${VERSON}\nARG E\nUSER u$E",
        &options,
        &images(),
    )
    .unwrap();
    assert_eq!(
        plan.warnings,
        ["Dockerfile: no ARG takes the build argument `VERSIN`; did you mean `VERSION`?"]
    );
    assert_eq!(plan.epoch, Some(7));
}

#[test]
fn growing_variables_are_stopped() {
    let text = format!("FROM debian\nENV A=0123456789\n{}", "ENV A=$A$A\n".repeat(60));
    let error = refused(&text);
    assert!(told(&error).contains("the variables make the word too long"), "{}", told(&error));
}

// ---- stages ----

#[test]
fn only_needed_stages_are_looked_up_and_planned() {
    let text = "FROM debian AS base\nRUN b\nFROM nowhere AS unused\nRUN u\nFROM base AS tool\nRUN t\nFROM scratch\n\
                COPY --from=tool /t /\nCOPY --from=registry.example/x:1 /x /\nFROM unused AS after";
    let images = images();
    let options = PlanOptions { target: Some("3".into()), ..amd64() };
    let plan = plan_with(text, &options, &images).unwrap();
    assert_eq!(*images.asked.borrow(), ["debian linux/amd64"]);
    let needed: Vec<_> = plan.needed().iter().map(|stage| stage.0).collect();
    assert_eq!((needed, plan.target.0, plan.step_count()), (vec![0, 2, 3], 3, 7));
    assert!(plan.stages[1].steps.is_empty() && plan.stages[4].steps.is_empty());
    assert_eq!(plan.stages[3].base, Base::Scratch);
    let froms: Vec<_> = plan.stages[3]
        .steps
        .iter()
        .map(|step| match &step.action {
            Action::Copy(copy) => format!("{:?}", copy.from),
            _ => String::new(),
        })
        .collect();
    assert_eq!(froms, ["Stage(StageId(2))", "Image(\"registry.example/x:1\")"]);
    assert_eq!(plan.stages[0].name.as_deref(), Some("base"));
}

#[test]
fn a_stage_goes_on_where_its_base_ended() {
    let plan = plan(
        "FROM debian AS A\nENV E=1\nUSER u\nWORKDIR /w\nMAINTAINER m\nSHELL [\"s\"]\nFROM a\nRUN x\nCOPY y z",
    );
    let stage = last(&plan);
    assert!(matches!(stage.base, Base::Stage(stage) if stage.0 == 0));
    let Action::Run(run) = &stage.steps[0].action else { panic!() };
    assert_eq!((run.args.join(" "), run.user.as_str(), run.working_dir.as_str()), ("s x".into(), "u", "/w"));
    assert!(run.env.contains(&"E=1".to_owned()));
    let Action::Copy(copy) = &stage.steps[1].action else { panic!() };
    assert_eq!(copy.destination, "/w/z");
    assert_eq!((stage.author.as_deref(), stage.config.user.as_str()), (Some("m"), "u"));
}

#[test]
fn destinations_are_absolute_and_keep_their_slash() {
    for (destination, expected) in [
        (".", "/w/"),
        ("./", "/w/"),
        ("a", "/w/a"),
        ("a/", "/w/a/"),
        ("a/.", "/w/a/"),
        ("/", "/"),
        ("/a//b/", "/a/b/"),
        ("..", "/"),
        ("../../a", "/a"),
        ("\"a b\"/", "error"),
    ] {
        let text = format!("FROM debian\nWORKDIR /w\nCOPY s {destination}");
        let found = match plan_with(&text, &amd64(), &images()) {
            Ok(plan) => match &last(&plan).steps[1].action {
                Action::Copy(copy) => copy.destination.clone(),
                _ => panic!(),
            },
            Err(_) => "error".into(),
        };
        assert_eq!(found, expected, "{destination}");
    }
}

#[test]
fn triggers_of_the_base_come_first_and_stay_behind() {
    let images =
        with("base", r#"{"OnBuild":["COPY --from=tool /t /t","ENV B=${A:-none}","RUN <<EOF\nx\nEOF"]}"#);
    let plan = plan_with("FROM debian AS tool\nFROM base\nENV A=1", &amd64(), &images).unwrap();
    let stage = last(&plan);
    assert_eq!(history(stage), ["COPY /t /t", "ENV B=none", "RUN /bin/sh -c x\n", "ENV A=1"]);
    assert_eq!(stage.steps[0].at.lines, (2, 2));
    assert_eq!(stage.steps[0].at.text, "COPY --from=tool /t /t");
    assert_eq!(stage.steps[3].config.on_build, None);
    assert_eq!(plan.needed().len(), 2);
    // The same within one file; and not for the grandchildren.
    let plan = self::plan("FROM debian AS a\nONBUILD RUN x\nFROM a AS b\nRUN y\nFROM b\nRUN z");
    let all: Vec<_> = plan.stages.iter().map(|stage| history(stage).join(";")).collect();
    assert_eq!(all, ["ONBUILD RUN x", "RUN /bin/sh -c x;RUN /bin/sh -c y", "RUN /bin/sh -c z"]);
}

#[test]
fn labels_of_the_command_line_are_a_last_step() {
    let labels = BTreeMap::from([("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())]);
    let plan =
        plan_with("FROM debian\nLABEL a=0 c=3", &PlanOptions { labels, ..amd64() }, &images()).unwrap();
    let step = last(&plan).steps.last().unwrap();
    assert_eq!(step.created_by, "LABEL a=1 b=2");
    let labels: Vec<_> =
        step.config.labels.iter().flatten().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(labels, ["a=1", "b=2", "c=3"]);
}

// ---- errors ----

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

// ---- robustness ----

#[test]
fn no_text_makes_the_parser_panic() {
    let pieces = [
        "FROM debian",
        "FROM debian AS a\n",
        "FROM a",
        "RUN",
        " x",
        "\n",
        "\r\n",
        "\\",
        "\\\n",
        "`",
        "# escape=`\n",
        "#",
        "<<EOF",
        "<<-E",
        "EOF",
        "E",
        "\t",
        "[\"a\"",
        "]",
        ",",
        "COPY",
        " --from=",
        "--chmod=",
        "a",
        " ",
        "\"",
        "'",
        "$",
        "${",
        "}",
        ":-",
        "ONBUILD ",
        "ENV ",
        "A=1",
        "LABEL ",
        "ARG ",
        "EXPOSE 1-",
        "99999",
        "HEALTHCHECK ",
        "--interval=",
        "1s",
        "CMD ",
        "VOLUME ",
        "WORKDIR ",
        "..",
        "/",
        "é",
        "\u{feff}",
        "\u{3000}",
        "\0",
        "USER ",
        "STOPSIGNAL ",
        "SHELL ",
        "ADD ",
        "--",
        "=",
    ];
    let mut seed = 42_u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % below
    };
    let (mut parsed, mut planned) = (0, 0);
    for round in 0..40_000 {
        let mut text = if round % 2 == 0 { "FROM debian\n".to_owned() } else { String::new() };
        for _ in 0..1 + random(16) {
            text.push_str(pieces[random(pieces.len())]);
        }
        match Dockerfile::parse("Dockerfile", &text) {
            Err(error) => {
                assert!(told(&error).starts_with("error: reading `Dockerfile`\n  because: "), "{text:?}")
            }
            Ok(dockerfile) => {
                parsed += 1;
                planned += usize::from(dockerfile.plan(&args(&[("A", "${")]), &images()).is_ok());
            }
        }
    }
    assert!(parsed > 1000 && planned > 500, "{parsed} {planned}");
}
