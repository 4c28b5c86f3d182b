//! Columns as wide as what is in them.

use super::Look;

/// One field.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    color: Option<&'static str>,
    left: bool,
}

impl Cell {
    pub(super) fn plain(text: impl Into<String>) -> Cell {
        Cell {
            text: text.into(),
            color: None,
            left: false,
        }
    }

    /// Aligned to the left also where the column is not.
    pub(super) fn left(text: impl Into<String>) -> Cell {
        Cell {
            left: true,
            ..Cell::plain(text)
        }
    }

    pub(super) fn colored(self, color: Option<&'static str>) -> Cell {
        Cell { color, ..self }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

/// Rows below a line of column names. The first columns and the last one are aligned to the left.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<Cell>>,
    left: usize,
}

impl Table {
    /// With these column names, the first `left` of which are aligned to the left.
    pub(super) fn new(heads: &[&str], left: usize) -> Table {
        let heads = heads.iter().map(|head| Cell::plain(*head)).collect();
        Table {
            rows: vec![heads],
            left,
        }
    }

    pub(super) fn row(&mut self, row: Vec<Cell>) {
        self.rows.push(row);
    }

    pub(super) fn write(&self, out: &mut String, look: Look) {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|at| {
                let cells = self.rows.iter().filter_map(|row| row.get(at));
                cells.map(Cell::width).max().unwrap_or(0)
            })
            .collect();
        for (number, row) in self.rows.iter().enumerate() {
            let start = out.len();
            for (at, cell) in row.iter().enumerate() {
                if at > 0 {
                    out.push_str("  ");
                }
                let blanks = " ".repeat(widths[at].saturating_sub(cell.width()));
                let left = cell.left || at < self.left || (at + 1 == columns && columns > 5);
                let color = if number == 0 { Some("36") } else { cell.color };
                let text = match color {
                    Some(code) if !cell.text.is_empty() => look.paint(&cell.text, code),
                    _ => cell.text.clone(),
                };
                if left {
                    out.push_str(&text);
                    out.push_str(&blanks);
                } else {
                    out.push_str(&blanks);
                    out.push_str(&text);
                }
            }
            let end = start + out[start..].trim_end().len();
            out.truncate(end);
            out.push('\n');
        }
    }
}
