//! Functions of numbers and truth.

use super::{Entry, MANY, Result};
use crate::bake::value::{Number, Value};

pub(super) const TABLE: &[Entry] = &[
    Entry("absolute", 1, 1, |a, _| match a[0].to_number()? {
        number if number < Number::Int(0) => negate(number),
        number => Ok(Value::Number(number)),
    }),
    Entry("add", 2, 2, |a, _| with(a, i128::checked_add, |a, b| a + b)),
    Entry("and", 2, 2, |a, _| Ok(Value::Bool(a[0].to_bool()? & a[1].to_bool()?))),
    Entry("ceil", 1, 1, |a, _| round(a, f64::ceil)),
    Entry("divide", 2, 2, |a, _| Ok(Value::Number(a[0].to_number()?.divide(a[1].to_number()?)?))),
    Entry("equal", 2, 2, |a, _| Ok(Value::Bool(a[0] == a[1]))),
    Entry("floor", 1, 1, |a, _| round(a, f64::floor)),
    Entry("greaterthan", 2, 2, |a, _| Ok(Value::Bool(a[0].to_number()? > a[1].to_number()?))),
    Entry("greaterthanorequalto", 2, 2, |a, _| Ok(Value::Bool(a[0].to_number()? >= a[1].to_number()?))),
    Entry("int", 1, 1, |a, _| round(a, f64::trunc)),
    Entry("lessthan", 2, 2, |a, _| Ok(Value::Bool(a[0].to_number()? < a[1].to_number()?))),
    Entry("lessthanorequalto", 2, 2, |a, _| Ok(Value::Bool(a[0].to_number()? <= a[1].to_number()?))),
    Entry("log", 2, 2, |a, _| finite(a[0].to_number()?.float().ln() / a[1].to_number()?.float().ln())),
    Entry("max", 1, MANY, |a, _| best(a, |new, old| new > old)),
    Entry("min", 1, MANY, |a, _| best(a, |new, old| new < old)),
    Entry("modulo", 2, 2, |a, _| Ok(Value::Number(a[0].to_number()?.modulo(a[1].to_number()?)?))),
    Entry("multiply", 2, 2, |a, _| with(a, i128::checked_mul, |a, b| a * b)),
    Entry("negate", 1, 1, |a, _| negate(a[0].to_number()?)),
    Entry("not", 1, 1, |a, _| Ok(Value::Bool(!a[0].to_bool()?))),
    Entry("notequal", 2, 2, |a, _| Ok(Value::Bool(a[0] != a[1]))),
    Entry("or", 2, 2, |a, _| Ok(Value::Bool(a[0].to_bool()? | a[1].to_bool()?))),
    Entry("parseint", 2, 2, |a, _| parse_int(&a[0].to_text()?, a[1].to_size()?)),
    Entry("pow", 2, 2, |a, _| {
        let exact = |a: i128, b: i128| a.checked_pow(u32::try_from(b).ok()?);
        let power = a[0].to_number()?.with(a[1].to_number()?, exact, f64::powf);
        finite(power.float()).map(|_| Value::Number(power))
    }),
    Entry("signum", 1, 1, |a, _| {
        let number = a[0].to_number()?;
        Ok(Value::int(i8::from(number > Number::Int(0)) - i8::from(number < Number::Int(0))))
    }),
    Entry("subtract", 2, 2, |a, _| with(a, i128::checked_sub, |a, b| a - b)),
];

fn with(a: &[Value], exact: fn(i128, i128) -> Option<i128>, float: fn(f64, f64) -> f64) -> Result {
    Ok(Value::Number(a[0].to_number()?.with(a[1].to_number()?, exact, float)))
}

fn negate(number: Number) -> Result {
    Ok(Value::Number(Number::Int(0).with(number, i128::checked_sub, |a, b| a - b)))
}

fn round(a: &[Value], how: fn(f64) -> f64) -> Result {
    Ok(Value::Number(match a[0].to_number()? {
        Number::Float(float) => Number::of(how(float)),
        whole => whole,
    }))
}

fn finite(float: f64) -> Result {
    match float.is_finite() {
        true => Ok(Value::Number(Number::of(float))),
        false => Err("the result is not a number".into()),
    }
}

fn best(a: &[Value], better: fn(Number, Number) -> bool) -> Result {
    let mut best = a[0].to_number()?;
    for other in &a[1..] {
        let other = other.to_number()?;
        if better(other, best) {
            best = other;
        }
    }
    Ok(Value::Number(best))
}

fn parse_int(text: &str, base: usize) -> Result {
    let base = u32::try_from(base).ok().filter(|base| (2..=36).contains(base));
    let base = base.ok_or("the base is between 2 and 36")?;
    let int = i128::from_str_radix(text, base);
    int.ok().map(Value::int).ok_or_else(|| format!("`{text}` is no whole number in base {base}"))
}
