//! Few colours, each with one meaning. `NO_COLOR` leaves bold, dim and reverse.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

/// The styles of the screen.
#[derive(Clone, Copy, Debug)]
pub struct Theme {
    colour: bool,
}

impl Theme {
    /// Colour unless `NO_COLOR` is set and not empty (no-color.org).
    #[must_use]
    pub fn from_env() -> Self {
        Theme {
            colour: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        }
    }

    /// With or without colour.
    #[must_use]
    pub fn new(colour: bool) -> Self {
        Theme { colour }
    }

    fn fg(self, colour: Color) -> Style {
        if self.colour {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    /// Figures that say something.
    pub(super) fn text(self) -> Style {
        Style::new()
    }

    /// Nothing going on, unknown, or of less interest.
    pub(super) fn dim(self) -> Style {
        if self.colour {
            Style::new().fg(Color::Indexed(245))
        } else {
            Style::new().add_modifier(Modifier::DIM)
        }
    }

    /// Titles, rules and names of columns.
    pub(super) fn heading(self) -> Style {
        self.fg(Color::Cyan)
    }

    /// What has the user's attention: sort column, focused pane.
    pub(super) fn focus(self) -> Style {
        self.fg(Color::Cyan).add_modifier(Modifier::BOLD)
    }

    /// Marks the line under the cursor.
    pub(super) fn mark(self, buf: &mut Buffer, line: Rect) {
        if !self.colour {
            buf.set_style(line, Style::new().add_modifier(Modifier::REVERSED));
            return;
        }
        for x in line.left()..line.right() {
            if let Some(cell) = buf.cell_mut((x, line.y)) {
                cell.bg = Color::Indexed(237);
                if cell.fg == Color::Reset {
                    // On a light terminal the usual colour would be dark on dark.
                    cell.fg = Color::Indexed(255);
                }
            }
        }
    }

    /// Good: memory given back, nothing lost.
    pub(super) fn good(self) -> Style {
        self.fg(Color::Green)
    }

    /// Grows, waits, or comes near a limit.
    pub(super) fn warning(self) -> Style {
        self.fg(Color::Yellow)
    }

    /// Killed, or about to be.
    pub(super) fn critical(self) -> Style {
        self.fg(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// Modes the user has to know of: paused, filtered.
    pub(super) fn mode(self) -> Style {
        if self.colour {
            Style::new().fg(Color::Black).bg(Color::Yellow)
        } else {
            Style::new().add_modifier(Modifier::REVERSED)
        }
    }
}
