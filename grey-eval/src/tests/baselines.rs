use grey_core::detect::Point;
use grey_core::event::Limit;

use crate::baseline::{self, line, mann_kendall_z};

const MIB: u64 = 1024 * 1024;

/// Samples of ten hours, one each ten seconds, of this level.
fn hours(level: impl Fn(f64) -> f64) -> impl Iterator<Item = Point> {
    (0..3600).map(move |tick| Point {
        at_us: 1_800_000_000_000_000 + tick * 10_000_000,
        anon: Some((level(tick as f64 * 10.0) * MIB as f64) as u64),
        max: Limit::Bytes(4096 * MIB),
        ..Point::default()
    })
}

/// Who alarmed at the end.
fn alarmed(level: impl Fn(f64) -> f64) -> Vec<&'static str> {
    let mut judges = baseline::all();
    let mut on = vec![false; judges.len()];
    for point in hours(level) {
        for (judge, on) in judges.iter_mut().zip(&mut on) {
            *on = judge.sample(&point);
        }
    }
    let names = judges.iter().zip(on).filter(|(_, on)| *on);
    names.map(|(judge, _)| judge.name()).collect()
}

#[test]
fn mann_kendall_is_that_of_the_textbook() {
    // n = 10 without ties: S = 45, variance 125, Z = 44 / sqrt(125).
    let rising: Vec<f64> = (0..10).map(f64::from).collect();
    assert!((mann_kendall_z(&rising) - 44.0 / 125_f64.sqrt()).abs() < 1e-12);
    // One pair of ties: S = 5, variance (4·3·13 − 2·1·9)/18.
    let ties = mann_kendall_z(&[1.0, 2.0, 2.0, 3.0]);
    assert!((ties - 4.0 / (138.0_f64 / 18.0).sqrt()).abs() < 1e-12);
    assert_eq!(mann_kendall_z(&[5.0; 20]), 0.0);
    let falling: Vec<f64> = rising.iter().map(|value| -value).collect();
    assert!((mann_kendall_z(&falling) + mann_kendall_z(&rising)).abs() < 1e-12);
}

#[test]
fn least_squares_are_those_of_anscombe() {
    // Anscombe 1973, the first set.
    let x = [10.0, 8.0, 13.0, 9.0, 11.0, 14.0, 6.0, 4.0, 12.0, 7.0, 5.0];
    let y = [
        8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68,
    ];
    let fit = line(x.into_iter().zip(y)).unwrap();
    assert!((fit.slope - 0.5001).abs() < 1e-4, "{fit:?}");
    assert!((fit.intercept - 3.0001).abs() < 1e-4, "{fit:?}");
    assert!((fit.r2 - 0.6665).abs() < 1e-4, "{fit:?}");
    assert_eq!(line([(1.0, 2.0), (1.0, 3.0), (1.0, 4.0)].into_iter()), None);
}

#[test]
fn every_baseline_finds_a_plain_leak_and_none_alarms_on_a_flat_line() {
    // 300 MiB an hour from 200 MiB; coroot's share of the level falls under 10 % an hour only after ten hours.
    assert_eq!(
        alarmed(|t| 200.0 + t * 300.0 / 3600.0),
        ["coroot", "precog", "mann-kendall", "ols"]
    );
    assert!(alarmed(|_| 500.0).is_empty());
    assert!(alarmed(|t| 3500.0 - t * 0.08).is_empty());
}

#[test]
fn coroot_asks_for_a_tail_that_still_grows_and_for_enough_of_it() {
    // Two hours flat after a rise; and 30 MiB an hour, under 5 % of the limit.
    assert!(!alarmed(|t| 200.0 + t.min(28_800.0) * 300.0 / 3600.0).contains(&"coroot"));
    assert!(!alarmed(|t| 100.0 + t * 30.0 / 3600.0).contains(&"coroot"));
}

#[test]
fn precog_asks_for_six_hours_since_the_last_change() {
    let stepped = |t: f64| 200.0 + t * 0.05 + 0.5 * (t / 300.0).sin();
    assert!(alarmed(stepped).contains(&"precog"));
    let late = move |t: f64| stepped(t) + if t > 25_000.0 { 300.0 } else { 0.0 };
    assert!(!alarmed(late).contains(&"precog"));
}
