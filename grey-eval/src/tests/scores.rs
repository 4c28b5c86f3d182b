use grey_core::detect::Point;
use grey_core::time::Timestamp;

use super::class;
use crate::generate::{Seeds, generate};
use crate::judge::{self, Judge, Said};
use crate::report::Results;
use crate::score::{Outcome, Tally, f1, precision, score};
use crate::stats::{poisson, quantile, wilson};
use crate::trace::Trace;
use crate::{criteria, report};

/// Alarms while the level is over a threshold.
struct Over(u64);

impl Judge for Over {
    fn name(&self) -> &'static str {
        "over"
    }

    fn sample(&mut self, point: &Point) -> bool {
        point.anon.is_some_and(|anon| anon >= self.0)
    }
}

fn traces(name: &str, count: u64) -> Vec<Trace> {
    Seeds::Tune
        .of(count)
        .map(|seed| generate(class(name), seed))
        .collect()
}

/// An alarm at each sample.
fn always(trace: &Trace) -> Said {
    let times: Vec<Timestamp> = trace
        .points
        .iter()
        .map(|(_, point)| Timestamp(point.at_us))
        .collect();
    judge::given(&times)
}

/// An alarm ten seconds after the onset and no other.
fn oracle(trace: &Trace) -> Said {
    let at = trace
        .truth
        .onset_us
        .map(|onset| Timestamp(onset + 10_000_000));
    judge::given(&at.into_iter().collect::<Vec<_>>())
}

fn close(got: f64, wanted: f64) -> bool {
    (got - wanted).abs() < 0.5e-4
}

#[test]
fn wilson_intervals_are_those_of_newcombe() {
    // Newcombe 1998, table I, method 3.
    for (hits, of, low, high) in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ] {
        let got = wilson(hits, of);
        assert!(
            close(got.0, low) && close(got.1, high),
            "{hits}/{of}: {got:?}"
        );
    }
    assert_eq!(wilson(20, 20).1, 1.0);
    assert_eq!(wilson(0, 0), (0.0, 1.0));
}

#[test]
fn poisson_intervals_are_those_of_garwood() {
    for (count, low, high) in [
        (0, 0.0, 3.6889),
        (1, 0.0253, 5.5716),
        (10, 4.7954, 18.3904),
        (100, 81.3640, 121.6273),
    ] {
        let got = poisson(count);
        assert!(
            (got.0 - low).abs() < 1e-3 && (got.1 - high).abs() < 1e-3,
            "{count}: {got:?}"
        );
    }
    let (low, high) = poisson(4000);
    assert!(
        low > 3870.0 && low < 3880.0 && high > 4120.0 && high < 4130.0,
        "{low} {high}"
    );
}

#[test]
fn quantiles_interpolate() {
    assert_eq!(quantile(&mut [], 0.5), None);
    assert_eq!(quantile(&mut [3.0], 0.9), Some(3.0));
    assert_eq!(quantile(&mut [4.0, 1.0, 2.0, 3.0], 0.5), Some(2.5));
}

#[test]
fn f1_is_the_harmonic_mean() {
    assert_eq!(f1(precision(3, 1), Some(0.5)), 0.6);
    assert_eq!(f1(None, Some(0.0)), 0.0);
}

#[test]
fn who_always_alarms_finds_every_leak_and_is_never_silent() {
    let leaks = traces("malloc-4-mib-s", 5);
    let outcomes: Vec<Outcome> = leaks
        .iter()
        .map(|trace| score(trace, &always(trace), false))
        .collect();
    assert!(
        outcomes
            .iter()
            .all(|one| one.hit && one.latency_s.unwrap() <= 2.5 * 1.0)
    );
    let quiet = traces("idle", 3);
    let tally = Tally::of(
        &quiet
            .iter()
            .map(|trace| score(trace, &always(trace), false))
            .collect::<Vec<_>>(),
    );
    assert_eq!((tally.quiet, tally.alarmed), (3, 3));
    assert_eq!(tally.silent(), Some(0.0));
}

#[test]
fn who_never_alarms_finds_nothing_and_is_silent_always() {
    let never = Said::default();
    for trace in traces("malloc-4-mib-s", 3) {
        let outcome = score(&trace, &never, true);
        assert!(!outcome.hit && outcome.false_alarms == 0);
        assert_eq!(outcome.cause_right, Some(false));
    }
    for trace in traces("idle", 2) {
        let outcome = score(&trace, &never, true);
        assert_eq!((outcome.false_alarms, outcome.cause_right), (0, Some(true)));
    }
    for trace in traces("retention", 2) {
        assert_eq!(score(&trace, &never, true).cause_right, Some(false));
    }
}

#[test]
fn latency_counts_from_the_onset_and_an_alarm_before_it_is_false() {
    let trace = traces("malloc-4-mib-s", 20)
        .into_iter()
        .find(|trace| trace.truth.onset_us.unwrap() - trace.points[0].1.at_us > 20_000_000)
        .unwrap();
    let right = score(&trace, &oracle(&trace), false);
    assert_eq!(
        (right.hit, right.latency_s, right.false_alarms),
        (true, Some(10.0), 0)
    );
    let early = judge::given(&[Timestamp(trace.truth.onset_us.unwrap() - 5_000_000)]);
    let early = score(&trace, &early, false);
    assert_eq!(
        (early.hit, early.latency_s, early.false_alarms),
        (false, None, 1)
    );
}

#[test]
fn an_alarm_that_flaps_within_an_hour_counts_once() {
    let trace = &traces("idle", 1)[0];
    let begin = trace.points[0].1.at_us;
    let at = |minutes: i64| Timestamp(begin + minutes * 60_000_000);
    let said = judge::given(&[at(1), at(20), at(70), at(200)]);
    assert_eq!(score(trace, &said, false).false_alarms, 2);
}

#[test]
fn a_judge_is_asked_at_each_sample_of_the_judged_cgroup() {
    let trace = traces("malloc-4-mib-s", 20)
        .into_iter()
        .find(|trace| trace.truth.onset_us.unwrap() - trace.points[0].1.at_us > 20_000_000)
        .unwrap();
    let points: Vec<Point> = trace
        .points
        .iter()
        .filter(|(index, _)| *index == 0)
        .map(|(_, point)| *point)
        .collect();
    let most = points.iter().filter_map(|point| point.anon).max().unwrap();
    let first = points
        .iter()
        .find(|point| point.anon == Some(most))
        .unwrap();
    let said = judge::other(&mut Over(most), &trace);
    assert_eq!(said.alarms, [first.at_us]);
    assert!(judge::other(&mut Over(u64::MAX), &trace).alarms.is_empty());
}

#[test]
fn criteria_hold_for_an_oracle_and_fail_for_who_never_alarms() {
    let leaks: Vec<Trace> = ["malloc-4-mib-s", "malloc-0.1-mib-min"]
        .iter()
        .flat_map(|name| traces(name, 3))
        .collect();
    let quiet = traces("idle", 2);
    let check = |said: fn(&Trace) -> Said| {
        let mut results = Results::new(Seeds::Tune, &[]);
        results.ours = leaks
            .iter()
            .chain(&quiet)
            .map(|trace| score(trace, &said(trace), false))
            .collect();
        let criteria = criteria::check(&results);
        assert!(report::text(&results, &criteria).contains("MUST SHOW"));
        criteria
    };
    let wanted = [
        "precision >= 0.98",
        "recall >= 0.95",
        "recall >= 0.90",
        "median latency <= 30 s",
    ];
    for (said, pass) in [
        (oracle as fn(&Trace) -> Said, true),
        (|_| Said::default(), false),
    ] {
        let criteria = check(said);
        for part in wanted {
            let one = criteria
                .iter()
                .find(|one| one.asked.contains(part))
                .unwrap();
            assert_eq!(one.pass, pass, "{}: {}", one.asked, one.figure);
        }
        // A few days are not 200.
        let days = criteria
            .iter()
            .find(|one| one.asked.contains("200 cgroup-days"))
            .unwrap();
        assert!(!days.pass);
    }
}
