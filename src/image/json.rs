//! JSON as Go writes it: `null` stands for every empty slice, map and pointer.

use serde::{Deserialize, Deserializer};

/// For `#[serde(default, deserialize_with = "..")]`: null reads as the default.
pub(super) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
