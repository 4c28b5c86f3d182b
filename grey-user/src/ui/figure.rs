//! Figures and names as text: unknown is `–`, never 0, and what is too long loses its middle.

use std::borrow::Cow;

use grey_core::time::Timestamp;
use grey_core::units::{format_bytes, format_duration_us, format_rate};
use ratatui::style::Style;
use ratatui::text::Span;

/// An unknown figure.
pub(crate) const UNKNOWN: &str = "–";

pub(crate) fn bytes(figure: Option<u64>) -> String {
    figure.map_or_else(unknown, format_bytes)
}

/// Bytes/s with a sign, without the unit of time, which the column's name gives.
pub(super) fn change(figure: Option<f64>) -> String {
    figure.map_or_else(unknown, |rate| {
        let text = format_rate(rate);
        text.strip_suffix("/s")
            .map_or_else(|| text.clone(), str::to_owned)
    })
}

/// Bytes/s of something that only adds up.
pub(super) fn flow(figure: Option<f64>) -> String {
    // `as` saturates.
    figure.map_or_else(unknown, |rate| format_bytes(rate.max(0.0) as u64))
}

/// A number a second: `0`, `0.3`, `1234`, `12.3k`, `4.5M`.
pub(crate) fn count(figure: Option<f64>) -> String {
    figure.map_or_else(unknown, |rate| match rate {
        0.0 => "0".to_owned(),
        r if r < 0.05 => "<0.1".to_owned(),
        r if r < 9.95 => {
            let text = format!("{r:.1}");
            text.strip_suffix(".0")
                .map_or_else(|| text.clone(), str::to_owned)
        }
        r if r < 9_999.5 => format!("{r:.0}"),
        r if r < 99_950.0 => format!("{:.1}k", r / 1e3),
        r if r < 999_500.0 => format!("{:.0}k", r / 1e3),
        r if r < 9_995_000.0 => format!("{:.1}M", r / 1e6),
        r if r < 1e10 => format!("{:.0}M", r / 1e6),
        r => format!("{r:.0e}"),
    })
}

/// A tick: `1s` rather than `1.0s`.
pub(crate) fn interval(us: u64) -> String {
    let text = format_duration_us(us);
    text.strip_suffix(".0s")
        .map_or_else(|| text.clone(), |whole| format!("{whole}s"))
}

/// A total: digits in groups of three.
pub(crate) fn total(figure: Option<u64>) -> String {
    figure.map_or_else(unknown, |n| {
        let digits = n.to_string();
        let mut text = String::with_capacity(digits.len() + digits.len() / 3);
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at) % 3 == 0 {
                text.push(',');
            }
            text.push(digit);
        }
        text
    })
}

/// A share in percent.
pub(crate) fn percent(figure: Option<f64>) -> String {
    figure.map_or_else(unknown, |share| match share {
        0.0 => "0%".to_owned(),
        s if s < 0.05 => "<.1%".to_owned(),
        s if s < 9.95 => format!("{s:.1}%"),
        s => format!("{s:.0}%"),
    })
}

/// Milliseconds a second.
pub(super) fn stall(figure: Option<f64>) -> String {
    figure.map_or_else(unknown, |ms| {
        format_duration_us((ms.max(0.0) * 1e3).round() as u64)
    })
}

/// Time of day, UTC.
pub(crate) fn time_of_day(ts: Timestamp) -> String {
    // `Display` of a timestamp outside the calendar fails, and `to_string` would panic.
    const DAY: i64 = 86_400;
    let second = ts.0.div_euclid(1_000_000).rem_euclid(DAY);
    format!(
        "{:02}:{:02}:{:02}",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

pub(crate) fn width(text: &str) -> usize {
    if text.is_ascii() {
        text.len()
    } else {
        Span::raw(text).width()
    }
}

/// A path in at most `max` columns. What does not fit loses its middle, and the last part stays as whole as it can,
/// because it says what the cgroup is; container ids of 64 digits are cut to 12 first, as in `docker ps`.
pub(crate) fn fit(path: &str, max: usize) -> Cow<'_, str> {
    if width(path) <= max {
        return path.into();
    }
    let short = shorten_ids(path);
    if width(&short) <= max {
        return short.into_owned().into();
    }
    let slash = short.rfind('/').filter(|at| *at > 0);
    let (front, last) = short.split_at(slash.unwrap_or(0));
    if slash.is_some() && width(last) < max {
        return format!("{}{last}", cut(front, max - width(last))).into();
    }
    let last = last.strip_prefix('/').unwrap_or(last);
    if width(last) <= max {
        return last.to_owned().into();
    }
    let unit = [".scope", ".service", ".slice"]
        .iter()
        .find_map(|suffix| last.strip_suffix(suffix))
        .unwrap_or(last);
    if width(unit) <= max {
        return unit.to_owned().into();
    }
    let graphemes = graphemes(unit);
    // A container id that was cut ends in an ellipsis: it matters more than what stands before it.
    let tail_first = if unit.ends_with('…') { 13 } else { 0 };
    let head_room = max
        .saturating_sub(1)
        .div_ceil(2)
        .min(max.saturating_sub(1 + tail_first));
    let head = take(graphemes.iter(), head_room);
    let used: usize = graphemes[..head].iter().map(|(_, width)| width).sum();
    let tail = take(graphemes.iter().rev(), max.saturating_sub(1 + used));
    let text = |part: &[(&str, usize)]| part.iter().map(|(symbol, _)| *symbol).collect::<String>();
    let ellipsis = if max > 0 { "…" } else { "" };
    format!(
        "{}{ellipsis}{}",
        text(&graphemes[..head]),
        text(&graphemes[graphemes.len() - tail..])
    )
    .into()
}

/// `text` in at most `max` columns; what does not fit loses its end.
pub(crate) fn cut(text: &str, max: usize) -> Cow<'_, str> {
    if width(text) <= max {
        return text.into();
    }
    if max == 0 {
        return "".into();
    }
    let graphemes = graphemes(text);
    let head = take(graphemes.iter(), max - 1);
    let mut text: String = graphemes[..head]
        .iter()
        .map(|(symbol, _)| *symbol)
        .collect();
    text.truncate(text.trim_end().len());
    text.push('…');
    text.into()
}

/// The graphemes of a text with their widths.
fn graphemes(text: &str) -> Vec<(&str, usize)> {
    let span = Span::raw(text);
    let lengths: Vec<(usize, usize)> = span
        .styled_graphemes(Style::new())
        // The span's lifetime is that of the borrow, so only places leave it.
        .map(|grapheme| {
            (
                grapheme.symbol.as_ptr() as usize - text.as_ptr() as usize,
                grapheme.symbol.len(),
            )
        })
        .collect();
    lengths
        .into_iter()
        .filter_map(|(at, len)| text.get(at..at + len))
        .map(|symbol| (symbol, width(symbol)))
        .collect()
}

/// How many of the graphemes fit.
fn take<'a>(graphemes: impl Iterator<Item = &'a (&'a str, usize)>, room: usize) -> usize {
    let mut used = 0;
    graphemes
        .take_while(|(_, width)| {
            used += width;
            used <= room
        })
        .count()
}

fn shorten_ids(text: &str) -> Cow<'_, str> {
    const ID: usize = 64;
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes[at..]
            .iter()
            .take_while(|b| b.is_ascii_hexdigit())
            .count();
        if digits == ID {
            let rest = shorten_ids(&text[at + ID..]);
            return format!("{}…{rest}", &text[..at + 12]).into();
        }
        at += digits.max(1);
    }
    text.into()
}

fn unknown() -> String {
    UNKNOWN.to_owned()
}
