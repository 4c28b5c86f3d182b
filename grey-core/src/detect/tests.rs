//! The detector on small made-up series: each test one fact a user relies on.

use super::*;
use crate::event::{Cause, Limit};

const START: i64 = 1_795_237_200_000_000;

fn cgroup(path: &str, id: u64) -> Cgroup {
    Cgroup {
        id: Some(id),
        path: path.to_owned(),
        kind: "service".to_owned(),
        name: path.trim_start_matches('/').to_owned(),
    }
}

/// Feeds a level (MiB) for each `step` seconds and returns what was said with its second.
fn run(
    seconds: u64,
    step: u64,
    limit_mib: Option<u64>,
    level: impl Fn(f64) -> f64,
) -> Vec<(f64, Verdict)> {
    let mut detector = Detector::new();
    feed(&mut detector, 0, seconds, step, limit_mib, level)
}

fn feed(
    detector: &mut Detector,
    from: u64,
    seconds: u64,
    step: u64,
    limit_mib: Option<u64>,
    level: impl Fn(f64) -> f64,
) -> Vec<(f64, Verdict)> {
    let cgroup = cgroup("/a", 1);
    let mut out = Vec::new();
    for second in (from..from + seconds).step_by(step as usize) {
        let bytes = (level(second as f64) * 256.0).round().max(0.0) as u64 * 4096;
        let point = Point {
            at_us: START + second as i64 * 1_000_000,
            id: Some(1),
            anon: Some(bytes),
            swap: Some(0),
            max: limit_mib.map_or(Limit::None, |mib| Limit::Bytes(mib << 20)),
            ..Point::default()
        };
        detector.sample(&cgroup, &point, &mut out);
    }
    out.into_iter()
        .map(|finding| ((finding.ts.0 - START) as f64 / 1e6, finding.verdict))
        .collect()
}

fn confirmed(said: &[(f64, Verdict)]) -> Option<&(f64, Verdict)> {
    said.iter()
        .find(|(_, verdict)| verdict.state == State::Confirmed && verdict.cause == Cause::Leak)
}

/// Deterministic noise in −1..1.
fn noise(second: f64) -> f64 {
    let mut x = (second as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5;
    x ^= x >> 29;
    x = x.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x ^= x >> 32;
    (x % 20_001) as f64 / 10_000.0 - 1.0
}

fn list(said: &[(f64, Verdict)]) -> String {
    said.iter()
        .map(|(at, verdict)| {
            format!(
                "{at:.0}s {} {} {} conf {:.2}: {}\n",
                verdict.memory,
                verdict.state,
                verdict.cause,
                verdict.confidence,
                verdict.evidence.reason
            )
        })
        .collect()
}

#[test]
fn a_leak_that_hits_its_limit_in_two_minutes_is_confirmed_within_thirty_seconds() {
    let said = run(120, 1, Some(512), |t| 2.0 + 4.0 * t);
    let (at, verdict) = confirmed(&said).unwrap_or_else(|| panic!("{}", list(&said)));
    assert!(*at <= 30.0, "{}", list(&said));
    let left = (510.0 - 4.0 * at) / 4.0;
    let ttl = verdict.ttl_s.unwrap();
    assert!((ttl / left - 1.0).abs() < 0.2, "{ttl} {left}");
}

#[test]
fn a_leak_in_a_settled_service_is_confirmed_in_a_tenth_of_its_time() {
    for (rate, seconds, step) in [(100.0, 600, 1), (10.0, 6000, 5), (1.0, 60_000, 10)] {
        let onset = 3.0 * 1024.0 / rate * 60.0 / 10.0;
        let said = run(seconds + onset as u64, step, Some(1024), |t| {
            100.0 + noise(t) + (t - onset).max(0.0) * rate / 60.0
        });
        let (at, _) = confirmed(&said).unwrap_or_else(|| panic!("{rate}: {}", list(&said)));
        let whole = 924.0 / rate * 60.0;
        assert!(
            (at - onset) / whole < 0.15 && *at > onset,
            "{rate}: {onset} {whole}\n{}",
            list(&said)
        );
    }
}

#[test]
fn a_slow_leak_is_confirmed_within_a_day() {
    let said = run(86_400, 30, Some(2048), |t| {
        300.0 + 2.0 * noise(t) + t / 600.0
    });
    let (at, _) = confirmed(&said).unwrap_or_else(|| panic!("{}", list(&said)));
    assert!(*at < 20.0 * 3600.0, "{}", list(&said));
}

#[test]
fn comings_and_goings_are_never_confirmed() {
    type Shape = fn(f64) -> f64;
    let shapes: [(&str, Shape); 9] = [
        ("saw-tooth", |t| 100.0 + (t % 60.0) * 3.0),
        ("slow saw-tooth", |t| 100.0 + (t % 900.0) * 0.3),
        ("idle", |_| 200.0),
        ("noise", |t| 200.0 + 20.0 * noise(t)),
        ("day", |t| {
            400.0 - 150.0 * (t / 86_400.0 * std::f64::consts::TAU).cos()
        }),
        ("warm-up", |t| 60.0 + 300.0 * (1.0 - (-t / 600.0).exp())),
        ("step", |t| if t < 20_000.0 { 200.0 } else { 400.0 }),
        ("job", |t| {
            let t = t % 7200.0;
            150.0
                + if t < 60.0 {
                    t * 3.0
                } else if t < 900.0 {
                    180.0
                } else {
                    0.0
                }
        }),
        ("fragmentation", |t| 150.0 + 60.0 * (1.0 + t / 600.0).ln()),
    ];
    for (name, shape) in shapes {
        let said = run(172_800, 5, Some(1024), shape);
        assert!(confirmed(&said).is_none(), "{name}\n{}", list(&said));
    }
}

#[test]
fn a_plateau_after_a_spike_is_retention() {
    let said = run(3600, 1, Some(1024), |t| match t {
        t if t < 600.0 => 150.0,
        t if t < 620.0 => 150.0 + (t - 600.0) * 13.0,
        _ => 390.0,
    });
    assert!(confirmed(&said).is_none(), "{}", list(&said));
    assert!(
        said.iter()
            .any(|(_, verdict)| verdict.cause == Cause::Retention),
        "{}",
        list(&said)
    );
}

#[test]
fn a_leak_under_a_saw_tooth_shows_in_its_floors() {
    let said = run(40_000, 2, Some(1024), |t| {
        100.0 + (t % 30.0) * 5.0 + (t - 6000.0).max(0.0) / 60.0
    });
    assert!(confirmed(&said).is_some(), "{}", list(&said));
}

#[test]
fn a_confirmed_leak_recovers_when_it_stops_or_goes_back() {
    for after in [460.0, 100.0] {
        let said = run(4000, 1, Some(2048), |t| {
            100.0
                + if t < 800.0 {
                    (t - 600.0).max(0.0) * 1.8
                } else {
                    after - 100.0
                }
        });
        let states: Vec<State> = said.iter().map(|(_, verdict)| verdict.state).collect();
        assert!(confirmed(&said).is_some(), "{}", list(&said));
        assert!(states.contains(&State::Recovered), "{}", list(&said));
    }
}

#[test]
fn a_process_that_ended_is_forgotten_and_its_verdict_closed() {
    let mut detector = Detector::new();
    let cgroup = cgroup("/a", 1);
    let mut out = Vec::new();
    for second in 0..700_i64 {
        let at = Timestamp(START + second * 1_000_000);
        let process = |pid: u32, anon: i64| Process {
            pid,
            comm: "p".to_owned(),
            anon: Some(anon as u64),
            ..Process::default()
        };
        let point = Point {
            at_us: at.0,
            id: Some(1),
            anon: Some(8 << 20),
            max: Limit::Bytes(512 << 20),
            ..Point::default()
        };
        detector.sample(&cgroup, &point, &mut out);
        detector.process(&cgroup, &process(1, 4 << 20), at, &mut out);
        if second < 100 {
            detector.process(&cgroup, &process(2, second << 22), at, &mut out);
        }
    }
    let of: Vec<(u32, State)> = out
        .iter()
        .filter_map(|finding| Some((finding.verdict.process.as_ref()?.pid, finding.verdict.state)))
        .collect();
    assert!(of.contains(&(2, State::Confirmed)), "{of:?}");
    assert_eq!(of.last(), Some(&(2, State::Recovered)), "{of:?}");
    // The cgroup and the process that lives.
    assert_eq!(detector.len(), 2);
}

#[test]
fn of_thousands_of_cgroups_each_that_does_nothing_is_small() {
    assert!(size_of::<Node>() <= 232, "{} bytes", size_of::<Node>());
}
