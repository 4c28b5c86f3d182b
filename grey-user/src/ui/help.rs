//! The help overlay: keys and how to read the table.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::widgets::{Block, BorderType, Clear, Widget as _};

use super::figure;
use super::keys::SORT_LETTERS;
use super::state::UiState;

const WIDTH: u16 = 76;

/// Draws the help in the middle of `area`.
pub(super) fn draw(buf: &mut Buffer, area: Rect, state: &UiState) {
    let theme = state.theme;
    let letters: Vec<String> = SORT_LETTERS
        .iter()
        .map(|(c, sort)| format!("{c} {}", sort.label()))
        .collect();
    let (first, second) = letters.split_at(5);
    let (first, second) = (first.join("  "), second.join("  "));
    let lines: [(&str, &str); 18] = [
        ("↑ ↓ j k  PgUp PgDn  Home End", "move"),
        ("Enter", "all figures of the cgroup under the cursor"),
        ("Tab", "cursor to the next pane"),
        ("/", "filter: words in path, name or kind; Esc clears it"),
        ("t", "tree or flat"),
        ("p  Space", "hold the picture still; the watch goes on"),
        ("s  S", "sort by the next column, reverse"),
        ("sort by", &first),
        ("", &second),
        ("q  Esc  Ctrl-C", "quit"),
        ("", ""),
        ("–", "unknown: not there, or no sample for a while"),
        ("≥", "at least: events were lost in this window"),
        (
            "VERDICT",
            "leak? suspect, LEAK sure; and the time to its limit",
        ),
        ("GROWTH/S", "anon + swap; the bars are its past, one a tick"),
        ("STALL/S", "time tasks waited in reclaim, each second"),
        ("PSI", "share of time at least one task waited for memory"),
        (
            "LIMIT",
            "use of memory.max or high; ↑ an ancestor's comes first",
        ),
    ];
    let width = WIDTH.min(area.width);
    let height = (lines.len() as u16 + 2).min(area.height);
    let popup = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    // A frame a few columns narrower than the screen would leave shreds of the table beside it.
    let cleared = if area.width < WIDTH + 20 { area } else { popup };
    Clear.render(cleared, buf);
    Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(theme.heading())
        .title(" help ")
        .title_style(theme.focus())
        .render(popup, buf);
    let keys = 16;
    for (at, (key, what)) in lines
        .iter()
        .enumerate()
        .take(usize::from(height.saturating_sub(2)))
    {
        let y = popup.y + 1 + at as u16;
        let room = usize::from(width.saturating_sub(4));
        buf.set_stringn(popup.x + 2, y, figure::cut(key, room), room, theme.focus());
        let from = (figure::width(key) + 2).max(keys);
        let room = room.saturating_sub(from);
        buf.set_stringn(
            popup.x + 2 + from as u16,
            y,
            figure::cut(what, room),
            room,
            theme.text(),
        );
    }
}
