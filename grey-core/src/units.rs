//! Sizes and durations as users write them and as people read them. Multiples are binary everywhere (`K` is 1024),
//! as in the kernel's own files and in other memory tools.

use std::fmt::Write as _;
use std::time::Duration;

mod figure;

pub use figure::Figure;

#[cfg(test)]
mod tests;

/// A size argument.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Size {
    /// Bytes.
    Bytes(u64),
    /// Percent of something the caller knows; never negative, may be over 100.
    Percent(f64),
}

impl Size {
    /// The size in bytes, percentages taken of `whole`; as large as it gets where it would overflow.
    #[must_use]
    pub fn bytes_of(self, whole: u64) -> u64 {
        match self {
            Size::Bytes(bytes) => bytes,
            Size::Percent(percent) => (whole as f64 * percent / 100.0) as u64,
        }
    }
}

/// A size or duration that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}`: {reason}")]
pub struct UnitError {
    /// The argument as given.
    pub text: String,
    /// What is wrong with it, and how to write it.
    pub reason: String,
}

fn error<T>(text: &str, reason: &str) -> Result<T, UnitError> {
    Err(UnitError {
        text: text.to_owned(),
        reason: reason.to_owned(),
    })
}

/// Reads `123`, `4K`, `512M`, `1.5GiB`, `2 TB`, `50%`. K, M, G and T (with `i`, `B` or both behind, in any case)
/// are binary multiples, whatever the `i` says, as memory tools do it.
///
/// # Errors
/// Empty, negative, not a number, an unknown unit, or more than 64 bits hold.
pub fn parse_size(text: &str) -> Result<Size, UnitError> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return error(text, "is empty; write a size like 512M, 1.5GiB or 50%");
    }
    if trimmed.starts_with('-') {
        return error(text, "a size cannot be negative");
    }
    let digits = trimmed
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    if number.is_empty() {
        return error(text, "does not begin with a number; write a size like 512M");
    }
    if unit == "%" {
        return match number.parse::<f64>() {
            Ok(percent) if percent.is_finite() => Ok(Size::Percent(percent)),
            _ => error(text, "is not a percentage"),
        };
    }
    let shift = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "ki" | "kib" => 10,
        "m" | "mb" | "mi" | "mib" => 20,
        "g" | "gb" | "gi" | "gib" => 30,
        "t" | "tb" | "ti" | "tib" => 40,
        _ => return error(text, "has an unknown unit; known are K, M, G, T and %"),
    };
    scaled(number, shift).map_or_else(|reason| error(text, reason), |bytes| Ok(Size::Bytes(bytes)))
}

/// A decimal number times a power of two, rounded down, in integers: a float would lose the last bytes of a large one.
fn scaled(number: &str, shift: u32) -> Result<u64, &'static str> {
    const TOO_LARGE: &str = "is more than 64 bits hold";
    const FRACTION_DIGITS: usize = 18;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return Err("is not a number");
    }
    let whole: u128 = if whole.is_empty() {
        0
    } else {
        whole.parse().map_err(|_| TOO_LARGE)?
    };
    // 10^18 × 2^40 still fits 128 bits.
    let fraction = &fraction[..fraction.len().min(FRACTION_DIGITS)];
    let part: u128 = if fraction.is_empty() {
        0
    } else {
        let scale = fraction.chars().fold(1_u128, |scale, _| scale * 10);
        let digits: u128 = fraction.parse().map_err(|_| "is not a number")?;
        (digits << shift) / scale
    };
    whole
        .checked_mul(1 << shift)
        .and_then(|whole| whole.checked_add(part))
        .and_then(|bytes| u64::try_from(bytes).ok())
        .ok_or(TOO_LARGE)
}

/// Reads `500ms`, `30s`, `10m`, `1h30m`, `2 days`. `0` alone is zero; whether that makes sense is for the caller.
///
/// # Errors
/// Empty, negative, a number without a unit, an unknown unit, too long.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return error(text, "is empty; write a duration like 500ms, 30s or 10m");
    }
    if trimmed.starts_with('-') {
        return error(text, "a duration cannot be negative");
    }
    if let Ok(number) = trimmed.parse::<f64>()
        && number.is_finite()
        && trimmed.bytes().all(|b| b.is_ascii_digit() || b == b'.')
    {
        if number == 0.0 {
            return Ok(Duration::ZERO);
        }
        return error(text, &format!("has no unit; write {trimmed}s for seconds"));
    }
    humantime::parse_duration(trimmed).or_else(|cause| {
        error(
            text,
            &format!("is not a duration like 500ms, 30s or 1h30m ({cause})"),
        )
    })
}

const UNITS: [&str; 7] = ["", "K", "M", "G", "T", "P", "E"];

/// At most five characters: `0`, `123`, `4.0K`, `312M`, `1.5G`. Binary multiples; one decimal below 10.
#[must_use]
pub fn format_bytes(bytes: u64) -> String {
    let mut unit = 0;
    // Tenths of the unit, in integers so that the rounding is the same everywhere.
    let mut tenths = u128::from(bytes) * 10;
    let mut scale = 1_u128;
    // 1023.5 K is rounded to 1024K, which is 1.0M.
    while (tenths + 5 * scale) / (10 * scale) >= 1024 && unit + 1 < UNITS.len() {
        scale *= 1024;
        unit += 1;
    }
    if unit == 0 {
        return bytes.to_string();
    }
    tenths = (tenths + scale / 2) / scale;
    if tenths < 100 {
        format!("{}.{}{}", tenths / 10, tenths % 10, UNITS[unit])
    } else {
        let whole = (u128::from(bytes) + scale / 2) / scale;
        format!("{whole}{}", UNITS[unit])
    }
}

/// Bytes a second with their sign: `+1.5M/s`, `-312K/s`, `0/s`; `?/s` for what is not a number.
#[must_use]
pub fn format_rate(bytes_per_second: f64) -> String {
    if bytes_per_second.is_nan() {
        return "?/s".to_owned();
    }
    let size = bytes_per_second.abs().round() as u64;
    let sign = match (size, bytes_per_second < 0.0) {
        (0, _) => "",
        (_, true) => "-",
        (_, false) => "+",
    };
    format!("{sign}{}/s", format_bytes(size))
}

/// Microseconds for people: `0`, `850us`, `12ms`, `1.5s`, `2m05s`, `3h12m`, `4d02h`.
#[must_use]
pub fn format_duration_us(us: u64) -> String {
    let mut out = String::new();
    let seconds = us.saturating_add(500_000) / 1_000_000;
    // Writing to a String cannot fail.
    let _ = match us {
        0 => write!(out, "0"),
        1..1_000 => write!(out, "{us}us"),
        1_000..9_950 => write!(out, "{}.{}ms", (us + 50) / 1_000, (us + 50) % 1_000 / 100),
        9_950..999_500 => write!(out, "{}ms", (us + 500) / 1_000),
        999_500..59_950_000 => {
            let tenths = (us + 50_000) / 100_000;
            write!(out, "{}.{}s", tenths / 10, tenths % 10)
        }
        _ if seconds < 3_600 => write!(out, "{}m{:02}s", seconds / 60, seconds % 60),
        _ if seconds < 86_400 => write!(out, "{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => write!(out, "{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3_600),
    };
    out
}
