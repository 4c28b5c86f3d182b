//! All figures of one cgroup, with their rates and a chart of its recent past.

mod items;

use grey_core::units::format_duration_us;
use grey_core::view::{Basis, Entry, HISTORY, Model, printable};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use self::items::{Item, items};
use super::panes::{Line, rule};
use super::state::UiState;
use super::table::put_right;
use super::theme::Theme;
use super::{chart, figure, verdict};

const COLUMN: u16 = 38;
const GAP: u16 = 3;

/// Draws the figures of the cgroup at `path`.
pub(super) fn draw(buf: &mut Buffer, area: Rect, model: &Model, path: &str, state: &mut UiState) {
    let theme = state.theme;
    if area.height == 0 {
        return;
    }
    let shown = printable(path);
    let title = figure::fit(&shown, usize::from(area.width.saturating_sub(6)));
    rule(buf, area, &title, true, theme);
    let Some(entry) = model.get(path) else {
        let text = "no figures: it is gone, or it was never sampled";
        buf.set_stringn(
            area.x + 2,
            area.y + 2,
            text,
            usize::from(area.width),
            theme.dim(),
        );
        return;
    };
    identity(
        buf,
        Rect {
            y: area.y + 1,
            height: 1,
            ..area
        },
        model,
        entry,
        theme,
    );
    let items = items(entry.sample(), model.rates(entry), model, entry);
    let columns = columns(
        &items,
        usize::from(((area.width + GAP) / (COLUMN + GAP)).max(1)),
    );
    let needed = columns.iter().map(|column| column.len()).max().unwrap_or(0);
    // The chart gets a quarter, and what the figures leave.
    let said = verdict::draw(
        buf,
        Rect {
            y: area.y + 2,
            // The figures keep half of the screen.
            height: area.height.saturating_sub(2) / 2,
            ..area
        },
        model,
        path,
        theme,
    );
    let below = area.height.saturating_sub(2 + said);
    let spare = below.saturating_sub(u16::try_from(needed).unwrap_or(u16::MAX));
    let chart_height = (area.height / 4).max(spare.saturating_sub(2).min(24));
    let list_height = if chart_height >= 3 {
        below.saturating_sub(chart_height + 1)
    } else {
        below
    };
    let list = Rect {
        y: area.y + 2 + said,
        height: list_height,
        ..area
    };
    let height = usize::from(list.height);
    state.details.scroll(needed, height);
    draw_columns(buf, list, &columns, state);
    if chart_height >= 3 {
        let top = Rect {
            y: list.bottom(),
            height: 1,
            ..area
        };
        let (what, name): (&str, fn(f64) -> String) = match entry.basis() {
            Basis::Anon => ("anon + swap", chart::byte_level),
            Basis::Memory => ("memory", chart::byte_level),
            Basis::Faults => ("faults/s", chart::count_level),
        };
        let span = model.tick() * HISTORY as u32;
        let span = figure::interval(u64::try_from(span.as_micros()).unwrap_or(u64::MAX));
        rule(buf, top, &format!("{what}, last {span}"), false, theme);
        let area = Rect {
            y: top.bottom(),
            height: chart_height,
            ..area
        };
        chart::levels(buf, area, &model.levels(entry, HISTORY), name, theme);
    }
    if needed > height && height > 0 {
        let first = state.details.offset + 1;
        let text = format!(
            " lines {first}–{} of {needed} ",
            state.details.offset + height
        );
        let room = area.width.saturating_sub(2);
        put_right(
            buf,
            area.x,
            list.bottom().min(area.bottom() - 1),
            &text,
            room,
            theme.heading(),
        );
    }
}

fn identity(buf: &mut Buffer, area: Rect, model: &Model, entry: &Entry, theme: Theme) {
    let mut line = Line {
        buf,
        x: area.x + 2,
        y: area.y,
        end: area.right(),
    };
    line.put(entry.kind(), theme.heading());
    line.put(&printable(entry.name()), theme.text());
    if let Some(id) = entry.id() {
        line.put(&format!("id {id}"), theme.dim());
    }
    let age = u64::try_from(model.age(entry).as_micros()).unwrap_or(u64::MAX);
    line.put(
        &format!("sampled {} UTC", figure::time_of_day(entry.ts())),
        theme.dim(),
    );
    if model.is_stale(entry) {
        line.put(
            &format!("({} ago: quiet, no rates)", format_duration_us(age)),
            theme.warning(),
        );
    }
    if entry.lossy() {
        line.put("events lost: counts are too low", theme.warning());
    }
}

/// Draws the groups side by side; where the height is too little, from the line scrolled to.
fn draw_columns(buf: &mut Buffer, area: Rect, columns: &[&[Item]], state: &UiState) {
    let height = usize::from(area.height);
    let width = COLUMN.min(area.width);
    for (at, column) in columns.iter().enumerate() {
        for (line, item) in column
            .iter()
            .skip(state.details.offset)
            .take(height)
            .enumerate()
        {
            let x = area.x + at as u16 * (COLUMN + GAP);
            draw_item(
                buf,
                Rect {
                    x,
                    y: area.y + line as u16,
                    width,
                    height: 1,
                },
                item,
                state.theme,
            );
        }
    }
}

/// Groups in `most` columns at most, the lowest that need not split a group.
fn columns(items: &[Item], most: usize) -> Vec<&[Item]> {
    let starts: Vec<usize> = items
        .iter()
        .enumerate()
        .filter_map(|(at, item)| matches!(item, Item::Group(_)).then_some(at))
        .chain([items.len()])
        .collect();
    for height in items.len().div_ceil(most.max(1))..items.len() {
        let mut columns = Vec::new();
        let mut from = 0;
        for group in starts.windows(2) {
            if group[1] - from > height && group[0] > from {
                columns.push(&items[from..group[0]]);
                from = group[0];
            }
        }
        columns.push(&items[from..]);
        if columns.len() <= most && columns.iter().all(|column| column.len() <= height) {
            return columns;
        }
    }
    vec![items]
}

fn draw_item(buf: &mut Buffer, area: Rect, item: &Item, theme: Theme) {
    let width = usize::from(area.width);
    match item {
        Item::Group(name) => {
            buf.set_stringn(area.x, area.y, *name, width, theme.heading());
        }
        Item::Figure { name, value, rate } => {
            buf.set_stringn(
                area.x + 2,
                area.y,
                *name,
                width.saturating_sub(2),
                theme.dim(),
            );
            let style = |text: &str| -> Style {
                if text == figure::UNKNOWN || text == "0" {
                    theme.dim()
                } else {
                    theme.text()
                }
            };
            put_right(buf, area.x + 13, area.y, value, 14, style(value));
            put_right(
                buf,
                area.x + 28,
                area.y,
                rate,
                width.saturating_sub(28) as u16,
                style(rate),
            );
        }
    }
}
