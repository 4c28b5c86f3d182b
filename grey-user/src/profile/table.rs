//! A profile as text: what it found in a sentence, the stacks that kept most, and what a reader must know.

use std::fmt::Write as _;

use grey_core::units::{format_bytes, format_duration_us};
use grey_core::view::printable;

use super::document::{Frame, Profile, Stack};
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
    let kept: Vec<&Stack> = profile
        .stacks
        .iter()
        .filter(|stack| stack.kept_bytes > 0 || stack.faulted_bytes > 0)
        .collect();
    if !kept.is_empty() {
        let _ = writeln!(out, "\n{:>7} {:>5} {:>7}  FUNCTION", "KEPT", "%", "FAULTED");
    }
    for stack in kept.iter().take(top) {
        let share = stack.kept_bytes as f64 / profile.kept_bytes.max(1) as f64 * 100.0;
        let head = format!(
            "{:>7} {:>5} {:>7}  {}",
            format_bytes(stack.kept_bytes),
            figure::percent(Some(share)),
            format_bytes(stack.faulted_bytes),
            printable(&stack.function),
        );
        push(&mut out, &head, width);
        push(&mut out, &format!("{:24}{}", "", way(stack)), width);
    }
    if kept.len() > top {
        let rest: u64 = kept[top..].iter().map(|stack| stack.kept_bytes).sum();
        let _ = writeln!(
            out,
            "{:>7}                and {} more stacks",
            format_bytes(rest),
            kept.len() - top
        );
    }
    for note in &profile.notes {
        let _ = writeln!(out, "\nnote: {note}");
    }
    out
}

/// By what the memory came and who asked for it: `memset < calloc < remember < main  (web 4711)`.
fn way(stack: &Stack) -> String {
    let blamed = stack
        .frames
        .iter()
        .position(|frame| frame.name() == stack.function);
    let end = blamed.map_or(CALLERS, |at| at + 1 + CALLERS);
    let names: Vec<String> = stack.frames.iter().take(end).map(Frame::name).collect();
    let more = if stack.frames.len() > end { " < …" } else { "" };
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
                stack("leak", 4 << 20, 4 << 20, &["memset", "leak", "serve", "main"]),
                stack("churn", 0, 400 << 20, &["memset", "churn", "a", "b", "c", "d"]),
            ],
            notes: vec!["something to know".to_owned()],
            ..Profile::default()
        };
        assert_eq!(
            text(&profile, 10, Some(60)),
            "/system.slice/web.service: 12,345 page faults in 10.0s brought 404M; 4.0M of it is kept (estimated from one page in 4)

   KEPT     % FAULTED  FUNCTION
   4.0M  100%    4.0M  leak
                        memset < leak < serve < main  (web 300)
      0    0%    400M  churn
                        memset < churn < a < b < c < …  (we…

note: something to know
"
        );
    }
}
