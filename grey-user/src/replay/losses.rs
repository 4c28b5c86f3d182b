//! What of the input could not be used, in one line at the end.

use std::time::Duration;

use grey_core::replay::Stats;

use super::gunzip::Damage;
use super::input::Input;
use crate::cli;
use crate::ui::figure::{interval, total};

/// One line on stderr, if anything was skipped or mended.
pub(super) fn tell(inputs: &[Input], stats: &Stats, window: Duration) {
    let parts = parts(inputs, stats, window);
    if !parts.is_empty() {
        cli::tell(&format!("replay: {}", parts.join("; ")));
    }
}

/// Why there is nothing to replay.
pub(super) fn nothing(inputs: &[Input], stats: &Stats) -> String {
    let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
    let mut text = format!("{}: nothing to replay: ", names.join(", "));
    if stats.lines == 0 {
        text.push_str("empty");
    } else {
        text.push_str(&format!(
            "no sample among {}",
            count(stats.lines, "line", "lines")
        ));
    }
    for part in damage(inputs).into_iter().chain(bad(inputs, stats)) {
        text.push_str(", ");
        text.push_str(&part);
    }
    text.push_str("; a recording is what `grey-ebpf record FILE` writes");
    text
}

fn parts(inputs: &[Input], stats: &Stats, window: Duration) -> Vec<String> {
    let mut parts = damage(inputs);
    parts.extend(bad(inputs, stats));
    if stats.late > 0 {
        let window = u64::try_from(window.as_micros()).unwrap_or(u64::MAX);
        parts.push(format!(
            "{} too late for the window of {} skipped (--reorder)",
            count(stats.late, "line", "lines"),
            interval(window)
        ));
    }
    if stats.set_back > 0 {
        parts.push(format!(
            "the clock was set back {}",
            count(stats.set_back, "time", "times")
        ));
    }
    if stats.repeated > 0 {
        parts.push(format!(
            "{} skipped",
            count(stats.repeated, "repeated line", "repeated lines")
        ));
    }
    parts
}

fn bad(inputs: &[Input], stats: &Stats) -> Option<String> {
    let (input, line, why) = stats.first_bad.as_ref()?;
    let name = inputs.get(*input).map_or("", |input| input.name.as_str());
    Some(format!(
        "{} skipped (first at {name}:{line}: {why})",
        count(stats.bad, "bad line", "bad lines")
    ))
}

fn damage(inputs: &[Input]) -> Vec<String> {
    let mut parts = Vec::new();
    for input in inputs {
        for (damage, lines) in &input.damage {
            let what = match damage {
                Damage::Cut => "gzip is cut off",
                Damage::Corrupt => "gzip is damaged",
                Damage::Trailing => "something that is no gzip follows",
            };
            parts.push(format!(
                "{}: {what} after {}",
                input.name,
                count(*lines, "line", "lines")
            ));
        }
    }
    // A file of noise would fill the terminal.
    const MOST: usize = 3;
    if parts.len() > MOST {
        let more = parts.len() - MOST;
        parts.truncate(MOST);
        parts.push(format!("and {more} more such places"));
    }
    parts
}

fn count(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", total(Some(n)), if n == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_skipped_is_told_in_one_line() {
        let stats = Stats {
            lines: 2000,
            bad: 1,
            first_bad: Some((0, 7, "not UTF-8".to_owned())),
            late: 1200,
            repeated: 2,
            set_back: 1,
            ..Stats::default()
        };
        let parts = parts(&[], &stats, Duration::from_secs(10));
        assert_eq!(
            parts.join("; "),
            "1 bad line skipped (first at :7: not UTF-8); 1,200 lines too late for the window of 10s skipped \
             (--reorder); the clock was set back 1 time; 2 repeated lines skipped"
        );
        assert!(super::parts(&[], &Stats::default(), Duration::ZERO).is_empty());
    }
}
