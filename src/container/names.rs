//! Names of containers: the user's, checked, or one made up.

use crate::error::{Error, Result};

/// Of rock and land.
const HOW: [&str; 64] = [
    "ancient", "banded", "bare", "blue", "bold", "brisk", "broad", "bronze", "calm", "clear", "cloven",
    "coarse", "cold", "craggy", "crisp", "dark", "deep", "dry", "dusty", "early", "eastern", "even", "faint",
    "fair", "fine", "firm", "flinty", "folded", "frosty", "gentle", "glassy", "golden", "grainy", "green",
    "grey", "high", "hollow", "jagged", "keen", "layered", "lofty", "lone", "low", "mellow", "misty",
    "mossy", "narrow", "northern", "pale", "plain", "polished", "quiet", "red", "round", "rugged", "sandy",
    "sharp", "silent", "smooth", "steep", "still", "sunny", "tilted", "windy",
];
const WHAT: [&str; 64] = [
    "agate", "amber", "arch", "basalt", "basin", "beryl", "bluff", "boulder", "butte", "cairn", "canyon",
    "chalk", "chert", "clay", "cliff", "cobble", "crag", "crest", "delta", "diorite", "dolomite", "dome",
    "dune", "fell", "fjord", "flint", "gabbro", "garnet", "geode", "glacier", "gneiss", "gorge", "granite",
    "gravel", "gypsum", "hill", "island", "jasper", "karst", "knoll", "lava", "ledge", "loam", "marble",
    "marl", "mesa", "mica", "moor", "opal", "pebble", "pumice", "quartz", "ravine", "reef", "ridge",
    "schist", "shale", "slate", "spire", "summit", "terrace", "topaz", "tuff", "valley",
];

/// From random bytes, of which any will do.
pub(super) fn made_up(random: [u8; 2]) -> String {
    let pick = |words: &[&'static str; 64], byte: u8| words[usize::from(byte) % words.len()];
    format!("{}_{}", pick(&HOW, random[0]), pick(&WHAT, random[1]))
}

/// `Invalid` for what cannot be a container's name.
pub fn check_name(name: &str) -> Result<()> {
    if is_name(name) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )))
}

/// Two letters at least, the first a letter or digit; volumes too.
pub(super) fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.len() >= 2
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_made_up_is_a_name() {
        for byte in 0..=255 {
            check_name(&made_up([byte, 255 - byte])).unwrap();
        }
        assert_eq!(made_up([0, 64]), "ancient_agate");
        for words in [HOW, WHAT] {
            assert!(words.is_sorted_by(|a, b| a < b), "each once, so that it is found");
        }
    }

    #[test]
    fn names_are_checked_as_docker_does() {
        for good in ["ab", "a.b", "0-_"] {
            check_name(good).unwrap();
        }
        for bad in ["", "a", "-a", "a b", "a/b", "ä1"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        assert_eq!(
            check_name("x!").unwrap_err().message(),
            "Invalid container name (x!), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        );
    }
}
