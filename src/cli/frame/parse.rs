//! From the words of the command line to a verb; the tree of commands; usage errors.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::builder::{StyledStr, Styles};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgMatches, Args as _, Command, FromArgMatches as _};

use super::{Entry, Globals};
use crate::cli::{GROUPS, TABLE};

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
    /// `--flag=false` is understood, and whatever follows an image belongs to its command.
    Parsed,
    /// As the flags are declared: for help and for suggestions.
    Shown,
}

pub(super) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Parsed, End> {
    let words: Vec<OsString> = words.into_iter().collect();
    let matches = match tree(Form::Parsed).try_get_matches_from(&words) {
        Ok(matches) => matches,
        Err(error) => return Err(end(error, &words)),
    };
    let globals = Globals::from_arg_matches(&matches).expect("clap has checked them");
    let (invoked, entry, matches) = find(matches);
    if flag_in_place_of_an_image(entry, &matches)
        && let Err(error) = tree(Form::Shown).try_get_matches_from(&words)
    {
        return Err(end(error, &words));
    }
    Ok(Parsed { entry, matches, globals, invoked })
}

fn find(mut matches: ArgMatches) -> (String, &'static Entry, ArgMatches) {
    let mut invoked = String::new();
    while let Some((name, below)) = matches.remove_subcommand() {
        if !invoked.is_empty() {
            invoked.push(' ');
        }
        invoked.push_str(&name);
        matches = below;
    }
    let entry = TABLE.iter().find(|entry| entry.names.contains(&invoked.as_str()));
    (invoked, entry.expect("the tree is made of the table"), matches)
}

/// Verbs whose tail is a command (`run IMAGE CMD...`) have one positional for all of it, which takes words
/// with hyphens; so a flag that does not exist lands where the image should be.
fn flag_in_place_of_an_image(entry: &Entry, matches: &ArgMatches) -> bool {
    let command = (entry.shown)(Command::new("verb"));
    let tail = command.get_positionals().find(|arg| arg.is_trailing_var_arg_set());
    let Some(tail) = tail else { return false };
    let first = matches.get_raw(tail.get_id().as_str()).and_then(|mut words| words.next());
    first.is_some_and(|word| word.len() > 1 && word.as_encoded_bytes().starts_with(b"-"))
}

fn tree(form: Form) -> Command {
    let mut root = Command::new("outcrop")
        .bin_name("outcrop")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .disable_version_flag(true)
        .styles(if form == Form::Parsed { Styles::plain() } else { Styles::styled() })
        .help_template(template())
        .arg(Arg::new("version").long("version").action(clap::ArgAction::Version).help("Print the version"));
    root =
        Globals::augment_args(root).about("A container image engine: builds, shares, stacks and runs layers");
    for entry in TABLE {
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
        for entry in TABLE {
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

fn template() -> String {
    let mut text = "{about}\n\nUsage:  outcrop [OPTIONS] COMMAND\n\nCommands:\n".to_owned();
    for entry in TABLE {
        if let Some(name) = entry.names.iter().find(|name| !name.contains(' ')) {
            text.push_str(&format!("  {name:<12}{}\n", entry.about));
        }
    }
    let used = |group: &str| {
        let below = |name: &&str| name.split_once(' ').is_some_and(|(first, _)| first == group);
        TABLE.iter().any(|entry| entry.names.iter().any(below))
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

fn end(error: clap::Error, words: &[OsString]) -> End {
    match error.kind() {
        ErrorKind::DisplayHelp => match tree(Form::Shown).try_get_matches_from(words) {
            Err(shown) if shown.kind() == ErrorKind::DisplayHelp => End::Shown(shown.render()),
            _ => End::Shown(error.render()),
        },
        ErrorKind::DisplayVersion => {
            End::Shown(StyledStr::from(format!("outcrop version {}\n", env!("CARGO_PKG_VERSION"))))
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => End::NoVerb(error.render()),
        _ => wrong(&error, words),
    }
}

/// Docker's exit codes: 125 for a flag, 1 for a verb or too many or too few arguments.
fn wrong(error: &clap::Error, words: &[OsString]) -> End {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(all)) => Some(all.join(" ")),
        _ => None,
    };
    let at = path(words);
    let command = if at.is_empty() { "outcrop".to_owned() } else { format!("outcrop {at}") };
    let see = format!("`{command} --help` shows what there is");
    let invalid = context(ContextKind::InvalidArg).unwrap_or_default();
    let value = context(ContextKind::InvalidValue).unwrap_or_default();
    let suggested = context(ContextKind::SuggestedArg)
        .or_else(|| context(ContextKind::SuggestedSubcommand))
        .or_else(|| context(ContextKind::SuggestedValue));
    let is_flag = invalid.starts_with('-');
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
fn path(words: &[OsString]) -> String {
    let lenient = tree(Form::Parsed).ignore_errors(true).try_get_matches_from(words);
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

    #[test]
    fn the_tree_is_sound() {
        tree(Form::Parsed).debug_assert();
        tree(Form::Shown).debug_assert();
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
