//! One frame: where the parts lie, and who draws each.

use grey_core::view::{Model, SortKey};
use ratatui::Frame;
use ratatui::layout::Rect;

use super::state::{Overlay, Pane, UiState};
use super::{Info, details, header, help, panes, table};

/// Side by side from this width on, one below the other when narrower.
const WIDE: u16 = 110;
/// Lower screens show one pane at a time.
const LOW: u16 = 17;

/// Where the parts of a screen lie; `None` for what there is no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Areas {
    header: Rect,
    table: Option<Rect>,
    processes: Option<Rect>,
    alerts: Option<Rect>,
    /// Table and panes together.
    body: Rect,
    footer: Rect,
}

/// Draws a frame. Settles the cursors of `state` against what there is to see now.
pub fn render(frame: &mut Frame<'_>, model: &Model, info: &Info, state: &mut UiState) {
    if !state.sort_chosen && !model.is_empty() {
        // Without a memory controller an order by memory would be none.
        state.query.sort = if model.has_memory() {
            SortKey::Memory
        } else {
            SortKey::Faults
        };
    }
    let areas = areas(frame.area(), state.pane);
    let buf = frame.buffer_mut();
    header::draw(buf, areas.header, model, info, state);
    if let Overlay::Details(path) = state.overlay.clone() {
        details::draw(buf, areas.body, model, &path, state);
    } else {
        if let Some(area) = areas.table {
            table::draw(buf, area, model, state);
        }
        if let Some(area) = areas.processes {
            panes::draw_processes(buf, area, model, state);
        }
        if let Some(area) = areas.alerts {
            panes::draw_alerts(buf, area, model, state);
        }
    }
    header::draw_footer(buf, areas.footer, state);
    if state.overlay == Overlay::Help {
        help::draw(buf, areas.body, state);
    }
}

fn areas(screen: Rect, pane: Pane) -> Areas {
    let row = |y: u16, height: u16| Rect {
        y: screen.y + y,
        height,
        ..screen
    };
    let head = if screen.height >= 8 {
        2
    } else {
        u16::from(screen.height >= 4)
    };
    let foot = u16::from(screen.height >= 3);
    let body = row(head, screen.height.saturating_sub(head + foot));
    let mut areas = Areas {
        header: row(0, head),
        table: None,
        processes: None,
        alerts: None,
        body,
        footer: row(screen.height - foot, foot),
    };
    if screen.height < LOW {
        *match pane {
            Pane::Table => &mut areas.table,
            Pane::Processes => &mut areas.processes,
            Pane::Alerts => &mut areas.alerts,
        } = Some(body);
        return areas;
    }
    let below = |top: u16, height: u16| Rect {
        y: body.y + top,
        height,
        ..body
    };
    if screen.width >= WIDE {
        let height = (body.height * 3 / 10).clamp(6, 16);
        let split = below(body.height - height, height);
        let left = split.width / 2;
        areas.table = Some(below(0, body.height - height));
        areas.processes = Some(Rect {
            width: left - 2,
            ..split
        });
        areas.alerts = Some(Rect {
            x: split.x + left,
            width: split.width - left,
            ..split
        });
    } else {
        let processes = (body.height / 5).clamp(4, 10);
        let alerts = (body.height / 4).clamp(4, 14);
        let table = body.height - processes - alerts;
        areas.table = Some(below(0, table));
        areas.processes = Some(below(table, processes));
        areas.alerts = Some(below(table + processes, alerts));
    }
    areas
}
