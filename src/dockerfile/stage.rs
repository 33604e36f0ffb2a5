//! A stage while its instructions are gone through: what they see and change.

use std::sync::Arc;

use super::PlanOptions;
use super::expand::{Expansion, Mode, expand};
use super::nearest::did_you_mean;
use super::source::{Problem, Span};
use super::statement::{Pair, Statement, Word};
use crate::context::ignore;
use crate::image::RunConfig;
use crate::plan::{CopyFrom, StageId};

/// Docker's, where an image has none.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// ARGs that speak to BuildKit's scanners and reach no environment.
const NO_VARIABLES: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Names and values in order, each name once.
#[derive(Clone, Debug, Default)]
pub(super) struct Variables(Vec<(String, String)>);

impl Variables {
    pub(super) fn get(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }
    pub(super) fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
    }
    pub(super) fn unset(&mut self, name: &str) {
        self.0.retain(|(known, _)| known != name);
    }
    /// `NAME=value` each.
    fn set_all<'e>(&mut self, entries: impl Iterator<Item = &'e String>) {
        for entry in entries {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            self.set(name, value);
        }
    }
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }
}

/// What stages are called, in order, in small letters.
#[derive(Debug)]
pub(super) struct Names(pub(super) Vec<Option<String>>);

impl Names {
    /// The nearest stage of that name above stage `below`.
    pub(super) fn above(&self, name: &str, below: usize) -> Option<usize> {
        let name = name.to_lowercase();
        self.0[..below].iter().rposition(|known| known.as_ref() == Some(&name))
    }

    /// The first stage of that name from stage `from` on.
    pub(super) fn from(&self, name: &str, from: usize) -> Option<usize> {
        let name = name.to_lowercase();
        self.0[from..].iter().position(|known| known.as_ref() == Some(&name)).map(|at| from + at)
    }

    /// What `COPY --from` in stage `number` means.
    pub(super) fn copy_from(&self, word: &Word, number: usize) -> Result<CopyFrom, Problem> {
        let text = &word.text;
        let invalid = |message: String| Problem::invalid(word.span.clone(), message);
        if text.contains('$') {
            return Err(invalid(format!("`--from={text}`: variables mean nothing here"))
                .hint("name a stage that is `FROM` the variable, and copy from that stage"));
        }
        let (stage, above) = match text.parse::<i64>() {
            Ok(index) => match usize::try_from(index).ok().filter(|index| *index < self.0.len()) {
                Some(index) => (index, index < number),
                None => {
                    return Err(invalid(format!("there is no stage {index}"))
                        .hint(format!("stages are counted from 0; the last is {}", self.0.len() - 1)));
                }
            },
            Err(_) => match (self.above(text, number), self.from(text, number)) {
                (Some(stage), _) => (stage, true),
                (None, Some(stage)) => (stage, false),
                (None, None) if text == "scratch" => {
                    return Err(invalid("`scratch` holds nothing to copy".into()));
                }
                (None, None) => return Ok(CopyFrom::Image(text.clone())),
            },
        };
        match above {
            true => Ok(CopyFrom::Stage(StageId(stage))),
            false if stage == number => Err(invalid(format!("stage `{text}` would copy from itself"))
                .hint("a stage copies from stages above it; files of its own are moved with RUN")),
            false => Err(invalid(format!("stage `{text}` begins further down"))
                .hint("a stage copies only from stages above it: move that stage up")),
        }
    }
}

pub(super) struct StageState<'a> {
    pub(super) options: &'a PlanOptions,
    pub(super) author: Option<String>,
    /// CMD stands in this stage.
    pub(super) cmd_is_ours: bool,
    config: Arc<RunConfig>,
    /// What words see: the image's environment and the declared arguments; of one name, what was said last.
    variables: Variables,
    /// ARGs of this stage and of those it stands on, in order.
    declared: Vec<(String, Option<String>)>,
    globals: &'a Variables,
    names: &'a Names,
    number: usize,
    escape: char,
    unset: Vec<Unset>,
    /// Whether what the base image sets is known.
    base_is_known: bool,
    /// A variable is not set that the base image may set.
    unsure: bool,
}

/// A variable that was used and is not set.
#[derive(Debug)]
pub(super) struct Unset {
    pub(super) name: String,
    /// What is near it, as a question.
    pub(super) meant: Option<String>,
}

/// What does not change from stage to stage.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub(super) options: &'a PlanOptions,
    pub(super) globals: &'a Variables,
    pub(super) names: &'a Names,
    pub(super) escape: char,
}

impl<'a> StageState<'a> {
    /// A stage that stands on an image, or on nothing.
    pub(super) fn on_image(
        around: Surroundings<'a>,
        number: usize,
        config: RunConfig,
        author: Option<String>,
    ) -> Self {
        let mut config = RunConfig { on_build: None, ..config };
        let env = config.env.get_or_insert_default();
        if !env.iter().any(|entry| entry.starts_with("PATH=")) {
            env.push(PATH.to_owned());
        }
        if !config.working_dir.is_empty() {
            config.working_dir = clean_from("", &config.working_dir);
        }
        let mut variables = Variables::default();
        variables.set_all(config.env.iter().flatten());
        StageState {
            options: around.options,
            author,
            cmd_is_ours: false,
            config: Arc::new(config),
            variables,
            declared: Vec::new(),
            globals: around.globals,
            names: around.names,
            number,
            escape: around.escape,
            unset: Vec::new(),
            base_is_known: true,
            unsure: false,
        }
    }

    /// A stage that stands on another: it sees that one's arguments too, but where an ENV of the same name stands
    /// in the image, that one (BuildKit), whichever came last above.
    pub(super) fn on_stage(base: &StageState<'a>, number: usize) -> Self {
        let mut config = base.config.clone();
        if config.on_build.is_some() {
            Arc::make_mut(&mut config).on_build = None;
        }
        let mut variables = base.variables.clone();
        variables.set_all(config.env.iter().flatten());
        StageState {
            options: base.options,
            author: base.author.clone(),
            cmd_is_ours: false,
            config,
            variables,
            declared: base.declared.clone(),
            globals: base.globals,
            names: base.names,
            number,
            escape: base.escape,
            unset: Vec::new(),
            base_is_known: base.base_is_known,
            unsure: false,
        }
    }

    pub(super) fn config(&self) -> &Arc<RunConfig> {
        &self.config
    }
    pub(super) fn config_mut(&mut self) -> &mut RunConfig {
        Arc::make_mut(&mut self.config)
    }

    /// Variables that were used and are not set, since the last time this was asked.
    pub(super) fn take_unset(&mut self) -> Vec<Unset> {
        std::mem::take(&mut self.unset)
    }

    /// The base image is not at hand: it may set whatever is not set here.
    pub(super) fn base_is_unknown(&mut self) {
        self.base_is_known = false;
    }
    /// Was a variable used that only an unknown base image can set? Asked once.
    pub(super) fn take_unsure(&mut self) -> bool {
        std::mem::take(&mut self.unsure)
    }

    /// A text as its instruction sees it, for those who look on.
    pub(super) fn peek(&self, text: &str) -> Option<String> {
        self.peek_at(text).map(|expansion| expansion.text)
    }
    /// The same of the words of a statement that blanks separate.
    pub(super) fn peek_words(&self, statement: &Statement) -> Vec<String> {
        let words = statement.blank_separated().into_iter();
        words.filter_map(|word| self.peek_at(&word.text)).flat_map(|expansion| expansion.words).collect()
    }
    fn peek_at(&self, text: &str) -> Option<Expansion> {
        expand_with(&self.variables, text, &(0..text.len()), self.escape, Mode::default()).ok()
    }

    /// What an ARG or ENV holds.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name)
    }

    /// One word stays one word.
    pub(super) fn word(&mut self, word: &Word) -> Result<String, Problem> {
        Ok(self.expand(&word.text, word.span.clone(), self.escape, Mode::default())?.text)
    }

    /// One word may become several, or none.
    pub(super) fn words(&mut self, word: &Word) -> Result<Vec<String>, Problem> {
        Ok(self.expand(&word.text, word.span.clone(), self.escape, Mode::default())?.words)
    }

    /// Names and values, all seen with what was set before the first.
    pub(super) fn pairs(&mut self, pairs: &[Pair]) -> Result<Vec<(String, String)>, Problem> {
        let mut expanded = Vec::new();
        for pair in pairs {
            let end = pair.span.end;
            // A value that stands as it was written is the tail of its pair.
            let value_start = end.checked_sub(pair.value.len()).unwrap_or(end).max(pair.span.start);
            let name = self.word(&Word { text: pair.key.clone(), span: pair.span.clone() })?;
            if name.is_empty() {
                return Err(Problem::invalid(pair.span.clone(), "the name is empty")
                    .hint("a variable in it may not be set"));
            }
            let value = self.word(&Word { text: pair.value.clone(), span: value_start..end })?;
            expanded.push((name, value));
        }
        Ok(expanded)
    }

    pub(super) fn expand(
        &mut self,
        text: &str,
        span: Span,
        escape: char,
        mode: Mode,
    ) -> Result<Expansion, Problem> {
        let expansion = expand_with(&self.variables, text, &span, escape, mode)?;
        for name in &expansion.unset {
            // An ARG without a value is declared, and empty.
            if self.declared.iter().any(|(declared, _)| declared == name) {
                continue;
            }
            if !self.base_is_known {
                self.unsure = true;
                continue;
            }
            let meant = did_you_mean(name, self.variables.names());
            self.unset.push(Unset { name: name.clone(), meant });
        }
        Ok(expansion)
    }

    pub(super) fn set_env(&mut self, name: &str, value: &str) {
        self.variables.set(name, value);
        let env = self.config_mut().env.get_or_insert_default();
        let entry = format!("{name}={value}");
        match env.iter_mut().find(|old| old.split_once('=').map_or(&***old, |(name, _)| name) == name) {
            Some(old) => *old = entry,
            None => env.push(entry),
        }
    }

    /// ARG: without a value it stays what it is.
    pub(super) fn declare(&mut self, name: &str, value: Option<String>) {
        if let Some(value) = value.as_ref().filter(|_| !NO_VARIABLES.contains(&name)) {
            self.variables.set(name, value);
        }
        match self.declared.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value.or_else(|| old.take()),
            None => self.declared.push((name.to_owned(), value)),
        }
    }

    pub(super) fn global(&self, name: &str) -> Option<String> {
        self.globals.get(name)
    }

    /// `|2 A=b C= ` where two arguments are declared: how history tells what a RUN saw beside the image.
    pub(super) fn declared(&self) -> String {
        if self.declared.is_empty() {
            return String::new();
        }
        let mut told = format!("|{} ", self.declared.len());
        for (name, value) in &self.declared {
            let value = self.variables.get(name).or_else(|| value.clone()).unwrap_or_default();
            told.push_str(&format!("{name}={value} "));
        }
        told
    }

    pub(super) fn env(&self) -> Vec<String> {
        self.variables.0.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    /// Proxies given with --build-arg, in both cases of their names; they go before what ENV says of them (BuildKit).
    pub(super) fn hidden_env(&self) -> Vec<String> {
        let mut hidden = Variables::default();
        let given =
            self.options.build_args.iter().filter(|(name, value)| is_proxy(name) && !value.is_empty());
        for (name, value) in given {
            for name in [name.to_ascii_uppercase(), name.to_ascii_lowercase()] {
                hidden.set(&name, value);
            }
        }
        // What is said by an ARG already need not be said twice.
        hidden.0.retain(|(name, value)| self.variables.get(name).as_ref() != Some(value));
        hidden.0.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    pub(super) fn in_shell(&self, line: &str) -> Vec<String> {
        let shell = self.config.shell.clone().filter(|shell| !shell.is_empty());
        let mut args = shell.unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()]);
        args.push(line.to_owned());
        args
    }

    pub(super) fn copy_from(&self, word: &Word) -> Result<CopyFrom, Problem> {
        self.names.copy_from(word, self.number)
    }
    pub(super) fn names(&self) -> &'a Names {
        self.names
    }
    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// Clean, absolute, seen from the working directory.
    pub(super) fn absolute(&self, path: &str) -> String {
        clean_from(&self.config.working_dir, path)
    }

    /// The same, but what names a directory keeps its slash.
    pub(super) fn destination(&self, path: &str) -> String {
        let clean = self.absolute(path);
        let is_directory = ["", "."].contains(&path) || path.ends_with('/') || path.ends_with("/.");
        if is_directory && clean != "/" { clean + "/" } else { clean }
    }
}

/// Absolute, seen from `dir`.
fn clean_from(dir: &str, path: &str) -> String {
    let joined = match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("/{dir}/{path}"),
    };
    String::from_utf8(ignore::clean(joined.as_bytes())).expect("cut at slashes alone")
}

/// Expands with nothing but `variables`; a fault stands under its place.
pub(super) fn expand_with(
    variables: &Variables,
    text: &str,
    span: &Span,
    escape: char,
    mode: Mode,
) -> Result<Expansion, Problem> {
    expand(text, escape, mode, &|name| variables.get(name)).map_err(|fault| {
        // A word that stands as it was written shows the very character.
        let exact = if span.len() == text.len() { span.start + fault.at..span.end } else { span.clone() };
        Problem::invalid(exact, fault.message).maybe_hint(fault.hint)
    })
}

/// Predefined for every RUN.
pub(super) fn is_proxy(name: &str) -> bool {
    ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"]
        .iter()
        .any(|proxy| name.eq_ignore_ascii_case(proxy))
}
