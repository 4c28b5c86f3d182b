//! Verdicts as text for a person: a line each as they are reached, and a table of where each cgroup ended.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use grey_core::event::{Body, Event, Memory, State, Verdict};
use grey_core::replay::Stats;
use grey_core::time::Timestamp;
use grey_core::units::{format_bytes, format_duration_us, format_rate};
use grey_core::view::printable;

use crate::ui::figure::{self, UNKNOWN, total};

#[cfg(test)]
mod tests;

/// Columns before a row's sentences.
const INDENT: usize = 11;
/// No sentence is folded into less than this.
const NARROWEST: usize = 30;

/// Length of `2026-`.
const YEAR: usize = 5;
/// Columns before the path in a row.
const BEFORE_PATH: usize = 87;
/// Columns that a path gets at least.
const LEAST_PATH: usize = 16;

/// How text looks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Style {
    pub(super) colour: bool,
    /// Columns of the terminal; a pipe has none.
    pub(super) width: Option<usize>,
}

impl Style {
    /// One colour a meaning, as in the live table.
    fn state(self, state: State, text: &str) -> String {
        match state {
            State::Confirmed => self.paint("1;31", text),
            State::Suspect => self.paint("33", text),
            State::Growing => self.paint("36", text),
            State::Recovered => self.paint("32", text),
            State::Normal => self.paint("2", text),
        }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// What was said of each cgroup, process and kind of memory.
#[derive(Debug, Default)]
pub(super) struct Report {
    rows: BTreeMap<Key, Row>,
    several_hosts: bool,
    host: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    host: String,
    path: String,
    pid: Option<u32>,
    memory: &'static str,
}

#[derive(Debug)]
struct Row {
    last: Told,
    /// The surest that was ever said.
    worst: Told,
}

#[derive(Clone, Debug)]
struct Told {
    ts: Timestamp,
    verdict: Box<Verdict>,
}

/// How much a state matters; the order of the enum is that of a life.
fn weight(state: State) -> u8 {
    match state {
        State::Confirmed => 4,
        State::Suspect => 3,
        State::Growing => 2,
        State::Recovered => 1,
        State::Normal => 0,
    }
}

impl Report {
    /// Takes a verdict in. Other events say nothing here.
    pub(super) fn add(&mut self, event: Event) {
        let (Body::Verdict { verdict }, Some(cgroup)) = (event.body, event.cgroup) else {
            return;
        };
        let key = Key {
            host: event.host,
            path: cgroup.path,
            pid: verdict.process.as_ref().map(|process| process.pid),
            memory: verdict.memory.word(),
        };
        self.note_host(&key.host);
        let told = Told {
            ts: event.ts,
            verdict,
        };
        match self.rows.get_mut(&key) {
            Some(row) => {
                if weight(told.verdict.state) >= weight(row.worst.verdict.state) {
                    row.worst = told.clone();
                }
                row.last = told;
            }
            None => {
                let worst = told.clone();
                self.rows.insert(key, Row { last: told, worst });
            }
        }
    }

    fn note_host(&mut self, host: &str) {
        match &self.host {
            Some(known) => self.several_hosts |= known != host,
            None => self.host = Some(host.to_owned()),
        }
    }

    /// The line of one verdict, without its end.
    pub(super) fn line(&mut self, event: &Event, style: Style) -> String {
        self.note_host(&event.host);
        let Body::Verdict { verdict } = &event.body else {
            return String::new();
        };
        let path = event.cgroup.as_ref().map_or("", |cgroup| &cgroup.path);
        let mut text = format!(
            "{}  {}  {:<11}  {}",
            second(event.ts),
            style.state(verdict.state, &format!("{:<9}", verdict.state)),
            verdict.cause,
            self.subject(&event.host, path, verdict, None),
        );
        if verdict.memory != Memory::Anon {
            let _ = write!(text, "  {}", verdict.memory);
        }
        let figures = figures(verdict);
        if !figures.is_empty() {
            let _ = write!(text, "  {figures}");
        }
        text
    }

    /// Who it is about; a path that does not fit into `room` columns loses its middle.
    fn subject(&self, host: &str, path: &str, verdict: &Verdict, room: Option<usize>) -> String {
        let host = match self.several_hosts {
            true => format!("{}:", printable(host)),
            false => String::new(),
        };
        let process = verdict.process.as_ref().map_or(String::new(), |process| {
            format!(" [{} {}]", process.pid, printable(&process.comm))
        });
        let path = printable(path);
        let path = match room {
            Some(room) => {
                let others = figure::width(&host) + figure::width(&process);
                figure::fit(&path, room.saturating_sub(others).max(LEAST_PATH))
            }
            None => path,
        };
        format!("{host}{path}{process}")
    }

    /// What was read, and where everything that was suspect or grows still ended.
    pub(super) fn summary(
        &self,
        names: &[&str],
        hosts: &[&str],
        stats: &Stats,
        cgroups: usize,
        style: Style,
    ) -> String {
        let mut text = String::new();
        if !self.rows.is_empty() {
            text.push('\n');
        }
        let _ = writeln!(text, "{}", read(names, hosts, stats, cgroups));
        let mut rows: Vec<(&Key, &Row)> = self
            .rows
            .iter()
            .filter(|(_, row)| {
                weight(row.worst.verdict.state) >= weight(State::Suspect)
                    || row.last.verdict.state == State::Growing
            })
            .collect();
        rows.sort_by(|(_, a), (_, b)| {
            let (a, b) = (&a.last.verdict, &b.last.verdict);
            let rate = |verdict: &Verdict| verdict.rate_bps.unwrap_or(f64::NEG_INFINITY);
            weight(b.state)
                .cmp(&weight(a.state))
                .then(rate(b).total_cmp(&rate(a)))
        });
        let calm = self.rows.len() - rows.len();
        if rows.is_empty() {
            text.push_str("No leak: nothing grew for long enough to be suspect.\n");
        } else {
            text.push('\n');
            let titles = format!(
                "{:<9}  {:<11}  {:<10}  {:>8}  {:>6}  {:>8}  {:>5}  {:<14}  CGROUP",
                "STATE", "CAUSE", "MEMORY", "RATE", "GROWTH", "TO LIMIT", "LIMIT", "SINCE (UTC)"
            );
            let _ = writeln!(text, "{}", style.paint("36", &titles));
            for (key, row) in rows {
                self.row(&mut text, key, row, style);
            }
        }
        if calm > 0 {
            let s = if calm == 1 { "" } else { "s" };
            let _ = writeln!(text, "{calm} more cgroup{s} grew for a while and stopped.");
        }
        text
    }

    fn row(&self, text: &mut String, key: &Key, row: &Row, style: Style) {
        let over = matches!(row.last.verdict.state, State::Recovered | State::Normal);
        // What has stopped is described by what it was.
        let told = if over { &row.worst } else { &row.last };
        let verdict = &told.verdict;
        let state = row.last.verdict.state;
        let _ = writeln!(
            text,
            "{}  {:<11}  {:<10}  {:>8}  {:>6}  {:>8}  {:>5}  {:<14}  {}",
            style.state(state, &format!("{state:<9}")),
            verdict.cause,
            verdict.memory,
            known(verdict.rate_bps, |rate| format_rate(*rate)),
            known(verdict.growth_bytes, |bytes| format_bytes(*bytes)),
            known(verdict.ttl_s.filter(|_| !over), |ttl| seconds(*ttl)),
            known(verdict.limit_bytes, |bytes| format_bytes(*bytes)),
            // Without the year, which the line above tells.
            known(verdict.since, |since| second(*since)
                .chars()
                .skip(YEAR)
                .collect()),
            self.subject(
                &key.host,
                &key.path,
                verdict,
                style.width.map(|width| width.saturating_sub(BEFORE_PATH))
            ),
        );
        if over {
            let was = format!(
                "was {} at {}: {}",
                verdict.state,
                second(told.ts),
                verdict.evidence.reason
            );
            sentence(text, &was, style);
            let now = format!(
                "{} at {}: {}",
                state,
                second(row.last.ts),
                row.last.verdict.evidence.reason
            );
            sentence(text, &now, style);
        } else {
            let now = format!("at {}: {}", second(told.ts), verdict.evidence.reason);
            sentence(text, &now, style);
        }
        if !verdict.advice.is_empty() {
            sentence(text, &format!("→ {}", verdict.advice), style);
        }
    }
}

/// The first line of the summary.
fn read(names: &[&str], hosts: &[&str], stats: &Stats, cgroups: usize) -> String {
    let mut text = match names {
        [name] => printable(name).into_owned(),
        names => format!("{} files", names.len()),
    };
    if let Some((first, last)) = stats.span {
        let us = last.0.saturating_sub(first.0);
        let _ = write!(
            text,
            ": {} to {} UTC, {}",
            second(first),
            later(first, last),
            format_duration_us(u64::try_from(us).unwrap_or(0))
        );
    }
    let s = |n: u64| if n == 1 { "" } else { "s" };
    let _ = write!(
        text,
        "; {} sample{} of {} cgroup{}",
        total(Some(stats.samples)),
        s(stats.samples),
        total(Some(cgroups as u64)),
        s(cgroups as u64)
    );
    match hosts {
        [] | [""] => {}
        [host] => {
            let _ = write!(text, " on {}", printable(host));
        }
        hosts => {
            let _ = write!(text, " on {} hosts", hosts.len());
        }
    }
    text
}

/// Rate, growth and time to the limit, as far as they are known.
fn figures(verdict: &Verdict) -> String {
    let mut parts = Vec::new();
    if let Some(rate) = verdict.rate_bps {
        parts.push(format_rate(rate));
    }
    if let Some(bytes) = verdict.growth_bytes {
        parts.push(format!("grew {}", format_bytes(bytes)));
    }
    if let (Some(limit), Some(ttl)) = (verdict.limit_bytes, verdict.ttl_s) {
        parts.push(format!("limit {} in {}", format_bytes(limit), seconds(ttl)));
    }
    parts.join(", ")
}

fn known<T>(figure: Option<T>, text: impl Fn(&T) -> String) -> String {
    figure.as_ref().map_or_else(|| UNKNOWN.to_owned(), text)
}

fn seconds(seconds: f64) -> String {
    // `as` saturates, and makes 0 of what is not a number.
    format_duration_us((seconds * 1e6) as u64)
}

/// `2026-11-21 07:51:56`.
pub(super) fn second(ts: Timestamp) -> String {
    let text = ts.to_string();
    let text = text.split('.').next().unwrap_or_default();
    text.replacen('T', " ", 1)
}

/// The same without the day where it is that of `first`.
fn later(first: Timestamp, last: Timestamp) -> String {
    const DAY: usize = "2026-11-21 ".len();
    let (first, last) = (second(first), second(last));
    match (first.get(..DAY), last.get(..DAY), last.get(DAY..)) {
        (Some(day), Some(same), Some(time)) if day == same => time.to_owned(),
        _ => last,
    }
}

/// A sentence below a row, folded to the terminal.
fn sentence(text: &mut String, sentence: &str, style: Style) {
    let sentence = printable(sentence);
    let room = style.width.map_or(usize::MAX, |width| {
        width.saturating_sub(INDENT).max(NARROWEST)
    });
    let mut line = String::new();
    for word in sentence.split_whitespace() {
        if !line.is_empty() && figure::width(&line) + 1 + figure::width(word) > room {
            let _ = writeln!(text, "{:INDENT$}{line}", "");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        let _ = writeln!(text, "{:INDENT$}{line}", "");
    }
}
