//! The detector over recordings: lines in, verdicts out, with no time but that of the lines. Reads no file; docs/replay.md
//! has the rules for what is taken, mended and skipped.

mod decide;
mod json;
mod line;
mod order;
mod series;
mod time;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::detect::Finding;
use crate::event::{Cgroup, Event};
use crate::time::Timestamp;

pub use decide::{Decide, Protected};
use line::{Kind, Line};
use order::{Arrival, Order, Timed};
use series::{Hosts, Item, Points};

/// A line is compared with so many of the same cgroup, instant and number: all of them, unless lines have no number.
const LOOK_BACK: usize = 64;

/// How a replay reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How far the lines of one input may be out of order, µs.
    pub window_us: i64,
    /// Whether `process` lines are looked at.
    pub processes: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            window_us: 10_000_000,
            processes: true,
        }
    }
}

/// What was read so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Lines, blank ones included.
    pub lines: u64,
    /// Samples of cgroups that the detector took.
    pub samples: u64,
    /// Samples of processes that it took.
    pub processes: u64,
    /// `growth` and `oom` lines that it took.
    pub events: u64,
    /// Lines of kinds that it has no use for.
    pub other: u64,
    /// Lines that could not be used.
    pub bad: u64,
    /// The first of them: its input, its number in there from 1 on, and why.
    pub first_bad: Option<(usize, u64, String)>,
    /// Lines that came too late for the window.
    pub late: u64,
    /// Lines that said the same as one before.
    pub repeated: u64,
    /// Times that a clock was set back.
    pub set_back: u64,
    /// Time of the first and the last line that was taken.
    pub span: Option<(Timestamp, Timestamp)>,
}

impl Stats {
    /// Whether there was anything to replay.
    #[must_use]
    pub fn usable(&self) -> bool {
        self.samples + self.processes + self.events > 0
    }
}

/// A replay of one or several inputs. Each input is brought into order within the window, then all are merged by time.
#[derive(Debug)]
pub struct Replay {
    options: Options,
    inputs: Vec<Input>,
    hosts: Hosts,
    stats: Stats,
    points: Points,
    /// Of one instant.
    batch: Vec<Timed<Item>>,
    /// Order in which they are taken: parents first, then by path, then as written.
    turns: Vec<(u64, u64, u32)>,
    findings: Vec<Finding>,
    seq: u64,
}

#[derive(Debug)]
struct Input {
    order: Order<Item>,
    lines: u64,
}

impl Replay {
    /// A replay of nothing yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Replay {
            options,
            inputs: Vec::new(),
            hosts: Hosts::default(),
            stats: Stats::default(),
            points: Points::default(),
            batch: Vec::new(),
            turns: Vec::new(),
            findings: Vec::new(),
            seq: 0,
        }
    }

    /// One more input; all are named before the first line. Its index is returned.
    pub fn add_input(&mut self) -> usize {
        self.inputs.push(Input {
            order: Order::new(self.options.window_us.max(0)),
            lines: 0,
        });
        self.inputs.len() - 1
    }

    /// The input whose lines are needed next: the one that has got least far. `None` when all have ended.
    #[must_use]
    pub fn wants(&self) -> Option<usize> {
        self.inputs
            .iter()
            .enumerate()
            .filter(|(_, input)| !input.order.ended())
            .min_by_key(|(_, input)| input.order.frontier())
            .map(|(index, _)| index)
    }

    /// Takes in one line of an input, with or without its end.
    ///
    /// # Panics
    /// If there is no such input.
    pub fn line(&mut self, input: usize, line: &[u8]) {
        self.count_line(input);
        let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        let Ok(text) = std::str::from_utf8(line) else {
            return self.unusable(input, "not UTF-8".to_owned());
        };
        let guess = self.hosts.guess();
        let mut line = Line::default();
        match line.read(text, guess, self.points.next()) {
            Ok(()) => {}
            // Asked only now: blank lines are rare.
            Err(_) if text.trim_ascii().is_empty() => return,
            Err(why) => return self.unusable(input, why),
        }
        if line.kind == Kind::Other || (line.kind == Kind::Process && !self.options.processes) {
            self.stats.other += 1;
            return;
        }
        let item = match self.hosts.item(&line, &mut self.points) {
            Ok(item) => item,
            Err(why) => return self.unusable(input, why),
        };
        match self.inputs[input].order.push(line.ts.0, item) {
            Arrival::Kept => {}
            Arrival::Late(item) => {
                self.stats.late += 1;
                self.points.done(item);
            }
            Arrival::SetBack => self.stats.set_back += 1,
        }
    }

    /// A line of an input that could not even be kept, and why.
    ///
    /// # Panics
    /// If there is no such input.
    pub fn bad_line(&mut self, input: usize, why: &str) {
        self.count_line(input);
        self.unusable(input, why.to_owned());
    }

    /// An input has no more lines.
    ///
    /// # Panics
    /// If there is no such input.
    pub fn end(&mut self, input: usize) {
        self.inputs[input].order.end();
    }

    /// Hands everything to the detector whose turn has come and adds the `verdict` events it leads to.
    pub fn advance(&mut self, out: &mut Vec<Event>) {
        for index in 0..self.inputs.len() {
            while let Some(timed) = self.inputs[index].order.overdue() {
                self.gather(timed, out);
            }
        }
        let frontier = self.inputs.iter().map(|input| input.order.frontier()).min();
        // An input that goes on may still have lines of exactly that time.
        let until = match frontier {
            Some(i64::MAX) => i64::MAX,
            Some(frontier) => frontier.saturating_sub(1),
            None => return,
        };
        let mut heads: BinaryHeap<Reverse<(i64, usize)>> = self
            .inputs
            .iter()
            .enumerate()
            .filter_map(|(index, input)| Some(Reverse((input.order.first()?, index))))
            .collect();
        while let Some(Reverse((_, index))) = heads.pop() {
            let next = heads
                .peek()
                .map_or(until, |Reverse((at, _))| until.min(*at));
            while let Some(timed) = self.inputs[index].order.pop_waiting(next) {
                self.gather(timed, out);
            }
            if let Some(first) = self.inputs[index].order.first()
                && first <= until
            {
                heads.push(Reverse((first, index)));
            }
            if heads.peek().is_some_and(|Reverse((at, _))| *at > until) {
                break;
            }
        }
        self.take_batch(out);
    }

    /// What was read so far.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Number of cgroups seen so far, of all hosts.
    #[must_use]
    pub fn cgroups(&self) -> usize {
        self.hosts.cgroups()
    }

    /// Every cgroup seen so far, once for each host and id.
    pub fn identities(&self) -> impl Iterator<Item = &Cgroup> {
        self.hosts.identities()
    }

    /// Names of the hosts seen so far; empty where the lines name none.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.hosts.names()
    }

    fn count_line(&mut self, input: usize) {
        self.stats.lines += 1;
        self.inputs[input].lines += 1;
    }

    fn unusable(&mut self, input: usize, why: String) {
        self.stats.bad += 1;
        if self.stats.first_bad.is_none() {
            self.stats.first_bad = Some((input, self.inputs[input].lines, why));
        }
    }

    fn gather(&mut self, timed: Timed<Item>, out: &mut Vec<Event>) {
        if self.batch.first().is_some_and(|first| first.at != timed.at) {
            self.take_batch(out);
        }
        self.batch.push(timed);
    }

    /// Everything of one instant, in an order that does not depend on how the lines stood in the inputs.
    fn take_batch(&mut self, out: &mut Vec<Event>) {
        let Some(first) = self.batch.first() else {
            return;
        };
        let ts = Timestamp(first.at);
        let span = self.stats.span.get_or_insert((ts, ts));
        *span = (span.0.min(ts), span.1.max(ts));
        self.turns.clear();
        for (index, timed) in (0_u32..).zip(&self.batch) {
            let turn = self.hosts.turn(&timed.item);
            self.turns.push((turn, timed.item.seq, index));
        }
        if self.turns.len() > 1 {
            self.turns.sort_unstable();
        }
        for place in 0..self.turns.len() {
            let index = self.turns[place].2 as usize;
            if self.repeated(place) {
                self.stats.repeated += 1;
                continue;
            }
            let timed = &self.batch[index];
            let findings = &mut self.findings;
            self.hosts.take(
                timed.at,
                &timed.item,
                &self.points,
                findings,
                &mut self.stats,
            );
            for finding in findings.drain(..) {
                out.push(self.hosts.verdict(&timed.item, finding, self.seq));
                self.seq += 1;
            }
        }
        for timed in self.batch.drain(..) {
            self.points.done(timed.item);
        }
    }

    /// Whether the item at this turn says again what one shortly before it said.
    fn repeated(&self, place: usize) -> bool {
        let (turn, seq, index) = self.turns[place];
        let item = &self.batch[index as usize].item;
        self.turns[..place]
            .iter()
            .rev()
            .take(LOOK_BACK)
            .take_while(|before| (before.0, before.1) == (turn, seq))
            .any(|before| {
                self.points
                    .repeats(item, &self.batch[before.2 as usize].item)
            })
    }
}
