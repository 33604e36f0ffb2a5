//! From instructions to a plan: which stages are needed, what they stand on, what each step does.

use std::collections::HashMap;
use std::sync::Arc;

use super::check::{self, BaseSeen, Earlier, FromSeen, Notes, Place, StepSeen};
use super::epoch;
use super::expand::{Expansion, Mode};
use super::instruction::{self, Effect, Instruction, Step};
use super::nearest::did_you_mean;
use super::outline::{Argued, GlobalArg};
use super::source::{Problem, Source};
use super::stage::{Names, StageState, Surroundings, Variables, expand_with, is_proxy};
use super::statement::{Statement, Word};
use super::{Dockerfile, PlanOptions, Resolver, Scope, StageText, lines, syntax};
use crate::error::{Error, Result};
use crate::image::{ImageConfig, Platform, RunConfig};
use crate::plan::{self, At, Base, CopyFrom, Plan, StageId};

/// A plan, and what the build can be told.
pub(super) struct Planned {
    pub(super) plan: Plan,
    pub(super) globals: Vec<GlobalArg>,
    /// By stage.
    pub(super) argued: Vec<Vec<Argued>>,
}

pub(super) fn plan(
    dockerfile: &Dockerfile,
    options: &PlanOptions,
    resolver: &dyn Resolver,
    scope: Scope<'_>,
    notes: &mut Notes,
) -> Result<Planned> {
    let target = target(dockerfile, options)?;
    check_file(dockerfile, options, target, notes);
    let mut options = options.clone();
    let (mut globals, global_args) = globals(dockerfile, &options, target)?;
    let epoch = epoch::resolve(dockerfile, &mut options, &mut globals, resolver)?;
    let options = &options;
    let names = Names(dockerfile.stages.iter().map(|stage| stage.name().map(str::to_lowercase)).collect());
    let around = Surroundings { options, globals: &globals, names: &names, escape: dockerfile.escape };
    let mut planner = Planner {
        dockerfile,
        around,
        resolver,
        scope,
        looked_up: HashMap::new(),
        warnings: Vec::new(),
        notes,
        earlier: Vec::new(),
        argued: Vec::new(),
    };

    let declared: Vec<&str> = global_args.iter().map(|arg| arg.name.as_str()).collect();
    let mut stages = planner.bases(&declared)?;
    planner.check_copies()?;
    let needed = planner.needed(&mut stages, target)?;
    let triggers = stages.iter().flat_map(|stage| &stage.triggers);
    let triggered = triggers.flat_map(|(_, step)| step.arguments().unwrap_or_default());
    let triggered: Vec<String> = triggered.map(|argument| argument.name.clone()).collect();

    let mut states: Vec<Option<StageState<'_>>> = Vec::new();
    let mut planned = Vec::new();
    for (number, stage) in stages.into_iter().enumerate() {
        let (state, stage) = match needed[number] {
            true => {
                let (state, stage) = planner.stage(number, stage, &states, number == target)?;
                (Some(state), stage)
            }
            false => (None, planner.unneeded(number, stage)),
        };
        states.push(state);
        planned.push(stage);
    }
    let mut warnings = dockerfile.warnings.clone();
    let syntax = dockerfile.syntax.as_deref();
    warnings.extend(syntax::warning(&dockerfile.source.name, syntax, options));
    warnings.extend(planner.warnings);
    warnings.extend(unused(dockerfile, options, &globals, &triggered));
    let argued = planner.argued;
    let plan = Plan { stages: planned, target: StageId(target), epoch, warnings };
    Ok(Planned { plan, globals: global_args, argued })
}

/// What can be said of the file before anything is expanded for good.
fn check_file(dockerfile: &Dockerfile, options: &PlanOptions, target: usize, notes: &mut Notes) {
    let mut nothing_given = options.clone();
    nothing_given.build_args.retain(|name, _| PREDEFINED.contains(&name.as_str()));
    // Where they cannot be expanded, it will be said as an error.
    let defaults = globals(dockerfile, &nothing_given, target).ok().map(|(defaults, _)| defaults);
    let (stages, escape) = (&dockerfile.stages, dockerfile.escape);
    check::file(&check::File { stages, defaults: defaults.as_ref(), escape }, notes);
}

struct Planner<'a> {
    dockerfile: &'a Dockerfile,
    around: Surroundings<'a>,
    resolver: &'a dyn Resolver,
    scope: Scope<'a>,
    looked_up: HashMap<(String, Platform), ImageConfig>,
    warnings: Vec<String>,
    notes: &'a mut Notes,
    /// Of each stage gone through.
    earlier: Vec<Earlier>,
    /// What each stage lets the build be told.
    argued: Vec<Vec<Argued>>,
}

/// A stage whose base is known.
struct Based {
    base: Base,
    platform: Platform,
    /// The base image's, once it was looked up.
    image: Option<ImageConfig>,
    /// What ONBUILD of the base asks for.
    triggers: Vec<(Statement, Box<dyn Step>)>,
    /// Variables in FROM that are not set.
    unset: Vec<String>,
    /// A build context of the stage's name stands for it.
    is_replaced: bool,
}

impl<'a> Planner<'a> {
    fn source(&self) -> &'a Source {
        &self.dockerfile.source
    }

    fn at(&self, statement: &Statement, text: &str) -> At {
        At { file: self.source().name.clone(), lines: statement.line.lines, text: text.to_owned() }
    }

    fn error_at(&self, statement: &Statement, problem: Problem) -> Error {
        self.source().error_at(&statement.line, problem)
    }

    /// What each FROM means; nothing is looked up.
    fn bases(&mut self, declared: &[&str]) -> Result<Vec<Based>> {
        let mut stages: Vec<Based> = Vec::new();
        let declared = [declared, &PREDEFINED].concat();
        for (number, stage) in self.dockerfile.stages.iter().enumerate() {
            let based = self
                .base(number, stage, &stages, &declared)
                .map_err(|problem| self.error_at(&stage.statement, problem))?;
            stages.push(based);
        }
        Ok(stages)
    }

    fn base(
        &mut self,
        number: usize,
        stage: &StageText,
        above: &[Based],
        declared: &[&str],
    ) -> Result<Based, Problem> {
        let base = self.global_word(&stage.from.base)?;
        let platform = stage.from.platform.as_ref().map(|word| self.global_word(word)).transpose()?;
        let globals = self.around.globals;
        let seen = FromSeen { stage, base: &base, platform: platform.as_ref(), declared, globals };
        check::from(&seen, self.notes);
        let used = base.used.iter().chain(platform.iter().flat_map(|platform| &platform.used));
        self.argued.push(used.map(|name| Argued::Global(name.clone())).collect());
        let Expansion { text: name, unset, .. } = base;
        if name.is_empty() {
            let word = &stage.from.base;
            let variable = unset.first().map_or("NAME", String::as_str);
            return Err(Problem::invalid(word.span.clone(), format!("the base `{}` is empty", word.text))
                .hint(declare(variable)));
        }
        let replaced =
            stage.name().map(str::to_lowercase).filter(|name| self.around.options.contexts.contains(name));
        let is_replaced = replaced.is_some();
        let name = replaced.unwrap_or(name);
        let above_it = if is_replaced { None } else { self.around.names.above(&name, number) };
        let base = match above_it {
            Some(stage) => Base::Stage(StageId(stage)),
            None if name == "scratch" && !is_replaced => Base::Scratch,
            None => Base::Image(name),
        };
        let asked = match (&stage.from.platform, platform) {
            (Some(word), Some(platform)) => Some(parsed(word, &platform.text)?),
            _ => None,
        };
        let platform = match (&base, &asked) {
            (Base::Image(_), Some(asked)) => asked.clone(),
            (Base::Stage(stage), _) => above[stage.0].platform.clone(),
            (Base::Scratch | Base::Image(_), _) => self.around.options.platform.clone(),
        };
        if asked.is_some_and(|asked| asked != platform) {
            self.warnings.push(self.source().warning(
                &stage.statement.line,
                &format!("`--platform` means nothing before a stage or scratch, which is for {platform}"),
            ));
        }
        Ok(Based { base, platform, image: None, triggers: Vec::new(), unset, is_replaced })
    }

    fn global_word(&self, word: &Word) -> Result<Expansion, Problem> {
        let around = self.around;
        expand_with(around.globals, &word.text, &word.span, around.escape, Mode::default())
    }

    /// `--from` of every stage, needed or not, names something that stands above or an image.
    fn check_copies(&self) -> Result<()> {
        for (number, stage) in self.dockerfile.stages.iter().enumerate() {
            for (statement, step) in &stage.steps {
                let found = step.copies_from(self.around.names, number);
                found.map_err(|problem| self.error_at(statement, problem))?;
            }
        }
        Ok(())
    }

    /// Which stages the target needs; their base images are looked up on the way, for their triggers count.
    fn needed(&mut self, stages: &mut [Based], target: usize) -> Result<Vec<bool>> {
        let mut needed = vec![false; stages.len()];
        let mut open = match self.scope.all_stages {
            true => (0..stages.len()).collect(),
            false => vec![target],
        };
        while let Some(number) = open.pop() {
            if std::mem::replace(&mut needed[number], true) {
                continue;
            }
            let text = &self.dockerfile.stages[number];
            let triggers: Vec<String> = match &stages[number].base {
                Base::Scratch => Vec::new(),
                Base::Stage(base) => {
                    open.push(base.0);
                    let steps = steps_of(&self.dockerfile.stages[base.0], &stages[base.0]);
                    steps.iter().filter_map(|(_, step)| step.trigger()).map(str::to_owned).collect()
                }
                Base::Image(name) => {
                    let image = self.look_up(number, text, name, &stages[number])?;
                    let (wanted, statement) = (&stages[number].platform, &text.statement);
                    if self.resolver.is_known(name, wanted) {
                        check::base(&BaseSeen { statement, name, wanted, image: &image }, self.notes);
                    }
                    let triggers = image.config.on_build.clone().unwrap_or_default();
                    stages[number].image = Some(image);
                    triggers
                }
            };
            for trigger in &triggers {
                let parsed = trigger_of(trigger, &text.from.base)
                    .map_err(|problem| self.error_at(&text.statement, problem))?;
                stages[number].triggers.push(parsed);
            }
            let own = steps_of(text, &stages[number]).iter().map(|(_, step)| step);
            for step in own.chain(stages[number].triggers.iter().map(|(_, step)| step)) {
                // A trigger's stage is counted in this file, as Docker does.
                let found = step.copies_from(self.around.names, number).map_err(|problem| {
                    let problem = problem.moved(text.from.base.span.clone(), "a trigger of ONBUILD");
                    self.error_at(&text.statement, problem)
                })?;
                for from in found {
                    match from {
                        CopyFrom::Stage(stage) => open.push(stage.0),
                        CopyFrom::Context | CopyFrom::Image(_) => {}
                    }
                }
            }
        }
        Ok(needed)
    }

    fn look_up(
        &mut self,
        number: usize,
        stage: &StageText,
        name: &str,
        based: &Based,
    ) -> Result<ImageConfig> {
        let key = (name.to_owned(), based.platform.clone());
        if let Some(image) = self.looked_up.get(&key) {
            return Ok(image.clone());
        }
        let image = self.resolver.base(name, &based.platform).map_err(|error| {
            let hint = match self.around.names.from(name, number + 1) {
                _ if !based.unset.is_empty() => {
                    Some(format!("`{0}` is not set: {1}", based.unset[0], declare(&based.unset[0])))
                }
                Some(_) => Some(format!(
                    "the stage `{name}` begins further down; a stage stands only on stages above it"
                )),
                None if error.hint_text().is_some() => None,
                None => {
                    did_you_mean(name, self.around.names.0[..number].iter().flatten().map(String::as_str))
                }
            };
            let problem =
                Problem::new(error.kind(), stage.from.base.span.clone(), format!("the base image `{name}`"));
            self.error_at(&stage.statement, problem.maybe_hint(hint).because(error))
        })?;
        self.looked_up.insert(key, image.clone());
        Ok(image)
    }

    fn stage(
        &mut self,
        number: usize,
        based: Based,
        states: &[Option<StageState<'a>>],
        is_target: bool,
    ) -> Result<(StageState<'a>, plan::Stage)> {
        let text = &self.dockerfile.stages[number];
        let steps = steps_of(text, &based);
        let mut state = match (&based.base, based.image) {
            (Base::Stage(base), _) => {
                let base =
                    states[base.0].as_ref().expect("a needed stage's base is needed, and stands above");
                StageState::on_stage(base, number)
            }
            (_, Some(image)) => StageState::on_image(self.around, number, image.config, image.author),
            // As BuildKit begins: the working directory is named.
            (_, None) => {
                let config = RunConfig { working_dir: "/".into(), ..RunConfig::default() };
                StageState::on_image(self.around, number, config, None)
            }
        };
        if let Base::Image(name) = &based.base
            && !self.resolver.is_known(name, &based.platform)
        {
            state.base_is_unknown();
        }
        let earlier = match &based.base {
            Base::Stage(base) => Earlier::on(&self.earlier[base.0]),
            Base::Scratch | Base::Image(_) => Earlier::default(),
        };
        self.earlier.resize(number, Earlier::default());
        self.earlier.push(earlier);
        let mut stage = plan::Stage {
            name: text.name().map(str::to_owned),
            base: based.base,
            platform: based.platform,
            at: self.at(&text.statement, text.statement.text()),
            config: state.config().clone(),
            author: state.author.clone(),
            steps: Vec::new(),
        };
        for (statement, step) in &based.triggers {
            let place = Place::of(&text.statement);
            let effect =
                self.apply(number, statement, step.as_ref(), place, &mut state).map_err(|problem| {
                    let doing = format!("the trigger `{}` of ONBUILD", statement.text());
                    self.error_at(&text.statement, problem.moved(text.from.base.span.clone(), &doing))
                })?;
            let at = self.at(&text.statement, statement.text());
            stage.steps.push(made(at, effect.created_by, effect.action, &state));
        }
        for (statement, step) in steps {
            let effect = self
                .apply(number, statement, step.as_ref(), Place::of(statement), &mut state)
                .map_err(|problem| self.error_at(statement, problem))?;
            let at = self.at(statement, statement.text());
            stage.steps.push(made(at, effect.created_by, effect.action, &state));
        }
        if state.take_unsure() {
            self.warnings.push(self.source().warning(
                &text.statement.line,
                "variables that are not set were not checked: the base image, which may set them, is not here",
            ));
        }
        let labels = &self.around.options.labels;
        if is_target && !labels.is_empty() {
            let mut told = String::from("LABEL");
            for (name, value) in labels {
                told.push_str(&format!(" {name}={value}"));
                state.config_mut().labels.get_or_insert_default().insert(name.clone(), value.clone());
            }
            let last = text.steps.last().map_or(&text.statement, |(statement, _)| statement);
            let at = self.at(last, &told);
            stage.steps.push(made(at, told, plan::Action::Config, &state));
        }
        Ok((state, stage))
    }

    fn unneeded(&self, number: usize, based: Based) -> plan::Stage {
        let text = &self.dockerfile.stages[number];
        plan::Stage {
            name: text.name().map(str::to_owned),
            base: based.base,
            platform: based.platform,
            at: self.at(&text.statement, text.statement.text()),
            config: Arc::new(RunConfig::default()),
            author: None,
            steps: Vec::new(),
        }
    }

    /// Goes through a step, and notes what it gives to say, even where it fails.
    fn apply(
        &mut self,
        number: usize,
        statement: &Statement,
        step: &dyn Step,
        place: Place,
        state: &mut StageState<'_>,
    ) -> Result<Effect, Problem> {
        let effect = match instruction::unsupported(statement) {
            Some(problem) => Err(problem),
            None => step.apply(statement, state),
        };
        let unset = state.take_unset();
        let seen = StepSeen {
            statement,
            place: &place,
            action: effect.as_ref().ok().map(|effect| &effect.action),
            state,
            unset: &unset,
            earlier: &self.earlier[number],
            ignore: self.scope.ignore,
        };
        check::step(&seen, self.notes);
        let arguments = step.arguments().unwrap_or_default().iter();
        let given = &self.around.options.build_args;
        let argued = arguments.map(|argument| {
            let name = argument.name.clone();
            match given.contains_key(&name) || argument.default.is_some() || state.global(&name).is_none() {
                true => Argued::own(statement, &place, name, state),
                false => Argued::Global(name),
            }
        });
        self.argued[number].extend(argued);
        self.earlier[number].add(statement, place);
        effect
    }
}

/// What FROM sees beside the ARGs above it.
const PREDEFINED: [&str; 11] = [
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDOSVERSION",
    "BUILDARCH",
    "BUILDVARIANT",
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETOSVERSION",
    "TARGETARCH",
    "TARGETVARIANT",
    "TARGETSTAGE",
];

/// A platform that stood there as `word`.
fn parsed(word: &Word, text: &str) -> Result<Platform, Problem> {
    text.parse().map_err(|error: Error| {
        let message = match text.is_empty() {
            true => format!("the platform `{}` is empty", word.text),
            false => error.message().to_owned(),
        };
        Problem::invalid(word.span.clone(), message).maybe_hint(error.hint_text().map(str::to_owned))
    })
}

/// None, where something else stands for the stage.
fn steps_of<'t>(text: &'t StageText, based: &Based) -> &'t [(Statement, Box<dyn Step>)] {
    if based.is_replaced { &[] } else { &text.steps }
}

fn declare(variable: &str) -> String {
    format!("declare `ARG {variable}=default` before the first FROM, or give it with --build-arg")
}

fn made(at: At, created_by: String, action: plan::Action, state: &StageState<'_>) -> plan::Step {
    plan::Step { at, created_by, action, config: state.config().clone(), author: state.author.clone() }
}

/// Reads what ONBUILD left in an image.
fn trigger_of(text: &str, base: &Word) -> Result<(Statement, Box<dyn Step>), Problem> {
    let unreadable =
        || Problem::invalid(base.span.clone(), format!("the trigger `{text}` of ONBUILD cannot be read"));
    let read = lines::read(&Source::new("a trigger", text)).map_err(|error| unreadable().because(error))?;
    let Ok([statement]) = <[Statement; 1]>::try_from(read.statements) else {
        return Err(unreadable().hint("a trigger is one instruction"));
    };
    let doing = format!("the trigger `{text}` of ONBUILD");
    let instruction =
        instruction::parse(&statement).map_err(|problem| problem.moved(base.span.clone(), &doing))?;
    match instruction {
        Instruction::Step(step) if step.trigger().is_none() => Ok((statement, step)),
        Instruction::Step(_) | Instruction::From(_) => {
            Err(unreadable().hint("ONBUILD and FROM cannot be triggers"))
        }
    }
}

/// A stage's name, or its number.
fn target(dockerfile: &Dockerfile, options: &PlanOptions) -> Result<usize> {
    let stages = &dockerfile.stages;
    let Some(target) = &options.target else { return Ok(stages.len() - 1) };
    let is_target = |stage: &StageText| stage.name().is_some_and(|name| name.eq_ignore_ascii_case(target));
    if let Some(number) = stages.iter().rposition(is_target) {
        return Ok(number);
    }
    if let Some(number) = target.parse().ok().filter(|number| *number < stages.len()) {
        return Ok(number);
    }
    let names: Vec<_> = stages.iter().filter_map(StageText::name).collect();
    let hint = did_you_mean(target, names.iter().copied()).unwrap_or_else(|| match names.is_empty() {
        true => "no stage has a name; give one with `FROM image AS name`".to_owned(),
        false => format!("the stages are {}", names.join(", ")),
    });
    let error = Error::not_found(format!("no stage is called `{target}`")).hint(hint);
    Err(dockerfile.source.error(error))
}

/// What FROM sees: platforms, and the ARGs before the first FROM.
fn globals(
    dockerfile: &Dockerfile,
    options: &PlanOptions,
    target: usize,
) -> Result<(Variables, Vec<GlobalArg>)> {
    let mut globals = Variables::default();
    let mut args: Vec<GlobalArg> = Vec::new();
    let stage = match &options.target {
        Some(target) => target.clone(),
        None => dockerfile.stages[target].name().map_or("default".to_owned(), str::to_lowercase),
    };
    let (build, made) = (&options.build_platform, &options.platform);
    let version = String::new();
    let values = [
        &build.to_string(),
        &build.os,
        &version,
        &build.architecture,
        &build.variant,
        &made.to_string(),
        &made.os,
        &version,
        &made.architecture,
        &made.variant,
        &stage,
    ];
    for (name, value) in PREDEFINED.into_iter().zip(values) {
        // What is empty is set all the same: it stands in the environment of who declares it.
        globals.set(name, options.build_args.get(name).unwrap_or(value));
    }
    for (statement, step) in &dockerfile.global_args {
        for argument in step.arguments().unwrap_or_default() {
            let (value, used) = match (options.build_args.get(&argument.name), &argument.default) {
                (Some(given), _) => (Some(given.clone()), Vec::new()),
                (None, Some(word)) => {
                    let expanded =
                        expand_with(&globals, &word.text, &word.span, dockerfile.escape, Mode::default())
                            .map_err(|problem| dockerfile.source.error_at(&statement.line, problem))?;
                    (Some(expanded.text), expanded.used)
                }
                (None, None) => (None, Vec::new()),
            };
            if let Some(value) = &value {
                globals.set(&argument.name, value);
            }
            args.push(GlobalArg::new(statement, argument.name.clone(), globals.get(&argument.name), used));
        }
    }
    Ok((globals, args))
}

/// Build arguments that no ARG declares, here or in ONBUILD of a base, and that mean nothing by themselves.
fn unused(
    dockerfile: &Dockerfile,
    options: &PlanOptions,
    globals: &Variables,
    triggered: &[String],
) -> Vec<String> {
    let steps = dockerfile.stages.iter().flat_map(|stage| &stage.steps).chain(&dockerfile.global_args);
    let declared: Vec<&str> = steps
        .flat_map(|(_, step)| step.arguments().unwrap_or_default())
        .map(|argument| argument.name.as_str())
        .chain(triggered.iter().map(String::as_str))
        .collect();
    let predefined = |name: &str| {
        is_proxy(name)
            || name == "SOURCE_DATE_EPOCH"
            || name.starts_with("BUILDKIT_")
            || globals.names().any(|known| known == name)
    };
    let names =
        options.build_args.keys().filter(|name| !declared.contains(&name.as_str()) && !predefined(name));
    names
        .map(|name| {
            let meant = did_you_mean(name, declared.iter().copied());
            let meant = meant.map_or(String::new(), |meant| format!("; {meant}"));
            format!("{}: no ARG takes the build argument `{name}`{meant}", dockerfile.source.name)
        })
        .collect()
}
