//! What each key does.

use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use grey_core::view::SortKey;

use super::state::{Cursor, Outcome, Overlay, Pane, Step, UiState};

/// Longer filters are cut: nobody types them, but a stray paste may.
const MAX_FILTER: usize = 200;

impl UiState {
    /// Takes in a key, a paste or a change of size.
    pub fn on_input(&mut self, event: &Event) -> Outcome {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => self.on_key(*key),
            Event::Paste(text) if self.typing => {
                text.chars().for_each(|c| self.type_char(c));
                Outcome::Redraw
            }
            Event::Resize(..) => Outcome::Redraw,
            _ => Outcome::Continue,
        }
    }

    fn on_key(&mut self, key: KeyEvent) -> Outcome {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return self.on_control(key.code);
        }
        if self.typing {
            return self.on_filter_key(key.code);
        }
        if let Some(step) = step(key.code) {
            return match self.cursor() {
                Some(cursor) => {
                    cursor.step(step);
                    Outcome::Redraw
                }
                None => Outcome::Continue,
            };
        }
        match self.overlay {
            Overlay::None => self.on_main_key(key.code),
            Overlay::Help | Overlay::Details(_) => self.on_overlay_key(key.code),
        }
    }

    fn on_control(&mut self, code: KeyCode) -> Outcome {
        match code {
            KeyCode::Char('c') => return Outcome::Quit,
            KeyCode::Char('u') if self.typing => self.query.filter.clear(),
            KeyCode::Char('w') if self.typing => {
                let kept = self
                    .query
                    .filter
                    .trim_end()
                    .rfind(' ')
                    .map_or(0, |at| at + 1);
                self.query.filter.truncate(kept);
            }
            // Half a page in many pagers; a page is near enough.
            KeyCode::Char('d' | 'f') => return self.page(1),
            KeyCode::Char('u' | 'b') => return self.page(-1),
            KeyCode::Char('l') => {}
            _ => return Outcome::Continue,
        }
        Outcome::Redraw
    }

    fn page(&mut self, pages: isize) -> Outcome {
        match self.cursor() {
            Some(cursor) => {
                cursor.step(Step::Pages(pages));
                Outcome::Redraw
            }
            None => Outcome::Continue,
        }
    }

    fn on_filter_key(&mut self, code: KeyCode) -> Outcome {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.query.filter.clear();
            }
            KeyCode::Backspace if self.query.filter.is_empty() => self.typing = false,
            KeyCode::Backspace => {
                self.query.filter.pop();
            }
            KeyCode::Char(c) => self.type_char(c),
            KeyCode::Up => self.table.step(Step::Lines(-1)),
            KeyCode::Down => self.table.step(Step::Lines(1)),
            _ => return Outcome::Continue,
        }
        Outcome::Redraw
    }

    fn type_char(&mut self, c: char) {
        if !c.is_control() && self.query.filter.len() < MAX_FILTER {
            self.query.filter.push(c);
        }
    }

    fn on_overlay_key(&mut self, code: KeyCode) -> Outcome {
        match code {
            KeyCode::Esc | KeyCode::Enter | KeyCode::Char('q') | KeyCode::Backspace => {
                self.overlay = Overlay::None;
            }
            KeyCode::Char('?' | 'h') => {
                self.overlay = if self.overlay == Overlay::Help {
                    Overlay::None
                } else {
                    Overlay::Help
                };
            }
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            _ => return Outcome::Continue,
        }
        Outcome::Redraw
    }

    fn on_main_key(&mut self, code: KeyCode) -> Outcome {
        match code {
            KeyCode::Char('q') => return Outcome::Quit,
            KeyCode::Esc => return self.back(),
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.overlay = Overlay::Help,
            KeyCode::Char('/') => {
                self.typing = true;
                self.pane = Pane::Table;
            }
            KeyCode::Char('t') => self.query.tree = !self.query.tree,
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('s') => self.sort_by(self.query.sort.next()),
            KeyCode::Char('S') => self.query.descending = !self.query.descending,
            KeyCode::Tab => self.pane = self.pane.next(),
            KeyCode::BackTab => self.pane = self.pane.next().next(),
            KeyCode::Enter => return self.open_details(),
            KeyCode::Char(c) => match sort_letter(c) {
                Some(sort) if sort == self.query.sort => {
                    self.query.descending = !self.query.descending;
                }
                Some(sort) => self.sort_by(sort),
                None => return Outcome::Continue,
            },
            _ => return Outcome::Continue,
        }
        Outcome::Redraw
    }

    /// Esc leaves the innermost thing first.
    fn back(&mut self) -> Outcome {
        if !self.query.filter.is_empty() {
            self.query.filter.clear();
        } else if self.pane != Pane::Table {
            self.pane = Pane::Table;
        } else {
            return Outcome::Quit;
        }
        Outcome::Redraw
    }

    fn open_details(&mut self) -> Outcome {
        let on = match self.pane {
            Pane::Table => &self.table.on,
            Pane::Processes => &self.processes.on,
            Pane::Alerts => &self.alerts.on,
        };
        match on {
            Some(path) if !path.is_empty() => {
                self.overlay = Overlay::Details(path.clone());
                self.details = Cursor::default();
                Outcome::Redraw
            }
            _ => Outcome::Continue,
        }
    }

    fn sort_by(&mut self, sort: SortKey) {
        self.query.sort = sort;
        self.query.descending = sort.descends();
        self.sort_chosen = true;
        // A new order is read from its top.
        self.table = Cursor::default();
    }

    fn cursor(&mut self) -> Option<&mut Cursor> {
        match (&self.overlay, self.pane) {
            (Overlay::Help, _) => None,
            (Overlay::Details(_), _) => Some(&mut self.details),
            (Overlay::None, Pane::Table) => Some(&mut self.table),
            (Overlay::None, Pane::Processes) => Some(&mut self.processes),
            (Overlay::None, Pane::Alerts) => Some(&mut self.alerts),
        }
    }
}

impl Pane {
    fn next(self) -> Pane {
        match self {
            Pane::Table => Pane::Processes,
            Pane::Processes => Pane::Alerts,
            Pane::Alerts => Pane::Table,
        }
    }
}

fn step(code: KeyCode) -> Option<Step> {
    Some(match code {
        KeyCode::Char('j') | KeyCode::Down => Step::Lines(1),
        KeyCode::Char('k') | KeyCode::Up => Step::Lines(-1),
        KeyCode::PageDown => Step::Pages(1),
        KeyCode::PageUp => Step::Pages(-1),
        KeyCode::Home => Step::Home,
        KeyCode::End | KeyCode::Char('G') => Step::End,
        _ => return None,
    })
}

/// Letters that sort by a column at once.
pub(super) const SORT_LETTERS: [(char, SortKey); 10] = [
    ('m', SortKey::Memory),
    ('a', SortKey::Anon),
    ('g', SortKey::Growth),
    ('f', SortKey::Faults),
    ('v', SortKey::Mapped),
    ('w', SortKey::Stall),
    ('i', SortKey::Psi),
    ('l', SortKey::Limit),
    ('d', SortKey::Verdict),
    ('n', SortKey::Name),
];

fn sort_letter(letter: char) -> Option<SortKey> {
    SORT_LETTERS
        .iter()
        .find(|(c, _)| *c == letter)
        .map(|(_, sort)| *sort)
}
