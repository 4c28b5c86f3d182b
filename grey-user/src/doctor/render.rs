//! The report as text: aligned columns, colours on a terminal only.

use std::fmt::Write;
use std::io::IsTerminal;

use super::{DoctorReport, Finding, Mark};

/// Whether standard output is a terminal that wants colours (<https://no-color.org>).
#[must_use]
pub fn use_color() -> bool {
    let unwanted = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    std::io::stdout().is_terminal()
        && !unwanted("NO_COLOR")
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

pub(super) fn text(report: &DoctorReport, color: bool) -> String {
    let findings = || report.sections.iter().flat_map(|section| &section.findings);
    let width = findings()
        .map(|finding| finding.name.chars().count())
        .max()
        .unwrap_or(0);
    let mut out = String::new();
    for section in &report.sections {
        let _ = writeln!(out, "{}", paint(section.name, "1", color));
        for finding in &section.findings {
            line(&mut out, finding, width, color);
        }
        out.push('\n');
    }
    let verdict = if report.works {
        "watch works here: "
    } else {
        "watch cannot work here: "
    };
    let code = if report.works { "1;32" } else { "1;31" };
    let _ = writeln!(out, "{}{}", paint(verdict, code, color), report.summary);
    out
}

/// Columns of a line; a longer one is continued below its own beginning.
const COLUMNS: usize = 110;

fn line(out: &mut String, finding: &Finding, width: usize, color: bool) {
    let (word, code) = match finding.mark {
        Mark::Ok => ("ok  ", "32"),
        Mark::Note => ("note", "36"),
        Mark::Warn => ("warn", "33"),
        Mark::Off => ("off ", "31"),
    };
    let mark = paint(word, code, color);
    let _ = write!(out, "  {mark}  {:width$}  ", finding.name);
    wrapped(out, &finding.found, width + 10);
    let details = [
        ("lost", &finding.lost),
        ("cost", &finding.cost),
        ("do", &finding.remedy),
    ];
    for (label, detail) in details {
        if let Some(detail) = detail {
            let label = paint(&format!("{label:<4}"), "2", color);
            let _ = write!(out, "{:indent$}{label}  ", "", indent = width + 10);
            wrapped(out, detail, width + 16);
        }
    }
}

fn wrapped(out: &mut String, text: &str, indent: usize) {
    let mut column = indent;
    for (at, word) in text.split(' ').enumerate() {
        let length = word.chars().count();
        if at > 0 && column + 1 + length > COLUMNS {
            let _ = write!(out, "\n{:indent$}", "");
            column = indent;
        } else if at > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out.push('\n');
}

fn paint(text: &str, code: &str, color: bool) -> String {
    if color {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}
