//! The Dockerfile language from outside: text and options in, a plan or an error out, both compared whole.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use outcrop::dockerfile::{Dockerfile, PlanOptions, Resolver};
use outcrop::error::{Error, Kind, Result};
use outcrop::image::{ImageConfig, Platform};
use outcrop::plan::{Action, Base, CopyFrom, Plan, Stage};

/// Base images by name; what is not here does not exist.
#[derive(Default)]
struct Images {
    known: BTreeMap<String, ImageConfig>,
    asked: std::cell::RefCell<Vec<String>>,
}

impl Resolver for Images {
    fn base(&self, reference: &str, platform: &Platform) -> Result<ImageConfig> {
        self.asked.borrow_mut().push(format!("{reference} {platform}"));
        match self.known.get(reference) {
            Some(config) => Ok(config.clone()),
            None => Err(Error::not_found("looked in the store and at docker.io").hint("check the name")),
        }
    }
}

fn images() -> Images {
    let mut images = Images::default();
    images.known.insert("debian".into(), ImageConfig::default());
    images
}

fn with(name: &str, config: &str) -> Images {
    let mut images = images();
    let config =
        format!(r#"{{"architecture":"amd64","os":"linux","config":{config},"rootfs":{{"type":"layers"}}}}"#);
    images.known.insert(name.into(), serde_json::from_str(&config).unwrap());
    images
}

fn amd64() -> PlanOptions {
    let platform: Platform = "linux/amd64".parse().unwrap();
    PlanOptions { platform: platform.clone(), build_platform: platform, ..PlanOptions::default() }
}

fn args(pairs: &[(&str, &str)]) -> PlanOptions {
    let build_args = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    PlanOptions { build_args, ..amd64() }
}

fn plan_with(text: &str, options: &PlanOptions, images: &Images) -> Result<Plan> {
    Dockerfile::parse("Dockerfile", text)?.plan(options, images)
}

fn plan(text: &str) -> Plan {
    plan_with(text, &amd64(), &images()).unwrap_or_else(|error| panic!("{}", told(&error)))
}

fn last(plan: &Plan) -> &Stage {
    &plan.stages[plan.target.0]
}

/// As the command line prints it.
fn told(error: &Error) -> String {
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

fn refused(text: &str) -> Error {
    plan_with(text, &amd64(), &images()).map(|plan| format!("{plan:?}")).expect_err(text)
}

fn history(stage: &Stage) -> Vec<&str> {
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
        (&CopyFrom::Context, &[".".to_owned()][..], "/var/www/html/")
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
