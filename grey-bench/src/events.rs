//! How long after something happened its line is on the pipe, and how many events a second are told without loss.

mod feed;
mod listen;
mod make;
mod rate;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

pub use make::{eat, grow, squeeze};

use crate::cgroup::Cgroup;
use crate::compare::Bench;
use crate::swap::Swap;
use listen::{Line, Listener};
use make::Span;

const MS: i64 = 1_000_000;
/// An event's `ts` is cut to a millisecond, and comes from another clock than the stamps: so much later or earlier is the
/// same instant.
const TS_STEP: i64 = MS;
const CLOCKS: i64 = MS / 10;
/// Growth: events, and pages between two of them.
const GROWTHS: usize = 220;
const GROWTH_PAGES: usize = 128;
/// Between two touches: more than the step of `ts`, so that it says which of them it was.
const PAUSE: Duration = Duration::from_micros(1500);
/// Kills.
const KILLS: usize = 40;
const KILL_LIMIT: &str = "16777216";
/// Stalls: pages touched under a limit that is a fourth of them.
const SQUEEZED_PAGES: usize = 64 << 8;
const SQUEEZE_LIMIT: &str = "16777216";
const LEAST_STALL: &str = "100us";

/// Latencies of one kind.
#[derive(Clone, Debug, Default)]
struct Latencies(Vec<i64>);

impl Latencies {
    /// The value that a share of all does not exceed (nearest rank).
    fn percentile(&self, share: f64) -> Option<i64> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.max(1) - 1).copied()
    }

    /// `| n | p50 | p99 | max |`, microseconds.
    fn row(&self) -> String {
        let shown = |share| {
            self.percentile(share)
                .map_or_else(|| "–".to_owned(), |ns| format!("{:.0}", ns as f64 / 1e3))
        };
        format!(
            "| {} | {} | {} | {} |",
            self.0.len(),
            shown(0.5),
            shown(0.99),
            shown(1.0)
        )
    }
}

fn row(measured: Result<Latencies>) -> String {
    match measured {
        Ok(latencies) => latencies.row(),
        Err(error) => format!("| not measured: {error:#} | | | |"),
    }
}

const HEAD: &str = "| event | n | p50, µs | p99, µs | max, µs |\n|---|---|---|---|---|\n";

/// Growth, and the rate of the ring.
///
/// # Errors
/// `watch` does not start, or tells too few.
pub fn on_machine(bench: &Bench) -> Result<String> {
    Ok(format!(
        "## Events: from the kernel to the line\n\n\
         A process touches a page every {PAUSE:?}; `watch --json --growth 512K` writes to a pipe, and whoever reads it looks at the clock. \
         From just before the touch at which the kernel side tells it (its `ts` says which one) to the line in the reader's hands.\n\n\
         {HEAD}| growth {}\n\n{}",
        row(growth(bench)),
        rate::table(bench)?
    ))
}

/// Kills and stalls.
///
/// # Errors
/// No memory controller, no swap, or `watch` does not start.
pub fn in_guest(bench: &Bench) -> Result<String> {
    let (touch, told) = match kills(bench) {
        Ok((touch, told)) => (touch.row(), told.row()),
        Err(error) => (row(Err(error)), "| – | – | – | – |".to_owned()),
    };
    let stalls = row(stalls(bench));
    Ok(format!(
        "## Events: OOM kills and stalls\n\n\
         From the kernel to the line in the reader's hands, through a pipe from `watch --json --stall {LEAST_STALL}`. A process goes over a memory.max of \
         16 MiB until it is killed: from its last touch, so with what the kernel tries before it kills; and from the `ts` of the event, which is cut to a \
         millisecond, so up to one too much. A stall is counted from its end, which is just before the touch that stalled and its `us`.\n\n\
         {HEAD}| OOM kill, from the touch {touch}\n| OOM kill, from `ts` {told}\n| stall {stalls}\n"
    ))
}

/// A part of this program as a process of its own, whose stdout is ours.
fn load(words: &[&str]) -> Result<Child> {
    Ok(Command::new(std::env::current_exe()?)
        .arg("load")
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?)
}

/// Its lines, once it is done.
fn lines_of(child: Child, what: &str) -> Result<Vec<String>> {
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{what}: {}", output.status);
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn growth(bench: &Bench) -> Result<Latencies> {
    eprintln!("  growth");
    let listener = Listener::start(bench, &["--growth", "512K"], "\"type\":\"growth\"")?;
    let pages = ((GROWTHS + 1) * GROWTH_PAGES).to_string();
    let child = load(&["grow", &pages, &PAUSE.as_micros().to_string()])?;
    let pid = child.id();
    let spans = Span::read(&lines_of(child, "grow")?)?;
    let lines = listener.stop()?;
    let mut latencies = Latencies::default();
    for line in lines
        .iter()
        .filter(|line| line.event["growth"]["pid"] == pid)
    {
        if let Some(span) = one_at(&spans, line.ts()?) {
            latencies.0.push(line.arrived - span.before);
        }
    }
    enough(&latencies, 200)?;
    Ok(latencies)
}

/// The one span in which an instant cut to a millisecond lies.
fn one_at(spans: &[Span], ts: i64) -> Option<Span> {
    let first = spans.partition_point(|span| span.after < ts - CLOCKS);
    let span = *spans.get(first)?;
    (span.before <= ts + TS_STEP + CLOCKS).then_some(span)
}

fn enough(latencies: &Latencies, least: usize) -> Result<()> {
    let count = latencies.0.len();
    ensure!(
        count >= least,
        "{count} events could be led back to what they tell of, of {least} wanted"
    );
    Ok(())
}

fn limited(label: &str, limit: &str) -> Result<Cgroup> {
    let cgroup = Cgroup::new(label)?;
    ensure!(
        cgroup.has_memory(),
        "the v2 tree has no memory controller here"
    );
    cgroup.write("memory.max", limit)?;
    Ok(cgroup)
}

fn procs(cgroup: &Cgroup) -> String {
    cgroup.path().join("cgroup.procs").display().to_string()
}

/// From the last touch, and from `ts`.
fn kills(bench: &Bench) -> Result<(Latencies, Latencies)> {
    eprintln!("  OOM kills");
    let cgroup = limited("oom", KILL_LIMIT)?;
    let listener = Listener::start(bench, &[], "\"type\":\"oom\"")?;
    let told = lines_of(load(&["eat", &procs(&cgroup), &KILLS.to_string()])?, "eat")?;
    let lines = listener.stop()?;
    let (mut from_touch, mut from_ts) = (Latencies::default(), Latencies::default());
    for victim in told {
        let (pid, touch) = victim.split_once(' ').context("a victim and its stamp")?;
        let (pid, touch): (u64, i64) = (pid.parse()?, touch.parse()?);
        let line = find(&lines, |event| event["oom"]["victim"]["pid"] == pid)
            .with_context(|| format!("no event of the victim {pid}"))?;
        from_touch.0.push(line.arrived - touch);
        from_ts.0.push(line.arrived - line.ts()?);
    }
    enough(&from_touch, 30)?;
    Ok((from_touch, from_ts))
}

fn find(lines: &[Line], which: impl Fn(&Value) -> bool) -> Option<&Line> {
    lines.iter().find(|line| which(&line.event))
}

fn stalls(bench: &Bench) -> Result<Latencies> {
    eprintln!("  stalls");
    let _swap = Swap::on(256 << 20)?;
    let cgroup = limited("stall", SQUEEZE_LIMIT)?;
    let listener = Listener::start(bench, &["--stall", LEAST_STALL], "\"type\":\"stall\"")?;
    let child = load(&["squeeze", &procs(&cgroup), &SQUEEZED_PAGES.to_string()])?;
    let pid = child.id();
    let spans = Span::read(&lines_of(child, "squeeze")?)?;
    let lines = listener.stop()?;
    let mut latencies = Latencies::default();
    for line in lines
        .iter()
        .filter(|line| line.event["stall"]["pid"] == pid)
    {
        let us = line.event["stall"]["us"].as_i64().context("no us")?;
        // Reclaim that was not of a touch (of the stamps' own memory) has no span of that length.
        if let Some(span) = one_at(&spans, line.ts()?)
            && span.before + us * 1000 <= span.after
        {
            latencies.0.push(line.arrived - span.before - us * 1000);
        }
    }
    enough(&latencies, 30)?;
    Ok(latencies)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_seen() {
        let latencies = Latencies((1..=200).rev().collect());
        assert_eq!(latencies.percentile(0.5), Some(100));
        assert_eq!(latencies.percentile(0.99), Some(198));
        assert_eq!(latencies.percentile(1.0), Some(200));
        assert_eq!(Latencies::default().percentile(0.5), None);
        assert_eq!(Latencies(vec![7000]).row(), "| 1 | 7 | 7 | 7 |");
    }

    #[test]
    fn a_cut_instant_finds_the_touch_it_was_in() {
        let spans: Vec<Span> = (0..4)
            .map(|n| Span {
                before: n * 3 * MS,
                after: n * 3 * MS + 1000,
            })
            .collect();
        // The touch at 6 ms, told as 6 ms or, by a clock that is a little behind, as 5 ms.
        assert_eq!(one_at(&spans, 6 * MS), Some(spans[2]));
        assert_eq!(one_at(&spans, 5 * MS), Some(spans[2]));
        assert_eq!(one_at(&spans, 7 * MS), None, "between two touches");
        assert_eq!(one_at(&spans, 20 * MS), None, "after all of them");
    }
}
