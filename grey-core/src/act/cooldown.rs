//! What was followed by harm is not done again at once: the time grows with each harm in a row. Wall-clock milliseconds,
//! since a journal outlives processes and boots; a clock that was set back never locks an action out for good.

use std::time::Duration;

use super::record::Harm;

/// A time that is not over yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cooling {
    /// What is left of it.
    pub left: Duration,
    /// The whole of it.
    pub length: Duration,
}

/// How long an action is not repeated after `count` harms in a row: `first`, doubled with each, at most `longest`.
#[must_use]
pub fn length(count: u32, first: Duration, longest: Duration) -> Duration {
    let Some(doublings) = count.checked_sub(1) else {
        return Duration::ZERO;
    };
    1_u32
        .checked_shl(doublings)
        .and_then(|factor| first.checked_mul(factor))
        .map_or(longest, |length| length.min(longest))
}

/// What is left of `length` since `since`; `None` when it is over.
///
/// With a clock that was set back, `since` lies in the future: by less than `length`, the end stays where it was, so
/// that at most twice the length is waited for; by more, nothing can be told from it and the time counts as over.
#[must_use]
pub fn cooling(since: u64, length: Duration, now: u64) -> Option<Cooling> {
    let whole = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    let left = since.saturating_add(whole).checked_sub(now)?;
    (left > 0 && left <= whole.saturating_mul(2)).then(|| Cooling {
        left: Duration::from_millis(left),
        length,
    })
}

/// What is left of the cool-down after this harm; `None` when the action may be taken again.
#[must_use]
pub fn after_harm(harm: &Harm, first: Duration, longest: Duration, now: u64) -> Option<Cooling> {
    cooling(harm.at, length(harm.count, first, longest), now)
}

/// What is remembered of earlier harm once the action was taken without any: half of it, so that one that goes wrong
/// every other time is still held back longer each time. `None` where nothing changes: there was no harm, or the action
/// was forced before its cool-down was over.
#[must_use]
pub fn after_success(harm: &Harm, first: Duration, longest: Duration, now: u64) -> Option<Harm> {
    (harm.count > 0 && after_harm(harm, first, longest, now).is_none()).then(|| Harm {
        count: harm.count / 2,
        ..harm.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_secs(60);
    const LONGEST: Duration = Duration::from_secs(3600);
    const T: u64 = 1_700_000_000_000;

    fn harm(count: u32) -> Harm {
        Harm {
            kind: "limit".to_owned(),
            target: "/a".to_owned(),
            at: T,
            count,
            why: "oom_kill".to_owned(),
        }
    }

    fn left(count: u32, now: u64) -> Option<u64> {
        after_harm(&harm(count), FIRST, LONGEST, now).map(|cooling| cooling.left.as_secs())
    }

    #[test]
    fn each_harm_in_a_row_doubles_it_up_to_the_longest() {
        let seconds = |count| length(count, FIRST, LONGEST).as_secs();
        let got: Vec<u64> = [0, 1, 2, 3, 6, 7, 32, 33, 34, u32::MAX]
            .into_iter()
            .map(seconds)
            .collect();
        assert_eq!(got, [0, 60, 120, 240, 1920, 3600, 3600, 3600, 3600, 3600]);
        let huge = Duration::from_secs(u64::MAX / 2);
        assert_eq!(length(9, huge, LONGEST), LONGEST);
    }

    #[test]
    fn it_is_over_to_the_millisecond() {
        assert_eq!(left(1, T), Some(60));
        assert_eq!(left(1, T + 59_000), Some(1));
        assert!(after_harm(&harm(1), FIRST, LONGEST, T + 59_999).is_some());
        assert_eq!(left(1, T + 60_000), None);
        assert_eq!(left(1, u64::MAX), None);
        assert_eq!(left(0, T), None);
    }

    #[test]
    fn a_clock_set_back_waits_at_most_twice_as_long_and_never_for_good() {
        assert_eq!(left(1, T - 1_000), Some(61));
        assert_eq!(left(1, T - 60_000), Some(120));
        assert_eq!(left(1, T - 60_001), None);
        assert_eq!(left(1, 0), None);
        assert_eq!(cooling(u64::MAX, FIRST, T), None);
        // Wherever the clock stands, some time of at most twice the length later it is over.
        for now in (T - 200_000..T + 200_000).step_by(777) {
            let waited = left(1, now).map_or(0, |seconds| seconds + 1) * 1000;
            assert!(
                waited <= 121_000 && left(1, now + waited).is_none(),
                "{now}"
            );
        }
    }

    #[test]
    fn a_success_after_it_halves_what_is_remembered_and_a_forced_one_does_not() {
        let after =
            |count, now| after_success(&harm(count), FIRST, LONGEST, now).map(|harm| harm.count);
        assert_eq!(after(1, T + 60_000), Some(0));
        assert_eq!(after(5, T + 3_600_000), Some(2));
        assert_eq!(after(1, T + 59_999), None);
        assert_eq!(after(0, T), None);
    }
}
