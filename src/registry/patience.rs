//! How often and how long to wait for a registry that falters.

use std::hash::{BuildHasher as _, Hasher as _};
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

/// Waits double from `first` to `most`; each is drawn from its upper half, so that many clients do not come back at once.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Attempts in all, the first included.
    pub tries: u32,
    pub first: Duration,
    pub most: Duration,
    /// A `Retry-After` beyond this is not waited for.
    pub asked: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            tries: 5,
            first: Duration::from_millis(300),
            most: Duration::from_secs(10),
            asked: Duration::from_secs(60),
        }
    }
}

impl Patience {
    /// Before the attempt that follows `failed` failures, from 1. `None` when it is enough.
    pub(super) fn wait(&self, failed: u32, retry_after: Option<Duration>) -> Option<Duration> {
        if failed >= self.tries {
            return None;
        }
        match retry_after {
            Some(asked) => (asked <= self.asked).then_some(asked),
            None => {
                let doubled = self.first.saturating_mul(1 << failed.saturating_sub(1).min(16));
                Some(jitter(doubled.min(self.most)))
            }
        }
    }
}

fn jitter(most: Duration) -> Duration {
    // Every RandomState has other keys, so an empty hash of it is a random number.
    let random = std::hash::RandomState::new().build_hasher().finish();
    let half = most / 2;
    let part = u32::try_from(random & 0xffff).expect("16 bits fit");
    half + half * part / 0xffff
}

/// Seconds, or a date (RFC 9110, 10.2.3).
pub(super) fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let then = OffsetDateTime::parse(text, &Rfc2822).ok()?;
    let left = then - OffsetDateTime::from(now);
    Some(Duration::try_from(left).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_most_and_end() {
        let patience = Patience {
            tries: 6,
            first: Duration::from_millis(100),
            most: Duration::from_millis(500),
            asked: Duration::from_secs(60),
        };
        for (failed, most) in [(1, 100), (2, 200), (3, 400), (4, 500), (5, 500)] {
            let wait = patience.wait(failed, None).unwrap().as_millis();
            assert!((most / 2..=most).contains(&wait), "{failed}: {wait}");
        }
        assert_eq!(patience.wait(6, None), None);
    }

    #[test]
    fn what_the_registry_asks_for_is_waited_if_bearable() {
        let patience = Patience::default();
        let asked = |seconds| patience.wait(1, Some(Duration::from_secs(seconds)));
        assert_eq!(asked(0), Some(Duration::ZERO));
        assert_eq!(asked(60), Some(Duration::from_secs(60)));
        assert_eq!(asked(61), None);
    }

    #[test]
    fn retry_after_reads_seconds_and_dates() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let read = |text| retry_after(text, now);
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:47 GMT"), Some(Duration::from_secs(10)));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:00 GMT"), Some(Duration::ZERO));
        assert_eq!(read("soon"), None);
        assert_eq!(read("-1"), None);
    }
}
