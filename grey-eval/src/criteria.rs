//! What the scores must show, one line each.

use serde::Serialize;

use crate::report::Results;
use crate::score::{Outcome, Tally, f1, precision};
use crate::stats::{quantile, wilson};
use crate::trace::Kind;

/// Leaks "of 1 MiB/min": work that comes unevenly makes it a little less in some traces.
const FROM_MIB_MIN: f64 = 0.9;

/// One criterion.
#[derive(Clone, Debug, Serialize)]
pub struct Criterion {
    /// What is asked.
    pub asked: String,
    /// Whether it holds.
    pub pass: bool,
    /// The figure.
    pub figure: String,
}

/// All criteria that the results have cases for.
#[must_use]
pub fn check(results: &Results) -> Vec<Criterion> {
    let ours = &results.ours;
    let mut out = Vec::new();
    let mut add = |asked: &str, pass: bool, figure: String| {
        out.push(Criterion {
            asked: asked.to_owned(),
            pass,
            figure,
        });
    };
    let quiet = Tally::of(ours.iter().filter(|one| one.kind == Kind::Negative));
    let leaks = || ours.iter().filter(|one| one.kind == Kind::Leak);
    let from_1 =
        Tally::of(leaks().filter(|one| one.rate_mib_min.is_some_and(|rate| rate >= FROM_MIB_MIN)));
    if from_1.leaks > 0 && quiet.quiet > 0 {
        let alarmed = quiet.alarmed + from_1.alarmed;
        let p = precision(from_1.hits, alarmed);
        let (low, high) = wilson(from_1.hits, from_1.hits + alarmed);
        add(
            "precision >= 0.98, leaks >= 1 MiB/min against all negatives",
            p.is_some_and(|p| p >= 0.98),
            format!(
                "{} [{low:.3}, {high:.3}]",
                p.map_or("-".into(), |p| format!("{p:.3}"))
            ),
        );
    }
    if let Some(recall) = from_1.recall() {
        let (low, high) = wilson(from_1.hits, from_1.leaks);
        add(
            "recall >= 0.95, leaks >= 1 MiB/min",
            recall >= 0.95,
            format!("{recall:.3} [{low:.3}, {high:.3}] of {}", from_1.leaks),
        );
    }
    let slow = Tally::of(leaks().filter(|one| one.class == "malloc-0.1-mib-min"));
    if let Some(recall) = slow.recall() {
        let (low, high) = wilson(slow.hits, slow.leaks);
        add(
            "recall >= 0.90 at 0.1 MiB/min over 24 h",
            recall >= 0.90,
            format!("{recall:.3} [{low:.3}, {high:.3}] of {}", slow.leaks),
        );
    }
    if quiet.quiet > 0 {
        add(
            "no false alarm in 200 cgroup-days of negatives",
            quiet.false_alarms == 0 && quiet.days >= 200.0,
            format!("{} in {:.0} days", quiet.false_alarms, quiet.days),
        );
    }
    let all = Tally::of(leaks());
    if let Some(share) = quantile(&mut all.latency_share.clone(), 0.5) {
        add(
            "median latency <= 15 % of the time to the limit",
            share <= 0.15,
            format!("{:.1} %", 100.0 * share),
        );
    }
    let short = Tally::of(leaks().filter(|one| one.ttl_s.is_some_and(|ttl| ttl <= 120.0)));
    if short.leaks > 0 {
        let median = quantile(&mut short.latency_s.clone(), 0.5);
        add(
            "median latency <= 30 s where the limit is <= 2 min away",
            median.is_some_and(|median| median <= 30.0),
            median.map_or("none found".to_owned(), |median| format!("{median:.0} s")),
        );
    }
    if !results.others.is_empty() {
        let (worse, better) = against(results);
        if better > 0 {
            add(
                "above every baseline on every class (equal only where both are perfect)",
                worse.is_empty(),
                if worse.is_empty() {
                    format!("{better} comparisons")
                } else {
                    worse.join("; ")
                },
            );
        }
    }
    let judged = Tally::of(ours.iter().filter(|one| one.kind != Kind::Ambiguous));
    if judged.causes > 0 {
        let share = judged.causes_right as f64 / judged.causes as f64;
        add(
            "causes right on >= 95 % of cases",
            share >= 0.95,
            format!("{:.1} % of {}", 100.0 * share, judged.causes),
        );
    }
    let of = |names: &[&str]| -> Vec<&Outcome> {
        ours.iter()
            .filter(|one| names.contains(&one.class))
            .collect()
    };
    let never = of(&[
        "reservation",
        "retention",
        "retention-repeated",
        "spike-near",
    ]);
    if !never.is_empty() {
        let alarmed = never.iter().filter(|one| one.false_alarms > 0).count();
        add(
            "an untouched reservation and an allocator plateau are never called a leak",
            alarmed == 0,
            format!("{alarmed} of {}", never.len()),
        );
    }
    for (class, asked) in [
        (
            "beside-reservation",
            "a vector growing beside such a reservation is called a leak",
        ),
        ("enforced", "a leak under enforcement is confirmed"),
    ] {
        let these = Tally::of(of(&[class]));
        if let Some(recall) = these.recall() {
            add(
                asked,
                recall >= 0.95,
                format!("{} of {}", these.hits, these.leaks),
            );
        }
    }
    out
}

/// Where a baseline is as good or better though not both are perfect; and how many comparisons there were.
fn against(results: &Results) -> (Vec<String>, usize) {
    let mut worse = Vec::new();
    let mut comparisons = 0;
    for class in results.classes() {
        let ours = results.merit(&results.ours, class);
        for (name, outcomes) in &results.others {
            let theirs = results.merit(outcomes, class);
            let (Some(ours), Some(theirs)) = (ours, theirs) else {
                continue;
            };
            comparisons += 1;
            if ours < theirs || (ours == theirs && ours < 1.0) {
                worse.push(format!("{class}: {ours:.3}, {name} {theirs:.3}"));
            }
        }
    }
    (worse, comparisons)
}

impl Results {
    /// F1 against all negatives for a class of leaks, the share of silent traces for one without leak.
    #[must_use]
    pub fn merit(&self, outcomes: &[Outcome], class: &str) -> Option<f64> {
        let own = Tally::of(outcomes.iter().filter(|one| one.class == class));
        let kind = outcomes.iter().find(|one| one.class == class)?.kind;
        match kind {
            Kind::Leak | Kind::Other => {
                let alarmed = self.alarmed_share(outcomes, &own);
                Some(f1(precision_of(own.hits as f64, alarmed), own.recall()))
            }
            Kind::Negative => own.silent(),
            Kind::Ambiguous => None,
        }
    }

    /// False alarms that stand against a class of leaks: those in its own traces, and those on all negatives, scaled to
    /// as many negatives as the class has leaks.
    #[must_use]
    pub fn alarmed_share(&self, outcomes: &[Outcome], own: &Tally) -> f64 {
        let quiet = Tally::of(outcomes.iter().filter(|one| one.kind == Kind::Negative));
        let scale = if quiet.quiet > 0 {
            own.leaks as f64 / quiet.quiet as f64
        } else {
            0.0
        };
        own.alarmed as f64 + quiet.alarmed as f64 * scale
    }
}

/// Precision from counts that may be scaled.
#[must_use]
pub fn precision_of(hits: f64, alarmed: f64) -> Option<f64> {
    (hits + alarmed > 0.0).then(|| hits / (hits + alarmed))
}
