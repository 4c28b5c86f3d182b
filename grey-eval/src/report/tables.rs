//! Aligned tables for people.

use std::fmt::Write as _;

use super::Results;
use crate::criteria::precision_of;
use crate::recorded::Series;
use crate::score::{Outcome, Tally, f1};
use crate::stats::{poisson, quantile, wilson};
use crate::trace::Kind;

/// Writing to a string does not fail.
macro_rules! put {
    ($out:ident, $($what:tt)*) => {{
        let _ = write!($out, $($what)*);
    }};
}

macro_rules! say {
    ($out:ident, $($what:tt)*) => {{
        let _ = writeln!($out, $($what)*);
    }};
}

pub(super) fn of<'a>(
    outcomes: &'a [Outcome],
    class: &'a str,
) -> impl Iterator<Item = &'a Outcome> + Clone {
    outcomes.iter().filter(move |one| one.class == class)
}

pub(super) fn leaks(out: &mut String, results: &Results) {
    let classes: Vec<_> = results
        .classes()
        .filter(|class| {
            of(&results.ours, class).any(|one| matches!(one.kind, Kind::Leak | Kind::Other))
        })
        .collect();
    if classes.is_empty() {
        return;
    }
    say!(
        out,
        "LEAKS               n   recall [95 %]          precision  F1     latency: median  p90        of limit: median  p90"
    );
    for class in &classes {
        let own = Tally::of(of(&results.ours, class));
        let (low, high) = wilson(own.hits, own.leaks);
        let p = precision_of(own.hits as f64, results.alarmed_share(&results.ours, &own));
        let q = |values: &[f64], at| quantile(&mut values.to_vec(), at);
        say!(
            out,
            "{class:<19} {:<3} {:.3} [{low:.3}, {high:.3}]   {:<9}  {:.3}  {:>15}  {:<9}  {:>16}  {}",
            own.leaks,
            own.recall().unwrap_or(0.0),
            p.map_or("-".into(), |p| format!("{p:.3}")),
            f1(p, own.recall()),
            seconds(q(&own.latency_s, 0.5)),
            seconds(q(&own.latency_s, 0.9)),
            percent(q(&own.latency_share, 0.5)),
            percent(q(&own.latency_share, 0.9)),
        );
    }
    if !results.others.is_empty() {
        say!(out, "\nF1 BESIDE BASELINES");
        side_by_side(out, results, &classes);
    }
    say!(out, "");
}

pub(super) fn negatives(out: &mut String, results: &Results) {
    let classes: Vec<_> = results
        .classes()
        .filter(|class| {
            of(&results.ours, class).any(|one| matches!(one.kind, Kind::Negative | Kind::Ambiguous))
        })
        .collect();
    if classes.is_empty() {
        return;
    }
    say!(
        out,
        "NO LEAK             n   days   alarmed  silent [95 %]          alarms"
    );
    for class in &classes {
        let own = Tally::of(of(&results.ours, class));
        let (low, high) = wilson(own.quiet - own.alarmed, own.quiet);
        let apart = of(&results.ours, class).any(|one| one.kind == Kind::Ambiguous);
        say!(
            out,
            "{class:<19} {:<3} {:>5.1}  {:<7}  {:.3} [{low:.3}, {high:.3}]   {}{}",
            own.quiet,
            own.days,
            own.alarmed,
            own.silent().unwrap_or(0.0),
            own.false_alarms,
            if apart {
                "   (not told apart from outside; not scored)"
            } else {
                ""
            },
        );
    }
    say!(out, "\nFALSE ALARMS A CGROUP-DAY, all negatives [95 %]");
    for (name, outcomes) in results.all() {
        let own = Tally::of(outcomes.iter().filter(|one| one.kind == Kind::Negative));
        let (low, high) = poisson(own.false_alarms);
        say!(
            out,
            "{name:<19} {:.4} [{:.4}, {:.4}]   {} alarms in {:.0} days; {} of {} traces",
            own.false_alarms as f64 / own.days,
            low / own.days,
            high / own.days,
            own.false_alarms,
            own.days,
            own.alarmed,
            own.quiet,
        );
    }
    if !results.others.is_empty() {
        say!(out, "\nSILENT SHARE BESIDE BASELINES");
        side_by_side(out, results, &classes);
    }
    say!(out, "");
}

fn side_by_side(out: &mut String, results: &Results, classes: &[&str]) {
    put!(out, "{:<19}", "");
    for (name, _) in results.all() {
        put!(out, " {name:>12}");
    }
    say!(out, "");
    for class in classes {
        put!(out, "{class:<19}");
        for (_, outcomes) in results.all() {
            let merit = results.merit(outcomes, class);
            let merit = merit.or_else(|| Tally::of(of(outcomes, class)).silent());
            put!(
                out,
                " {:>12}",
                merit.map_or("-".into(), |merit| format!("{merit:.3}"))
            );
        }
        say!(out, "");
    }
}

pub(super) fn latency(out: &mut String, results: &Results) {
    say!(
        out,
        "LATENCY             found  median     p90        of limit: median  p90"
    );
    for (title, short) in [("limit <= 2 min", true), ("limit > 2 min", false)] {
        say!(out, "{title}");
        for (name, outcomes) in results.all() {
            let these = outcomes.iter().filter(|one| {
                one.kind == Kind::Leak && one.ttl_s.is_some_and(|ttl| (ttl <= 120.0) == short)
            });
            let mut own = Tally::of(these);
            say!(
                out,
                "  {name:<17} {:<5}  {:<9}  {:<9}  {:>16}  {}",
                format!("{}/{}", own.hits, own.leaks),
                seconds(quantile(&mut own.latency_s, 0.5)),
                seconds(quantile(&mut own.latency_s, 0.9)),
                percent(quantile(&mut own.latency_share, 0.5)),
                percent(quantile(&mut own.latency_share, 0.9)),
            );
        }
    }
    say!(out, "");
}

pub(super) fn causes(out: &mut String, results: &Results) {
    say!(out, "CAUSES              right        said");
    for class in results.classes() {
        let own = Tally::of(of(&results.ours, class));
        let mut said: Vec<(String, usize)> = Vec::new();
        for one in of(&results.ours, class) {
            let word = one.said.map_or("nothing".to_owned(), |(state, cause)| {
                format!("{state} {cause}")
            });
            match said.iter_mut().find(|(known, _)| *known == word) {
                Some((_, count)) => *count += 1,
                None => said.push((word, 1)),
            }
        }
        said.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let said: Vec<_> = said
            .iter()
            .map(|(word, count)| format!("{word} {count}"))
            .collect();
        let right = format!("{}/{}", own.causes_right, own.causes);
        say!(out, "{class:<19} {right:<12} {}", said.join(", "));
    }
    say!(out, "");
}

/// `90 s`, `12 min`, `3.5 h`.
#[must_use]
pub fn seconds(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(s) if s < 120.0 => format!("{s:.0} s"),
        Some(s) if s < 7200.0 => format!("{:.0} min", s / 60.0),
        Some(s) => format!("{:.1} h", s / 3600.0),
    }
}

fn percent(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{:.1} %", 100.0 * value))
}

/// Recorded series, one a line.
pub(super) fn recorded(out: &mut String, series: &[Series]) {
    if series.is_empty() {
        return;
    }
    say!(out, "RECORDED");
    let wide = series
        .iter()
        .map(|one| one.label.name().len())
        .max()
        .unwrap_or(0);
    for one in series {
        let said = one
            .ours
            .said
            .map_or("nothing".to_owned(), |(state, cause)| {
                format!("{state} {cause}")
            });
        let truth = if one.label.leak { "leak" } else { "no leak" };
        let when = match (one.ours.latency_s, one.ours.ttl_s) {
            (Some(latency), Some(ttl)) => {
                format!("after {} of {}", seconds(Some(latency)), seconds(Some(ttl)))
            }
            (Some(latency), None) => format!("after {}", seconds(Some(latency))),
            _ => String::new(),
        };
        let mark = if one.right() { "right" } else { "WRONG" };
        let others: Vec<String> = one
            .others
            .iter()
            .map(|(name, outcome)| {
                let right = outcome.false_alarms == 0 && outcome.hit == one.label.leak;
                format!("{name} {}", if right { "right" } else { "wrong" })
            })
            .collect();
        say!(
            out,
            "{mark}  {:<wide$}  {truth:<7}  {said:<20} {when:<22} {}",
            one.label.name(),
            others.join(", "),
        );
    }
    let right = series.iter().filter(|one| one.right()).count();
    say!(out, "{right} of {} right\n", series.len());
}
