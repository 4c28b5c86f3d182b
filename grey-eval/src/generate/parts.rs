//! The parts a program's memory is made of, other than leaks. Each adds what it holds at an instant.

use super::{DAY, HOUR, KIB, MIB};
use crate::rng::Rng;

/// What a program holds at an instant, bytes; `faulted` counts pages since the instant before.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Held {
    pub(crate) anon: f64,
    pub(crate) file: f64,
    pub(crate) shmem: f64,
    pub(crate) slab: f64,
    pub(crate) pagetables: f64,
    pub(crate) sock: f64,
    /// Kernel memory other than slab and page tables.
    pub(crate) kernel: f64,
    pub(crate) virt: f64,
    pub(crate) processes: f64,
    pub(crate) faulted: f64,
    /// Of all that, what a leak holds.
    pub(crate) leaked: f64,
    /// How often the cgroup was made anew under its path.
    pub(crate) remade: u64,
}

/// One part of a program.
pub(crate) trait Part {
    /// Goes on by `dt` seconds to `t` and adds what it holds then.
    fn advance(&mut self, t: f64, dt: f64, rng: &mut Rng, held: &mut Held);
}

impl<F: FnMut(f64, f64, &mut Rng, &mut Held)> Part for F {
    fn advance(&mut self, t: f64, dt: f64, rng: &mut Rng, held: &mut Held) {
        self(t, dt, rng, held);
    }
}

pub(crate) fn part<F>(part: F) -> Box<dyn Part>
where
    F: FnMut(f64, f64, &mut Rng, &mut Held) + 'static,
{
    Box::new(part)
}

/// Pages a program touches anew for bytes it comes to hold.
pub(crate) fn faults_of(bytes: f64) -> f64 {
    bytes.max(0.0) / 4096.0
}

/// The program itself: what it holds all the time, and faults of its everyday work.
pub(crate) fn base(rng: &mut Rng, anon: f64) -> Box<dyn Part> {
    let virt = anon * rng.range(1.1, 3.0) + rng.log_range(20.0, 1500.0) * MIB;
    let file = rng.log_range(1.0, 200.0) * MIB;
    let slab = rng.log_range(0.3, 12.0) * MIB;
    let work = rng.log_range(0.5, 800.0);
    let processes = rng.pick(&[1.0, 1.0, 1.0, 2.0, 4.0, 9.0]);
    let mut drift = 0.0;
    part(move |_, dt, rng: &mut Rng, held| {
        held.anon += anon;
        held.virt += virt;
        held.file += file;
        held.slab += slab;
        held.processes += processes;
        // Requests come unevenly: the mean of the fault rate wanders by a fifth.
        let keep = (-dt / 600.0).exp();
        drift = drift * keep + (1.0 - keep * keep).sqrt() * 0.2 * rng.normal();
        let mean = work * dt * f64::exp(drift);
        held.faulted += (mean + mean.sqrt() * rng.normal()).max(0.0);
    })
}

/// Mean-reverting churn of allocations (Ornstein–Uhlenbeck): standard deviation and time constant.
pub(crate) fn churn(deviation: f64, tau: f64) -> Box<dyn Part> {
    let mut level = 0.0;
    let mut begun = false;
    part(move |_, dt, rng: &mut Rng, held| {
        if begun {
            let keep = (-dt / tau).exp();
            let next = level * keep + (1.0 - keep * keep).sqrt() * deviation * rng.normal();
            held.faulted += faults_of(next - level);
            level = next;
        } else {
            begun = true;
            level = deviation * rng.normal();
        }
        held.anon += level;
    })
}

/// The everyday noise of a program of this size: allocation churn, and requests that hold memory for a while.
pub(crate) fn noise(rng: &mut Rng, anon: f64) -> Vec<Box<dyn Part>> {
    let deviation = (anon * rng.log_range(0.0003, 0.01)).clamp(64.0 * KIB, 24.0 * MIB);
    let mut parts = vec![churn(deviation, rng.log_range(3.0, 300.0))];
    if rng.chance(0.5) {
        let (every, size, lasts) = (
            rng.log_range(20.0, 3600.0),
            (anon * rng.log_range(0.003, 0.08)).clamp(256.0 * KIB, 120.0 * MIB),
            rng.log_range(1.0, 90.0),
        );
        parts.push(requests(every, size, lasts));
    }
    parts
}

/// Requests that come at random, hold memory for a while and give it back.
pub(crate) fn requests(every: f64, size: f64, lasts: f64) -> Box<dyn Part> {
    let mut open: Vec<(f64, f64)> = Vec::new();
    let mut next = None;
    part(move |t, _, rng: &mut Rng, held| {
        let mut due = *next.get_or_insert_with(|| t + rng.exp(every));
        while due <= t {
            let end = due + rng.exp(lasts);
            if end > t && open.len() < 64 {
                let bytes = size * rng.log_range(0.3, 2.0);
                held.faulted += faults_of(bytes);
                open.push((end, bytes));
            }
            due += rng.exp(every);
        }
        next = Some(due);
        open.retain(|&(end, _)| end > t);
        held.anon += open.iter().map(|&(_, bytes)| bytes).sum::<f64>();
    })
}

/// A collected heap that fills steadily and falls back to what survives when it reaches its threshold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heap {
    /// Height of a tooth.
    pub(crate) amplitude: f64,
    /// Length of a tooth, seconds.
    pub(crate) period: f64,
    /// Relative deviation of the height.
    pub(crate) irregular: f64,
    /// What survives a collection, at most this share of the height.
    pub(crate) live: f64,
    /// The program starts with the trace: the first collections come early, each threshold a factor above the last.
    pub(crate) fresh: Option<f64>,
}

pub(crate) fn sawtooth(heap: Heap) -> Box<dyn Part> {
    let Heap {
        amplitude,
        period,
        irregular,
        live,
        fresh,
    } = heap;
    let rate = amplitude / period;
    let (mut level, mut threshold, mut floor, mut touched) = (0.0, 0.0, 0.0, 0.0);
    let mut grown = fresh.map_or(1.0, |_| 1.0 / 30.0);
    let mut begun = false;
    part(move |_, dt, rng: &mut Rng, held| {
        if !begun {
            begun = true;
            threshold = amplitude * grown;
            level = threshold * rng.unit();
        }
        level += rate * dt;
        // Whole cycles between two samples leave only where in the cycle it is.
        let cycle = threshold - floor;
        if grown >= 1.0 && level - threshold > 3.0 * cycle {
            level = floor + (level - floor) % cycle;
        }
        while level >= threshold {
            let over = level - threshold;
            grown = f64::min(1.0, grown * fresh.unwrap_or(1.0));
            floor = amplitude * grown * live * rng.unit();
            let height = amplitude
                * grown
                * (1.0 + irregular * rng.normal()).clamp(0.4, 1.0 + 2.0 * irregular);
            threshold = floor + height;
            level = floor + over.min(0.9 * height);
        }
        held.anon += level;
        held.virt += 2.5 * amplitude;
        // What was given back faults anew; half of it was only marked free and does not.
        held.faulted += faults_of(rate * dt * 0.5).max(faults_of(level - touched));
        touched = level;
    })
}

/// Growth that flattens: `size` in the end, time constant `tau`, beginning at `from`.
pub(crate) fn warmup(from: f64, size: f64, tau: f64) -> Box<dyn Part> {
    let mut before = 0.0;
    part(move |t, _, _: &mut Rng, held| {
        let level = if t > from {
            size * (1.0 - (-(t - from) / tau).exp())
        } else {
            0.0
        };
        held.anon += level;
        held.virt += level;
        held.faulted += faults_of(level - before);
        before = level;
    })
}

/// The load of a day, 0 to 1: a sine, or office hours with a lunch dip. `hour` is the time of day at the begin.
pub(crate) fn load(office: bool, hour: f64, t: f64) -> f64 {
    let now = (hour + t / HOUR) % 24.0;
    if !office {
        return 0.5 - 0.5 * (std::f64::consts::TAU * (now - 3.0) / 24.0).cos();
    }
    let weekend = ((hour * HOUR + t) / DAY) as u64 % 7 >= 5;
    let rise = |at: f64, width: f64| 1.0 / (1.0 + (-(now - at) / width).exp());
    let day = rise(8.5, 0.35) * (1.0 - rise(17.8, 0.7))
        - 0.2 * (-((now - 12.5) / 0.5).powi(2)).exp()
        + 0.04;
    day.max(0.0) * if weekend { 0.25 } else { 1.0 }
}

/// Sessions that come and go with the time of day; faults follow the work.
pub(crate) fn daily(rng: &mut Rng, amplitude: f64, office: bool) -> Box<dyn Part> {
    let hour = rng.range(0.0, 24.0);
    let work = rng.log_range(50.0, 3000.0);
    let mut before = 0.0;
    let mut drift = 0.0;
    part(move |t, dt, rng: &mut Rng, held| {
        let keep = (-dt / 1200.0).exp();
        drift = drift * keep + (1.0 - keep * keep).sqrt() * 0.03 * rng.normal();
        let load = load(office, hour, t) * (1.0 + drift);
        let level = amplitude * load;
        held.anon += level;
        held.virt += level;
        let mean = work * load.max(0.0) * dt;
        held.faulted += mean + mean.sqrt() * rng.normal().abs() + faults_of(level - before);
        before = level;
    })
}

/// Address space that is mapped and never touched.
pub(crate) fn reservation(from: f64, virt: f64) -> Box<dyn Part> {
    part(move |t, _, _: &mut Rng, held| {
        if t >= from {
            held.virt += virt;
        }
    })
}
