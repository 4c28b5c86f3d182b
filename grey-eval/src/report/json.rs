//! The scores for programs.

use serde::Serialize;
use serde_json::{Value, json};

use super::Results;
use super::tables::of;
use crate::criteria::Criterion;
use crate::score::Tally;
use crate::stats::{quantile, wilson};

#[derive(Serialize)]
struct Row<'a> {
    judge: &'a str,
    class: &'a str,
    merit: Option<f64>,
    tally: Tally,
    recall: Option<f64>,
    recall_ci95: (f64, f64),
    latency_s_median: Option<f64>,
    latency_s_p90: Option<f64>,
    latency_share_median: Option<f64>,
    latency_share_p90: Option<f64>,
}

/// The same for programs.
#[must_use]
pub fn object(results: &Results, criteria: &[Criterion]) -> Value {
    let mut rows = Vec::new();
    for (judge, outcomes) in results.all() {
        for class in results.classes() {
            let tally = Tally::of(of(outcomes, class));
            let q = |values: &[f64], at| quantile(&mut values.to_vec(), at);
            rows.push(Row {
                judge,
                class,
                merit: results.merit(outcomes, class),
                recall: tally.recall(),
                recall_ci95: wilson(tally.hits, tally.leaks),
                latency_s_median: q(&tally.latency_s, 0.5),
                latency_s_p90: q(&tally.latency_s, 0.9),
                latency_share_median: q(&tally.latency_share, 0.5),
                latency_share_p90: q(&tally.latency_share, 0.9),
                tally,
            });
        }
    }
    json!({
        "seeds": results.seeds.word(),
        "traces": results.ours.len(),
        "samples": results.samples,
        "took_s": results.took_s,
        "classes": rows,
        "recorded": results.recorded,
        "criteria": criteria,
    })
}
