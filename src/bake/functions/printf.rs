//! `format`: a text with values in it, by verbs.

use std::iter::Peekable;
use std::str::Chars;

use super::Result;
use crate::bake::value::{Number, Value};

/// What stands between `%` and its letter.
#[derive(Default)]
struct Verb {
    plus: bool,
    minus: bool,
    space: bool,
    sharp: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
}

pub(super) fn format(format: &str, args: &[Value]) -> Result<String> {
    let mut out = String::new();
    let mut letters = format.chars().peekable();
    let mut next = 0;
    let mut used = 0;
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        let mut verb = Verb::default();
        while let Some(flag) = letters.peek() {
            match flag {
                '+' => verb.plus = true,
                '-' => verb.minus = true,
                ' ' => verb.space = true,
                '#' => verb.sharp = true,
                '0' => verb.zero = true,
                _ => break,
            }
            letters.next();
        }
        verb.width = number(&mut letters).unwrap_or(0).min(1 << 16);
        if letters.next_if_eq(&'.').is_some() {
            verb.precision = Some(number(&mut letters).unwrap_or(0).min(1 << 10));
        }
        if letters.next_if_eq(&'[').is_some() {
            next = number(&mut letters)
                .filter(|at| *at > 0 && letters.next_if_eq(&']').is_some())
                .ok_or("after `[` an argument's number and `]` are needed")?
                - 1;
        }
        let Some(letter) = letters.next() else { return Err("it ends in the middle of a verb".into()) };
        if letter == '%' {
            out.push('%');
            continue;
        }
        let value = args.get(next).ok_or_else(|| format!("there is no argument {}", next + 1))?;
        next += 1;
        used = used.max(next);
        let text = verb.show(letter, value)?;
        out.push_str(&verb.pad(text, value));
    }
    match used < args.len() {
        true => Err(format!("it uses {used} of {} arguments", args.len())),
        false => Ok(out),
    }
}

fn number(letters: &mut Peekable<Chars<'_>>) -> Option<usize> {
    let mut digits = String::new();
    while let Some(digit) = letters.next_if(char::is_ascii_digit) {
        digits.push(digit);
    }
    digits.parse().ok()
}

impl Verb {
    fn show(&self, letter: char, value: &Value) -> Result<String> {
        Ok(match letter {
            'v' => match value {
                Value::String(text) if !self.sharp => text.clone(),
                Value::Bool(_) | Value::Number(_) if !self.sharp => value.to_text()?,
                other => other.to_json().to_string(),
            },
            's' => self.cut(value.to_text()?),
            'q' => serde_json::Value::String(self.cut(value.to_text()?)).to_string(),
            't' => value.to_bool()?.to_string(),
            'd' => self.sign(whole(value)?, |int| int.to_string()),
            'b' => self.sign(whole(value)?, |int| format!("{int:b}")),
            'o' => self.sign(whole(value)?, |int| format!("{int:o}")),
            'x' | 'X' => {
                let text = match value {
                    Value::String(text) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
                    value => {
                        let prefix = if self.sharp { "0x" } else { "" };
                        self.sign(whole(value)?, |int| format!("{prefix}{int:x}"))
                    }
                };
                if letter == 'X' { text.to_uppercase() } else { text }
            }
            'f' | 'F' => {
                let precision = self.precision.unwrap_or(6);
                self.signed(format!("{:.precision$}", value.to_number()?.float()))
            }
            'e' | 'E' => {
                let precision = self.precision.unwrap_or(6);
                let text = exponent(&format!("{:.precision$e}", value.to_number()?.float()));
                self.signed(if letter == 'E' { text.to_uppercase() } else { text })
            }
            'g' | 'G' => {
                let float = value.to_number()?.float();
                let size = float.abs().log10().floor();
                let text = match float != 0.0 && !(-4.0..21.0).contains(&size) {
                    true => exponent(&format!("{float:e}")),
                    false => float.to_string(),
                };
                self.signed(if letter == 'G' { text.to_uppercase() } else { text })
            }
            other => return Err(format!("`%{other}` is no verb")),
        })
    }

    fn cut(&self, text: String) -> String {
        match self.precision {
            Some(length) => text.chars().take(length).collect(),
            None => text,
        }
    }

    fn sign(&self, int: i128, digits: impl Fn(u128) -> String) -> String {
        let text = digits(int.unsigned_abs());
        self.signed(if int < 0 { format!("-{text}") } else { text })
    }

    fn signed(&self, text: String) -> String {
        match text.starts_with('-') {
            true => text,
            false if self.plus => format!("+{text}"),
            false if self.space => format!(" {text}"),
            false => text,
        }
    }

    fn pad(&self, text: String, value: &Value) -> String {
        let width = self.width;
        if self.minus {
            return format!("{text:<width$}");
        }
        if self.zero && matches!(value, Value::Number(_)) {
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-', ' '])));
            let width = width.saturating_sub(sign.len());
            return format!("{sign}{digits:0>width$}");
        }
        format!("{text:>width$}")
    }
}

/// Rust writes `1e7` where Go writes `1e+07`.
fn exponent(text: &str) -> String {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}

fn whole(value: &Value) -> Result<i128> {
    match value.to_number()? {
        Number::Int(int) => Ok(int),
        Number::Float(float) => Number::of(float.trunc()).int().ok_or_else(|| "it is too large".into()),
    }
}
