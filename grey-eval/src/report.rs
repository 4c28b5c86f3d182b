//! Tables for people, one object for programs.

use grey_core::event::Verdict;
use serde::Serialize;
use serde_json::{Value, json};

use crate::baseline::NAMES;
use crate::criteria::{Criterion, precision_of};
use crate::generate::{CLASSES, Seeds};
use crate::judge::Said;
use crate::score::{Outcome, Tally, f1};
use crate::stats::{poisson, quantile, wilson};
use crate::trace::{Kind, Trace};

/// All outcomes of a run.
#[derive(Debug)]
pub struct Results {
    /// Which seeds.
    pub seeds: Seeds,
    /// Whether the baselines were scored.
    pub baselines: bool,
    /// Samples of all traces.
    pub samples: u64,
    /// Duration of the run, seconds.
    pub took_s: f64,
    /// grey-ebpf's detector.
    pub ours: Vec<Outcome>,
    /// The baselines, in the order of [`NAMES`].
    pub others: [Vec<Outcome>; 4],
}

impl Results {
    /// No outcomes yet.
    #[must_use]
    pub fn new(seeds: Seeds, baselines: bool) -> Results {
        Results {
            seeds,
            baselines,
            samples: 0,
            took_s: 0.0,
            ours: Vec::new(),
            others: Default::default(),
        }
    }

    /// Classes that have outcomes, in the order of the tables.
    pub fn classes(&self) -> impl Iterator<Item = &'static str> + '_ {
        CLASSES
            .iter()
            .map(|class| class.name)
            .filter(|name| self.ours.iter().any(|one| one.class == *name))
    }

    fn all(&self) -> impl Iterator<Item = (&'static str, &[Outcome])> {
        let others = NAMES
            .iter()
            .zip(&self.others)
            .map(|(name, all)| (*name, &all[..]));
        std::iter::once(("grey-ebpf", &self.ours[..]))
            .chain(others.filter(|(_, all)| !all.is_empty()))
    }
}

/// Prints all tables and the criteria.
pub fn print(results: &Results, criteria: &[Criterion]) {
    println!(
        "{} seeds: {} traces, {} samples, {:.1} s\n",
        results.seeds.word(),
        results.ours.len(),
        results.samples,
        results.took_s
    );
    leaks(results);
    negatives(results);
    latency(results);
    causes(results);
    println!("MUST SHOW");
    for criterion in criteria {
        let mark = if criterion.pass { "PASS" } else { "FAIL" };
        println!("  {mark}  {}: {}", criterion.asked, criterion.figure);
    }
}

fn of<'a>(outcomes: &'a [Outcome], class: &'a str) -> impl Iterator<Item = &'a Outcome> + Clone {
    outcomes.iter().filter(move |one| one.class == class)
}

fn leaks(results: &Results) {
    let classes: Vec<_> = results
        .classes()
        .filter(|class| {
            of(&results.ours, class).any(|one| matches!(one.kind, Kind::Leak | Kind::Other))
        })
        .collect();
    if classes.is_empty() {
        return;
    }
    println!(
        "LEAKS               n   recall [95 %]          precision  F1     latency: median  p90        of limit: median  p90"
    );
    for class in &classes {
        let own = Tally::of(of(&results.ours, class));
        let (low, high) = wilson(own.hits, own.leaks);
        let p = precision_of(own.hits as f64, results.alarmed_share(&results.ours, &own));
        let q = |values: &[f64], at| quantile(&mut values.to_vec(), at);
        println!(
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
    if results.baselines {
        println!("\nF1 BESIDE BASELINES");
        side_by_side(results, &classes);
    }
    println!();
}

fn negatives(results: &Results) {
    let classes: Vec<_> = results
        .classes()
        .filter(|class| {
            of(&results.ours, class).any(|one| matches!(one.kind, Kind::Negative | Kind::Ambiguous))
        })
        .collect();
    if classes.is_empty() {
        return;
    }
    println!("NO LEAK             n   days   alarmed  silent [95 %]          alarms");
    for class in &classes {
        let own = Tally::of(of(&results.ours, class));
        let (low, high) = wilson(own.quiet - own.alarmed, own.quiet);
        let apart = of(&results.ours, class).any(|one| one.kind == Kind::Ambiguous);
        println!(
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
    println!("\nFALSE ALARMS A CGROUP-DAY, all negatives [95 %]");
    for (name, outcomes) in results.all() {
        let own = Tally::of(outcomes.iter().filter(|one| one.kind == Kind::Negative));
        let (low, high) = poisson(own.false_alarms);
        println!(
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
    if results.baselines {
        println!("\nSILENT SHARE BESIDE BASELINES");
        side_by_side(results, &classes);
    }
    println!();
}

fn side_by_side(results: &Results, classes: &[&str]) {
    print!("{:<19}", "");
    for (name, _) in results.all() {
        print!(" {name:>12}");
    }
    println!();
    for class in classes {
        print!("{class:<19}");
        for (_, outcomes) in results.all() {
            let merit = results.merit(outcomes, class);
            let merit = merit.or_else(|| Tally::of(of(outcomes, class)).silent());
            print!(
                " {:>12}",
                merit.map_or("-".into(), |merit| format!("{merit:.3}"))
            );
        }
        println!();
    }
}

fn latency(results: &Results) {
    println!("LATENCY             found  median     p90        of limit: median  p90");
    for (title, short) in [("limit <= 2 min", true), ("limit > 2 min", false)] {
        println!("{title}");
        for (name, outcomes) in results.all() {
            let these = outcomes.iter().filter(|one| {
                one.kind == Kind::Leak && one.ttl_s.is_some_and(|ttl| (ttl <= 120.0) == short)
            });
            let mut own = Tally::of(these);
            println!(
                "  {name:<17} {:<5}  {:<9}  {:<9}  {:>16}  {}",
                format!("{}/{}", own.hits, own.leaks),
                seconds(quantile(&mut own.latency_s, 0.5)),
                seconds(quantile(&mut own.latency_s, 0.9)),
                percent(quantile(&mut own.latency_share, 0.5)),
                percent(quantile(&mut own.latency_share, 0.9)),
            );
        }
    }
    println!();
}

fn causes(results: &Results) {
    println!("CAUSES              right        said");
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
        println!("{class:<19} {right:<12} {}", said.join(", "));
    }
    println!();
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

/// Prints one wrong trace.
pub fn wrong(trace: &Trace, outcome: &Outcome, said: &Said) {
    let mut what = Vec::new();
    if outcome.false_alarms > 0 {
        let at = seconds(outcome.first_alarm_s);
        what.push(format!(
            "{} false alarm(s), first after {at}",
            outcome.false_alarms
        ));
        if said.elsewhere > 0 {
            what.push(format!("{} of them on another cgroup", said.elsewhere));
        }
    }
    if trace.truth.leak && !outcome.hit {
        what.push("missed".to_owned());
    }
    if outcome.cause_right == Some(false) {
        let said = outcome.said.map_or("nothing".to_owned(), |(state, cause)| {
            format!("{state} {cause}")
        });
        what.push(format!("said {said}, right: {}", right(trace)));
    }
    eprintln!("{:<28} {}", outcome.name, what.join("; "));
}

fn right(trace: &Trace) -> String {
    let mut words: Vec<String> = trace.truth.causes.iter().map(ToString::to_string).collect();
    if trace.truth.silence {
        words.push("nothing".to_owned());
    }
    words.join(" or ")
}

/// Prints what is true of a trace.
pub fn truth(trace: &Trace) {
    let begin = trace.points.first().map_or(0, |(_, point)| point.at_us);
    let since = |at: Option<i64>| seconds(at.map(|at| (at - begin) as f64 / 1e6));
    println!(
        "{}: {} samples every {} s over {}; limit {}; right: {}",
        trace.name,
        trace.points.len(),
        trace.interval_s,
        seconds(Some(trace.span_s())),
        trace
            .points
            .first()
            .and_then(|(_, point)| point.max.bytes())
            .map_or("not its own".to_owned(), |bytes| format!(
                "{:.0} MiB",
                bytes as f64 / 1_048_576.0
            )),
        right(trace),
    );
    if trace.truth.leak {
        println!(
            "leak from {} at {:.3} MiB/min, limit hit at {}",
            since(trace.truth.onset_us),
            trace.truth.rate_bps.unwrap_or(0.0) * 60.0 / 1_048_576.0,
            since(trace.truth.limit_us),
        );
    }
}

/// One line about a verdict.
#[must_use]
pub fn verdict(trace: &Trace, at: i64, verdict: &Verdict) -> String {
    let begin = trace.points.first().map_or(0, |(_, point)| point.at_us);
    let e = &verdict.evidence;
    let show = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
    format!(
        "{:>9.0} s  {:<9} {:<11} {:<10} rate {} MiB/min  confidence {:.2}  ttl {}  z {} tau {} second_half {} step {} | {}",
        (at - begin) as f64 / 1e6,
        verdict.state,
        verdict.cause,
        verdict.memory,
        show(verdict.rate_bps.map(|rate| rate * 60.0 / 1_048_576.0)),
        verdict.confidence,
        seconds(verdict.ttl_s),
        show(e.z),
        show(e.tau),
        show(e.second_half),
        show(e.largest_step),
        e.reason,
    )
}

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
pub fn json(results: &Results, criteria: &[Criterion]) -> Value {
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
        "criteria": criteria,
    })
}
