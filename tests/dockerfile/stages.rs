//! Stages, what they are built on, and triggers.

use super::*;

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
