//! How far a replay is, on a terminal. The only place that looks at a clock; nothing of it gets into the output.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use grey_core::replay::Replay;

use super::input::Input;
use crate::ui::figure::{count, total};

/// Between two drawings.
const REDRAW: Duration = Duration::from_millis(100);
/// Blocks looked at between two looks at the clock.
const BLOCKS: u32 = 16;
/// Cells of the bar.
const BAR: u64 = 24;

/// A line on stderr that is drawn over.
pub(super) struct Progress {
    terminal: bool,
    size: Option<u64>,
    start: Instant,
    drawn: Option<Instant>,
    blocks: u32,
    visible: bool,
}

impl Progress {
    pub(super) fn new(inputs: &[Input]) -> Self {
        Progress {
            terminal: io::stderr().is_terminal(),
            size: inputs.iter().map(|input| input.size).sum(),
            start: Instant::now(),
            drawn: None,
            blocks: 0,
            visible: false,
        }
    }

    pub(super) fn draw(&mut self, inputs: &[Input], replay: &Replay, verdicts: u64) {
        if !self.terminal {
            return;
        }
        self.blocks += 1;
        if !self.blocks.is_multiple_of(BLOCKS) {
            return;
        }
        let since = self.drawn.unwrap_or(self.start);
        if since.elapsed() < REDRAW {
            return;
        }
        self.drawn = Some(Instant::now());
        self.visible = true;
        let read = inputs.iter().map(Input::consumed).sum();
        let line = line(
            self.size,
            read,
            replay.stats().lines,
            self.start.elapsed(),
            verdicts,
        );
        // Nobody misses a progress that cannot be written.
        let _ = io::stderr().write_all(format!("\r\x1b[K{line}").as_bytes());
    }

    /// Leaves the terminal's line to whatever comes next.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.visible) {
            let _ = io::stderr().write_all(b"\r\x1b[K");
        }
    }
}

/// An error is told on a line of its own.
impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn line(size: Option<u64>, read: u64, lines: u64, elapsed: Duration, verdicts: u64) -> String {
    let bar = match size {
        Some(size) if size > 0 => {
            let read = read.min(size);
            let full = u128::from(BAR) * u128::from(read) / u128::from(size);
            let percent = 100 * u128::from(read) / u128::from(size);
            let full = full as usize;
            format!(
                "{}{} {percent:>3}%  ",
                "━".repeat(full),
                "─".repeat(BAR as usize - full)
            )
        }
        _ => String::new(),
    };
    let rate = lines as f64 / elapsed.as_secs_f64().max(1e-3);
    format!(
        "replaying  {bar}{} lines, {}/s  {verdicts} verdict{}",
        total(Some(lines)),
        count(Some(rate)),
        if verdicts == 1 { "" } else { "s" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills_and_is_left_out_where_the_size_is_not_known() {
        let second = Duration::from_secs(1);
        assert_eq!(
            line(Some(200), 100, 1_234_567, second, 1),
            "replaying  ━━━━━━━━━━━━────────────  50%  1,234,567 lines, 1.2M/s  1 verdict"
        );
        assert_eq!(
            line(None, 100, 10, second, 0),
            "replaying  10 lines, 10/s  0 verdicts"
        );
        // A file that grew while it was read.
        assert!(line(Some(10), 100, 1, second, 0).contains("100%"));
    }
}
