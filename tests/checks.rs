//! The checks of a Dockerfile: what fires, where and with which words; how to ask for them, and what is answered.

use std::collections::BTreeMap;

use outcrop::context::ignore::Ignore;
use outcrop::dockerfile::{self, Checked, PlanOptions, Resolver, Scope};
use outcrop::error::{Error, Result};
use outcrop::image::{ImageConfig, Platform};
use serde_json::{Value, json};

use crate::sandbox::Sandbox;

/// `base` sets HOME_DIR and has a trigger; `arm` is for another machine; `unknown` is not here, and its own.
struct Images;

impl Resolver for Images {
    fn base(&self, reference: &str, _: &Platform) -> Result<ImageConfig> {
        let (architecture, config) = match reference {
            "base" => ("amd64", r#"{"Env":["PATH=/bin","HOME_DIR=/home"]}"#),
            "trigger" => ("amd64", r#"{"OnBuild":["CMD run me"]}"#),
            "shell" => ("amd64", r#"{"Shell":["/bin/bash","-c"]}"#),
            "arm" => ("arm64", "{}"),
            "unknown" => return Ok(ImageConfig::default()),
            _ => return Err(Error::not_found(format!("no image `{reference}`"))),
        };
        let text = format!(
            r#"{{"architecture":"{architecture}","os":"linux","config":{config},"rootfs":{{"type":"layers"}}}}"#
        );
        Ok(serde_json::from_str(&text).unwrap())
    }

    fn is_known(&self, reference: &str, _: &Platform) -> bool {
        reference != "unknown"
    }
}

fn options(build_args: &[(&str, &str)]) -> PlanOptions {
    let platform: Platform = "linux/amd64".parse().unwrap();
    let build_args: BTreeMap<String, String> =
        build_args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    PlanOptions { platform: platform.clone(), build_platform: platform, build_args, ..PlanOptions::default() }
}

fn checked(text: &str, build_args: &[(&str, &str)], ignore: &str) -> Checked {
    let ignore = Ignore::parse(ignore.as_bytes()).unwrap();
    let scope = Scope { all_stages: true, ignore: Some(&ignore) };
    dockerfile::check("Dockerfile", text, &options(build_args), &Images, scope)
}

fn told(checked: &Checked) -> Vec<String> {
    checked.findings.iter().map(ToString::to_string).collect()
}

/// Every finding of each text, none behind a plan that fails.
#[track_caller]
fn assert_findings(cases: &[(&str, &[&str])]) {
    for (text, expected) in cases {
        let checked = checked(text, &[], "");
        assert_eq!(told(&checked), *expected, "{text}");
        assert!(checked.plan.is_ok(), "{text}: {:?}", checked.plan.err());
    }
}

// ---- each check ----

#[test]
fn names_of_stages_are_small_their_own_and_not_reserved() {
    assert_findings(&[
        ("FROM base AS a-1\nFROM base AS b", &[]),
        ("FROM base AS Build", &["StageNameCasing: the stage `Build` is best called `build` (line 1)"]),
        (
            "FROM base AS b\nFROM base AS c\nFROM base AS b",
            &[
                "DuplicateStageName: there is a stage `b` above already; below, the name means this one (line 3)",
            ],
        ),
        (
            "FROM base AS b\nFROM base AS B",
            &[
                "StageNameCasing: the stage `B` is best called `b` (line 2)",
                "DuplicateStageName: there is a stage `B` above already; below, the name means this one (line 2)",
            ],
        ),
        (
            "FROM scratch AS scratch\nFROM base AS context",
            &[
                "ReservedStageName: a stage cannot well be called `scratch`, which is reserved (line 1)",
                "ReservedStageName: a stage cannot well be called `context`, which is reserved (line 2)",
            ],
        ),
        ("FROM scratch\nFROM scratch AS a", &[]),
    ]);
}

#[test]
fn keywords_are_written_alike() {
    assert_findings(&[
        ("FROM base AS a\nRUN x", &[]),
        ("from base as a\nrun x", &[]),
        ("FROM base as a", &["FromAsCasing: `as` stands with `FROM`; write `AS` (line 1)"]),
        ("from base AS a", &["FromAsCasing: `AS` stands with `from`; write `as` (line 1)"]),
        (
            "From base As a\nRUN x",
            &[
                "ConsistentInstructionCasing: `From` stands among instructions in capitals; write `FROM` (line 1)",
            ],
        ),
        (
            "FROM base\ncopy a /\nCOPY b /",
            &[
                "ConsistentInstructionCasing: `copy` stands among instructions in capitals; write `COPY` (line 2)",
            ],
        ),
        (
            "FROM base\ncopy a /\ncopy b /",
            &[
                "ConsistentInstructionCasing: `FROM` stands among instructions in small letters; write `from` (line 1)",
            ],
        ),
        // As many of both: capitals.
        (
            "from base\nRUN x",
            &[
                "ConsistentInstructionCasing: `from` stands among instructions in capitals; write `FROM` (line 1)",
            ],
        ),
        // Those before the first FROM do not count.
        ("arg A\narg B\nFROM base\nRUN <<EOF\nrun\nEOF", &[]),
    ]);
}

#[test]
fn an_empty_line_within_an_instruction_is_found_at_its_end() {
    assert_findings(&[
        ("FROM base\nRUN a \\\n b\n\nRUN c \\\n # note\n d\nRUN e \\\n", &[]),
        (
            "FROM base\nRUN a \\\n\n b\nRUN c",
            &["NoEmptyContinuation: an empty line stands within the RUN that ends here (line 4)"],
        ),
        (
            "FROM base\nRUN cat \\\n\n <<EOF\nx\nEOF",
            &["NoEmptyContinuation: an empty line stands within the RUN that ends here (line 4)"],
        ),
    ]);
}

#[test]
fn commands_are_best_in_json_unless_a_shell_is_chosen() {
    assert_findings(&[
        ("FROM base\nCMD [\"a\"]\nENTRYPOINT [\"b\"]\nRUN c\nHEALTHCHECK CMD d", &[]),
        (
            "FROM base\nCMD a\nENTRYPOINT b",
            &[
                "JSONArgsRecommended: CMD runs a shell that signals do not pass; write `CMD [\"program\", \"argument\"]` (line 2)",
                "JSONArgsRecommended: ENTRYPOINT runs a shell that signals do not pass; write `ENTRYPOINT [\"program\", \"argument\"]` (line 3)",
            ],
        ),
        (
            "FROM base\nCMD ['a']",
            &[
                "JSONArgsRecommended: `['a']` is no JSON and goes to a shell; JSON strings stand in double quotes with commas between (line 2)",
            ],
        ),
        ("FROM base\nSHELL [\"/bin/bash\", \"-c\"]\nCMD a", &[]),
        ("FROM base AS a\nSHELL [\"/bin/bash\", \"-c\"]\nFROM a\nENTRYPOINT a", &[]),
        ("FROM shell\nCMD a", &[]),
        // A trigger's place is the FROM it comes with.
        (
            "FROM scratch\nFROM trigger",
            &[
                "JSONArgsRecommended: CMD runs a shell that signals do not pass; write `CMD [\"program\", \"argument\"]` (line 2)",
            ],
        ),
    ]);
}

#[test]
fn old_forms_are_found() {
    assert_findings(&[
        ("FROM base\nENV A=b C=d\nLABEL e=f", &[]),
        (
            "FROM base\nENV A b c\nLABEL d e",
            &[
                "LegacyKeyValueFormat: `ENV A value` is an old form; write `ENV A=value` (line 2)",
                "LegacyKeyValueFormat: `LABEL d value` is an old form; write `LABEL d=value` (line 3)",
            ],
        ),
        (
            "FROM base\nMAINTAINER me",
            &[
                "MaintainerDeprecated: MAINTAINER is deprecated; write `LABEL org.opencontainers.image.authors=\"..\"` (line 2)",
            ],
        ),
    ]);
}

#[test]
fn variables_in_from_are_declared() {
    let none: &[&str] = &[];
    assert_findings(&[
        ("ARG B=base\nFROM $B", none),
        ("FROM --platform=$BUILDPLATFORM base", none),
        ("ARG D\nFROM base$D", none),
        ("FROM ba${D:-se}", none),
        ("FROM base$TARGETVARIANT", none),
        ("FROM base$tag", &["UndefinedArgInFrom: no ARG before the first FROM declares `tag` (line 1)"]),
        (
            "ARG SUFFIX=\nFROM base$SUFIX$SUFIX",
            &[
                "UndefinedArgInFrom: no ARG before the first FROM declares `SUFIX`; did you mean `SUFFIX`? (line 2)",
            ],
        ),
    ]);
    // Before the error that comes of it.
    let failed = checked("FROM --platform=$BULIDPLATFORM base", &[], "");
    assert_eq!(
        told(&failed),
        [
            "UndefinedArgInFrom: no ARG before the first FROM declares `BULIDPLATFORM`; did you mean `BUILDPLATFORM`? (line 1)"
        ]
    );
    assert_eq!(failed.line_of_error(), Some(1));
}

#[test]
fn from_names_an_image_without_build_arguments() {
    let told = |text: &str, args: &[(&str, &str)]| told(&checked(text, args, ""));
    let none: Vec<String> = Vec::new();
    assert_eq!(told("ARG V=\nFROM base$V", &[("V", "")]), none);
    assert_eq!(told("ARG V\nFROM base$V", &[("V", "")]), none);
    assert_eq!(
        told("ARG IMAGE\nFROM $IMAGE", &[("IMAGE", "base")]),
        [
            "InvalidDefaultArgInFrom: `$IMAGE` names no image unless --build-arg says more: ``; give the ARG a default (line 2)"
        ]
    );
    assert_eq!(
        told("ARG S=e:\nFROM bas$S", &[("S", "e")]),
        [
            "InvalidDefaultArgInFrom: `bas$S` names no image unless --build-arg says more: `base:`; give the ARG a default (line 2)"
        ]
    );
}

#[test]
fn platforms_of_from_are_looked_at() {
    assert_findings(&[
        (
            "FROM --platform=$TARGETPLATFORM base",
            &[
                "RedundantTargetPlatform: `--platform=$TARGETPLATFORM` is what FROM does by itself; leave it out (line 1)",
            ],
        ),
        (
            "FROM --platform=${TARGETPLATFORM} base",
            &[
                "RedundantTargetPlatform: `--platform=${TARGETPLATFORM}` is what FROM does by itself; leave it out (line 1)",
            ],
        ),
        ("FROM --platform=$TARGETOS/$TARGETARCH base", &[]),
        (
            "FROM --platform=linux/amd64 base AS b",
            &[
                "FromPlatformFlagConstDisallowed: `--platform=linux/amd64` holds whatever platform is built for; use a variable such as `$BUILDPLATFORM`, or name the stage after it (line 1)",
            ],
        ),
        ("FROM --platform=linux/amd64 base AS on-amd64\nFROM --platform=linux/amd64 base AS linux", &[]),
        (
            "FROM arm",
            &[
                "InvalidBaseImagePlatform: the base image `arm` is for linux/arm64, and the stage for linux/amd64 (line 1)",
            ],
        ),
        ("ARG P=linux/arm64\nFROM --platform=$P arm", &[]),
        ("FROM unknown", &[]),
    ]);
}

#[test]
fn the_first_workdir_is_absolute() {
    assert_findings(&[
        ("FROM base\nWORKDIR /a\nWORKDIR b", &[]),
        (
            "FROM base\nWORKDIR a\nWORKDIR b",
            &[
                "WorkdirRelativePath: where `a` lies is for the base image to say; begin with an absolute WORKDIR (line 2)",
            ],
        ),
        ("FROM base\nWORKDIR $HOME_DIR", &[]),
        ("FROM base AS a\nWORKDIR /a\nFROM a\nWORKDIR b", &[]),
        (
            "FROM base AS a\nWORKDIR /a\nFROM base\nWORKDIR b",
            &[
                "WorkdirRelativePath: where `b` lies is for the base image to say; begin with an absolute WORKDIR (line 4)",
            ],
        ),
    ]);
}

#[test]
fn variables_are_set_before_they_are_used() {
    assert_findings(&[
        ("FROM base\nARG a\nWORKDIR /$a$PATH$HOME_DIR\nRUN echo $never", &[]),
        ("FROM base AS a\nARG x=1\nFROM a\nCOPY $x /", &[]),
        (
            "FROM base\nCOPY a$x$x /\nARG x=1",
            &["UndefinedVar: `$x` is not set and stands for nothing (line 2)"],
        ),
        (
            "FROM base\nARG DIR_ASSETS=a\nCOPY a$DIR_ASSET /",
            &[
                "UndefinedVar: `$DIR_ASSET` is not set and stands for nothing; did you mean `DIR_ASSETS`? (line 3)",
            ],
        ),
        (
            "FROM base\nENV PATH=$PAHT:/bin PAHT=1",
            &["UndefinedVar: `$PAHT` is not set and stands for nothing; did you mean `PATH`? (line 2)"],
        ),
        ("FROM base\nENV A=${B:-c}${D:+e}\nEXPOSE 8$x", &[]),
        ("FROM base\nARG A=$x", &["UndefinedVar: `$x` is not set and stands for nothing (line 2)"]),
        (
            "FROM base\nCOPY <<EOF <<\"END\" /\n$x\nEOF\n$y\nEND",
            &["UndefinedVar: `$x` is not set and stands for nothing (line 2)"],
        ),
    ]);
}

#[test]
fn a_base_that_is_not_here_may_set_anything() {
    let checked = checked("FROM unknown AS a\nFROM a\nWORKDIR /$x", &[], "");
    assert_eq!(told(&checked), Vec::<String>::new());
    assert_eq!(
        checked.plan.unwrap().warnings,
        [
            "Dockerfile: line 2: variables that are not set were not checked: the base image, which may set them, is not here"
        ]
    );
}

#[test]
fn only_the_last_of_several_commands_counts() {
    assert_findings(&[
        ("FROM base AS a\nCMD [\"a\"]\nFROM a\nCMD [\"b\"]", &[]),
        (
            "FROM base\nCMD [\"a\"]\nENTRYPOINT [\"a\"]\nHEALTHCHECK NONE\nRUN x\nCMD [\"b\"]\nENTRYPOINT [\"b\"]\nHEALTHCHECK CMD b",
            &[
                "MultipleInstructionsDisallowed: this CMD means nothing: another stands below it in the same stage (line 2)",
                "MultipleInstructionsDisallowed: this ENTRYPOINT means nothing: another stands below it in the same stage (line 3)",
                "MultipleInstructionsDisallowed: this HEALTHCHECK means nothing: another stands below it in the same stage (line 4)",
            ],
        ),
    ]);
}

#[test]
fn names_that_sound_like_secrets_are_found() {
    const USE: &str =
        "sounds like a secret, which the image would tell everybody; use `RUN --mount=type=secret`";
    let text = "ARG GLOBAL_TOKEN\nFROM base\nARG SECRET_PHRASE a auth=1\nENV password=1 My_Key=\nENV git_token x\n\
                ENV PUBLIC_KEY=1 KEY_FILE=1 TOKEN_VERSION=1 KEYS=1 MONKEY=1 secrets=1";
    let expected = [
        format!("SecretsUsedInArgOrEnv: ARG `SECRET_PHRASE` {USE} (line 3)"),
        format!("SecretsUsedInArgOrEnv: ARG `auth` {USE} (line 3)"),
        format!("SecretsUsedInArgOrEnv: ENV `password` {USE} (line 4)"),
        format!("SecretsUsedInArgOrEnv: ENV `My_Key` {USE} (line 4)"),
        "LegacyKeyValueFormat: `ENV git_token value` is an old form; write `ENV git_token=value` (line 5)"
            .into(),
        format!("SecretsUsedInArgOrEnv: ENV `git_token` {USE} (line 5)"),
    ];
    assert_eq!(told(&checked(text, &[], "")), expected);
}

#[test]
fn what_the_ignore_file_leaves_out_is_not_copied() {
    let told =
        |text: &str, ignore: &str| told(&checked(&format!("FROM base AS a\nFROM base\n{text}"), &[], ignore));
    let none: Vec<String> = Vec::new();
    assert_eq!(
        told("COPY f ./g/h /\nADD f /\nCOPY --from=a f /", "f\ng"),
        [
            "CopyIgnoredFile: COPY names `f`, which the ignore file leaves out (line 3)",
            "CopyIgnoredFile: COPY names `./g/h`, which the ignore file leaves out (line 3)",
            "CopyIgnoredFile: ADD names `f`, which the ignore file leaves out (line 4)",
        ]
    );
    assert_eq!(told("COPY f /\nCOPY . /", "x\n"), none);
    assert_eq!(told("COPY f /", "f\n!f/x"), none);
    assert_eq!(
        told("COPY . /", "*\n"),
        ["CopyIgnoredFile: COPY names `.`, which the ignore file leaves out (line 3)"]
    );
}

#[test]
fn expose_names_ports_and_small_protocols() {
    assert_findings(&[
        ("FROM base\nEXPOSE 80 53/udp 90-92/tcp", &[]),
        (
            "FROM base\nEXPOSE 80/TCP",
            &["ExposeProtoCasing: the protocol of `80/TCP` is best written `tcp` (line 2)"],
        ),
        (
            "FROM base\nENV P=1:2\nEXPOSE 127.0.0.1:80:80 $P/Udp",
            &[
                "ExposeInvalidFormat: `127.0.0.1:80:` of `127.0.0.1:80:80` means nothing in EXPOSE; write `80` (line 3)",
                "ExposeInvalidFormat: `1:` of `1:2/Udp` means nothing in EXPOSE; write `2/Udp` (line 3)",
                "ExposeProtoCasing: the protocol of `1:2/Udp` is best written `udp` (line 3)",
            ],
        ),
    ]);
}

#[test]
fn a_comment_above_a_stage_or_an_argument_begins_with_its_name() {
    let on = "# check=experimental=InvalidDefinitionDescription\n";
    let text = "# something\nARG a\n# b is it\nARG a b\n# else\nARG a b\n\n# far\n\nARG a\n# far\n#\nARG a\n# tool is it\n\
                FROM base AS Tool\n# none\nFROM base\n# none\nFROM base AS c";
    assert_findings(&[
        (text, &["StageNameCasing: the stage `Tool` is best called `tool` (line 15)"]),
        (
            &format!("{on}{text}"),
            &[
                "InvalidDefinitionDescription: the comment above does not begin with the name; write `# a what it is` (line 3)",
                "InvalidDefinitionDescription: the comment above does not begin with the name; write `# NAME what it is` (line 7)",
                "StageNameCasing: the stage `Tool` is best called `tool` (line 16)",
                "InvalidDefinitionDescription: the comment above does not begin with the name; write `# c what it is` (line 20)",
            ],
        ),
    ]);
}

#[test]
fn every_check_has_its_row_in_the_docs() {
    let text = include_str!("../docs/checks.md");
    let listed: Vec<&str> = text.lines().filter(|line| line.starts_with("| <a id=")).collect();
    let begins = dockerfile::checks().map(|check| {
        let (name, anchor) = (check.name, check.name.to_lowercase());
        format!("| <a id=\"{anchor}\"></a>{name} | {} | ", check.description)
    });
    let begins: Vec<String> = begins.collect();
    assert_eq!((listed.len(), begins.len()), (22, 22));
    for (line, begin) in listed.iter().zip(&begins) {
        assert!(line.starts_with(begin), "{line}\n{begin}");
    }
}

// ---- what is asked for ----

#[test]
fn checks_are_skipped_for_a_file_or_for_an_instruction() {
    const CASING: &str = "FromAsCasing: `as` stands with `FROM`; write `AS`";
    const COPY: &str =
        "ConsistentInstructionCasing: `copy` stands among instructions in capitals; write `COPY`";
    let told = |directive: &str, args: &[(&str, &str)]| {
        let checked = checked(&format!("{directive}FROM base as b\ncopy a /\nRUN x"), args, "");
        let told = told(&checked).into_iter().map(|line| line.rsplit_once(" (line").unwrap().0.to_owned());
        let error = checked.plan.err().map(|error| {
            std::error::Error::source(&error).map_or(error.message().to_owned(), ToString::to_string)
        });
        (told.collect::<Vec<_>>(), error)
    };
    let both = vec![CASING.to_owned(), COPY.to_owned()];
    let fails = |line: usize, names: &str| Some(format!("line {line}: the checks found something: {names}"));
    let argument = "BUILDKIT_DOCKERFILE_CHECK";
    for (directive, args, expected) in [
        ("", &[][..], (both.clone(), None)),
        ("# check=skip=all\n", &[], (vec![], None)),
        ("# check=skip=all;error=true\n", &[], (vec![], None)),
        ("#check = skip = FromAsCasing , ConsistentInstructionCasing\n", &[], (vec![], None)),
        ("# check=skip=ConsistentInstructionCasing\n", &[], (vec![CASING.into()], None)),
        ("# check=error=true\n", &[], (both.clone(), fails(2, "ConsistentInstructionCasing, FromAsCasing"))),
        (
            "# check=skip=ConsistentInstructionCasing;error=true\n",
            &[],
            (vec![CASING.into()], fails(2, "FromAsCasing")),
        ),
        // The build argument goes before the directive.
        ("# check=skip=all\n", &[(argument, "error=true;skip=FromAsCasing")], {
            (vec![COPY.into()], fails(3, "ConsistentInstructionCasing"))
        }),
        ("# check=error=true\n", &[(argument, "skip=all")], (vec![], None)),
        // Right above an instruction, for that one alone.
        ("# comment\n\n# check=skip=FromAsCasing\n", &[], (vec![COPY.into()], None)),
        ("# comment\n# check=skip=FromAsCasing\n\n", &[], (both.clone(), None)),
        ("# comment\n# check=skip=what;no\n", &[], (both.clone(), None)),
    ] {
        assert_eq!(told(directive, args), expected, "{directive} {args:?}");
    }
}

#[test]
fn what_cannot_be_asked_is_said() {
    let checked_text = |text: &str, args: &[(&str, &str)]| checked(text, args, "").plan;
    let error = checked_text("# check=skp=all\nFROM base", &[]).unwrap_err();
    assert_eq!(
        std::error::Error::source(&error).unwrap().to_string(),
        "line 1: `skp` is nothing that checks can be asked\n  1 | # check=skp=all\n    | ^^^^^^^^^^^^^^^"
    );
    let error = checked_text("FROM base", &[("BUILDKIT_DOCKERFILE_CHECK", "error=maybe")]).unwrap_err();
    assert_eq!(
        error.message(),
        "the build argument BUILDKIT_DOCKERFILE_CHECK: `error` is `true` or `false`, not `maybe`"
    );
    assert_eq!(
        checked_text("# check=skip=FromAsCasin,Nonsense\nFROM base", &[]).unwrap().warnings,
        [
            "Dockerfile: `FromAsCasin` is no check; did you mean `FromAsCasing`?",
            "Dockerfile: `Nonsense` is no check"
        ]
    );
}

#[test]
fn findings_above_an_error_are_told() {
    let checked = checked("FROM base AS Bad\nMAINTAINER me\nBADCMD\nFROM base AS Worse", &[], "");
    assert_eq!(
        told(&checked),
        [
            "StageNameCasing: the stage `Bad` is best called `bad` (line 1)",
            "MaintainerDeprecated: MAINTAINER is deprecated; write `LABEL org.opencontainers.image.authors=\"..\"` (line 2)",
        ]
    );
    assert_eq!(checked.line_of_error(), Some(3));
}

// ---- from the command line ----

const TWO: &str = "FROM base AS tools\nCOPY $foo /\n\nFROM base\nRUN touch /made\nCMD echo \\\n  hello\n";

fn sandbox(dockerfile: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.base_image("base");
    sandbox.dockerfile(dockerfile);
    sandbox.file("a", "a");
    sandbox
}

#[test]
fn check_shows_the_lines_and_builds_nothing() {
    let sandbox = sandbox("FROM base\nRUN touch /made\nCMD echo \\\n  hello\n\nWORKDIR app\n");
    let outcome = sandbox.outcrop(&["build", "--check", "."]).fails(1);
    let expected = "Check complete, 2 warnings have been found!

WARNING: JSONArgsRecommended - docs/checks.md#jsonargsrecommended
CMD runs a shell that signals do not pass; write `CMD [\"program\", \"argument\"]`
Dockerfile:3
--------------------
   2 |     RUN touch /made
   3 | >>> CMD echo \\
   4 | >>>   hello
   5 |
--------------------

WARNING: WorkdirRelativePath - docs/checks.md#workdirrelativepath
where `app` lies is for the base image to say; begin with an absolute WORKDIR
Dockerfile:6
--------------------
   4 |       hello
   5 |
   6 | >>> WORKDIR app
   7 |
--------------------
";
    assert_eq!((outcome.stdout().as_str(), outcome.stderr().as_str()), (expected, ""));
    assert_eq!(sandbox.outcrop(&["images", "-q"]).ok().lines().len(), 1, "only the base");
    sandbox.outcrop(&["build", "--call", "check,ignorestatus=true", "."]).ok().says("WorkdirRelativePath");
}

#[test]
fn a_clean_file_is_said_to_be_clean_and_an_absent_base_is_not_pulled() {
    let sandbox = Sandbox::new();
    sandbox.dockerfile("FROM localhost:1/nowhere/image:1\nUSER $WHO\n");
    let outcome = sandbox.outcrop(&["build", "--call=check", "."]).ok();
    assert_eq!(outcome.stdout(), "Check complete, no warnings found.\n");
    outcome.complains("line 1: variables that are not set were not checked");
}

#[test]
fn without_a_target_all_stages_are_checked() {
    let sandbox = sandbox(TWO);
    let names = |args: &[&str]| {
        let mut all = vec!["build", "--call", "check,format=json"];
        all.extend(args);
        all.push(".");
        let answer = sandbox.outcrop(&all).fails(1).json();
        let warnings = answer["warnings"].as_array().unwrap().clone();
        warnings.iter().map(|warning| warning["ruleName"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // The source that stands for nothing is an error of its stage besides.
    assert_eq!(names(&[]), ["UndefinedVar"]);
    assert_eq!(names(&["--target", "1"]), ["JSONArgsRecommended"]);
}

#[test]
fn check_answers_programs_in_json() {
    let sandbox = sandbox("FROM base AS B\nCMD a \\\n b\n");
    let answer = sandbox.outcrop(&["build", "--call=check,format=json", "."]).fails(1).json();
    let expected = json!({
        "warnings": [
            {
                "ruleName": "StageNameCasing",
                "description": "The name of a stage is best written in small letters",
                "url": "docs/checks.md#stagenamecasing",
                "detail": "the stage `B` is best called `b`",
                "location": { "ranges": [{ "start": { "line": 1 }, "end": { "line": 1 } }] },
            },
            {
                "ruleName": "JSONArgsRecommended",
                "description": "CMD and ENTRYPOINT in JSON form run the program itself, so that signals reach it and not a shell",
                "url": "docs/checks.md#jsonargsrecommended",
                "detail": "CMD runs a shell that signals do not pass; write `CMD [\"program\", \"argument\"]`",
                "location": { "ranges": [{ "start": { "line": 2 }, "end": { "line": 3 } }] },
            },
        ],
        "sources": [{
            "filename": "Dockerfile",
            "language": "Dockerfile",
            "data": "RlJPTSBiYXNlIEFTIEIKQ01EIGEgXAogYgo=",
        }],
    });
    assert_eq!(answer, expected);
    sandbox.dockerfile("FROM base\n");
    let answer = sandbox.outcrop(&["build", "--call=check,format=json", "."]).ok().json();
    assert_eq!(answer["warnings"], json!([]));
    assert_eq!(answer.get("buildError"), None);
}

#[test]
fn an_error_of_the_file_is_part_of_the_answer() {
    let sandbox = sandbox("FROM base AS B\nRUNN x\n");
    let outcome = sandbox.outcrop(&["build", "--check", "."]).fails(1);
    let outcome = outcome.says("StageNameCasing").complains("unknown instruction `RUNN`");
    assert!(!outcome.stdout().contains("RUNN`"));
    let answer = sandbox.outcrop(&["build", "--call=check,format=json", "."]).fails(1).json();
    assert_eq!(answer["warnings"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        answer["buildError"],
        json!({
            "message": "reading `Dockerfile`\nline 2: unknown instruction `RUNN`\n  2 | RUNN x\n    | ^^^^",
            "location": { "ranges": [{ "start": { "line": 2 }, "end": { "line": 2 } }] },
        })
    );
}

#[test]
fn a_build_tells_what_checks_found_when_it_ends() {
    let sandbox = sandbox("FROM base AS B\nRUN true\nCMD a\n");
    let outcome = sandbox.outcrop(&["build", "--progress", "plain", "-t", "it", "."]).ok();
    let lines = outcome.lines();
    assert_eq!(
        lines[lines.len() - 3..],
        [
            "2 warnings found (--check shows the lines):",
            " - StageNameCasing: the stage `B` is best called `b` (line 1)",
            " - JSONArgsRecommended: CMD runs a shell that signals do not pass; write `CMD [\"program\", \"argument\"]` (line 3)",
        ]
    );
    sandbox.dockerfile("FROM base AS B\nRUN false\n");
    let failed = sandbox.outcrop(&["build", "--progress", "plain", "."]);
    assert_ne!(failed.code(), Some(0));
    assert!(failed.stdout().contains("1 warning found"), "{}", failed.stdout());
    let raw = sandbox.outcrop(&["build", "--progress", "rawjson", "."]);
    let events: Vec<Value> = raw.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let found: Vec<&Value> =
        events.iter().filter(|event| event["event"] == "findings").map(|event| &event["findings"]).collect();
    assert_eq!(found, [&json!(["StageNameCasing: the stage `B` is best called `b` (line 1)"])]);
}

#[test]
fn findings_that_are_errors_run_nothing() {
    let sandbox = sandbox("# check=error=true\nFROM base\nRUN touch /made\nCMD a\n");
    let outcome = sandbox.outcrop(&["build", "--progress", "plain", "."]).fails(1);
    let outcome = outcome
        .says("1 warning found")
        .says_not("Step 1")
        .complains("the checks found something: JSONArgsRecommended");
    assert_eq!(
        outcome.stderr(),
        "error: building `.`\n  because: reading `Dockerfile`\n  because: line 4: the checks found something: JSONArgsRecommended\nhint: change it, or have it skipped with `# check=skip=NAME`\n"
    );
    sandbox
        .outcrop(&["build", "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all", "."])
        .ok()
        .says_not("warning");
}

const TOLD: &str = "# VERSION what is built
ARG VERSION=1
# SUFFIX is added
ARG SUFFIX=-$VERSION
ARG UNUSED
ARG IMAGE=base
# tools for the build
# tools makes what app copies
FROM $IMAGE AS tools
ARG VERSION
ARG NAME=t$VERSION
RUN --mount=type=secret,id=token,required --mount=type=ssh true

# app is all
FROM --platform=$BUILDPLATFORM base AS App
ARG TARGETARCH
# MODE how it runs
ARG MODE
COPY --from=tools /etc/passwd /
FROM base
";

#[test]
fn targets_are_listed() {
    let sandbox = sandbox(TOLD);
    let text = sandbox.outcrop(&["build", "--call=targets", "."]).ok().stdout();
    assert_eq!(text, "TARGET      DESCRIPTION\ntools       for the build\napp         is all\n(default)\n");
    let answer = sandbox.outcrop(&["build", "--call=targets,format=json", "."]).ok().json();
    let at = |line: u32| json!({ "ranges": [{ "start": { "line": line }, "end": { "line": line } }] });
    assert_eq!(
        answer["targets"],
        json!([
            { "name": "tools", "description": "for the build", "base": "$IMAGE", "location": at(9) },
            {
                "name": "app",
                "description": "is all",
                "base": "base",
                "platform": "$BUILDPLATFORM",
                "location": at(15),
            },
            { "default": true, "base": "base", "location": at(20) },
        ])
    );
}

#[test]
fn an_outline_tells_what_a_target_takes() {
    let sandbox = sandbox(TOLD);
    let shown = sandbox
        .outcrop(&["build", "--call=outline", "--target=app", "--build-arg", "VERSION=2", "."])
        .ok()
        .stdout();
    assert_eq!(
        shown,
        "TARGET:        app
DESCRIPTION:   is all

BUILD ARG   VALUE     DESCRIPTION
IMAGE       base
VERSION     2
NAME        t2
MODE                  how it runs

SECRET    REQUIRED
token     true

SSH       REQUIRED
default
"
    );
    assert_eq!(sandbox.outcrop(&["build", "--call=outline", "."]).ok().stdout(), "");
    let answer = sandbox.outcrop(&["build", "--call=outline,format=json", "--target=tools", "."]).ok().json();
    let at = |line: u32| json!({ "ranges": [{ "start": { "line": line }, "end": { "line": line } }] });
    assert_eq!(answer["name"], "tools");
    assert_eq!(
        answer["args"],
        json!([
            { "name": "VERSION", "description": "what is built", "value": "1", "location": at(2) },
            { "name": "IMAGE", "value": "base", "location": at(6) },
            { "name": "NAME", "value": "t1", "location": at(11) },
        ])
    );
    assert_eq!(answer["secrets"], json!([{ "name": "token", "required": true, "location": at(12) }]));
    assert_eq!(answer["ssh"], json!([{ "name": "default", "location": at(12) }]));
}

#[test]
fn an_unknown_method_is_refused_by_name() {
    let sandbox = sandbox("FROM base\n");
    sandbox.outcrop(&["build", "--call=lnt", "."]).fails(1).complains("unknown method `lnt` in --call");
    sandbox.outcrop(&["build", "--call=check,format=xml", "."]).fails(1).complains("unknown format `xml`");
    sandbox.outcrop(&["build", "--call=build", "-t", "it", "."]).ok().says("Successfully tagged it:latest");
}
