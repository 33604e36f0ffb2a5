//! What a verb is: its names, its flags, its deed.

use std::process::ExitCode;

use clap::{ArgAction, ArgMatches, Command};
use outcrop::error::{Error, Kind, Result};

use super::Context;

/// Implemented by a verb's `Args`: the fields are its flags, `run` does it.
pub(crate) trait Verb: clap::Args {
    /// All the ways to say it, the short form first: `["images", "image ls", "image list"]`. In a group's help
    /// only the first of the group shows.
    const NAMES: &'static [&'static str];
    /// One line for `--help`, without a full stop.
    const ABOUT: &'static str;
    /// Command lines, one to a line, as a person types them.
    const EXAMPLE: &'static str;
    /// The exit code when outcrop itself fails; 125 where another could be taken for the container's own.
    const FAILURE: u8 = 1;

    fn run(self, context: &Context) -> Result<ExitCode>;
}

/// A verb without its type, so that it fits into a table.
pub(crate) struct Entry {
    pub(super) names: &'static [&'static str],
    pub(super) about: &'static str,
    pub(super) failure: u8,
    /// The command as it is parsed; built only when it is called.
    pub(super) parsed: fn(Command) -> Command,
    /// The command as help shows it.
    pub(super) shown: fn(Command) -> Command,
    pub(super) run: fn(&ArgMatches, &Context) -> Result<ExitCode>,
}

impl Entry {
    pub(crate) const fn of<V: Verb>() -> Entry {
        Entry {
            names: V::NAMES,
            about: V::ABOUT,
            failure: V::FAILURE,
            parsed: |command| loosen(shown::<V>(command)),
            shown: shown::<V>,
            run: |matches, context| {
                let args = V::from_arg_matches(matches)
                    .map_err(|cause| Error::new(Kind::Invalid, cause.render().to_string()))?;
                args.run(context)
            },
        }
    }
}

fn shown<V: Verb>(command: Command) -> Command {
    let examples: String = V::EXAMPLE.lines().map(|line| format!("\n  {line}")).collect();
    let plural = if V::EXAMPLE.lines().count() > 1 { "s" } else { "" };
    V::augment_args(command)
        .about(V::ABOUT)
        .long_about(None)
        .after_help(format!("Example{plural}:{examples}"))
}

/// `--rm=false` and `--rm=true` are what scripts write, beside `--rm`; and where a tail begins, parse.rs says.
fn loosen(command: Command) -> Command {
    command.mut_args(|arg| {
        if arg.is_trailing_var_arg_set() {
            return arg.trailing_var_arg(false).allow_hyphen_values(false);
        }
        if !matches!(arg.get_action(), ArgAction::SetTrue) {
            return arg;
        }
        arg.action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_value("false")
            .default_missing_value("true")
            .value_parser(truth)
    })
}

/// The words Go's `strconv.ParseBool` takes.
fn truth(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("expected true or false".into()),
    }
}
