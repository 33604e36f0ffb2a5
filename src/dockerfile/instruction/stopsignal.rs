//! `STOPSIGNAL signal`: what asks a container to stop.

use super::{Effect, Entry, Instruction, Step, only_word};
use crate::dockerfile::nearest::did_you_mean;
use crate::dockerfile::source::Problem;
use crate::dockerfile::stage::StageState;
use crate::dockerfile::statement::{Statement, Word};

pub(super) static ENTRY: Entry = Entry {
    keyword: "STOPSIGNAL",
    flags: &[],
    parse: |statement| {
        Ok(Instruction::Step(Box::new(StopSignal(only_word(statement, "write `STOPSIGNAL SIGTERM`")?))))
    },
};

#[derive(Debug)]
struct StopSignal(Word);

impl Step for StopSignal {
    fn apply(&self, _: &Statement, stage: &mut StageState<'_>) -> Result<Effect, Problem> {
        let signal = stage.word(&self.0)?;
        if !is_signal(&signal) {
            let name = signal.to_uppercase();
            let name = name.strip_prefix("SIG").unwrap_or(&name);
            return Err(Problem::invalid(self.0.span.clone(), format!("`{signal}` is no signal")).hint(
                did_you_mean(name, NAMES.iter().copied())
                    .unwrap_or_else(|| "write a name as in `SIGTERM`, or a number from 1 to 64".into()),
            ));
        }
        stage.config_mut().stop_signal = Some(signal.clone());
        Effect::config(format!("STOPSIGNAL {signal}"))
    }
}

/// Linux's, and the other names that moby knows for them.
const NAMES: &[&str] = &[
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE",
    "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU",
    "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
];

fn is_signal(text: &str) -> bool {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().is_ok_and(|number: u8| (1..=64).contains(&number));
    }
    let name = text.to_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let offset = |prefix: &str, most: u8| {
        name.strip_prefix(prefix)
            .and_then(|offset| offset.parse::<u8>().ok())
            .is_some_and(|offset| (1..=most).contains(&offset))
    };
    NAMES.contains(&name) || offset("RTMIN+", 15) || offset("RTMAX-", 14)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_names_and_numbers() {
        for signal in ["9", "64", "SIGTERM", "term", "sigquit", "SIGRTMIN+3", "RTMAX-14", "SIGRTMIN"] {
            assert!(is_signal(signal), "{signal}");
        }
        for signal in ["", "0", "65", "-9", "SIG", "SIGTRM", "SIGRTMIN+16", "SIGRTMAX-15", "SIGRTMIN+", "9 9"]
        {
            assert!(!is_signal(signal), "{signal}");
        }
    }
}
