//! Properties of the leak detector that hold for whatever it is fed, by its public interface alone.

#[path = "detect/leak.rs"]
mod leak;
#[path = "detect/steps.rs"]
mod steps;

use grey_core::detect::{Detector, Finding, Point, Saved};
use grey_core::event::{Cause, Limit, State};
use grey_core::time::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

use leak::{HOUR, Leak, MIB, SECOND, START, cgroup, leak, noise};
use steps::{clock, happen, step};

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    }
}

fn is_leak(finding: &Finding) -> bool {
    finding.verdict.state == State::Confirmed && finding.verdict.cause == Cause::Leak
}

/// Second at which the leak was confirmed first, by the time of the findings.
fn confirmed(said: &[Finding]) -> Option<f64> {
    said.iter()
        .find(|finding| is_leak(finding))
        .map(|finding| (finding.ts.0 - START) as f64 / 1e6)
}

fn states(said: &[Finding]) -> Vec<(State, Cause)> {
    said.iter()
        .map(|finding| (finding.verdict.state, finding.verdict.cause))
        .collect()
}

fn list(said: &[Finding]) -> String {
    said.iter()
        .map(|finding| {
            format!(
                "{:.0}s {} {} {} conf {:.2}: {}\n",
                (finding.ts.0 - START) as f64 / 1e6,
                finding.verdict.memory,
                finding.verdict.state,
                finding.verdict.cause,
                finding.verdict.confidence,
                finding.verdict.evidence.reason
            )
        })
        .collect()
}

/// Whether there is no `null` anywhere: what serde_json makes of a number that is none.
fn all_finite(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Array(values) => values.iter().all(all_finite),
        Value::Object(fields) => fields.values().all(all_finite),
        _ => true,
    }
}

/// What holds for every verdict.
fn sound(said: &[Finding]) -> Result<(), TestCaseError> {
    for finding in said {
        let verdict = &finding.verdict;
        prop_assert!((0.0..=1.0).contains(&verdict.confidence), "{verdict:?}");
        let json = serde_json::to_value(verdict).expect("a verdict can be written");
        prop_assert!(all_finite(&json), "{json}");
        let text = serde_json::to_string(verdict).expect("a verdict can be written");
        let back: grey_core::event::Verdict =
            serde_json::from_str(&text).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(&back.evidence.reason, &verdict.evidence.reason);
        prop_assert_eq!(
            (back.state, back.cause, back.memory, back.growth_bytes),
            (
                verdict.state,
                verdict.cause,
                verdict.memory,
                verdict.growth_bytes
            )
        );
        if let Some([low, high]) = verdict.ttl_ci95_s {
            prop_assert!(low <= high && low >= 0.0, "{verdict:?}");
        }
        if let (Some(rate), Some([low, high])) = (verdict.rate_bps, verdict.rate_ci95) {
            prop_assert!(low <= rate && rate <= high, "{verdict:?}");
        }
    }
    Ok(())
}

/// A saved detector in the middle of a leak, as JSON.
fn saved_leak(leak: &Leak, second: i64) -> Value {
    let mut detector = Detector::new();
    leak.feed(&mut detector, 0..second, |_, point| Some(point));
    serde_json::to_value(detector.save()).expect("it can be written")
}

/// Spoils the `at`-th leaf of a JSON value.
fn spoil(value: &mut Value, at: &mut usize, with: &Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(|value| spoil(value, at, with)),
        Value::Object(fields) => fields.values_mut().for_each(|value| spoil(value, at, with)),
        leaf => {
            if *at == 0 {
                *leaf = with.clone();
            }
            *at = at.wrapping_sub(1);
        }
    }
}

fn leaves(value: &Value) -> usize {
    match value {
        Value::Array(values) => values.iter().map(leaves).sum(),
        Value::Object(fields) => fields.values().map(leaves).sum(),
        _ => 1,
    }
}

proptest! {
    #![proptest_config(cases(80))]

    #[test]
    fn whatever_happens_verdicts_are_sound_and_nothing_panics(steps in vec(step(), 1..60)) {
        let said = happen(Detector::new(), steps);
        sound(&said)?;
    }
}

proptest! {
    #![proptest_config(cases(40))]

    /// As when watching costs too much: from some second on there is a sample every 2 to 10 seconds, and no faults.
    #[test]
    fn a_leak_is_called_when_samples_become_rare_and_what_is_steady_is_not(
        leak in leak(),
        rare in 100..600i64,
        every in 2..=10i64,
    ) {
        let thin = |second: i64, point: Point| {
            if second < rare {
                return Some(Point { faults: Some(second as u64 * 100), ..point });
            }
            (second % every == 0).then_some(point)
        };
        let said = leak.run(thin);
        sound(&said)?;
        let at = confirmed(&said);
        prop_assert!(at.is_some_and(|at| at > leak.onset as f64), "{}", list(&said));
        let rate = said
            .iter()
            .find(|finding| is_leak(finding))
            .and_then(|finding| finding.verdict.rate_bps)
            .unwrap_or(0.0) / MIB as f64;
        prop_assert!((rate / leak.rate - 1.0).abs() < 0.25, "{rate} of {}\n{}", leak.rate, list(&said));
        let steady = Leak { rate: 0.0, onset: 1200, ..leak };
        let mut detector = Detector::new();
        let said = steady.feed(&mut detector, 0..2400, thin);
        prop_assert!(said.iter().all(|finding| finding.verdict.state != State::Confirmed), "{}", list(&said));
    }
}

proptest! {
    #![proptest_config(cases(20))]

    #[test]
    fn a_corrupted_state_file_is_refused_or_harmless(
        leak in leak(),
        spoilt in vec((any::<prop::sample::Index>(), prop_oneof![
            clock().prop_map(Value::from),
            Just(Value::from(u64::MAX)),
            Just(Value::from(1e300)),
            Just(Value::Null),
            Just(Value::from("x")),
            Just(Value::from("confirmed")),
        ]), 1..4),
        flips in vec((any::<prop::sample::Index>(), any::<u8>()), 0..2),
        steps in vec(step(), 0..10),
    ) {
        let mut saved = saved_leak(&leak, leak.onset + 60);
        let count = leaves(&saved);
        for (at, with) in &spoilt {
            // Half of them among the first ones, where the times and the state are.
            let at = at.index(2 * count);
            spoil(&mut saved, &mut (if at < count { at } else { at % count.min(24) }), with);
        }
        let mut text = saved.to_string().into_bytes();
        for (at, byte) in &flips {
            let at = at.index(text.len());
            text[at] = *byte;
        }
        if let Ok(saved) = serde_json::from_slice::<Saved>(&text) {
            let mut detector = Detector::restore(saved);
            let said = leak.feed(
                &mut detector,
                leak.onset + 60..leak.onset + 120,
                |_, point| Some(point),
            );
            sound(&said)?;
            serde_json::to_string(&detector.save()).expect("it can be written");
            sound(&happen(detector, steps))?;
        }
    }
}

proptest! {
    #![proptest_config(cases(8))]

    #[test]
    fn an_even_leak_is_confirmed_and_stays_so_until_its_limit(leak in leak()) {
        let said = leak.run(|_, point| Some(point));
        sound(&said)?;
        let at = confirmed(&said);
        prop_assert!(at.is_some_and(|at| at > leak.onset as f64), "{}", list(&said));
        // More of the same evidence takes nothing back.
        prop_assert!(said.last().is_some_and(is_leak), "{}", list(&said));
        prop_assert_eq!(said.iter().filter(|finding| is_leak(finding)).count(), 1);
    }

    #[test]
    fn a_steeper_leak_is_confirmed_no_later(leak in leak(), steeper in 1.5..3.0) {
        let gentle = leak.run(|_, point| Some(point));
        let steep = Leak { rate: leak.rate * steeper, ..leak }.run(|_, point| Some(point));
        // Judgements come as buckets close: two of 5 s is how late they may be.
        prop_assert!(
            confirmed(&steep).is_some_and(|at| confirmed(&gentle).is_none_or(|late| at <= late + 10.0)),
            "gentle\n{}steep\n{}", list(&gentle), list(&steep)
        );
    }

    #[test]
    fn what_is_said_does_not_depend_on_what_comes_later(leak in leak(), part in 0.0..1.0) {
        let all = leak.run(|_, point| Some(point));
        let cut = (part * leak.end() as f64) as i64;
        let begin = leak.run(|second, point| (second < cut).then_some(point));
        prop_assert_eq!(&all[..begin.len()], &begin[..]);
        prop_assert!(all[begin.len()..].iter().all(|finding| finding.ts.0 >= START + cut * SECOND));
    }

    #[test]
    fn whole_hours_earlier_or_later_the_same_is_said(leak in leak(), hours in -300_000..300_000i64) {
        let shift = hours * HOUR;
        let here = leak.run(|_, point| Some(point));
        let mut there = leak.run(|_, point| {
            Some(Point { at_us: point.at_us + shift, ..point })
        });
        for finding in &mut there {
            finding.ts.0 -= shift;
            if let Some(since) = &mut finding.verdict.since {
                since.0 -= shift;
            }
        }
        prop_assert!(!here.is_empty());
        prop_assert_eq!(here, there);
    }

    #[test]
    fn everything_twice_or_eight_times_as_large_is_said_the_same_of(
        leak in leak(),
        power in 1..4u32,
    ) {
        // Sixteen times as large, and noise of some MiB: no absolute minimum is near.
        let leak = Leak {
            base: leak.base * 16.0,
            noise: leak.base * 0.05,
            rate: leak.rate * 16.0,
            limit: leak.limit * 16,
            ..leak
        };
        let factor = 1 << power;
        let small = leak.run(|_, point| Some(point));
        let large = leak.run(|_, point| {
            let max = match point.max {
                Limit::Bytes(bytes) => Limit::Bytes(bytes * factor),
                other => other,
            };
            Some(Point { anon: point.anon.map(|anon| anon * factor), max, ..point })
        });
        prop_assert!(small.iter().any(is_leak), "{}", list(&small));
        prop_assert_eq!(states(&small), states(&large), "{}\n{}", list(&small), list(&large));
        for (small, large) in small.iter().zip(&large) {
            prop_assert_eq!(small.ts, large.ts);
            prop_assert_eq!(small.verdict.ttl_s, large.verdict.ttl_s);
            prop_assert_eq!(
                small.verdict.rate_bps.map(|rate| rate * factor as f64),
                large.verdict.rate_bps
            );
        }
    }

    #[test]
    fn half_of_the_samples_missing_hides_no_leak(leak in leak(), seed in any::<u64>()) {
        let said = leak.run(|second, point| (noise(seed, second) > 0.0).then_some(point));
        sound(&said)?;
        prop_assert!(
            confirmed(&said).is_some_and(|at| at - leak.onset as f64 <= 0.5 * leak.whole()),
            "{}", list(&said)
        );
    }

    #[test]
    fn a_clock_that_is_set_hides_no_leak(
        leak in leak(),
        part in 0.05..0.3,
        by in prop_oneof![Just(-HOUR), Just(30 * 24 * HOUR)],
    ) {
        let set = leak.onset + (part * leak.whole()) as i64;
        let said = leak.run(|second, point| {
            let by = if second >= set { by } else { 0 };
            Some(Point { at_us: point.at_us + by, ..point })
        });
        sound(&said)?;
        prop_assert!(said.iter().any(is_leak), "{}", list(&said));
        prop_assert!(said.last().is_some_and(is_leak), "{}", list(&said));
    }

    #[test]
    fn a_restart_in_the_middle_of_a_leak_loses_nothing_of_the_evidence(
        leak in leak(),
        part in 0.02..0.6,
    ) {
        let cut = leak.onset + (part * leak.whole()) as i64;
        let mut on = Detector::new();
        let before = leak.feed(&mut on, 0..cut, |_, point| Some(point));
        let text = serde_json::to_string(&on.save()).expect("it can be written");
        let saved: Saved = serde_json::from_str(&text).expect("it can be read back");
        let mut again = Detector::restore(saved);
        let stayed = leak.feed(&mut on, cut..leak.end(), |_, point| Some(point));
        let restored = leak.feed(&mut again, cut..leak.end(), |_, point| Some(point));
        // A verdict that was told is not told twice.
        let both = format!("{}stayed\n{}restored\n{}", list(&before), list(&stayed), list(&restored));
        prop_assert_eq!(
            confirmed(&stayed).is_some(), confirmed(&restored).is_some(), "{}", both
        );
        if let (Some(stayed), Some(restored)) = (confirmed(&stayed), confirmed(&restored)) {
            // The buckets that were open are lost.
            prop_assert!((stayed - restored).abs() <= 30.0, "{}", both);
        }
        if let (Some(here), Some(there)) = (stayed.last(), restored.last()) {
            prop_assert_eq!(here.verdict.state, there.verdict.state, "{}", both);
        }
    }

    #[test]
    fn another_cgroup_under_the_same_path_closes_what_was_open(leak in leak()) {
        let mut detector = Detector::new();
        let said = leak.feed(&mut detector, 0..leak.end(), |_, point| Some(point));
        prop_assert!(said.last().is_some_and(is_leak), "{}", list(&said));
        let mut out = Vec::new();
        let point = Point { id: Some(2), ..leak.point(leak.end()) };
        detector.sample(&cgroup("/a", Some(2)), &point, &mut out);
        prop_assert_eq!(out.len(), 1);
        prop_assert_eq!(out[0].verdict.state, State::Recovered);
        prop_assert_eq!(out[0].cgroup.id, Some(1));
        prop_assert_eq!(detector.open().count(), 0);
        sound(&out)?;
    }

    #[test]
    fn a_limit_that_moves_is_the_one_told_next(leak in leak(), limit in 900..4000u64) {
        let moved = leak.onset + (0.02 * leak.whole()) as i64;
        let said = leak.run(|second, point| {
            let max = if second >= moved { Limit::Bytes(limit * MIB) } else { point.max };
            Some(Point { max, ..point })
        });
        sound(&said)?;
        let mut told = 0;
        for finding in said.iter().filter(|finding| finding.ts.0 >= START + moved * SECOND) {
            let verdict = &finding.verdict;
            if let (Some(bytes), Some(ttl), Some(rate)) =
                (verdict.limit_bytes, verdict.ttl_s, verdict.rate_bps)
            {
                told += 1;
                prop_assert_eq!(bytes, limit * MIB);
                let level = verdict.evidence.level_bytes.unwrap_or(0);
                let left = (bytes - level) as f64 / rate;
                prop_assert!((ttl - left).abs() <= 0.01 * left, "{} {}", ttl, left);
            }
        }
        prop_assert!(told > 0, "{}", list(&said));
    }
}

proptest! {
    #![proptest_config(cases(2))]

    #[test]
    fn thousands_of_cgroups_in_any_order_find_the_limit_above(
        leak in leak(),
        order in Just((0..3000usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        // Three to a parent: seven levels deep. The leaking one is the last of them, its limit that of its ancestor.
        let path = |mut index: usize| {
            let mut path = String::new();
            while index > 0 {
                path = format!("/c{index}{path}");
                index = (index - 1) / 3;
            }
            if path.is_empty() { "/".to_owned() } else { path }
        };
        let leaf = 2999;
        let above = (leaf - 1) / 3;
        let mut detector = Detector::new();
        let mut out = Vec::new();
        for index in &order {
            let max = if *index == above { Limit::Bytes(leak.limit * MIB) } else { Limit::None };
            let point = Point { anon: leak.point(0).anon, at_us: START, max, ..Point::default() };
            detector.sample(&cgroup(&path(*index), None), &point, &mut out);
        }
        prop_assert_eq!(detector.len(), order.len());
        let (leaking, limited) = (cgroup(&path(leaf), None), cgroup(&path(above), None));
        for second in 1..leak.end() {
            let point = leak.point(second);
            detector.sample(&limited, &point, &mut out);
            let point = Point { max: Limit::None, ..point };
            detector.sample(&leaking, &point, &mut out);
        }
        sound(&out)?;
        let confirmed = out.iter().find(|finding| is_leak(finding));
        prop_assert!(
            confirmed.is_some_and(|finding| finding.cgroup.path == leaking.path
                && finding.verdict.limit_cgroup.as_deref() == Some(&*limited.path)),
            "{}", list(&out)
        );
        // Gone one after the other, parents before children and after them.
        for index in &order {
            detector.gone(&path(*index), Timestamp(START), &mut out);
        }
        prop_assert!(detector.is_empty());
        prop_assert_eq!(detector.open().count(), 0);
    }
}
