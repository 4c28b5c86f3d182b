//! Leaks: memory that is taken and never given back, in the ways in which programs do it.

use super::parts::{Held, Part, faults_of, part};
use super::{KIB, MIB};
use crate::rng::Rng;

fn add(held: &mut Held, level: f64, before: &mut f64) {
    held.anon += level;
    held.leaked += level;
    held.faulted += faults_of(level - *before);
    *before = level;
}

/// malloc without free at `rate` bytes a second; the work that leaks comes unevenly. The heap grows by whole chunks.
pub(crate) fn malloc(onset: f64, rate: f64, uneven: f64) -> Box<dyn Part> {
    let (mut level, mut before, mut drift) = (0.0, 0.0, 0.0);
    part(move |t, dt, rng: &mut Rng, held| {
        let keep = (-dt / 300.0).exp();
        drift = drift * keep + (1.0 - keep * keep).sqrt() * uneven * rng.normal();
        if t > onset {
            level += rate * dt.min(t - onset) * (1.0 + drift).max(0.0);
        }
        add(held, level, &mut before);
        held.virt += (level / (132.0 * KIB)).ceil() * 132.0 * KIB;
    })
}

/// mmap without munmap: whole mappings of `size` bytes, touched at once.
pub(crate) fn mmap(onset: f64, rate: f64, size: f64) -> Box<dyn Part> {
    let mut before = 0.0;
    part(move |t, _, _: &mut Rng, held| {
        let level = ((t - onset).max(0.0) * rate / size).floor() * size;
        add(held, level, &mut before);
        held.virt += level;
    })
}

/// Growth that grows: `rate` at first, doubled every `doubling` seconds.
pub(crate) fn accelerating(onset: f64, rate: f64, doubling: f64) -> Box<dyn Part> {
    let mut before = 0.0;
    part(move |t, _, _: &mut Rng, held| {
        let scale = doubling / std::f64::consts::LN_2;
        let level = rate * scale * (((t - onset).max(0.0) / scale).exp() - 1.0);
        add(held, level, &mut before);
        held.virt += level;
    })
}

/// Bursts: every so often a piece is lost within seconds. The mean rate is `rate`.
pub(crate) fn bursts(onset: f64, rate: f64, every: f64, lasts: f64) -> Box<dyn Part> {
    let (mut settled, mut before) = (0.0, 0.0);
    let mut open: Option<(f64, f64)> = None;
    let mut next = None;
    part(move |t, _, rng: &mut Rng, held| {
        let mut due = *next.get_or_insert_with(|| onset + every * rng.unit());
        while due <= t {
            if let Some((_, bytes)) = open.replace((due, rate * every * rng.log_range(0.5, 1.6))) {
                settled += bytes;
            }
            due += every * (1.0 + 0.4 * rng.normal()).clamp(0.2, 2.5);
        }
        next = Some(due);
        let level =
            settled + open.map_or(0.0, |(from, bytes)| bytes * ((t - from) / lasts).min(1.0));
        add(held, level, &mut before);
        held.virt += level;
    })
}

/// Threads that never end: each maps `virt` and touches `touched` of its stack, one about every `every` seconds.
pub(crate) fn threads(onset: f64, every: f64, touched: f64, virt: f64) -> Box<dyn Part> {
    let (mut count, mut before) = (0.0, 0.0);
    let mut next = None;
    part(move |t, _, rng: &mut Rng, held| {
        let mut due = *next.get_or_insert_with(|| onset + rng.exp(every));
        while due <= t {
            count += 1.0;
            due += rng.exp(every);
        }
        next = Some(due);
        add(held, count * touched, &mut before);
        held.virt += count * virt;
        // A kernel stack and a task_struct each.
        held.kernel += count * 16.0 * KIB;
        held.slab += count * 10.0 * KIB;
    })
}

/// A vector that doubles by realloc (mremap moves it): the address space doubles, pages become resident as they are written.
pub(crate) fn vector(onset: f64, rate: f64) -> Box<dyn Part> {
    let (mut capacity, mut before) = (4.0 * MIB, 0.0);
    part(move |t, _, _: &mut Rng, held| {
        let level = (t - onset).max(0.0) * rate;
        while capacity < level {
            capacity *= 2.0;
        }
        add(held, level, &mut before);
        held.virt += capacity;
    })
}

/// Which runtime holds retained objects.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Runtime {
    Java,
    Go,
    Python,
    Node,
}

/// A map that only grows, in a collected heap: each collection leaves more behind than the one before.
pub(crate) fn retained(
    runtime: Runtime,
    onset: f64,
    rate: f64,
    live: f64,
    period: f64,
) -> Box<dyn Part> {
    let (mut garbage, mut before, mut touched) = (0.0, 0.0, 0.0);
    let mut due = None;
    // The heap's maximum is reserved at the start.
    let reserved = 6.0 * live;
    part(move |t, dt, rng: &mut Rng, held| {
        let leaked = (t - onset).max(0.0) * rate;
        let live = live + leaked;
        // Room before the next collection: Go and Node pace it by the live set, Java by the young generation.
        let room = match runtime {
            Runtime::Go => live,
            Runtime::Node => (0.25 * live).clamp(8.0 * MIB, 512.0 * MIB),
            Runtime::Java => 0.4 * live,
            Runtime::Python => 0.02 * live,
        };
        let next = *due.get_or_insert_with(|| t + period * rng.unit());
        if t >= next {
            due = Some(t + period * rng.range(0.7, 1.4));
            garbage = room * 0.05 * rng.unit();
        } else {
            garbage = (garbage + room * dt / period).min(room);
        }
        let level = live + garbage;
        held.anon += level;
        held.leaked += leaked;
        held.faulted += faults_of(level - touched).max(faults_of(leaked - before));
        touched = level;
        before = leaked;
        held.virt += match runtime {
            Runtime::Java => reserved.max(level),
            Runtime::Go => ((2.0 * live) / (64.0 * MIB)).ceil() * 64.0 * MIB,
            Runtime::Python => level,
            Runtime::Node => level + 600.0 * MIB,
        };
    })
}
