//! The forms of instructions, and what each adds to the configuration.

use super::*;

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
