//! Sizes as people write them.

use crate::error::{Error, Result};

/// `512m`, `1.5g`, `64mb`, `2GiB`, `100`: bytes, in units of 1024 whatever the letters say (go-units RAMInBytes).
pub fn parse(text: &str) -> Result<u64> {
    let wrong = || {
        Error::invalid(format!("`{text}` is no size"))
            .hint("write a number with b, k, m, g, t or p behind it: 512m")
    };
    let lower = text.trim().to_ascii_lowercase();
    let end = lower.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let unit = unit.trim_start();
    let letter = unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(unit);
    let power = match letter {
        "" if unit != "ib" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(wrong()),
    };
    let factor = 1024_u64.pow(power);
    match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(factor).ok_or_else(wrong),
        Err(_not_whole) => {
            let number: f64 = number.parse().map_err(|_not_a_number| wrong())?;
            #[expect(clippy::cast_precision_loss, reason = "a power of two is exact")]
            let bytes = number * factor as f64;
            // Up to 2^53 a whole float prints all its digits.
            format!("{:.0}", bytes.floor()).parse().map_err(|_too_large| wrong())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_units_of_1024() {
        let read = ["100", "1k", "512m", "1.5g", "64MB", "2GiB", "10b", "0"].map(|text| parse(text).unwrap());
        assert_eq!(read, [100, 1024, 536_870_912, 1_610_612_736, 67_108_864, 2_147_483_648, 10, 0]);
        for wrong in ["", "m", "-1", "1x", "1ib", "1.2.3", "99999999999p"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
