//! Writes lines: colours where wanted, words wrapped at the width, columns padded by what they look like.

use crate::ui::figure;

/// The few colours, each with one meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ink {
    Plain,
    Dim,
    Heading,
    Good,
    Warning,
    Critical,
    /// Parts of the bar, by their class.
    Swappable,
    Fixed,
    Cache,
}

impl Ink {
    fn code(self) -> Option<&'static str> {
        match self {
            Ink::Plain => None,
            Ink::Dim => Some("2"),
            Ink::Heading => Some("1;36"),
            Ink::Good => Some("32"),
            Ink::Warning => Some("33"),
            Ink::Critical => Some("1;31"),
            Ink::Swappable => Some("34"),
            Ink::Fixed => Some("35"),
            Ink::Cache => Some("36"),
        }
    }
}

pub(super) struct Pen {
    text: String,
    color: bool,
    width: usize,
}

/// Which side a column keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

impl Pen {
    pub(super) fn new(color: bool, width: usize) -> Self {
        Pen {
            text: String::new(),
            color,
            width,
        }
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// `text` in a colour, to be put into a line.
    pub(super) fn paint(&self, text: &str, ink: Ink) -> String {
        match ink.code() {
            Some(code) if self.color && !text.is_empty() => format!("\x1b[{code}m{text}\x1b[0m"),
            _ => text.to_owned(),
        }
    }

    /// A line as it is.
    pub(super) fn line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    /// A line that loses its end where it is too long.
    pub(super) fn cut(&mut self, line: &str, ink: Ink) {
        let line = self.paint(&figure::cut(line.trim_end(), self.width), ink);
        self.line(&line);
    }

    pub(super) fn blank(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }

    /// A section's name and what it is about.
    pub(super) fn section(&mut self, name: &str, about: &str) {
        self.blank();
        let room = self.width.saturating_sub(figure::width(name) + 2);
        let head = self.paint(name, Ink::Heading);
        if figure::width(about) <= room {
            let about = self.paint(about, Ink::Dim);
            self.line(&format!("{head}  {about}"));
        } else {
            self.line(&head);
            self.words("  ", about, 2, Ink::Dim);
        }
    }

    /// `lead`, then words wrapped so that each further line begins at `indent`.
    pub(super) fn words(&mut self, lead: &str, text: &str, indent: usize, ink: Ink) {
        self.lead(lead, indent, text, ink, Ink::Plain);
    }

    /// The same with the lead in a colour of its own.
    pub(super) fn lead(&mut self, lead: &str, indent: usize, text: &str, ink: Ink, lead_ink: Ink) {
        let room = self.width.saturating_sub(indent).max(20);
        let mut lines: Vec<String> = vec![String::new()];
        let mut used = 0;
        for word in text.split(' ') {
            let length = figure::width(word);
            if used > 0 && used + 1 + length > room {
                lines.push(String::new());
                used = 0;
            }
            if let Some(line) = lines.last_mut() {
                if used > 0 {
                    line.push(' ');
                    used += 1;
                }
                line.push_str(word);
                used += length;
            }
        }
        for (at, line) in lines.iter().enumerate() {
            let body = self.paint(line, ink);
            if at == 0 {
                let pad = indent.saturating_sub(figure::width(lead));
                let lead = self.paint(lead, lead_ink);
                self.line(&format!("{lead}{}{body}", " ".repeat(pad)));
            } else {
                self.line(&format!("{}{body}", " ".repeat(indent)));
            }
        }
    }

    /// A cell of a table, padded to `width`.
    pub(super) fn cell(&self, text: &str, width: usize, side: Side, ink: Ink) -> String {
        let blanks = " ".repeat(width.saturating_sub(figure::width(text)));
        let text = self.paint(text, ink);
        match side {
            Side::Left => format!("{text}{blanks}"),
            Side::Right => format!("{blanks}{text}"),
        }
    }
}
