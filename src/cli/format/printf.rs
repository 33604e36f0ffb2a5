//! Go's `print`, `println` and `printf`.

use serde_json::Value;

use super::value::{Datum, exponent_text, kind, show};

/// What an action prints.
pub(super) fn shown(datum: &Datum) -> String {
    match datum {
        Datum::Missing => "<no value>".into(),
        Datum::Of(value) => show(value),
    }
}

fn inner(datum: &Datum) -> String {
    show(datum.value())
}

/// With a space between two arguments where neither is text.
pub(super) fn print(arguments: &[Datum]) -> String {
    let mut text = String::new();
    for (n, argument) in arguments.iter().enumerate() {
        let both = n > 0 && !argument.value().is_string() && !arguments[n - 1].value().is_string();
        if both {
            text.push(' ');
        }
        text.push_str(&inner(argument));
    }
    text
}

pub(super) fn println(arguments: &[Datum]) -> String {
    let mut text = arguments.iter().map(inner).collect::<Vec<_>>().join(" ");
    text.push('\n');
    text
}

#[derive(Default)]
struct Verb {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
}

/// What Go prints for wrong verbs and arguments is printed here too: `%!d(string=x)`.
pub(super) fn printf(format: &str, arguments: &[Datum]) -> String {
    let mut text = String::new();
    let mut letters = format.chars().peekable();
    let mut next = 0;
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        let mut verb = Verb::default();
        while let Some(flag) = letters.next_if(|letter| "-+# 0".contains(*letter)) {
            match flag {
                '-' => verb.minus = true,
                '+' => verb.plus = true,
                '#' => verb.sharp = true,
                ' ' => verb.space = true,
                _ => verb.zero = true,
            }
        }
        let mut number = || {
            let mut number = None;
            if letters.next_if_eq(&'*').is_some() {
                let given = arguments.get(next).and_then(|argument| argument.value().as_u64());
                next += 1;
                return given.and_then(|given| usize::try_from(given).ok());
            }
            while let Some(digit) = letters.next_if(char::is_ascii_digit) {
                let digit =
                    digit.to_digit(10).and_then(|digit| usize::try_from(digit).ok()).unwrap_or_default();
                // Nobody pads that far; a format must not eat the memory.
                number = Some((number.unwrap_or(0) * 10 + digit).min(10_000));
            }
            number
        };
        verb.width = number().unwrap_or(0).min(10_000);
        if letters.next_if_eq(&'.').is_some() {
            let mut number = || {
                let mut number = 0;
                while let Some(digit) = letters.next_if(char::is_ascii_digit) {
                    let digit = digit.to_digit(10).and_then(|digit| usize::try_from(digit).ok());
                    number = (number * 10 + digit.unwrap_or_default()).min(10_000);
                }
                number
            };
            verb.precision = Some(number());
        }
        match letters.next() {
            None => text.push_str("%!(NOVERB)"),
            Some('%') => text.push('%'),
            Some(name) => {
                match arguments.get(next) {
                    Some(argument) => text.push_str(&verb.print(name, argument)),
                    None => text.push_str(&format!("%!{name}(MISSING)")),
                }
                next += 1;
            }
        }
    }
    if next < arguments.len() {
        let extra: Vec<String> = arguments[next..].iter().map(typed).collect();
        text.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    text
}

fn typed(datum: &Datum) -> String {
    match datum.value() {
        Value::Null => "<nil>".into(),
        value => format!("{}={}", kind(value), show(value)),
    }
}

impl Verb {
    fn print(&self, name: char, argument: &Datum) -> String {
        let value = argument.value();
        let wrong = || format!("%!{name}({})", typed(argument));
        let text = match (name, value) {
            ('v', Value::Number(_)) => self.signed(show(value)),
            ('s' | 'v', Value::String(text)) => self.cut(text),
            ('v', _) => show(value),
            ('T', _) => kind(value).to_owned(),
            ('q', Value::String(text)) => quoted(self.cut(text).as_str()),
            ('x' | 'X', Value::String(text)) => text
                .bytes()
                .map(|byte| if name == 'x' { format!("{byte:02x}") } else { format!("{byte:02X}") })
                .collect(),
            ('t', Value::Bool(_)) => show(value),
            // The elements of a list are printed with the verb, one by one.
            ('s' | 'q' | 'd' | 'x' | 'X', Value::Array(items)) => {
                let each = Verb { precision: self.precision, ..Verb::default() };
                let items: Vec<String> =
                    items.iter().map(|item| each.print(name, &Datum::of(item))).collect();
                format!("[{}]", items.join(" "))
            }
            (_, Value::Number(number)) => match self.number(name, number) {
                Some(text) => text,
                None => return wrong(),
            },
            _ => return wrong(),
        };
        self.pad(text, value.is_number())
    }

    fn number(&self, name: char, number: &serde_json::Number) -> Option<String> {
        let integer = number.as_i64();
        let sharp = |prefix| if self.sharp { prefix } else { "" };
        let of_integer = |integer: i64| {
            let sign = if integer < 0 { "-" } else { "" };
            let size = integer.unsigned_abs();
            Some(match name {
                'd' => format!("{sign}{size}"),
                'x' => format!("{sign}{}{size:x}", sharp("0x")),
                'X' => format!("{sign}{}{size:X}", sharp("0X")),
                'o' => format!("{sign}{}{size:o}", sharp("0")),
                'b' => format!("{sign}{size:b}"),
                'c' => char::from_u32(u32::try_from(integer).ok()?)?.to_string(),
                'q' => format!("'{}'", char::from_u32(u32::try_from(integer).ok()?)?),
                'U' => format!("U+{size:04X}"),
                _ => return None,
            })
        };
        let of_float = |float: f64| {
            let digits = self.precision.unwrap_or(6);
            Some(match name {
                'f' | 'F' => format!("{float:.digits$}"),
                'e' => exponent_text(&format!("{float:.digits$e}")),
                'E' => exponent_text(&format!("{float:.digits$e}")).replace('e', "E"),
                'g' | 'G' => match self.precision {
                    None => super::value::float_text(float),
                    Some(precision) => significant(float, precision),
                },
                _ => return None,
            })
        };
        let text = match integer {
            Some(integer) => of_integer(integer),
            None => of_float(number.as_f64()?),
        };
        Some(if matches!(name, 'c' | 'q' | 'U') { text? } else { self.signed(text?) })
    }

    fn signed(&self, text: String) -> String {
        match text.starts_with('-') {
            false if self.plus => format!("+{text}"),
            false if self.space => format!(" {text}"),
            _ => text,
        }
    }

    fn cut(&self, text: &str) -> String {
        text.chars().take(self.precision.unwrap_or(usize::MAX)).collect()
    }

    fn pad(&self, text: String, number: bool) -> String {
        let missing = self.width.saturating_sub(text.chars().count());
        if self.minus {
            return text + &" ".repeat(missing);
        }
        if self.zero && number {
            let sign = usize::from(text.starts_with(['+', '-', ' ']));
            return format!("{}{}{}", &text[..sign], "0".repeat(missing), &text[sign..]);
        }
        let fill = if self.zero { "0" } else { " " };
        fill.repeat(missing) + &text
    }
}

/// `%.Ng`: that many digits, no zeros at the end, an exponent where it is shorter.
pub(crate) fn significant(float: f64, digits: usize) -> String {
    let digits = digits.max(1);
    let rounded = format!("{float:.*e}", digits - 1);
    let exponent: i32 = rounded.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0);
    let trim = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if exponent < -4 || exponent >= i32::try_from(digits).unwrap_or(i32::MAX) {
        let (mantissa, exponent) = rounded.split_once('e').unwrap_or((&rounded, "0"));
        return exponent_text(&format!("{}e{exponent}", trim(mantissa)));
    }
    let places = usize::try_from(i32::try_from(digits).unwrap_or(i32::MAX) - 1 - exponent).unwrap_or(0);
    trim(&format!("{float:.places$}"))
}

/// Go's %q.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0b' => quoted.push_str("\\v"),
            '\x0c' => quoted.push_str("\\f"),
            _ if letter.is_control() && u32::from(letter) < 256 => {
                quoted.push_str(&format!("\\x{:02x}", u32::from(letter)))
            }
            _ => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}
