//! The two panes under the table: processes that grow, and alerts.

use grey_core::view::{Alert, GrowingProcess, Model, Severity, printable};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::figure;
use super::state::{Pane, UiState};
use super::table::put_right;
use super::theme::Theme;

/// More than this many growing processes nobody looks at.
const MOST: usize = 100;

/// Draws the processes that grow, the fastest first.
pub(super) fn draw_processes(buf: &mut Buffer, area: Rect, model: &Model, state: &mut UiState) {
    let processes = model.growing(MOST);
    let height = usize::from(area.height.saturating_sub(1));
    state.processes.settle(
        processes.len(),
        height,
        |index| {
            processes
                .get(index)
                .map(|process| process.cgroup.to_owned())
        },
        |_| None,
    );
    let focused = state.pane == Pane::Processes;
    rule(buf, area, "growing processes", focused, state.theme);
    if processes.is_empty() {
        note(buf, area, "none seen so far", state.theme);
    }
    for (line, process) in processes
        .iter()
        .skip(state.processes.offset)
        .take(height)
        .enumerate()
    {
        let at = Rect {
            y: area.y + 1 + line as u16,
            height: 1,
            ..area
        };
        draw_process(buf, at, process, state.theme);
        if focused && state.processes.offset + line == state.processes.index {
            state.theme.mark(buf, at);
        }
    }
}

fn draw_process(buf: &mut Buffer, area: Rect, process: &GrowingProcess<'_>, theme: Theme) {
    let growing = process.rate >= 65_536.0;
    let text = if growing { theme.text() } else { theme.dim() };
    put_right(
        buf,
        area.x,
        area.y,
        &process.pid.to_string(),
        7,
        theme.dim(),
    );
    let comm = printable(process.comm);
    buf.set_stringn(area.x + 8, area.y, figure::cut(&comm, 15), 15, text);
    let held = process.rss.or(process.held);
    put_right(buf, area.x + 24, area.y, &figure::bytes(held), 5, text);
    let rate = format!("{}/s", figure::change(Some(process.rate)));
    put_right(
        buf,
        area.x + 30,
        area.y,
        &rate,
        9,
        if growing {
            theme.warning()
        } else {
            theme.dim()
        },
    );
    let from = 41;
    if area.width > from + 8 {
        let width = usize::from(area.width - from);
        let path = printable(process.cgroup);
        buf.set_stringn(
            area.x + from,
            area.y,
            figure::fit(&path, width),
            width,
            theme.dim(),
        );
    }
}

/// Draws the alerts, the newest first.
pub(super) fn draw_alerts(buf: &mut Buffer, area: Rect, model: &Model, state: &mut UiState) {
    let height = usize::from(area.height.saturating_sub(1));
    let len = model.alerts().len();
    state.alerts.settle(
        len,
        height,
        |index| {
            model
                .alerts()
                .nth(index)
                .map(|alert| alert.cgroup.clone().unwrap_or_default())
        },
        |_| None,
    );
    let focused = state.pane == Pane::Alerts;
    rule(buf, area, "alerts (UTC)", focused, state.theme);
    if len == 0 {
        note(buf, area, "none so far", state.theme);
    }
    for (line, alert) in model
        .alerts()
        .skip(state.alerts.offset)
        .take(height)
        .enumerate()
    {
        let at = Rect {
            y: area.y + 1 + line as u16,
            height: 1,
            ..area
        };
        draw_alert(buf, at, alert, state.theme);
        if focused && state.alerts.offset + line == state.alerts.index {
            state.theme.mark(buf, at);
        }
    }
}

fn draw_alert(buf: &mut Buffer, area: Rect, alert: &Alert, theme: Theme) {
    let style = severity(alert.severity, theme);
    let mut line = Line {
        buf,
        x: area.x,
        y: area.y,
        end: area.right(),
    };
    line.put(&figure::time_of_day(alert.last), theme.dim());
    line.put(&format!("{:<6}", alert.kind.label()), style);
    if let Some(path) = &alert.cgroup {
        // The text says what happened, so it keeps at least half of the line.
        let room = usize::from(area.width / if area.width < 100 { 4 } else { 3 }).max(12);
        line.put(&figure::fit(&printable(path), room), theme.heading());
    }
    if alert.count > 1 {
        line.put(&format!("×{}", alert.count), style);
    }
    line.put(&alert.text, theme.text());
}

fn severity(severity: Severity, theme: Theme) -> Style {
    match severity {
        Severity::Info => theme.text(),
        Severity::Warning => theme.warning(),
        Severity::Critical => theme.critical(),
    }
}

/// Words one after the other, the last one cut at the edge.
pub(super) struct Line<'a> {
    pub(super) buf: &'a mut Buffer,
    pub(super) x: u16,
    pub(super) y: u16,
    pub(super) end: u16,
}

impl Line<'_> {
    pub(super) fn put(&mut self, text: &str, style: Style) {
        let room = self.end.saturating_sub(self.x);
        if room == 0 {
            return;
        }
        let text = figure::cut(text, usize::from(room));
        let (x, _) = self
            .buf
            .set_stringn(self.x, self.y, text, usize::from(room), style);
        self.x = x.saturating_add(1);
    }
}

/// A title in a rule across the area.
pub(super) fn rule(buf: &mut Buffer, area: Rect, title: &str, focused: bool, theme: Theme) {
    if area.height == 0 {
        return;
    }
    let line = "─".repeat(usize::from(area.width));
    buf.set_stringn(area.x, area.y, line, usize::from(area.width), theme.dim());
    let style = if focused {
        theme.focus()
    } else {
        theme.heading()
    };
    let room = usize::from(area.width.saturating_sub(2));
    buf.set_stringn(
        area.x + 2,
        area.y,
        figure::cut(&format!(" {title} "), room),
        room,
        style,
    );
}

fn note(buf: &mut Buffer, area: Rect, text: &str, theme: Theme) {
    if area.height > 1 {
        buf.set_stringn(
            area.x + 3,
            area.y + 1,
            text,
            usize::from(area.width.saturating_sub(3)),
            theme.dim(),
        );
    }
}
