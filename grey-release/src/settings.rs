//! What the environment says: whether the agent is wanted, and whether it acts of its own accord.

use crate::symbols::variable;
use crate::text::number;

/// Freed memory above which it acts by itself, and how often it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OwnAccord {
    /// Bytes.
    pub(crate) threshold: u64,
    /// Milliseconds.
    pub(crate) interval_ms: u64,
}

/// How often it looks unless it is told.
const INTERVAL_MS: u64 = 30_000;
/// Not more often than this: each look walks the allocator's lists.
const LEAST_MS: u64 = 100;
/// And no more seldom than a day.
const MOST_MS: u64 = 86_400_000;

/// `GREY_RELEASE=off` (also `0`, `no`) switches all of it off.
pub(crate) fn wanted() -> bool {
    !matches!(
        variable(b"GREY_RELEASE\0"),
        Some(b"off" | b"0" | b"no" | b"false")
    )
}

/// `GREY_RELEASE_THRESHOLD=64M`, `GREY_RELEASE_INTERVAL=30s`. What cannot be read counts as not said: there is nobody to
/// tell, and not to act is the harmless side.
pub(crate) fn own_accord() -> Option<OwnAccord> {
    let threshold = size(variable(b"GREY_RELEASE_THRESHOLD\0")?)?;
    let interval_ms = match variable(b"GREY_RELEASE_INTERVAL\0") {
        Some(text) => milliseconds(text)?.clamp(LEAST_MS, MOST_MS),
        None => INTERVAL_MS,
    };
    Some(OwnAccord {
        threshold,
        interval_ms,
    })
}

/// Digits and the unit behind them.
fn split(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (value, unit) = text.split_at_checked(digits)?;
    Some((number(value)?, unit))
}

/// `64M`, `1G`, `512K`, `1000000`: powers of 1024.
fn size(text: &[u8]) -> Option<u64> {
    let (value, unit) = split(text)?;
    let factor = match unit {
        b"" | b"B" => 1,
        b"K" | b"KB" | b"KiB" => 1 << 10,
        b"M" | b"MB" | b"MiB" => 1 << 20,
        b"G" | b"GB" | b"GiB" => 1 << 30,
        _ => return None,
    };
    value.checked_mul(factor).filter(|bytes| *bytes > 0)
}

/// `500ms`, `30s`, `10m`, `1h`.
fn milliseconds(text: &[u8]) -> Option<u64> {
    let (value, unit) = split(text)?;
    let factor = match unit {
        b"ms" => 1,
        b"s" => 1000,
        b"m" => 60_000,
        b"h" => 3_600_000,
        _ => return None,
    };
    value.checked_mul(factor).filter(|time| *time > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_have_units_and_what_is_none_is_not_taken() {
        assert_eq!(size(b"64M"), Some(64 << 20));
        assert_eq!(size(b"1GiB"), Some(1 << 30));
        assert_eq!(size(b"1000000"), Some(1_000_000));
        for text in [
            "",
            "M",
            "-1M",
            "0",
            "64Q",
            "6.4M",
            "99999999999999999999",
            "99999999999G",
        ] {
            assert_eq!(size(text.as_bytes()), None, "{text}");
        }
        assert_eq!(milliseconds(b"500ms"), Some(500));
        assert_eq!(milliseconds(b"30s"), Some(30_000));
        assert_eq!(milliseconds(b"1h"), Some(3_600_000));
        for text in ["", "30", "s", "0s", "1d", "30 s"] {
            assert_eq!(milliseconds(text.as_bytes()), None, "{text}");
        }
    }
}
