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
    let wide = series
        .iter()
        .map(|one| one.label.name().len())
        .max()
        .unwrap_or(0);
    put!(
        out,
        "{:<wide$}  {:<7}  {:<11}  {:<20} {:<6} {:<24}",
        "RECORDED",
        "truth",
        "",
        "said",
        "cause",
        "latency"
    );
    let names: Vec<&str> = series[0]
        .others
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    for name in &names {
        put!(out, " {name:>12}");
    }
    say!(out, "");
    for one in series {
        let (label, ours) = (&one.label, &one.ours);
        let said = ours.said.map_or("nothing".to_owned(), |(state, cause)| {
            format!("{state} {cause}")
        });
        let when = match (ours.latency_s, ours.ttl_s) {
            (Some(latency), Some(ttl)) => {
                format!(
                    "{} of {} ({:.0} %)",
                    seconds(Some(latency)),
                    seconds(Some(ttl)),
                    100.0 * latency / ttl
                )
            }
            (latency, _) => seconds(latency),
        };
        put!(
            out,
            "{:<wide$}  {:<7}  {:<11}  {said:<20} {:<6} {when:<24}",
            label.name(),
            if label.leak { "leak" } else { "no leak" },
            outcome(label.leak, ours),
            if ours.cause_right == Some(true) {
                "right"
            } else {
                "wrong"
            },
        );
        for (_, theirs) in &one.others {
            put!(out, " {:>12}", outcome(label.leak, theirs));
        }
        let apart = if label.ambiguous() {
            "  (not told apart from outside; not counted)"
        } else {
            ""
        };
        say!(out, "{apart}");
    }
    let series: Vec<&Series> = series.iter().filter(|one| !one.label.ambiguous()).collect();
    let right = |of: &dyn Fn(&Series) -> bool, leak: bool| {
        let these = || series.iter().filter(|one| one.label.leak == leak);
        let (hits, all) = (these().filter(|one| of(one)).count(), these().count());
        let (low, high) = wilson(hits as u64, all as u64);
        format!("{hits}/{all} [{low:.2}, {high:.2}]")
    };
    let mut line = |name: &str, of: &dyn Fn(&Series) -> bool| {
        say!(
            out,
            "{name:<13} leaks found {}, others left alone {}",
            right(of, true),
            right(of, false)
        );
    };
    line("grey-ebpf", &|one| {
        Series::told_apart(&one.label, &one.ours)
    });
    for (index, name) in names.iter().enumerate() {
        line(name, &|one| {
            one.others
                .get(index)
                .is_some_and(|(_, theirs)| Series::told_apart(&one.label, theirs))
        });
    }
    let causes = series
        .iter()
        .filter(|one| one.ours.cause_right == Some(true))
        .count();
    say!(out, "causes right  {causes} of {}\n", series.len());
}

fn outcome(leak: bool, outcome: &Outcome) -> &'static str {
    match (leak, outcome.hit, outcome.false_alarms > 0) {
        (true, true, false) => "found",
        (true, false, false) => "missed",
        (true, _, true) => "too early",
        (false, _, true) => "FALSE ALARM",
        (false, _, false) => "silent",
    }
}
