//! What detection costs: samples a second on one core, and bytes of heap a tracked series.

use std::io::Write as _;
use std::sync::Arc;

use grey_core::detect::{Detector, Point};
use grey_core::event::Cgroup;
use grey_core::replay::{Options, Replay};
use grey_core::time::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::generate::{CLASSES, Seeds, generate};
use crate::stats::quantile;

const ROUNDS: usize = 5;
/// Traces of each class, and samples of each trace at most.
const TRACES: u64 = 2;
const LONGEST: usize = 12_000;

/// Speed and size.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// Series fed, all of them tracked.
    pub series: usize,
    /// Cgroups they belong to.
    pub cgroups: usize,
    /// Samples of a round.
    pub samples: usize,
    /// Samples with all their figures a second, which feed several series each: median of the rounds, slowest, fastest.
    pub per_second: [f64; 3],
    /// The same for samples with anonymous memory, swap and limit alone, about what replay needs.
    pub least_per_second: [f64; 3],
    /// Lines a second through replay, each with time, path and anonymous memory, the least that it takes.
    pub lines_per_second: [f64; 3],
    /// Bytes of a line, on average.
    pub line_bytes: f64,
    /// Bytes of heap a series: median of the rounds, least, most.
    pub bytes: [f64; 3],
}

/// Processor time of this thread: what others do on the machine is not in it.
fn busy_s() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Measures with `held`, which tells the bytes of heap in use.
#[must_use]
pub fn measure(held: fn() -> usize) -> Cost {
    let mut cgroups: Vec<Cgroup> = Vec::new();
    let mut longest = 0;
    let mut traces: Vec<(usize, Vec<Point>)> = Vec::new();
    for class in CLASSES {
        for seed in Seeds::Tune.of(TRACES) {
            let trace = generate(class, seed);
            let own = cgroups.len();
            let mut cgroup = trace.cgroups[0].clone();
            cgroup.path = format!("/bench.slice/{}-{seed}", class.name);
            cgroups.push(cgroup);
            let points: Vec<Point> = trace
                .points
                .iter()
                .filter(|(index, _)| *index == 0)
                .map(|(_, point)| *point)
                .take(LONGEST)
                .collect();
            longest = longest.max(points.len());
            traces.push((own, points));
        }
    }
    // As live: one sample of each cgroup, then the next of each.
    let order: Arc<[(usize, Point)]> = (0..longest)
        .flat_map(|index| {
            traces
                .iter()
                .filter_map(move |(own, points)| Some((*own, *points.get(index)?)))
        })
        .collect();
    drop(traces);
    let least: Arc<[(usize, Point)]> = order
        .iter()
        .map(|(own, point)| {
            let point = Point {
                at_us: point.at_us,
                id: point.id,
                anon: point.anon,
                swap: point.swap,
                max: point.max,
                ..Point::default()
            };
            (*own, point)
        })
        .collect();
    let text = lines(&order, &cgroups);
    let (mut speeds, mut sizes, mut least_speeds) = (Vec::new(), Vec::new(), Vec::new());
    let mut line_speeds = Vec::new();
    let mut series = 0;
    for _ in 0..ROUNDS {
        let mut detector = Detector::new();
        let mut found = Vec::new();
        let begun = busy_s();
        for (own, point) in least.iter() {
            detector.sample(&cgroups[*own], point, &mut found);
            found.clear();
        }
        least_speeds.push(least.len() as f64 / (busy_s() - begun));
        drop((detector, found));
        line_speeds.push(order.len() as f64 / replayed(&text));
        let before = held();
        let mut detector = Detector::new();
        let mut found = Vec::new();
        let begun = busy_s();
        for (own, point) in order.iter() {
            detector.sample(&cgroups[*own], point, &mut found);
            found.clear();
        }
        speeds.push(order.len() as f64 / (busy_s() - begun));
        drop(found);
        series = detector.series();
        sizes.push((held() - before) as f64 / series.max(1) as f64);
    }
    let of = |values: &mut [f64]| [0.5, 0.0, 1.0].map(|q| quantile(values, q).unwrap_or(0.0));
    Cost {
        series,
        cgroups: cgroups.len(),
        samples: order.len(),
        per_second: of(&mut speeds),
        least_per_second: of(&mut least_speeds),
        lines_per_second: of(&mut line_speeds),
        line_bytes: text.len() as f64 / order.len().max(1) as f64,
        bytes: of(&mut sizes),
    }
}

/// The samples as lines of a recording, in the order of their times as one machine would write them.
fn lines(order: &[(usize, Point)], cgroups: &[Cgroup]) -> Vec<u8> {
    let mut order: Vec<&(usize, Point)> = order.iter().collect();
    order.sort_by_key(|(_, point)| point.at_us);
    let mut text = Vec::new();
    for (own, point) in order {
        let (ts, path) = (Timestamp(point.at_us), &cgroups[*own].path);
        let anon = point.anon.unwrap_or(0);
        // Into memory, which takes everything.
        let _ = writeln!(
            text,
            r#"{{"ts":"{ts}","cgroup":{{"path":"{path}"}},"mem":{{"anon":{anon}}}}}"#
        );
    }
    text
}

/// Seconds that replay takes for them, handed over as the command does it: those of 64 KiB, then what has become due.
fn replayed(text: &[u8]) -> f64 {
    let begun = busy_s();
    let mut replay = Replay::new(Options::default());
    let input = replay.add_input();
    let mut found = Vec::new();
    let mut fresh = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        replay.line(input, line);
        fresh += line.len();
        if fresh >= 1 << 16 {
            fresh = 0;
            replay.advance(&mut found);
        }
    }
    replay.end(input);
    replay.advance(&mut found);
    busy_s() - begun
}

/// All figures against what they must be, and whether they are.
#[must_use]
pub fn text(cost: &Cost) -> (String, bool) {
    let fast = cost.per_second[0] >= 2e6;
    let lines_fast = cost.lines_per_second[0] >= 2e6;
    let least_fast = cost.least_per_second[0] >= 2e6;
    let small = cost.bytes[0] <= 8192.0;
    let mark = |pass| if pass { "PASS" } else { "FAIL" };
    let [median, least, most] = cost.per_second.map(|rate| rate / 1e6);
    let [short, short_least, short_most] = cost.least_per_second.map(|rate| rate / 1e6);
    let [lines, lines_least, lines_most] = cost.lines_per_second.map(|rate| rate / 1e6);
    let text = format!(
        "{} samples of {} series in {} cgroups, {ROUNDS} rounds; median [least, most]\n  \
         {}  >= 2 million samples/s on one core, anonymous memory alone: {short:.2} million [{short_least:.2}, {short_most:.2}]\n  \
         {}  >= 2 million samples/s on one core, all figures: {median:.2} million [{least:.2}, {most:.2}], each for {:.1} series\n  \
         {}  >= 2 million lines/s of replay on one core: {lines:.2} million [{lines_least:.2}, {lines_most:.2}], {:.0} bytes each\n  \
         {}  <= 8 KiB of heap a tracked series: {:.0} bytes [{:.0}, {:.0}]\n",
        cost.samples,
        cost.series,
        cost.cgroups,
        mark(least_fast),
        mark(fast),
        cost.series as f64 / cost.cgroups.max(1) as f64,
        mark(lines_fast),
        cost.line_bytes,
        mark(small),
        cost.bytes[0],
        cost.bytes[1],
        cost.bytes[2],
    );
    (text, fast && least_fast && lines_fast && small)
}
