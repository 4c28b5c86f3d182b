//! What a person sees: the live table on a terminal and plain lines elsewhere. It draws `grey_core::view::Model` and
//! knows nothing of where events come from.

mod chart;
mod columns;
mod details;
pub(crate) mod figure;
mod header;
mod help;
mod keys;
mod panes;
pub mod plain;
mod screen;
mod state;
mod table;
#[cfg(test)]
mod tests;
mod theme;
mod tui;
mod verdict;

use std::time::Duration;

pub use screen::render;
pub use state::{Outcome, Pane, UiState};
pub use theme::Theme;
pub use tui::Tui;

/// What a screen shows beside the model.
#[derive(Clone, Debug, Default)]
pub struct Info {
    /// Node name; the model's own (told by the events) where this is empty.
    pub host: String,
    /// Kernel release; empty when unknown.
    pub kernel: String,
    /// How long this watch has run.
    pub elapsed: Duration,
    /// The tick.
    pub interval: Duration,
    /// MemTotal, bytes.
    pub mem_total: Option<u64>,
    /// MemAvailable, bytes.
    pub mem_available: Option<u64>,
    /// Where the events come from when it is not this machine now, such as `replay of FILE`; else empty.
    pub source: String,
}
