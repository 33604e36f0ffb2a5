//! `--change` of `commit` and `import`: instructions of a Dockerfile that change how an image runs.

use crate::dockerfile::{Dockerfile, PlanOptions, Resolver};
use crate::error::{Context as _, Error, Result};
use crate::image::{ImageConfig, Platform, RunConfig};
use crate::plan::Action;

/// Docker's list.
const ALLOWED: [&str; 9] =
    ["CMD", "ENTRYPOINT", "ENV", "EXPOSE", "LABEL", "ONBUILD", "USER", "VOLUME", "WORKDIR"];

/// `changes` are lines as in a Dockerfile. `Invalid` for one that is wrong or of another kind.
pub fn apply(config: RunConfig, changes: &[String]) -> Result<RunConfig> {
    if changes.is_empty() {
        return Ok(config);
    }
    let is_path = |variable: &String| variable.starts_with("PATH=");
    let has_path = config.env.iter().flatten().any(is_path);
    let mut text = String::from("FROM image\n");
    for change in changes {
        let word = change.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        if !ALLOWED.contains(&word.as_str()) {
            return Err(Error::invalid(format!("`{word}` is no instruction for --change"))
                .hint(format!("those are: {}", ALLOWED.join(", "))));
        }
        text.push_str(change);
        text.push('\n');
    }
    let doing = || "reading --change";
    let image = Known(ImageConfig { config, ..ImageConfig::default() });
    let plan = Dockerfile::parse("--change", &text).context(doing)?;
    let plan = plan.plan(&PlanOptions { platform: Platform::host(), ..PlanOptions::default() }, &image);
    let plan = plan.context(doing)?;
    let stage = &plan.stages[plan.target.0];
    if stage.steps.iter().any(|step| matches!(step.action, Action::Run(_) | Action::Copy(_))) {
        return Err(Error::invalid("--change runs and copies nothing"));
    }
    let mut changed = stage.steps.last().map_or(&stage.config, |step| &step.config).as_ref().clone();
    // A stage has a PATH whatever its image says; a change of something else brings none.
    if !has_path && !text.contains("PATH") {
        changed.env = changed.env.map(|env| env.into_iter().filter(|one| !is_path(one)).collect());
        changed.env = changed.env.filter(|env: &Vec<String>| !env.is_empty());
    }
    Ok(changed)
}

/// What stands below is known.
struct Known(ImageConfig);

impl Resolver for Known {
    fn base(&self, _: &str, _: &Platform) -> Result<ImageConfig> {
        Ok(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(changes: &[&str]) -> Result<RunConfig> {
        let config = RunConfig { env: Some(vec!["PATH=/bin".into(), "A=1".into()]), ..RunConfig::default() };
        apply(config, &changes.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn changes_are_made_in_order() {
        let config =
            changed(&["CMD [\"/serve\", \"-x\"]", "env A=2 B=$A", "WORKDIR /srv", "USER web"]).unwrap();
        assert_eq!(config.cmd.unwrap(), ["/serve", "-x"]);
        assert_eq!(config.env.unwrap(), ["PATH=/bin", "A=2", "B=1"]);
        assert_eq!((config.working_dir.as_str(), config.user.as_str()), ("/srv", "web"));
        assert_eq!(changed(&[]).unwrap().env.unwrap().len(), 2);
        let bare = |line: &str| apply(RunConfig::default(), &[line.to_owned()]).unwrap().env;
        assert_eq!(bare("ENV A=1").unwrap(), ["A=1"]);
        assert_eq!(bare("ENV PATH=/x").unwrap(), ["PATH=/x"]);
        assert_eq!(bare("CMD x"), None);
    }

    #[test]
    fn what_would_run_is_refused() {
        for line in ["RUN true", "FROM x", "COPY a b", ""] {
            assert!(
                changed(&[line]).unwrap_err().message().ends_with("is no instruction for --change"),
                "{line}"
            );
        }
        assert!(changed(&["CMD a\nRUN b"]).is_err());
    }
}
