//! Plain lines for pipes and dumb terminals: a table a tick, one line an alert.

use std::fmt::Write as _;
use std::io::{self, Write};

use grey_core::event::{Budget, Event};
use grey_core::view::{Alert, Judged, Model, Query, Row, printable};

use super::columns::{self, Column, Columns};
use super::theme::Theme;
use super::{Info, figure};

/// Rows of a tick, unless another number is asked for.
pub const TOP: usize = 10;

/// Paths are cut beyond this.
const PATH: u16 = 60;

const COLUMNS: [(Column, u16); 10] = [
    (Column::Kind, 9),
    (Column::Memory, 6),
    (Column::Anon, 5),
    (Column::Growth, 8),
    (Column::Faults, 8),
    (Column::Mapped, 8),
    (Column::Stall, 7),
    (Column::Psi, 5),
    (Column::Limit, 6),
    (Column::Max, 5),
];

/// Writes the model as plain lines.
#[derive(Clone, Debug)]
pub struct Plain {
    top: usize,
    query: Query,
    /// Up to which change of the model everything is written.
    seen: u64,
}

impl Plain {
    /// At most `top` rows a tick, in the order of `query`.
    #[must_use]
    pub fn new(top: usize, query: Query) -> Self {
        Plain {
            top,
            query,
            seen: 0,
        }
    }

    /// Writes a header and the cgroups whose figures changed since the last call; nothing when none did.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn tick(&mut self, out: &mut impl Write, model: &Model, info: &Info) -> io::Result<()> {
        let mut rows = model.rows(&self.query);
        let changed = |row: &Row<'_>| row.entry.changed() > self.seen;
        if !rows.iter().any(changed) {
            self.seen = model.generation();
            return Ok(());
        }
        // Who is in trouble stays in sight, changed or not.
        rows.retain(|row| changed(row) || row.verdict.is_some_and(Judged::is_open));
        self.seen = model.generation();
        write_table(out, model, info, &rows, self.top)
    }

    /// Writes one table of all cgroups (the first `top`, all with `usize::MAX`), for `--once`.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn once(&self, out: &mut impl Write, model: &Model, info: &Info) -> io::Result<()> {
        write_table(out, model, info, &model.rows(&self.query), self.top)
    }
}

/// The line of an event that is an alert, without its end; `None` for others.
#[must_use]
pub fn alert_line(event: &Event) -> Option<String> {
    let alert = Alert::of(event)?;
    let path = alert.cgroup.as_deref().unwrap_or("-");
    Some(format!(
        "{} {:<6} {}  {}",
        figure::time_of_day(alert.last),
        alert.kind.label(),
        printable(path),
        alert.text
    ))
}

fn write_table(
    out: &mut impl Write,
    model: &Model,
    info: &Info,
    rows: &[Row<'_>],
    top: usize,
) -> io::Result<()> {
    let shown = &rows[..rows.len().min(top)];
    let longest = shown
        .iter()
        .map(|row| 2 * row.depth + figure::width(row.label))
        .max();
    let path = u16::try_from(longest.unwrap_or(0))
        .unwrap_or(PATH)
        .clamp(16, PATH);
    let mut columns = Columns {
        path,
        shown: COLUMNS.to_vec(),
    };
    if shown.iter().any(|row| row.verdict.is_some()) {
        columns.shown.insert(0, (Column::Verdict, columns::VERDICT));
    }
    // One write a table: a reader at the other end of the pipe sees whole ones.
    let mut text = String::with_capacity((shown.len() + 2) * 128);
    summary(&mut text, model, info);
    titles(&mut text, &columns);
    for row in shown {
        line(&mut text, model, row, &columns);
    }
    if rows.len() > shown.len() {
        let _ = writeln!(text, "… and {} more", rows.len() - shown.len());
    }
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn summary(text: &mut String, model: &Model, info: &Info) {
    let host = if info.host.is_empty() {
        model.host()
    } else {
        &info.host
    };
    let time = model.now().map_or(String::new(), |now| {
        format!("{} UTC  ", figure::time_of_day(now))
    });
    let _ = write!(text, "{time}{}  {} cgroups", printable(host), model.len());
    if let (Some(total), Some(available)) = (info.mem_total, info.mem_available) {
        let bytes = |figure| figure::bytes(Some(figure));
        let _ = write!(
            text,
            "  memory {} available of {}",
            bytes(available),
            bytes(total)
        );
    }
    let trouble = model.trouble();
    for (count, what) in [
        (trouble.confirmed, "confirmed"),
        (trouble.suspect, "suspect"),
    ] {
        if count > 0 {
            let _ = write!(text, "  {count} {what}");
        }
    }
    if let Some(lost) = model.lost().filter(|lost| *lost > 0) {
        let _ = write!(text, "  {lost} records lost");
    }
    if let Some(health) = model.health().filter(|health| !health.degraded.is_empty()) {
        let n = health.degraded.len();
        let plural = if n == 1 { "" } else { "s" };
        let _ = write!(text, "  {n} probe{plural} degraded");
    }
    let budget = model.health().and_then(|health| health.budget.as_ref());
    if let Some(without) = budget.and_then(Budget::told) {
        let _ = write!(text, "  budget: {without}");
    }
    text.push('\n');
}

fn titles(text: &mut String, columns: &Columns) {
    let _ = write!(
        text,
        "{:<width$}",
        "CGROUP",
        width = usize::from(columns.path)
    );
    for (column, width) in &columns.shown {
        pad(text, column.title(), *width, column.left_aligned());
    }
    end_line(text);
}

fn line(text: &mut String, model: &Model, row: &Row<'_>, columns: &Columns) {
    let width = usize::from(columns.path);
    let indent = (2 * row.depth).min(width / 2);
    let label = printable(row.label);
    let label = figure::fit(&label, width - indent);
    let after = width - indent - figure::width(&label);
    let _ = write!(text, "{}{label}{}", " ".repeat(indent), " ".repeat(after));
    let limit = model.limit(row.entry);
    for (column, width) in &columns.shown {
        let (cell, _) = columns::cell(*column, row, limit.as_ref(), Theme::new(false));
        pad(text, &cell, *width, column.left_aligned());
    }
    end_line(text);
}

fn pad(text: &mut String, cell: &str, width: u16, left: bool) {
    let blanks = " ".repeat(usize::from(width).saturating_sub(figure::width(cell)));
    text.push(' ');
    if left {
        text.push_str(cell);
        text.push_str(&blanks);
    } else {
        text.push_str(&blanks);
        text.push_str(cell);
    }
}

fn end_line(text: &mut String) {
    text.truncate(text.trim_end().len());
    text.push('\n');
}
