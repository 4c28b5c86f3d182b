//! The table of cgroups. Only the rows that are seen are drawn.

use grey_core::view::{Model, Row, printable};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::columns::{self, Column, Columns};
use super::state::{Pane, UiState};
use super::theme::Theme;
use super::{chart, figure};

/// Draws the table: a line of titles, then the rows around the cursor.
pub(super) fn draw(buf: &mut Buffer, area: Rect, model: &Model, state: &mut UiState) {
    if area.height == 0 {
        return;
    }
    let rows = model.rows(&state.query);
    let height = usize::from(area.height - 1);
    state.table.settle(
        rows.len(),
        height,
        |index| rows.get(index).map(|row| row.entry.path().to_owned()),
        |path| rows.iter().position(|row| row.entry.path() == path),
    );
    let longest = rows
        .iter()
        .map(|row| row.label.len() + 2 * row.depth)
        .max()
        .unwrap_or(0);
    let columns = columns::choose(area.width, longest, model, state.query.sort);
    titles(buf, area, &columns, state);
    if rows.is_empty() {
        empty(buf, area, model, state);
        return;
    }
    let focused = state.pane == Pane::Table;
    for (line, row) in rows
        .iter()
        .skip(state.table.offset)
        .take(height)
        .enumerate()
    {
        let y = area.y + 1 + line as u16;
        draw_row(
            buf,
            Rect {
                y,
                height: 1,
                ..area
            },
            model,
            row,
            &columns,
            state.theme,
        );
        if focused && state.table.offset + line == state.table.index {
            state.theme.mark(
                buf,
                Rect {
                    y,
                    height: 1,
                    ..area
                },
            );
        }
    }
}

fn titles(buf: &mut Buffer, area: Rect, columns: &Columns, state: &UiState) {
    use grey_core::view::SortKey;
    let theme = state.theme;
    let arrow = if state.query.descending { "▼" } else { "▲" };
    let style = |sorted: bool| {
        if sorted {
            theme.focus()
        } else {
            theme.heading()
        }
    };
    let by_name = state.query.sort == SortKey::Name;
    let path = if by_name {
        format!("CGROUP{arrow}")
    } else {
        "CGROUP".to_owned()
    };
    buf.set_stringn(
        area.x,
        area.y,
        path,
        usize::from(columns.path),
        style(by_name),
    );
    for (column, x, width) in places(area, columns) {
        let sorted = column.sort() == Some(state.query.sort);
        let title = column.title();
        // The arrow stands in the gap to the left, so that titles stay above their figures.
        let text = if sorted {
            format!("{arrow}{title}")
        } else {
            title.to_owned()
        };
        if column.left_aligned() {
            buf.set_stringn(x, area.y, text, usize::from(width), style(sorted));
        } else {
            put_right(buf, x - 1, area.y, &text, width + 1, style(sorted));
        }
    }
}

fn draw_row(
    buf: &mut Buffer,
    area: Rect,
    model: &Model,
    row: &Row<'_>,
    columns: &Columns,
    theme: Theme,
) {
    let quiet = row.stale || !row.matched;
    let indent = (2 * row.depth).min(usize::from(columns.path) / 2);
    let label = printable(row.label);
    let label = figure::fit(&label, usize::from(columns.path) - indent);
    let style = if quiet { theme.dim() } else { theme.text() };
    buf.set_stringn(
        area.x + indent as u16,
        area.y,
        label,
        usize::from(columns.path),
        style,
    );
    let limit = model.limit(row.entry);
    for (column, x, width) in places(area, columns) {
        if column == Column::Spark {
            let points = model.sparkline(row.entry, usize::from(width));
            chart::sparkline(buf, x, area.y, &points, row.entry.basis(), theme);
            continue;
        }
        let (text, style) = columns::cell(column, row, limit.as_ref(), theme);
        // A verdict stands, however long ago the last sample was.
        let style = match column {
            Column::Verdict => style,
            _ if quiet => theme.dim(),
            _ => style,
        };
        if column.left_aligned() {
            buf.set_stringn(
                x,
                area.y,
                figure::cut(&text, usize::from(width)),
                usize::from(width),
                style,
            );
        } else {
            put_right(buf, x, area.y, &text, width, style);
        }
    }
}

fn empty(buf: &mut Buffer, area: Rect, model: &Model, state: &UiState) {
    if area.height < 3 {
        return;
    }
    let text = if model.is_empty() {
        "waiting for the first sample".to_owned()
    } else {
        format!(
            "none of {} cgroups matches “{}”",
            model.len(),
            state.query.filter
        )
    };
    let width = figure::width(&text) as u16;
    let x = area.x + area.width.saturating_sub(width) / 2;
    let y = area.y + area.height / 2;
    buf.set_stringn(x, y, text, usize::from(area.width), state.theme.dim());
}

/// Each column with the place it starts at and its width.
fn places(area: Rect, columns: &Columns) -> impl Iterator<Item = (Column, u16, u16)> {
    let mut x = area.x + columns.path;
    columns.shown.iter().map(move |(column, width)| {
        let at = x + 1;
        x = at + width;
        (*column, at, *width)
    })
}

/// Text at the right end of `width` columns from `x` on.
pub(super) fn put_right(buf: &mut Buffer, x: u16, y: u16, text: &str, width: u16, style: Style) {
    let text = figure::cut(text, usize::from(width));
    let pad = width.saturating_sub(figure::width(&text) as u16);
    buf.set_stringn(x + pad, y, text, usize::from(width), style);
}
