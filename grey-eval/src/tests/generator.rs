use grey_core::detect::Point;
use grey_core::event::{Body, Event};

use super::class;
use crate::export;
use crate::generate::{CLASSES, Seeds, generate};
use crate::rng::Rng;
use crate::trace::{Kind, Trace};

const MIB: f64 = 1024.0 * 1024.0;

/// Two traces of each class.
fn some() -> impl Iterator<Item = Trace> {
    CLASSES
        .iter()
        .flat_map(|class| Seeds::Tune.of(2).map(move |seed| generate(class, seed)))
}

fn judged(trace: &Trace) -> Vec<Point> {
    trace
        .points
        .iter()
        .filter(|(index, _)| *index == 0)
        .map(|(_, point)| *point)
        .collect()
}

fn held(point: &Point) -> f64 {
    (point.anon.unwrap_or(0) + point.swap.unwrap_or(0)) as f64
}

#[test]
fn random_numbers_are_those_of_the_reference_implementation() {
    // rand_xoshiro, Xoshiro256PlusPlus::seed_from_u64(0).
    let mut rng = Rng::new(0);
    let got: Vec<u64> = (0..3).map(|_| rng.bits()).collect();
    assert_eq!(
        got,
        [
            5_987_356_902_031_041_503,
            7_051_070_477_665_621_255,
            6_633_766_593_972_829_180
        ]
    );
}

#[test]
fn a_seed_makes_the_same_trace_again_and_another_seed_another() {
    for class in CLASSES {
        let (one, again, other) = (
            generate(class, 1000),
            generate(class, 1000),
            generate(class, 1001),
        );
        assert_eq!(one.points, again.points, "{}", one.name);
        assert_eq!(one.truth, again.truth, "{}", one.name);
        assert_ne!(one.points, other.points, "{}", one.name);
    }
}

#[test]
fn tuning_and_test_seeds_share_none() {
    for class in CLASSES {
        let tune = Seeds::Tune.of(class.count);
        let test = Seeds::Test.of(class.count);
        assert!(tune.end <= test.start, "{}", class.name);
    }
}

#[test]
fn time_moves_forward_in_every_series() {
    for trace in some() {
        for index in 0..trace.cgroups.len() {
            let times: Vec<i64> = trace
                .points
                .iter()
                .filter(|(own, _)| usize::from(*own) == index)
                .map(|(_, point)| point.at_us)
                .collect();
            assert!(
                times.windows(2).all(|pair| pair[0] < pair[1]),
                "{}",
                trace.name
            );
            assert!(times.len() > 20, "{}: {} samples", trace.name, times.len());
        }
    }
}

#[test]
fn memory_moves_in_pages() {
    for trace in some() {
        for point in judged(&trace) {
            let figures = [
                point.anon,
                point.swap,
                point.file,
                point.shmem,
                point.max.bytes(),
            ];
            assert!(
                figures.iter().flatten().all(|bytes| bytes % 4096 == 0),
                "{}",
                trace.name
            );
        }
    }
}

#[test]
fn a_leak_begins_within_its_trace_and_hits_its_limit_after_it_began() {
    for trace in some().filter(|trace| trace.truth.leak) {
        let points = judged(&trace);
        let (first, last) = (points[0].at_us, points[points.len() - 1].at_us);
        let truth = &trace.truth;
        let onset = truth.onset_us.unwrap();
        assert!(onset >= first - 1_000_000 && onset < last, "{}", trace.name);
        assert!(truth.limit_us.unwrap() > onset, "{}", trace.name);
        assert!(truth.rate_bps.unwrap() > 0.0, "{}", trace.name);
        assert!(truth.memory.is_some() && !truth.silence, "{}", trace.name);
        if let Some(max) = points[0].max.bytes() {
            let most = points.iter().map(held).fold(0.0, f64::max);
            // Batched counters may be a MiB above what is held.
            assert!(most <= max as f64 + MIB, "{}: {most} of {max}", trace.name);
        }
    }
}

#[test]
fn what_does_not_leak_has_no_onset_and_fits_under_its_limit() {
    // The last two would not fit in the room they were first given.
    let tight = [("gc-long", 1012), ("noise", 1020)];
    let tight = tight.map(|(name, seed)| generate(class(name), seed));
    for trace in some().filter(|trace| !trace.truth.leak).chain(tight) {
        assert_eq!(trace.truth.onset_us, None);
        assert_eq!(trace.truth.limit_us, None);
        for point in judged(&trace) {
            if let Some(max) = point.max.bytes() {
                assert!(held(&point) <= 0.96 * max as f64 + MIB, "{}", trace.name);
            }
        }
    }
}

#[test]
fn the_named_rates_are_the_rates_of_the_traces() {
    for (name, wanted) in [
        ("malloc-0.1-mib-min", 0.1),
        ("malloc-1-mib-min", 1.0),
        ("malloc-10-mib-min", 10.0),
        ("malloc-100-mib-min", 100.0),
        ("malloc-4-mib-s", 240.0),
    ] {
        for seed in Seeds::Test.of(6) {
            let trace = generate(class(name), seed);
            let truth = trace.truth.rate_bps.unwrap() * 60.0 / MIB;
            assert!(
                (truth / wanted - 1.0).abs() < 0.35,
                "{}: {truth}",
                trace.name
            );
            // And what the samples show is what the truth says.
            let points = judged(&trace);
            let onset = trace.truth.onset_us.unwrap();
            let after: Vec<&Point> = points.iter().filter(|point| point.at_us >= onset).collect();
            let (from, to) = (after[0], after[after.len() - 1]);
            let minutes = (to.at_us - from.at_us) as f64 / 6e7;
            let seen = (held(to) - held(from)) / MIB / minutes;
            let noise = 250.0 / minutes;
            assert!(
                (seen - truth).abs() < 0.05 * truth + noise,
                "{}: {seen}, {truth}",
                trace.name
            );
        }
    }
}

#[test]
fn every_fast_leak_hits_its_limit_within_about_two_minutes() {
    let class = class("malloc-4-mib-s");
    let short = Seeds::Test
        .of(class.count)
        .map(|seed| generate(class, seed).truth)
        .filter(|truth| truth.limit_us.unwrap() - truth.onset_us.unwrap() <= 120_000_000)
        .count();
    assert!(short >= 55, "{short}");
}

#[test]
fn enforcement_moves_memory_to_swap_and_does_not_hide_the_leak() {
    let trace = generate(class("enforced"), 9001);
    let points = judged(&trace);
    let swapped = points
        .iter()
        .filter(|point| point.swap.is_some_and(|swap| swap > 0))
        .count();
    assert!(2 * swapped > points.len());
    let last = points[points.len() - 1];
    assert!(held(&last) > held(&points[0]) + 50.0 * MIB);
}

#[test]
fn reservations_are_hundreds_of_gigabytes_over_little_resident_memory() {
    for seed in Seeds::Test.of(8) {
        let points = judged(&generate(class("reservation"), seed));
        let last = points[points.len() - 1];
        assert!(last.virt.unwrap() > 290 << 30, "seed {seed}");
        assert!(
            points.iter().all(|point| held(point) < 450.0 * MIB),
            "seed {seed}"
        );
    }
}

#[test]
fn a_cgroup_made_anew_has_another_id_and_counts_from_zero() {
    let trace = Seeds::Tune
        .of(30)
        .map(|seed| generate(class("restart"), seed))
        .find(|trace| {
            judged(trace)
                .iter()
                .any(|point| point.id != trace.cgroups[0].id)
        })
        .unwrap();
    let points = judged(&trace);
    let at = points
        .windows(2)
        .position(|pair| pair[0].id != pair[1].id)
        .unwrap();
    if let (Some(before), Some(after)) = (points[at].faults, points[at + 1].faults) {
        assert!(after < before);
    }
}

#[test]
fn an_exported_sample_reads_back_as_the_point_it_was() {
    for trace in some().filter(|trace| trace.kind != Kind::Ambiguous) {
        for (seq, (index, point)) in trace.points.iter().take(50).enumerate() {
            let event = export::event(seq as u64, &trace.cgroups[usize::from(*index)], point);
            let line = serde_json::to_string(&event).unwrap();
            let back: Event = serde_json::from_str(&line).unwrap();
            let (Some(cgroup), Body::Sample(sample)) = (&back.cgroup, &back.body) else {
                panic!("{line}");
            };
            assert_eq!(Point::of_sample(back.ts, cgroup, sample), *point, "{line}");
        }
    }
}
