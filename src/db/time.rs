//! Times in tables: whole nanoseconds since 1970, UTC. Views show them as RFC 3339.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::types::{FromSql, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub i64);

impl Time {
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Time(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000_000)
    }
}

/// RFC 3339, UTC, as many digits of the second as it takes; what image configs say.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time =
            OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0)).map_err(|_unsaid| fmt::Error)?;
        f.write_str(&time.format(&Rfc3339).map_err(|_unsaid| fmt::Error)?)
    }
}

impl FromStr for Time {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::invalid(format!("`{text}` is not a time; expected RFC 3339"));
        let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|cause| bad().because(cause))?;
        i64::try_from(time.unix_timestamp_nanos()).map(Time).map_err(|cause| bad().because(cause))
    }
}

impl ToSql for Time {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.into())
    }
}
impl FromSql for Time {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_i64().map(Time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_their_text() {
        for text in ["1970-01-01T00:00:00Z", "2024-05-06T07:08:09.123456789Z", "1969-12-31T23:59:59.5Z"] {
            assert_eq!(text.parse::<Time>().unwrap().to_string(), text);
        }
        assert_eq!("2024-05-06T09:08:09+02:00".parse::<Time>().unwrap().to_string(), "2024-05-06T07:08:09Z");
    }
}
