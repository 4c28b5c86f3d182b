//! Anything that may happen to a detector, in any order.

use grey_core::detect::{Detector, Finding, Point, Saved};
use grey_core::event::{Limit, Process};
use grey_core::time::Timestamp;
use proptest::option;
use proptest::prelude::*;

use crate::leak::{HOUR, MIB, SECOND, START, cgroup};

/// Something that happens to a detector.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Time passes, µs.
    Passes(i64),
    /// The clock is set.
    Clock(i64),
    Sample(usize, Box<Point>),
    /// That many samples a second apart that grow by so many bytes each.
    Climb(usize, u16, u64),
    Process(usize, u32, Box<Point>),
    Gone(usize),
    Restart,
}

pub(crate) const PATHS: [&str; 8] = ["/", "/a", "/a/b", "/a/b/c", "/ab", "", "a//b", "/a/b/c/d/e"];

pub(crate) fn bytes() -> impl Strategy<Value = u64> {
    prop_oneof![
        1 => Just(0),
        1 => Just(u64::MAX),
        2 => any::<u64>(),
        8 => 0..4096 * MIB,
    ]
}

pub(crate) fn point() -> impl Strategy<Value = Point> {
    let known = || option::weighted(0.7, bytes());
    let limit = prop_oneof![
        Just(Limit::Unknown),
        Just(Limit::None),
        bytes().prop_map(Limit::Bytes)
    ];
    (
        (
            option::of(0..3u64),
            known(),
            known(),
            known(),
            known(),
            known(),
        ),
        (known(), known(), known(), known(), limit, known()),
        (known(), known()),
    )
        .prop_map(
            |(
                (id, anon, swap, file, shmem, kernel),
                (slab, pagetables, sock, virt, max, available),
                (faults, processes),
            )| Point {
                at_us: 0,
                id,
                anon,
                swap,
                file,
                shmem,
                kernel,
                slab,
                pagetables,
                sock,
                virt,
                max,
                available,
                faults,
                processes,
            },
        )
}

pub(crate) fn clock() -> impl Strategy<Value = i64> {
    prop_oneof![
        Just(i64::MIN),
        Just(i64::MAX),
        Just(0),
        any::<i64>(),
        START - 100 * 24 * HOUR..START + 100 * 24 * HOUR,
    ]
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let path = || 0..PATHS.len();
    prop_oneof![
        4 => (-2 * SECOND..400 * SECOND).prop_map(Step::Passes),
        1 => (-HOUR..40 * 24 * HOUR).prop_map(Step::Passes),
        1 => clock().prop_map(Step::Clock),
        10 => (path(), point()).prop_map(|(path, point)| Step::Sample(path, Box::new(point))),
        6 => (path(), 1..200u16, 0..64 * MIB)
            .prop_map(|(path, samples, growth)| Step::Climb(path, samples, growth)),
        3 => (path(), 0..4u32, point())
            .prop_map(|(path, pid, point)| Step::Process(path, pid, Box::new(point))),
        1 => path().prop_map(Step::Gone),
        1 => Just(Step::Restart),
    ]
}

/// Lets everything happen to `detector`, which may know something already.
pub(crate) fn happen(mut detector: Detector, steps: Vec<Step>) -> Vec<Finding> {
    let mut out = Vec::new();
    let mut now = START;
    for step in steps {
        match step {
            Step::Passes(time) => now = now.saturating_add(time),
            Step::Clock(at) => now = at,
            Step::Sample(path, point) => {
                let point = Point {
                    at_us: now,
                    ..*point
                };
                detector.sample(&cgroup(PATHS[path], point.id), &point, &mut out);
            }
            Step::Climb(path, samples, growth) => {
                let cgroup = cgroup(PATHS[path], Some(1));
                for sample in 0..u64::from(samples) {
                    now = now.saturating_add(SECOND);
                    let size = Some(100 * MIB + sample * growth);
                    let point = Point {
                        at_us: now,
                        anon: size,
                        slab: size,
                        shmem: size,
                        virt: size,
                        max: Limit::Bytes(8192 * MIB),
                        faults: Some(sample * 100),
                        ..Point::default()
                    };
                    detector.sample(&cgroup, &point, &mut out);
                }
            }
            Step::Process(path, pid, point) => {
                let process = Process {
                    pid,
                    comm: format!("p{}", point.id.unwrap_or(0)),
                    anon: point.anon,
                    swap: point.swap,
                    r#virtual: point.virt,
                    ..serde_json::from_str(r#"{"pid":0,"comm":""}"#).expect("a process")
                };
                let cgroup = cgroup(PATHS[path], None);
                detector.process(&cgroup, &process, Timestamp(now), &mut out);
            }
            Step::Gone(path) => detector.gone(PATHS[path], Timestamp(now), &mut out),
            Step::Restart => {
                let text = serde_json::to_string(&detector.save()).expect("it can be written");
                let saved: Saved = serde_json::from_str(&text).expect("it can be read back");
                detector = Detector::restore(saved);
            }
        }
    }
    out
}
