//! Dockerfiles: parsed and planned; errors show a place that is there; what was planned holds together.

use outcrop::dockerfile::{Dated, Dockerfile, PlanOptions, Resolver};
use outcrop::error::{Error, Result};
use outcrop::image::{ImageConfig, Platform};
use outcrop::plan::{Action, Plan};

/// Every image exists, and some have triggers.
struct Images;

impl Resolver for Images {
    fn base(&self, reference: &str, _: &Platform) -> Result<ImageConfig> {
        let mut config = ImageConfig::default();
        config.config.env = Some(vec!["E=env".into()]);
        match reference {
            "absent" => return Err(Error::not_found("no such image")),
            "triggers" => config.config.on_build = Some(vec!["COPY --from=0 a b".into(), "ENV T=$E".into()]),
            "broken" => config.config.on_build = Some(vec!["RUNN x".into()]),
            _ => {}
        }
        Ok(config)
    }

    fn time(&self, of: &Dated) -> Result<Option<i64>> {
        Ok((*of != Dated::Context).then_some(7))
    }
}

pub fn check(data: &[u8]) {
    let parsed = Dockerfile::read("f", data);
    assert_eq!(shown(&parsed), shown(&Dockerfile::read("f", data)));
    let text = String::from_utf8_lossy(data);
    let dockerfile = match parsed {
        Ok(dockerfile) => dockerfile,
        Err(error) => return place(&text, &error),
    };
    let platform: Platform = "linux/arm64".parse().unwrap();
    let mut options =
        PlanOptions { platform: platform.clone(), build_platform: platform, ..PlanOptions::default() };
    options.build_args.insert("A".into(), "${V:-given}".into());
    options.labels.insert("l".into(), "v".into());
    let planned = dockerfile.plan(&options, &Images);
    assert_eq!(shown(&planned), shown(&dockerfile.plan(&options, &Images)));
    match planned {
        Err(error) => place(&text, &error),
        Ok(plan) => holds(&text, &plan, &options),
    }
}

fn shown<T: std::fmt::Debug>(result: &Result<T>) -> String {
    format!("{result:?}")
}

/// `  3 | RUN x` is the third line, and the carets below it stand under a part of it.
fn place(text: &str, error: &Error) {
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        message = format!("{message}\n{cause}");
        source = cause.source();
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines: Vec<&str> = text.split('\n').map(|line| line.trim_end_matches('\r')).collect();
    let drawn: Vec<&str> = message.split('\n').collect();
    for pair in drawn.windows(2) {
        let Some((number, line)) = pair[0].strip_prefix("  ").and_then(|rest| rest.split_once(" | ")) else {
            continue;
        };
        let Some(carets) = pair[1].trim_start().strip_prefix("| ") else { continue };
        let Ok(number) = number.parse::<usize>() else { continue };
        if !carets.trim_matches(['\t', ' ', '^']).is_empty() || !carets.contains('^') {
            continue;
        }
        assert_eq!(lines.get(number - 1), Some(&line), "{message}");
        // One caret behind the end says that something is missing.
        assert!(carets.chars().count() <= line.chars().count() + 1, "{message}");
    }
}

fn holds(text: &str, plan: &Plan, options: &PlanOptions) {
    let lines = text.split('\n').count();
    let needed = plan.needed();
    assert!(needed.contains(&plan.target));
    assert_eq!(plan.step_count(), needed.iter().map(|id| 1 + plan.stages[id.0].steps.len()).sum::<usize>());
    for (number, stage) in plan.stages.iter().enumerate() {
        assert!(stage.uses().all(|used| used.0 < number));
        for step in &stage.steps {
            let (first, last) = step.at.lines;
            assert!(1 <= first && first <= last && last <= lines, "{:?}", step.at);
            assert!(!step.created_by.contains('\0'));
            let config = &step.config;
            assert!(config.working_dir.is_empty() || config.working_dir.starts_with('/'));
            let names: Vec<&str> =
                config.env.iter().flatten().map(|entry| entry.split_once('=').expect("a value").0).collect();
            let mut once = names.clone();
            once.sort_unstable();
            once.dedup();
            assert_eq!(once.len(), names.len(), "a name stands in the environment twice");
            match &step.action {
                Action::Run(run) => {
                    assert!(!run.args.is_empty());
                    let names: Vec<&str> =
                        run.env.iter().filter_map(|entry| Some(entry.split_once('=')?.0)).collect();
                    assert_eq!(names.len(), run.env.len());
                }
                Action::Copy(copy) => {
                    assert!(copy.destination.starts_with('/'));
                    assert!(!copy.sources.is_empty() || !copy.inline.is_empty());
                }
                Action::Workdir { path, .. } => assert!(path.starts_with('/') && path.len() > 1),
                Action::Config => {}
            }
            alone(text, step, options);
        }
    }
}

/// An instruction on a line of its own, as the plan tells it, is that instruction again.
fn alone(text: &str, step: &outcrop::plan::Step, options: &PlanOptions) {
    let said = &step.at.text;
    let simple = ["RUN ", "CMD ", "ENTRYPOINT ", "SHELL ", "USER ", "STOPSIGNAL "];
    if !simple.iter().any(|keyword| said.starts_with(keyword)) || said.contains("<<") || text.contains('`') {
        return;
    }
    // What ends in an escape goes on, on a line of its own.
    if said.ends_with('\\') || said.contains('$') || text.contains("SHELL") || text.contains("ARG") {
        return;
    }
    let again = Dockerfile::parse("f", &format!("FROM x\n{said}\n")).unwrap().plan(options, &Images).unwrap();
    let twin = &again.stages[0].steps[0];
    assert_eq!(&twin.at.text, said);
    assert_eq!(twin.created_by, step.created_by);
}
