//! Tables for people, one object for programs.

mod json;
mod lines;
mod tables;

use std::fmt::Write as _;

pub use json::object;
pub use lines::{truth, verdict, wrong};
pub use tables::seconds;

use crate::criteria::Criterion;
use crate::generate::{CLASSES, Seeds};
use crate::recorded::Series;
use crate::score::Outcome;

/// All outcomes of a run.
#[derive(Debug)]
pub struct Results {
    /// Which seeds.
    pub seeds: Seeds,
    /// Samples of all traces.
    pub samples: u64,
    /// Duration of the run, seconds.
    pub took_s: f64,
    /// grey-ebpf's detector.
    pub ours: Vec<Outcome>,
    /// Others by name, on the same traces in the same order.
    pub others: Vec<(String, Vec<Outcome>)>,
    /// Recorded series.
    pub recorded: Vec<Series>,
}

impl Results {
    /// No outcomes yet.
    #[must_use]
    pub fn new(seeds: Seeds, others: &[String]) -> Results {
        Results {
            seeds,
            samples: 0,
            took_s: 0.0,
            ours: Vec::new(),
            others: others
                .iter()
                .map(|name| (name.clone(), Vec::new()))
                .collect(),
            recorded: Vec::new(),
        }
    }

    /// Classes that have outcomes, in the order of the tables.
    pub fn classes(&self) -> impl Iterator<Item = &'static str> + '_ {
        CLASSES
            .iter()
            .map(|class| class.name)
            .filter(|name| self.ours.iter().any(|one| one.class == *name))
    }

    fn all(&self) -> impl Iterator<Item = (&str, &[Outcome])> {
        let others = self
            .others
            .iter()
            .map(|(name, all)| (name.as_str(), &all[..]));
        std::iter::once(("grey-ebpf", &self.ours[..])).chain(others)
    }
}

/// All tables and the criteria.
#[must_use]
pub fn text(results: &Results, criteria: &[Criterion]) -> String {
    let mut out = format!(
        "{} seeds: {} traces, {} samples, {:.1} s\n\n",
        results.seeds.word(),
        results.ours.len(),
        results.samples,
        results.took_s
    );
    tables::leaks(&mut out, results);
    tables::negatives(&mut out, results);
    tables::latency(&mut out, results);
    tables::causes(&mut out, results);
    tables::recorded(&mut out, &results.recorded);
    out.push_str("MUST SHOW\n");
    for criterion in criteria {
        let mark = if criterion.pass { "PASS" } else { "FAIL" };
        let _ = writeln!(out, "  {mark}  {}: {}", criterion.asked, criterion.figure);
    }
    out
}
