//! A profile as text: what it found in a sentence, the stacks that kept most, and what a reader must know.

use std::collections::HashMap;
use std::fmt::Write as _;

use grey_core::units::{format_bytes, format_duration_us};
use grey_core::view::printable;

use super::document::{Profile, Stack};
use crate::ui::figure;

/// Callers shown beside the function to blame.
const CALLERS: usize = 3;

/// The text; lines are cut at `width`, where there is one.
pub(super) fn text(profile: &Profile, top: usize, width: Option<usize>) -> String {
    let mut out = String::new();
    let target = match (&profile.cgroup, profile.pid) {
        (Some(path), _) => printable(path).to_string(),
        (None, Some(pid)) => format!("pid {pid}"),
        (None, None) => "?".to_owned(),
    };
    let _ = writeln!(
        out,
        "{target}: {} page faults in {} brought {}; {} of it is kept{}",
        figure::total(Some(profile.faults)),
        format_duration_us(profile.duration_ms.saturating_mul(1000)),
        format_bytes(profile.faulted_bytes),
        format_bytes(profile.kept_bytes),
        match profile.one_in {
            0 | 1 => String::new(),
            n => format!(" (estimated from one page in {n})"),
        },
    );
    let rows = rows(profile);
    if !rows.is_empty() {
        let _ = writeln!(out, "\n{:>7} {:>5} {:>7}  FUNCTION", "KEPT", "%", "FAULTED");
    }
    for row in rows.iter().take(top) {
        let share = row.kept as f64 / profile.kept_bytes.max(1) as f64 * 100.0;
        let more = match row.stacks {
            0 | 1 => String::new(),
            n => format!("  ({n} stacks)"),
        };
        let head = format!(
            "{:>7} {:>5} {:>7}  {}{more}",
            format_bytes(row.kept),
            figure::percent(Some(share)),
            format_bytes(row.faulted),
            printable(&cut(row.largest.function.clone())),
        );
        push(&mut out, &head, width);
        push(&mut out, &format!("{:23}{}", "", way(row.largest)), width);
    }
    if rows.len() > top {
        let rest: u64 = rows[top..].iter().map(|row| row.kept).sum();
        let count = rows.len() - top;
        let _ = writeln!(
            out,
            "{:>7} {:13}  and {count} more function{}",
            format_bytes(rest),
            "",
            if count == 1 { "" } else { "s" }
        );
    }
    for note in &profile.notes {
        let _ = writeln!(out, "\nnote: {note}");
    }
    out
}

/// The stacks of one function of one process.
struct Row<'p> {
    kept: u64,
    faulted: u64,
    stacks: usize,
    /// The one that kept most.
    largest: &'p Stack,
}

/// Functions by what they kept, the most first.
fn rows(profile: &Profile) -> Vec<Row<'_>> {
    let mut rows: Vec<Row<'_>> = Vec::new();
    let mut at: HashMap<(u32, &str), usize> = HashMap::new();
    for stack in &profile.stacks {
        let at = *at.entry((stack.pid, &stack.function)).or_insert(rows.len());
        if let Some(row) = rows.get_mut(at) {
            row.kept += stack.kept_bytes;
            row.faulted += stack.faulted_bytes;
            row.stacks += 1;
        } else {
            rows.push(Row {
                kept: stack.kept_bytes,
                faulted: stack.faulted_bytes,
                stacks: 1,
                largest: stack,
            });
        }
    }
    rows.sort_by_key(|row| std::cmp::Reverse((row.kept, row.faulted)));
    rows
}

/// A name as far as anybody reads it in a table; the other forms have all of it.
fn cut(name: String) -> String {
    const MOST: usize = 80;
    match name.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name,
    }
}

/// By what the memory came and who asked for it: `memset < calloc < remember < main  (web 4711)`.
fn way(stack: &Stack) -> String {
    let blamed = stack
        .frames
        .iter()
        .position(|frame| frame.name() == stack.function);
    let end = blamed.map_or(CALLERS, |at| at + 1 + CALLERS);
    let names = stack.frames.iter().take(end);
    let names: Vec<String> = names.map(|frame| cut(frame.short())).collect();
    let more = if stack.frames.len() > end {
        " < …"
    } else {
        ""
    };
    printable(&format!(
        "{}{more}  ({} {})",
        names.join(" < "),
        stack.comm,
        stack.pid
    ))
    .to_string()
}

fn push(out: &mut String, line: &str, width: Option<usize>) {
    match width {
        Some(width) if line.chars().count() > width => {
            out.extend(line.chars().take(width.saturating_sub(1)));
            out.push('…');
        }
        _ => out.push_str(line),
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::document::Frame;
    use super::*;

    #[test]
    fn who_kept_most_comes_first_with_the_way_it_came() {
        let stack = |function: &str, kept_bytes, faulted_bytes, frames: &[&str]| Stack {
            pid: 300,
            comm: "web".to_owned(),
            function: function.to_owned(),
            kept_bytes,
            faulted_bytes,
            frames: frames
                .iter()
                .map(|name| Frame {
                    function: Some((*name).to_owned()),
                    ..Frame::default()
                })
                .collect(),
            ..Stack::default()
        };
        let profile = Profile {
            cgroup: Some("/system.slice/web.service".to_owned()),
            duration_ms: 10_000,
            faults: 12_345,
            one_in: 4,
            faulted_bytes: 404 << 20,
            kept_bytes: 4 << 20,
            stacks: vec![
                stack(
                    "leak",
                    3 << 20,
                    3 << 20,
                    &["memset", "leak", "serve", "main"],
                ),
                stack("leak", 1 << 20, 1 << 20, &["memcpy", "leak", "main"]),
                stack(
                    "churn",
                    0,
                    400 << 20,
                    &["memset", "churn", "first", "second", "third", "d"],
                ),
            ],
            notes: vec!["something to know".to_owned()],
            ..Profile::default()
        };
        assert_eq!(
            text(&profile, 10, Some(64)),
            "/system.slice/web.service: 12,345 page faults in 10.0s brought 404M; 4.0M of it is kept (estimated from one page in 4)

   KEPT     % FAULTED  FUNCTION
   4.0M  100%    4.0M  leak  (2 stacks)
                       memset < leak < serve < main  (web 300)
      0    0%    400M  churn
                       memset < churn < first < second < third …

note: something to know
"
        );
    }
}
