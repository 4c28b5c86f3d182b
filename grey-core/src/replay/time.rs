//! Instants as recordings write them, read without detours; every other form of RFC 3339 goes to jiff.

use crate::time::Timestamp;

/// Reads an instant. `None` if it is none.
pub(super) fn parse(text: &str) -> Option<Timestamp> {
    common(text.as_bytes()).or_else(|| text.parse().ok())
}

/// `YYYY-MM-DDTHH:MM:SSZ`, with up to six digits of a second, from 1970 on. `None` says nothing about other forms.
fn common(text: &[u8]) -> Option<Timestamp> {
    let (head, tail) = text.split_at_checked(19)?;
    let head: &[u8; 19] = head.try_into().ok()?;
    if [head[4], head[7], head[10], head[13], head[16]] != *b"--T::" {
        return None;
    }
    let two = |at: usize| Some(i64::from(digit(head[at])?) * 10 + i64::from(digit(head[at + 1])?));
    let year = two(0)? * 100 + two(2)?;
    let (month, day) = (two(5)?, two(8)?);
    let (hour, minute, second) = (two(11)?, two(14)?, two(17)?);
    if year < 1970 || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = days(year, month, day)?;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    Some(Timestamp(seconds * 1_000_000 + fraction(tail)?))
}

/// The µs of `Z`, `.5Z`, `.123456Z`.
fn fraction(tail: &[u8]) -> Option<i64> {
    let digits = match tail {
        [b'Z'] => return Some(0),
        [b'.', digits @ .., b'Z'] if (1..=6).contains(&digits.len()) => digits,
        _ => return None,
    };
    let mut us = 0;
    for byte in digits {
        us = us * 10 + i64::from(digit(*byte)?);
    }
    for _ in digits.len()..6 {
        us *= 10;
    }
    Some(us)
}

fn digit(byte: u8) -> Option<u8> {
    let digit = byte.wrapping_sub(b'0');
    (digit < 10).then_some(digit)
}

/// Days since the epoch of a date of the Gregorian calendar from 1970 on.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    /// Days of a year before its month.
    const BEFORE: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    /// Days of each month.
    const LENGTH: [i64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let at = usize::try_from(month - 1).ok().filter(|at| *at < 12)?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    if day < 1 || day > LENGTH[at] + i64::from(leap && month == 2) {
        return None;
    }
    let past = year - 1;
    let leap_days = past / 4 - past / 100 + past / 400 - (1969 / 4 - 1969 / 100 + 1969 / 400);
    Some((year - 1970) * 365 + leap_days + BEFORE[at] + i64::from(leap && month > 2) + day - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form_of_an_instant_is_read() {
        for (text, want) in [
            ("2026-11-21T05:00:00.000Z", Some(1_795_237_200_000_000)),
            ("2026-11-21T05:00:00Z", Some(1_795_237_200_000_000)),
            ("2026-11-21t05:00:00z", Some(1_795_237_200_000_000)),
            ("2026-11-21 05:00:00Z", Some(1_795_237_200_000_000)),
            ("2026-11-21T05:00:00.5Z", Some(1_795_237_200_500_000)),
            (
                "2026-11-21T05:00:00.123456789Z",
                Some(1_795_237_200_123_456),
            ),
            ("2026-11-21T07:00:00+02:00", Some(1_795_237_200_000_000)),
            ("2026-11-20T21:30:00.25-07:30", Some(1_795_237_200_250_000)),
            ("1969-12-31T23:59:59Z", Some(-1_000_000)),
            ("2024-02-29T00:00:00Z", Some(1_709_164_800_000_000)),
            ("2026-02-29T00:00:00Z", None),
            ("2026-11-21T24:00:00Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-11-21T05:00:00", None),
            ("2026-11-21", None),
            ("20261121T050000Z", Some(1_795_237_200_000_000)),
            ("1795237200", None),
            ("NaN", None),
            ("", None),
        ] {
            assert_eq!(parse(text).map(|ts| ts.0), want, "{text}");
        }
    }

    #[test]
    fn every_day_for_400_years_is_jiffs_day() {
        let first: jiff::civil::Date = "1970-01-01".parse().unwrap();
        let mut date = first;
        for day in 0..400 * 366 {
            let (year, month) = (i64::from(date.year()), i64::from(date.month()));
            assert_eq!(
                days(year, month, i64::from(date.day())),
                Some(day),
                "{date}"
            );
            date = date.tomorrow().unwrap();
        }
    }

    proptest! {
        #[test]
        fn the_short_way_gives_what_jiff_gives(us in 0_i64..253_000_000_000_000_000, cut in 0_usize..=6) {
            let text = jiff::Timestamp::from_microsecond(us).unwrap();
            let text = format!("{text:.cut$}");
            let short = common(text.as_bytes());
            prop_assert!(short.is_some(), "{}", text);
            prop_assert_eq!(short, text.parse().ok(), "{}", text);
        }

        #[test]
        fn what_the_short_way_takes_jiff_takes(text in "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{0,7})?Z?") {
            if let Some(ts) = common(text.as_bytes()) {
                prop_assert_eq!(Some(ts), text.parse().ok(), "{}", text);
            }
        }
    }
}
