//! Whole replays: what reaches the detector, in which order, and what does not.

use super::{Options, Replay, Stats};
use crate::event::Event;

mod lines;
mod random;

/// What the detectors were given, the verdicts and the counts of a replay whose inputs come in blocks of `block` lines.
pub(super) fn replay(inputs: &[Vec<Vec<u8>>], options: Options, block: usize) -> Run {
    let mut replay = Replay::new(options);
    let mut left: Vec<std::slice::Iter<'_, Vec<u8>>> =
        inputs.iter().map(|lines| lines.iter()).collect();
    for _ in inputs {
        replay.add_input();
    }
    let mut verdicts = Vec::new();
    while let Some(index) = replay.wants() {
        for _ in 0..block {
            match left[index].next() {
                Some(line) => replay.line(index, line),
                None => replay.end(index),
            }
        }
        replay.advance(&mut verdicts);
    }
    Run {
        given: replay.hosts.given.clone(),
        verdicts,
        stats: replay.stats().clone(),
        cgroups: replay.cgroups(),
    }
}

#[derive(Debug, PartialEq)]
pub(super) struct Run {
    pub(super) given: Vec<String>,
    pub(super) verdicts: Vec<Event>,
    pub(super) stats: Stats,
    pub(super) cgroups: usize,
}
