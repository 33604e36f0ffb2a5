//! Sizes, durations and ids as people read them; Docker's words (go-units).

use std::time::Duration;

use outcrop::image::Digest;

use super::printf::significant;

const BINARY_UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
const UNITS: [&str; 9] = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];

/// Bytes in units of 1000 with three significant digits: `77.9MB`.
pub(crate) fn size(bytes: u64) -> String {
    scaled(bytes, 3)
}

/// With four, as `system df` and the bars of a transfer show them: `7.796MB`.
pub(crate) fn size_exact(bytes: u64) -> String {
    scaled(bytes, 4)
}

/// In units of 1024, as `info` shows memory: `15.52GiB`.
#[expect(clippy::cast_precision_loss, reason = "four digits are shown")]
pub(crate) fn size_binary(bytes: u64) -> String {
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit < BINARY_UNITS.len() - 1 {
        size /= 1024.0;
        unit += 1;
    }
    format!("{}{}", significant(size, 4), BINARY_UNITS[unit])
}

#[expect(clippy::cast_precision_loss, reason = "three or four digits are shown")]
fn scaled(bytes: u64, digits: usize) -> String {
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1000.0 && unit < UNITS.len() - 1 {
        size /= 1000.0;
        unit += 1;
    }
    // `%.3g` of 999.9 is 1e+03: Docker shows that too.
    format!("{}{}", significant(size, digits), UNITS[unit])
}

/// `2024-05-22 18:11:51 +0000 UTC`, as Go prints a time; seconds since the epoch.
pub(crate) fn time(seconds: i64) -> String {
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second] +0000 UTC");
    let time = time::OffsetDateTime::from_unix_timestamp(seconds).ok();
    time.and_then(|time| time.format(format).ok()).unwrap_or_else(|| seconds.to_string())
}

/// `About a minute`, `3 hours`, `5 weeks`.
pub(crate) fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let minutes = seconds / 60;
    // Rounded to the nearest hour from one hour on.
    let hours = (seconds + 1800) / 3600;
    match () {
        () if seconds < 1 => "Less than a second".into(),
        () if seconds == 1 => "1 second".into(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".into(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".into(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// `2 hours ago`; a time that lies ahead, by a clock that is wrong, is now.
pub(crate) fn ago(since: Duration) -> String {
    format!("{} ago", human_duration(since))
}

/// `2 hours ago`, of a time in seconds since 1970.
pub(crate) fn ago_at(seconds: i64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let then = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    ago(now.saturating_sub(then))
}

/// `(52%)`-like shares, whole numbers.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    let share = if whole == 0 { 0 } else { u128::from(part) * 100 / u128::from(whole) };
    format!("{share}%")
}

/// 12 hex digits, or `sha256:` and all 64 with `--no-trunc`.
pub(crate) fn short_id(digest: &Digest, no_trunc: bool) -> String {
    if no_trunc { digest.to_string() } else { digest.short() }
}

/// At most `width` letters, the last one `…` where something is cut off.
pub(crate) fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    kept + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_dockers() {
        let shown =
            [0, 1, 999, 1000, 1240, 7_796_000, 77_900_000, 187_659_947, 999_900, 1_000_000_000_000].map(size);
        assert_eq!(
            shown,
            ["0B", "1B", "999B", "1kB", "1.24kB", "7.8MB", "77.9MB", "188MB", "1e+03kB", "1TB"]
        );
        assert_eq!(size_exact(7_796_123), "7.796MB");
    }

    #[test]
    fn durations_are_dockers() {
        let shown = [
            0, 1, 59, 60, 119, 120, 3599, 3600, 5399, 5400, 172_799, 172_800, 1_209_600, 5_184_000,
            63_072_000,
        ]
        .map(|seconds| human_duration(Duration::from_secs(seconds)));
        assert_eq!(
            shown,
            [
                "Less than a second",
                "1 second",
                "59 seconds",
                "About a minute",
                "About a minute",
                "2 minutes",
                "59 minutes",
                "About an hour",
                "About an hour",
                "2 hours",
                "2 days",
                "2 days",
                "2 weeks",
                "2 months",
                "2 years"
            ]
        );
    }

    #[test]
    fn what_is_cut_off_shows() {
        assert_eq!(ellipsis("abcdef", 6), "abcdef");
        assert_eq!(ellipsis("abcdefg", 6), "abcde…");
    }

    #[test]
    fn times_are_gos() {
        assert_eq!(time(1_716_401_511), "2024-05-22 18:11:51 +0000 UTC");
    }
}
