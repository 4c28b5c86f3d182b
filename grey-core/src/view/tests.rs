mod lists;
mod verdicts;

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::event::*;

const MIB: u64 = 1 << 20;
const START: i64 = 1_795_237_200_000_000;

fn model() -> Model {
    Model::new(Duration::from_secs(1))
}

fn event(at_ms: i64, path: &str, body: Body) -> Event {
    let cgroup = Cgroup {
        id: Some(7),
        path: path.into(),
        kind: "service".into(),
        name: "n".into(),
    };
    Event {
        schema: SCHEMA.into(),
        ts: Timestamp(START + at_ms * 1000),
        seq: 0,
        host: "h".into(),
        boot_id: None,
        cgroup: Some(cgroup),
        lossy: false,
        body,
    }
}

fn anon(bytes: u64) -> Sample {
    Sample {
        mem: Mem {
            current: Some(bytes * 2),
            anon: Some(bytes),
            swap: Some(0),
            ..Mem::default()
        },
        ..Sample::default()
    }
}

fn faults(minor: u64) -> Sample {
    Sample {
        faults: Some(Faults {
            minor_total: Some(minor),
            ..Faults::default()
        }),
        ..Sample::default()
    }
}

fn sample(model: &mut Model, at_ms: i64, path: &str, sample: Sample) {
    model.apply(&event(at_ms, path, Body::Sample(Box::new(sample))));
}

fn rates(model: &Model, path: &str) -> Rates {
    *model.rates(model.get(path).expect("known"))
}

fn growth(pid: u32, comm: &str, bytes: u64, since_ms: u64) -> Body {
    let scope = GrowthScope::Process;
    Body::Growth {
        growth: Growth {
            scope,
            pid,
            comm: comm.into(),
            bytes,
            since_ms,
            rss: None,
            r#virtual: None,
        },
    }
}

#[test]
fn a_rate_is_the_change_over_the_time_between_the_samples() {
    let mut model = model();
    sample(&mut model, 0, "/a", anon(10 * MIB));
    assert_eq!(
        rates(&model, "/a"),
        Rates::default(),
        "one sample has no rate"
    );
    sample(&mut model, 2000, "/a", anon(14 * MIB));
    let now = rates(&model, "/a");
    assert_eq!(now.growth, Some(2.0 * MIB as f64));
    assert_eq!(now.memory, Some(4.0 * MIB as f64));
    assert_eq!(now.faults, None, "what no sample has stays unknown");
    sample(&mut model, 3000, "/a", anon(13 * MIB));
    assert_eq!(
        rates(&model, "/a").growth,
        Some(-(MIB as f64)),
        "memory given back is negative growth"
    );
}

#[test]
fn swapping_out_is_no_shrinking_and_the_appearance_of_swap_no_growth() {
    let mut model = model();
    let with_swap = |bytes, swap| {
        let mut sample = anon(bytes);
        sample.mem.swap = swap;
        sample
    };
    sample(&mut model, 0, "/a", with_swap(10 * MIB, Some(0)));
    sample(&mut model, 1000, "/a", with_swap(4 * MIB, Some(6 * MIB)));
    assert_eq!(rates(&model, "/a").growth, Some(0.0));
    sample(&mut model, 2000, "/a", with_swap(4 * MIB, None));
    sample(&mut model, 3000, "/a", with_swap(4 * MIB, Some(6 * MIB)));
    assert_eq!(rates(&model, "/a").growth, Some(0.0));
    let points = model.sparkline(model.get("/a").expect("known"), 10);
    assert!(
        points.iter().flatten().all(|rate| *rate == 0.0),
        "{points:?}"
    );
}

#[test]
fn a_counter_that_begins_anew_has_no_rate_in_that_window() {
    let mut model = model();
    for (at, minor, expected) in [
        (0, 500, None),
        (1000, 600, Some(100.0)),
        (2000, 3, None),
        (3000, 10, Some(7.0)),
    ] {
        sample(&mut model, at, "/a", faults(minor));
        assert_eq!(rates(&model, "/a").faults, expected, "at {at}");
    }
}

#[test]
fn a_clock_set_back_costs_one_window_and_a_small_disorder_none() {
    let mut model = model();
    sample(&mut model, 0, "/a", faults(0));
    sample(&mut model, 1000, "/a", faults(100));
    sample(&mut model, 900, "/a", faults(90));
    assert_eq!(
        rates(&model, "/a").faults,
        Some(100.0),
        "a late sample is left out"
    );
    sample(&mut model, -3_600_000, "/a", faults(200));
    assert_eq!(rates(&model, "/a").faults, None);
    sample(&mut model, -3_599_000, "/a", faults(250));
    assert_eq!(rates(&model, "/a").faults, Some(50.0));
}

#[test]
fn a_clock_set_forward_forgets_nobody() {
    let mut model = model();
    sample(&mut model, 0, "/a", faults(0));
    sample(&mut model, 0, "/b", faults(0));
    sample(&mut model, 86_400_000, "/a", faults(1));
    assert!(model.get("/b").is_some());
}

#[test]
fn samples_between_ticks_do_not_make_noise() {
    let mut model = model();
    sample(&mut model, 0, "/a", anon(0));
    sample(&mut model, 1000, "/a", anon(MIB));
    sample(&mut model, 1003, "/a", anon(2 * MIB));
    assert_eq!(rates(&model, "/a").growth, Some(MIB as f64));
    sample(&mut model, 2000, "/a", anon(3 * MIB));
    assert_eq!(rates(&model, "/a").growth, Some(2.0 * MIB as f64));
}

#[test]
fn a_quiet_cgroup_stays_with_an_age_but_its_rates_become_unknown() {
    let mut model = model();
    sample(&mut model, 0, "/quiet", anon(MIB));
    sample(&mut model, 1000, "/quiet", anon(2 * MIB));
    for second in 1..=20 {
        sample(&mut model, second * 1000, "/busy", anon(MIB));
    }
    let quiet = model.get("/quiet").expect("kept");
    assert_eq!(model.age(quiet), Duration::from_secs(19));
    assert!(model.is_stale(quiet));
    assert_eq!(model.rates(quiet).growth, None);
    assert_eq!(quiet.rates().growth, Some(MIB as f64));
    assert_eq!(
        quiet.sample().mem.anon,
        Some(2 * MIB),
        "the level still stands"
    );
}

#[test]
fn the_gap_of_a_slowly_sampled_cgroup_is_a_straight_line() {
    let mut model = model();
    sample(&mut model, 0, "/a", anon(0));
    sample(&mut model, 30_000, "/a", anon(30 * MIB));
    let entry = model.get("/a").expect("known");
    assert!(!model.is_stale(entry));
    let points = model.sparkline(entry, 30);
    assert_eq!(points.len(), 30);
    assert!(
        points.iter().all(|rate| *rate == Some(MIB as f64)),
        "{points:?}"
    );
    assert_eq!(
        model.levels(entry, 2),
        [Some(29.0 * MIB as f64), Some(30.0 * MIB as f64)]
    );
}

#[test]
fn a_history_is_of_the_best_figure_there_is() {
    let mut model = model();
    let current = |bytes| Sample {
        mem: Mem {
            current: Some(bytes),
            ..Mem::default()
        },
        ..Sample::default()
    };
    sample(&mut model, 0, "/faults", faults(0));
    sample(&mut model, 0, "/memory", current(MIB));
    sample(&mut model, 0, "/anon", anon(MIB));
    sample(&mut model, 1000, "/faults", faults(40));
    sample(&mut model, 1000, "/memory", current(3 * MIB));
    let basis = |path: &str| model.get(path).expect("known").basis();
    assert_eq!(
        (basis("/faults"), basis("/memory"), basis("/anon")),
        (Basis::Faults, Basis::Memory, Basis::Anon)
    );
    let last = |path: &str| model.sparkline(model.get(path).expect("known"), 1)[0];
    assert_eq!(last("/faults"), Some(40.0));
    assert_eq!(last("/memory"), Some(2.0 * MIB as f64));
    assert_eq!(last("/anon"), None);
}

#[test]
fn a_path_that_comes_back_under_another_id_begins_anew() {
    let mut model = model();
    sample(&mut model, 0, "/a", anon(100 * MIB));
    sample(&mut model, 1000, "/a", anon(100 * MIB));
    let mut again = event(2000, "/a", Body::Sample(Box::new(anon(MIB))));
    again.cgroup.as_mut().expect("set").id = Some(8);
    model.apply(&again);
    let entry = model.get("/a").expect("known");
    assert_eq!((entry.id(), *entry.rates()), (Some(8), Rates::default()));
    assert_eq!(model.levels(entry, 3), [None, None, Some(MIB as f64)]);
}

#[test]
fn removed_cgroups_go_at_once_and_silent_ones_after_ten_minutes() {
    let mut model = model();
    for path in ["/removed", "/silent", "/alive"] {
        sample(&mut model, 0, path, anon(MIB));
    }
    model.apply(&event(0, "/removed", growth(1, "a", MIB, 10)));
    model.remove("/removed");
    assert!(model.get("/removed").is_none());
    assert!(model.growing(9).is_empty(), "its processes go with it");
    for second in (0..=640).step_by(20) {
        sample(&mut model, second * 1000, "/alive", anon(MIB));
        assert_eq!(model.get("/silent").is_some(), second < 600, "at {second}");
    }
    assert_eq!(model.len(), 1);
}

#[test]
fn ten_thousand_cgroups_fit_in_what_the_documentation_says() {
    assert!(size_of::<Entry>() <= 1536, "{}", size_of::<Entry>());
    let mut model = model();
    for n in 0..MAX_CGROUPS + 10_000 {
        sample(&mut model, 0, &format!("/c{n}"), faults(1));
        assert!(model.len() <= MAX_CGROUPS);
    }
    assert!(
        model.get(&format!("/c{}", MAX_CGROUPS + 9_999)).is_some(),
        "the newest stay"
    );
    for pid in 0..5000 {
        model.apply(&event(0, "/a", growth(pid, "p", MIB, 10)));
    }
    assert!(model.growing(usize::MAX).len() <= 1024);
}

proptest! {
    #[test]
    fn whatever_comes_no_rate_is_negative_or_not_a_number(
        steps in prop::collection::vec((-100_000_i64..100_000, any::<Option<u64>>(), any::<Option<u64>>()), 1..60)
    ) {
        let mut model = model();
        let mut at = 0;
        for (step, total, bytes) in steps {
            at += step;
            let mut of = faults(0);
            of.faults = Some(Faults { minor_total: total, major_total: bytes, ..Faults::default() });
            of.vm = Some(Vm { mapped_total: total, ..Vm::default() });
            of.psi = total.map(|us| Psi { some_us_total: us, full_us_total: bytes });
            of.reclaim = Some(Reclaim { stall_us_total: total, refault_total: bytes, ..Reclaim::default() });
            of.mem = Mem { current: bytes, anon: bytes, swap: total, max: total.map_or(Limit::None, Limit::Bytes), ..Mem::default() };
            sample(&mut model, at, "/a", of);
            let entry = model.get("/a").expect("known");
            let Rates { window_us: _, growth, memory, faults, major, mapped, unmapped, released, stall, reclaimed, refaults, psi_some, psi_full } =
                *model.rates(entry);
            for gauge in [growth, memory].into_iter().flatten() {
                prop_assert!(gauge.is_finite());
            }
            for rate in [faults, major, mapped, unmapped, released, stall, reclaimed, refaults, psi_some, psi_full].into_iter().flatten() {
                prop_assert!(rate.is_finite() && rate >= 0.0);
            }
            prop_assert!(psi_some.is_none_or(|share| share <= 100.0));
            for point in model.sparkline(entry, 99).into_iter().chain(model.levels(entry, 99)).flatten() {
                prop_assert!(point.is_finite());
            }
            for sort in SortKey::ALL {
                prop_assert_eq!(model.rows(&Query { sort, ..Query::default() }).len(), 1);
            }
        }
    }
}
