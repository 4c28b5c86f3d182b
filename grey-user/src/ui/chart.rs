//! Bars of block characters: the sparkline of a row and the chart of one cgroup.

use grey_core::view::Basis;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::figure;
use super::table::put_right;
use super::theme::Theme;

const BARS: [&str; 8] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];

/// A full bar stands for at least this much, so that noise stays low: bytes/s, faults/s.
const FULL_GROWTH: f64 = 1_048_576.0;
const FULL_FAULTS: f64 = 100.0;

/// One bar a point, oldest first. Unknown points are blank; memory given back is a low bar in its own colour.
pub(super) fn sparkline(
    buf: &mut Buffer,
    x: u16,
    y: u16,
    points: &[Option<f64>],
    basis: Basis,
    theme: Theme,
) {
    let full = if basis == Basis::Faults {
        FULL_FAULTS
    } else {
        FULL_GROWTH
    };
    let top = points
        .iter()
        .flatten()
        .fold(full, |top, value| top.max(*value));
    let noise = full / 16.0;
    for (at, point) in points.iter().enumerate() {
        let Some(value) = point else { continue };
        let (bar, style) = if *value <= -noise {
            ("▁", theme.good())
        } else if *value < noise {
            ("▁", theme.dim())
        } else {
            // Seven eighths at most, so that bars of neighbouring rows do not run together.
            let eighth = (value / top * 7.0).ceil().clamp(1.0, 7.0) as usize;
            let style = if basis == Basis::Faults {
                theme.heading()
            } else {
                theme.warning()
            };
            (BARS[eighth - 1], style)
        };
        buf.set_string(x + at as u16, y, bar, style);
    }
}

/// A chart of levels with its scale at the left. The scale runs from the lowest to the highest point seen, because a
/// slow leak would be a flat line on one from 0; both ends are named.
pub(super) fn levels(
    buf: &mut Buffer,
    area: Rect,
    points: &[Option<f64>],
    name: fn(f64) -> String,
    theme: Theme,
) {
    const SCALE: u16 = 7;
    if area.height == 0 || area.width <= SCALE + 4 {
        return;
    }
    let (low, high) = points
        .iter()
        .flatten()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(*value), high.max(*value))
        });
    if low > high {
        buf.set_stringn(
            area.x,
            area.y,
            "no history yet",
            usize::from(area.width),
            theme.dim(),
        );
        return;
    }
    let (mut top, bottom) = (name(high), name(low));
    if top == bottom && high > low {
        top = format!("+{}", name(high - low));
    }
    put_right(buf, area.x, area.y, &top, SCALE - 1, theme.heading());
    if area.height > 1 && high > low {
        put_right(
            buf,
            area.x,
            area.bottom() - 1,
            &bottom,
            SCALE - 1,
            theme.heading(),
        );
    }
    let room = usize::from(area.width - SCALE);
    let eighths = f64::from(area.height) * 8.0;
    for column in 0..room {
        let Some(value) = points[column * points.len() / room] else {
            continue;
        };
        let share = if high > low {
            (value - low) / (high - low)
        } else {
            0.0
        };
        // One eighth for the lowest, so that a known point is seen.
        let filled = (share * (eighths - 1.0)).round() as usize + 1;
        for row in 0..usize::from(area.height) {
            let here = filled.saturating_sub(row * 8).min(8);
            if here == 0 {
                break;
            }
            let y = area.bottom() - 1 - row as u16;
            buf.set_string(
                area.x + SCALE + column as u16,
                y,
                BARS[here - 1],
                theme.heading(),
            );
        }
    }
}

/// Names a level in bytes.
pub(super) fn byte_level(level: f64) -> String {
    figure::bytes(Some(level as u64))
}

/// Names a number a second.
pub(super) fn count_level(level: f64) -> String {
    figure::count(Some(level))
}
