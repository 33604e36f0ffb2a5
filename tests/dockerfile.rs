//! The Dockerfile language from outside: text and options in, a plan or an error out, both compared whole.

mod errors;
mod forms;
mod heredocs;
mod lines;
mod stages;
mod variables;

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
