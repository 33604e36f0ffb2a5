//! From the words of the command line to a verb; the tree of commands; usage errors.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::builder::{StyledStr, Styles};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgMatches, Args as _, Command, FromArgMatches as _};

use super::{Entry, Globals};
use crate::cli::{GROUPS, TABLE};

type Table = &'static [Entry];

pub(super) struct Parsed {
    pub(super) entry: &'static Entry,
    pub(super) matches: ArgMatches,
    pub(super) globals: Globals,
    /// The names the user chose, joined by a space.
    pub(super) invoked: String,
}

/// Nothing is left to run: help was asked for, or the command line is wrong.
pub(super) enum End {
    Shown(StyledStr),
    /// Called without a verb: the same text, on standard error.
    NoVerb(StyledStr),
    Wrong {
        message: String,
        hint: String,
        code: u8,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `--flag=false` is understood.
    Parsed,
    /// As the flags are declared: for help.
    Shown,
}

pub(super) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Parsed, End> {
    parse_with(TABLE, words)
}

fn parse_with(table: Table, words: impl IntoIterator<Item = OsString>) -> Result<Parsed, End> {
    let words = end_flags_at_the_tail(table, words.into_iter().collect());
    let matches = match tree(table, Form::Parsed).try_get_matches_from(&words) {
        Ok(matches) => matches,
        Err(error) => return Err(end(table, error, &words)),
    };
    let globals = Globals::from_arg_matches(&matches).expect("clap has checked them");
    let (invoked, entry, matches) = find(table, matches);
    Ok(Parsed { entry, matches, globals, invoked })
}

fn find(table: Table, mut matches: ArgMatches) -> (String, &'static Entry, ArgMatches) {
    let mut invoked = String::new();
    while let Some((name, below)) = matches.remove_subcommand() {
        if !invoked.is_empty() {
            invoked.push(' ');
        }
        invoked.push_str(&name);
        matches = below;
    }
    let entry = table.iter().find(|entry| entry.names.contains(&invoked.as_str()));
    (invoked, entry.expect("the tree is made of the table"), matches)
}

/// Whatever follows the first positional of a verb whose tail is a command (`run IMAGE CMD...`) belongs to that
/// command, flags too. clap hears it from a `--` put before that positional: its own way of saying so
/// (`trailing_var_arg`, here only the mark of such a verb) takes `-p80:80` for a positional.
fn end_flags_at_the_tail(table: Table, mut words: Vec<OsString>) -> Vec<OsString> {
    let mut flags = Globals::augment_args(Command::new("flags"));
    let mut path = String::new();
    let mut verb: Option<&Entry> = None;
    let mut at = 1;
    while let Some(word) = words.get(at).map(|word| word.to_string_lossy().into_owned()) {
        at += 1;
        if word == "--" {
            break;
        }
        if let Some(flag) = word.strip_prefix('-').filter(|flag| !flag.is_empty()) {
            at += usize::from(takes_the_next_word(&flags, flag));
            continue;
        }
        if verb.is_some() {
            words.insert(at - 1, "--".into());
            break;
        }
        path = if path.is_empty() { word } else { format!("{path} {word}") };
        verb = table.iter().find(|entry| entry.names.contains(&path.as_str()));
        if let Some(entry) = verb {
            flags = (entry.shown)(flags);
            if !flags.get_positionals().any(Arg::is_trailing_var_arg_set) {
                break;
            }
        }
    }
    words
}

/// `flag` is a word without its first hyphen: `-name`, `-name=value`, `x`, `xyvalue`.
fn takes_the_next_word(flags: &Command, flag: &str) -> bool {
    if let Some(long) = flag.strip_prefix('-') {
        let named = flags.get_arguments().find(|arg| arg.get_long() == Some(long));
        return named.is_some_and(|arg| arg.get_action().takes_values() && !arg.is_require_equals_set());
    }
    for (at, letter) in flag.char_indices() {
        match flags.get_arguments().find(|arg| arg.get_short() == Some(letter)) {
            // What is left of the word is its value.
            Some(arg) if arg.get_action().takes_values() => return at + letter.len_utf8() == flag.len(),
            Some(_) => {}
            None => return false,
        }
    }
    false
}

fn tree(table: Table, form: Form) -> Command {
    let mut root = Command::new("outcrop")
        .bin_name("outcrop")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .disable_version_flag(true)
        .styles(if form == Form::Parsed { Styles::plain() } else { Styles::styled() })
        .help_template(template(table))
        .arg(Arg::new("version").long("version").action(clap::ArgAction::Version).help("Print the version"));
    root =
        Globals::augment_args(root).about("A container image engine: builds, shares, stacks and runs layers");
    for entry in table {
        for name in entry.names.iter().filter(|name| !name.contains(' ')) {
            root = root.subcommand(leaf(entry, name, form));
        }
    }
    for (group, about) in GROUPS {
        let mut below = Command::new(*group)
            .about(*about)
            .subcommand_required(true)
            .arg_required_else_help(true)
            .disable_help_subcommand(true);
        for entry in table {
            let names = entry.names.iter().filter_map(|name| name.strip_prefix(group)?.strip_prefix(' '));
            for (nth, name) in names.enumerate() {
                below = below.subcommand(leaf(entry, name, form).hide(nth > 0));
            }
        }
        if below.has_subcommands() {
            root = root.subcommand(below);
        }
    }
    root
}

fn leaf(entry: &Entry, name: &'static str, form: Form) -> Command {
    let command = Command::new(name).about(entry.about);
    command.defer(if form == Form::Parsed { entry.parsed } else { entry.shown })
}

fn template(table: Table) -> String {
    let mut text = "{about}\n\nUsage:  outcrop [OPTIONS] COMMAND\n\nCommands:\n".to_owned();
    for entry in table {
        if let Some(name) = entry.names.iter().find(|name| !name.contains(' ')) {
            text.push_str(&format!("  {name:<12}{}\n", entry.about));
        }
    }
    let used = |group: &str| {
        let below = |name: &&str| name.split_once(' ').is_some_and(|(first, _)| first == group);
        table.iter().any(|entry| entry.names.iter().any(below))
    };
    let groups: Vec<_> = GROUPS.iter().filter(|(group, _)| used(group)).collect();
    if !groups.is_empty() {
        text.push_str("\nManagement commands:\n");
    }
    for (group, about) in groups {
        text.push_str(&format!("  {group:<12}{about}\n"));
    }
    text.push_str("\nOptions:\n{options}\n\nRun `outcrop COMMAND --help` for more on a command.\n");
    text
}

fn end(table: Table, error: clap::Error, words: &[OsString]) -> End {
    match error.kind() {
        ErrorKind::DisplayHelp => match tree(table, Form::Shown).try_get_matches_from(words) {
            Err(shown) if shown.kind() == ErrorKind::DisplayHelp => End::Shown(shown.render()),
            _ => End::Shown(error.render()),
        },
        ErrorKind::DisplayVersion => {
            End::Shown(StyledStr::from(format!("outcrop version {}\n", env!("CARGO_PKG_VERSION"))))
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => End::NoVerb(error.render()),
        _ => wrong(table, &error, words),
    }
}

/// Docker's exit codes: 125 for a flag, 1 for a verb or too many or too few arguments.
fn wrong(table: Table, error: &clap::Error, words: &[OsString]) -> End {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(all)) => Some(all.join(" ")),
        _ => None,
    };
    let at = path(table, words);
    let command = if at.is_empty() { "outcrop".to_owned() } else { format!("outcrop {at}") };
    let see = format!("`{command} --help` shows what there is");
    let invalid = context(ContextKind::InvalidArg).unwrap_or_default();
    let value = context(ContextKind::InvalidValue).unwrap_or_default();
    // Of several, clap names the nearest last.
    let nearest = |kind| match error.get(kind) {
        Some(ContextValue::Strings(all)) => all.last().cloned(),
        _ => context(kind),
    };
    let suggested = nearest(ContextKind::SuggestedArg)
        .or_else(|| nearest(ContextKind::SuggestedSubcommand))
        .or_else(|| nearest(ContextKind::SuggestedValue));
    let is_flag = invalid.starts_with('-');
    // `--rm[=<RM>]` and `--env <ENV>`: the name is enough.
    let invalid =
        if is_flag { invalid.split(['[', ' ', '=']).next().unwrap_or_default().to_owned() } else { invalid };
    let (message, code) = match error.kind() {
        ErrorKind::UnknownArgument if is_flag => (format!("{command}: unknown flag `{invalid}`"), 125),
        ErrorKind::UnknownArgument => (format!("{command}: one argument too many: `{invalid}`"), 1),
        ErrorKind::InvalidSubcommand => {
            let name = context(ContextKind::InvalidSubcommand).unwrap_or_default();
            (format!("`{name}` is not a command of `{command}`"), 1)
        }
        ErrorKind::MissingRequiredArgument => {
            (format!("{command}: missing {invalid}"), if is_flag { 125 } else { 1 })
        }
        ErrorKind::InvalidValue if value.is_empty() => (format!("{command}: `{invalid}` needs a value"), 125),
        ErrorKind::InvalidValue => {
            let known = context(ContextKind::ValidValue).unwrap_or_default().replace(' ', ", ");
            (format!("{command}: `{value}` is not a value of `{invalid}`; known are {known}"), 125)
        }
        ErrorKind::ValueValidation => {
            let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
            let cause = cause.unwrap_or_default();
            (format!("{command}: `{value}` is not a value of `{invalid}`{cause}"), 125)
        }
        _ => {
            let text = error.render().to_string();
            let first = text.lines().next().unwrap_or_default();
            let first = first.strip_prefix("error: ").unwrap_or(first);
            (format!("{command}: {first}"), 125)
        }
    };
    let hint = match suggested {
        Some(suggested) => format!("did you mean `{suggested}`? {see}"),
        None => see,
    };
    End::Wrong { message, hint, code }
}

/// The verb among the words, as far as it is one.
fn path(table: Table, words: &[OsString]) -> String {
    let lenient = tree(table, Form::Parsed).ignore_errors(true).try_get_matches_from(words);
    let mut names: Vec<String> = Vec::new();
    let mut matches = lenient.ok();
    while let Some((name, below)) = matches.as_mut().and_then(ArgMatches::remove_subcommand) {
        names.push(name);
        matches = Some(below);
    }
    names.join(" ")
}

impl End {
    pub(super) fn finish(self) -> ExitCode {
        // Nobody may be reading; the exit code still tells.
        let (_gone, code) = match self {
            End::Shown(text) => {
                let colours = super::complain::colours(std::io::IsTerminal::is_terminal(&std::io::stdout()));
                (std::io::stdout().write_all(paint(&text, colours).as_bytes()), 0)
            }
            End::NoVerb(text) => (std::io::stderr().write_all(paint(&text, false).as_bytes()), 0),
            End::Wrong { message, hint, code } => {
                super::complain::print(&outcrop::error::Error::invalid(message).hint(hint));
                (Ok(()), code)
            }
        };
        ExitCode::from(code)
    }
}

fn paint(text: &StyledStr, colours: bool) -> String {
    if colours { text.ansi().to_string() } else { text.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::frame::{Context, Verb};

    /// Shaped like the verbs whose tail is a command.
    #[derive(clap::Args, Debug, PartialEq)]
    struct Run {
        #[arg(long)]
        rm: bool,
        #[arg(short, long)]
        interactive: bool,
        #[arg(short, long)]
        tty: bool,
        #[arg(short, long)]
        env: Vec<String>,
        #[arg(required = true, trailing_var_arg = true)]
        command: Vec<String>,
    }

    impl Verb for Run {
        const NAMES: &'static [&'static str] = &["run", "container run", "container start"];
        const ABOUT: &'static str = "Runs";
        const EXAMPLE: &'static str = "outcrop run x";
        const FAILURE: u8 = 125;
        fn run(self, _: &Context) -> outcrop::error::Result<ExitCode> {
            Ok(ExitCode::SUCCESS)
        }
    }

    /// Flags before or after the positional, as most verbs have them.
    #[derive(clap::Args, Debug, PartialEq)]
    struct Remove {
        #[arg(short, long)]
        force: bool,
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    }

    impl Verb for Remove {
        const NAMES: &'static [&'static str] = &["rmi", "image rm", "image remove"];
        const ABOUT: &'static str = "Removes";
        const EXAMPLE: &'static str = "outcrop rmi x\noutcrop rmi -f x";
        fn run(self, _: &Context) -> outcrop::error::Result<ExitCode> {
            Ok(ExitCode::SUCCESS)
        }
    }

    const VERBS: Table = &[Entry::of::<Run>(), Entry::of::<Remove>()];

    fn words(line: &str) -> impl Iterator<Item = OsString> {
        std::iter::once("outcrop").chain(line.split(' ')).map(OsString::from)
    }

    #[track_caller]
    fn parsed<V: Verb>(line: &str) -> (String, V) {
        match parse_with(VERBS, words(line)) {
            Ok(parsed) => (parsed.invoked, V::from_arg_matches(&parsed.matches).unwrap()),
            Err(End::Wrong { message, .. }) => panic!("{line}: {message}"),
            Err(End::Shown(text) | End::NoVerb(text)) => panic!("{line}: {text}"),
        }
    }

    fn wrong(line: &str) -> (String, String, u8) {
        match parse_with(VERBS, words(line)) {
            Err(End::Wrong { message, hint, code }) => (message, hint, code),
            _ => panic!("{line} is not wrong"),
        }
    }

    fn help(line: &str) -> String {
        match parse_with(VERBS, words(line)) {
            Err(End::Shown(text) | End::NoVerb(text)) => text.to_string(),
            _ => panic!("{line} shows nothing"),
        }
    }

    #[test]
    fn what_follows_the_image_is_the_command() {
        let (_, run) = parsed::<Run>("run -it -eA=1 --env B --runtime crun alpine sh --rm -e C -- x");
        assert!(run.interactive && run.tty && !run.rm);
        assert_eq!(run.env, ["A=1", "B"]);
        assert_eq!(run.command, ["alpine", "sh", "--rm", "-e", "C", "--", "x"]);
        let (_, run) = parsed::<Run>("--root /run container run -ite A alpine -ti");
        assert!(run.interactive && run.tty);
        assert_eq!((run.env, run.command), (vec!["A".into()], vec!["alpine".into(), "-ti".into()]));
        let (_, run) = parsed::<Run>("run -- alpine -l");
        assert_eq!(run.command, ["alpine", "-l"]);
    }

    #[test]
    fn a_flag_can_be_said_to_be_false() {
        let (_, run) = parsed::<Run>("run --rm=false -i=true --tty alpine --rm=true");
        assert_eq!((run.rm, run.interactive, run.tty), (false, true, true));
        assert_eq!(run.command, ["alpine", "--rm=true"]);
        assert_eq!(
            wrong("run --rm=maybe x").0,
            "outcrop run: `maybe` is not a value of `--rm`: expected true or false"
        );
    }

    #[test]
    fn flags_stand_before_or_after_the_positionals() {
        for line in ["rmi -f a b", "rmi a b -f", "image rm a --force b", "image remove --root=/x a b -f"] {
            let (invoked, rm) = parsed::<Remove>(line);
            assert_eq!(rm, Remove { force: true, images: vec!["a".into(), "b".into()] });
            assert!(line.starts_with(&invoked));
        }
    }

    #[test]
    fn a_wrong_flag_before_the_image_is_no_image() {
        let see = "`outcrop run --help` shows what there is";
        assert_eq!(
            wrong("run --bogus alpine"),
            ("outcrop run: unknown flag `--bogus`".into(), see.into(), 125)
        );
        let hint = format!("did you mean `--interactive`? {see}");
        assert_eq!(
            wrong("run --interactiv alpine"),
            ("outcrop run: unknown flag `--interactiv`".into(), hint, 125)
        );
    }

    #[test]
    fn what_is_missing_is_1_as_in_docker() {
        let (message, hint, code) = wrong("image rm");
        assert_eq!(message, "outcrop image rm: missing <IMAGE>...");
        assert_eq!(hint, "`outcrop image rm --help` shows what there is");
        assert_eq!(code, 1);
        assert_eq!(wrong("run").2, 1);
        assert_eq!(wrong("run -e").2, 125);
        let (message, hint, code) = wrong("image rmm x");
        assert_eq!((message.as_str(), code), ("`rmm` is not a command of `outcrop image`", 1));
        assert!(hint.starts_with("did you mean `rm`?"), "{hint}");
    }

    #[test]
    fn help_shows_flags_as_they_are_meant() {
        let text = help("run --help");
        assert!(text.contains("--rm  ") && !text.contains("[=<"), "{text}");
        assert!(text.ends_with("Example:\n  outcrop run x\n"), "{text}");
        assert!(help("image rm --help").ends_with("Examples:\n  outcrop rmi x\n  outcrop rmi -f x\n"));
        let group = help("image");
        assert!(group.contains("  rm ") && !group.contains("remove"), "{group}");
        let top = help("--help");
        assert!(
            top.contains("\n  rmi         Removes\n") && top.contains("\n  image       Manage images\n"),
            "{top}"
        );
    }

    #[test]
    fn the_tree_is_sound() {
        tree(TABLE, Form::Parsed).debug_assert();
        tree(TABLE, Form::Shown).debug_assert();
    }

    #[test]
    fn every_group_of_the_table_is_known() {
        for name in TABLE.iter().flat_map(|entry| entry.names) {
            if let Some((group, _)) = name.split_once(' ') {
                assert!(GROUPS.iter().any(|(known, _)| *known == group), "{group}");
            }
        }
    }
}
