//! What the user has chosen: sort, filter, cursor, pane, overlay. Changed by keys, settled against the rows at each frame.

use grey_core::view::Query;

use super::theme::Theme;

/// What an input asks of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing changed on the screen.
    Continue,
    /// Draw now.
    Redraw,
    /// The user wants to leave.
    Quit,
}

/// A part of the screen that the cursor can be in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pane {
    /// The cgroups.
    #[default]
    Table,
    /// Growing processes.
    Processes,
    /// Alerts.
    Alerts,
}

/// What lies over the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Overlay {
    #[default]
    None,
    Help,
    /// All figures of the cgroup with this path.
    Details(String),
}

/// What the user has chosen.
#[derive(Clone, Debug)]
pub struct UiState {
    pub(super) query: Query,
    /// Whether the user has chosen what to sort by.
    pub(super) sort_chosen: bool,
    /// Whether keys go into the filter.
    pub(super) typing: bool,
    pub(super) overlay: Overlay,
    pub(super) pane: Pane,
    pub(super) paused: bool,
    pub(super) table: Cursor,
    pub(super) processes: Cursor,
    pub(super) alerts: Cursor,
    pub(super) details: Cursor,
    pub(super) theme: Theme,
}

impl UiState {
    /// The state at the start: the table, sorted by memory, large first.
    #[must_use]
    pub fn new(theme: Theme) -> Self {
        UiState {
            query: Query::default(),
            sort_chosen: false,
            typing: false,
            overlay: Overlay::None,
            pane: Pane::Table,
            paused: false,
            table: Cursor::default(),
            processes: Cursor::default(),
            alerts: Cursor::default(),
            details: Cursor::default(),
            theme,
        }
    }

    /// Whether the picture is held still.
    #[must_use]
    pub fn paused(&self) -> bool {
        self.paused
    }

    /// What the table shows.
    #[must_use]
    pub fn query(&self) -> &Query {
        &self.query
    }
}

/// A step of a cursor, taken at the next frame, when the number of lines is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Lines(isize),
    Pages(isize),
    Home,
    End,
}

/// A cursor in a list that changes under it.
#[derive(Clone, Debug, Default)]
pub(super) struct Cursor {
    pub(super) index: usize,
    pub(super) offset: usize,
    /// What it stays on when lines move; none at the top, where it stays on whatever is first.
    key: Option<String>,
    /// What it was on in the last frame.
    pub(super) on: Option<String>,
    step: Steps,
}

/// Steps since the last frame add up.
#[derive(Clone, Copy, Debug, Default)]
struct Steps {
    jump: Option<bool>,
    lines: isize,
    pages: isize,
}

impl Cursor {
    pub(super) fn step(&mut self, step: Step) {
        match step {
            Step::Lines(n) => self.step.lines = self.step.lines.saturating_add(n),
            Step::Pages(n) => self.step.pages = self.step.pages.saturating_add(n),
            Step::Home => {
                self.step = Steps {
                    jump: Some(false),
                    ..Steps::default()
                }
            }
            Step::End => {
                self.step = Steps {
                    jump: Some(true),
                    ..Steps::default()
                }
            }
        }
    }

    /// Takes the steps in a list of `len` lines of which `height` are seen. `name` tells what a line is, `find`
    /// where something went.
    pub(super) fn settle(
        &mut self,
        len: usize,
        height: usize,
        name: impl Fn(usize) -> Option<String>,
        find: impl FnOnce(&str) -> Option<usize>,
    ) {
        let Steps { jump, lines, pages } = std::mem::take(&mut self.step);
        if let Some(key) = &self.key
            && let Some(index) = find(key)
        {
            self.index = index;
        }
        let last = len.saturating_sub(1);
        match jump {
            Some(true) => self.index = last,
            Some(false) => self.index = 0,
            None => {}
        }
        let page = isize::try_from(height.max(2) - 1).unwrap_or(isize::MAX);
        let by = lines.saturating_add(pages.saturating_mul(page));
        self.index = self.index.saturating_add_signed(by).min(last);
        self.offset = self.offset.min(self.index).min(len.saturating_sub(height));
        if height > 0 && self.index >= self.offset + height {
            self.offset = self.index + 1 - height;
        }
        self.on = name(self.index);
        if jump.is_some() || by != 0 || self.key.is_some() {
            self.key = if self.index == 0 {
                None
            } else {
                self.on.clone()
            };
        }
    }

    /// Takes the steps in a text of `len` lines that has no line of its own to be on.
    pub(super) fn scroll(&mut self, len: usize, height: usize) {
        let Steps { jump, lines, pages } = std::mem::take(&mut self.step);
        let last = len.saturating_sub(height);
        match jump {
            Some(true) => self.offset = last,
            Some(false) => self.offset = 0,
            None => {}
        }
        let page = isize::try_from(height.max(2) - 1).unwrap_or(isize::MAX);
        let by = lines.saturating_add(pages.saturating_mul(page));
        self.offset = self.offset.saturating_add_signed(by).min(last);
    }
}
