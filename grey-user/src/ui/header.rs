//! The lines at the top and the bottom: whose memory this is, how the watch itself fares, and the keys.

use grey_core::event::Budget;
use grey_core::units::format_bytes;
use grey_core::view::{Model, printable};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::panes::Line;
use super::state::{Overlay, UiState};
use super::theme::Theme;
use super::{Info, figure};

const BAR: u16 = 20;
const EIGHTHS: [&str; 8] = [" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

type Words = Vec<(String, Style)>;

/// Draws the header, one or two lines.
pub(super) fn draw(buf: &mut Buffer, area: Rect, model: &Model, info: &Info, state: &UiState) {
    if area.height == 0 {
        return;
    }
    let theme = state.theme;
    let right = health(model, theme);
    let end = put_end(buf, area, area.y, &right);
    let mut line = Line {
        buf,
        x: area.x,
        y: area.y,
        end,
    };
    if state.paused {
        line.put(" PAUSED ", theme.mode());
    }
    for (text, style) in identity(model, info, theme) {
        // A word that does not fit is left out whole.
        if figure::width(&text) <= usize::from(line.end.saturating_sub(line.x)) {
            line.put(&text, style);
        }
    }
    if area.height < 2 {
        return;
    }
    let y = area.y + 1;
    let end = put_end(buf, area, y, &choice(model, state));
    memory(
        buf,
        Rect {
            y,
            height: 1,
            width: end.saturating_sub(area.x),
            ..area
        },
        info,
        theme,
    );
}

fn identity(model: &Model, info: &Info, theme: Theme) -> Words {
    let host = if info.host.is_empty() {
        model.host()
    } else {
        &info.host
    };
    let micros =
        |duration: std::time::Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let mut words = vec![("grey-ebpf".to_owned(), theme.focus())];
    if !info.source.is_empty() {
        words.push((printable(&info.source).into_owned(), theme.warning()));
    }
    if !host.is_empty() {
        words.push((printable(host).into_owned(), theme.text()));
    }
    let seconds = micros(info.elapsed) / 1_000_000 * 1_000_000;
    words.push((format!("for {}", figure::interval(seconds)), theme.dim()));
    words.push((
        format!("every {}", figure::interval(micros(info.interval))),
        theme.dim(),
    ));
    words.push((
        match model.len() {
            1 => "1 cgroup".to_owned(),
            n => format!("{n} cgroups"),
        },
        theme.dim(),
    ));
    if !info.kernel.is_empty() {
        words.push((printable(&info.kernel).into_owned(), theme.dim()));
    }
    words
}

/// Losses, degraded probes and own cost.
fn health(model: &Model, theme: Theme) -> Words {
    let Some(health) = model.health() else {
        return Vec::new();
    };
    let mut words = Words::new();
    match model.lost() {
        None | Some(0) => words.push(("0 lost".to_owned(), theme.good())),
        Some(lost) => {
            let style = if model.lost_lately() > 0 {
                theme.critical()
            } else {
                theme.warning()
            };
            words.push((format!("{} lost", figure::count(Some(lost as f64))), style));
        }
    }
    if !health.degraded.is_empty() {
        words.push((
            format!("{} degraded", health.degraded.len()),
            theme.warning(),
        ));
    }
    if let Some(cpu) = health.cpu_pct {
        words.push((
            format!("cpu {}", figure::percent(Some(cpu.max(0.0)))),
            theme.dim(),
        ));
    }
    if let Some(rss) = health.rss {
        words.push((format!("rss {}", format_bytes(rss)), theme.dim()));
    }
    if let Some(without) = health.budget.as_ref().and_then(Budget::told) {
        words.push((format!("budget: {without}"), theme.warning()));
    }
    words
}

/// What the table shows, where it is not the usual.
fn choice(model: &Model, state: &UiState) -> Words {
    let theme = state.theme;
    let mut words = Words::new();
    let trouble = model.trouble();
    if trouble.confirmed > 0 {
        words.push((format!("{} confirmed", trouble.confirmed), theme.critical()));
    }
    if trouble.suspect > 0 {
        words.push((format!("{} suspect", trouble.suspect), theme.warning()));
    }
    if model.entries().any(|entry| entry.path() != "/") && !model.has_memory() {
        words.push(("no memory controller".to_owned(), theme.warning()));
    }
    if !state.query.filter.is_empty() && !state.typing {
        words.push((
            format!(" /{} ", figure::cut(&state.query.filter, 20)),
            theme.mode(),
        ));
    }
    if state.query.tree {
        words.push(("tree".to_owned(), theme.heading()));
    }
    let arrow = if state.query.descending { "▼" } else { "▲" };
    words.push((
        format!("by {}{arrow}", state.query.sort.label()),
        theme.heading(),
    ));
    words
}

fn memory(buf: &mut Buffer, area: Rect, info: &Info, theme: Theme) {
    let mut line = Line {
        buf,
        x: area.x,
        y: area.y,
        end: area.right(),
    };
    line.put("memory", theme.heading());
    let (Some(total), Some(available)) = (
        info.mem_total.filter(|total| *total > 0),
        info.mem_available,
    ) else {
        line.put(figure::UNKNOWN, theme.dim());
        return;
    };
    let used = total.saturating_sub(available);
    let share = used as f64 / total as f64;
    let style = match share {
        s if s >= 0.95 => theme.critical(),
        s if s >= 0.85 => theme.warning(),
        _ => theme.good(),
    };
    if area.width >= 60 {
        let eighths = (share * f64::from(BAR) * 8.0).round() as usize;
        let mut bar = "█".repeat(eighths / 8);
        if !eighths.is_multiple_of(8) {
            bar.push_str(EIGHTHS[eighths % 8]);
        }
        let rest = usize::from(BAR).saturating_sub(figure::width(&bar));
        line.put(&bar, style);
        line.x -= 1;
        line.put(&"░".repeat(rest), theme.dim());
    }
    line.put(&figure::percent(Some(share * 100.0)), style);
    line.put(&format!("of {} used,", format_bytes(total)), theme.text());
    line.put(
        &format!("{} available", format_bytes(available)),
        theme.text(),
    );
}

/// Words at the right end of a line; the last ones are left out where there is no room. Returns where they begin.
fn put_end(buf: &mut Buffer, area: Rect, y: u16, words: &Words) -> u16 {
    // Half of the line belongs to the left side.
    let mut room = usize::from(area.width / 2);
    let mut shown = 0;
    for (text, _) in words {
        let needs = figure::width(text) + if shown == 0 { 0 } else { 2 };
        if needs > room {
            break;
        }
        room -= needs;
        shown += 1;
    }
    let start = area.x + area.width.div_ceil(2) + room as u16;
    let mut line = Line {
        buf,
        x: start,
        y,
        end: area.right(),
    };
    for (text, style) in &words[..shown] {
        line.put(text, *style);
        line.x += 1;
    }
    start.saturating_sub(2).max(area.x)
}

/// Draws the keys, or the filter that is being typed.
pub(super) fn draw_footer(buf: &mut Buffer, area: Rect, state: &UiState) {
    if area.height == 0 {
        return;
    }
    let theme = state.theme;
    let mut line = Line {
        buf,
        x: area.x,
        y: area.y,
        end: area.right(),
    };
    if state.typing {
        let room = usize::from(area.width).saturating_sub(36).max(10);
        let filter = &state.query.filter;
        line.put(&format!("/{}█", figure::fit(filter, room)), theme.focus());
        line.x += 2;
    }
    let keys: &[(&str, &str)] = match (&state.overlay, state.typing) {
        (_, true) => &[
            ("Enter", "keep"),
            ("Esc", "clear"),
            ("^W", "word"),
            ("^U", "all"),
        ],
        (Overlay::None, _) => &[
            ("q", "quit"),
            ("?", "help"),
            ("s", "sort"),
            ("S", "reverse"),
            ("/", "filter"),
            ("t", if state.query.tree { "flat" } else { "tree" }),
            ("p", if state.paused { "go on" } else { "pause" }),
            ("Enter", "details"),
            ("Tab", "pane"),
            ("↑↓", "move"),
        ],
        (Overlay::Help, _) => &[("Esc", "back"), ("^C", "quit")],
        (Overlay::Details(_), _) => &[
            ("Esc", "back"),
            ("↑↓", "scroll"),
            ("p", if state.paused { "go on" } else { "pause" }),
            ("?", "help"),
            ("^C", "quit"),
        ],
    };
    for (key, what) in keys {
        let needs = figure::width(key) + 1 + figure::width(what);
        if needs > usize::from(line.end.saturating_sub(line.x)) {
            break;
        }
        line.put(key, theme.focus());
        line.put(what, theme.dim());
        line.x += 1;
    }
}
