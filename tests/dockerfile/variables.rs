//! Variables, arguments and environments.

use super::*;

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
