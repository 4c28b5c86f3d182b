//! Memory that comes and goes with the work: the time of day, workers, jobs, reloads, restarts.

use grey_core::event::Cause;

use super::{hours, level, plan, program};
use crate::generate::parts::{self, Held, faults_of, part};
use crate::generate::{Bound, DAY, HOUR, MIB, MINUTE, Plan};
use crate::rng::Rng;

fn daily(rng: &mut Rng, office: bool) -> Plan {
    let anon = rng.log_range(60.0, 4000.0) * MIB;
    let amplitude = anon * rng.range(0.1, 0.7);
    let mut parts = program(rng, anon);
    parts.push(parts::daily(rng, amplitude, office));
    let room = amplitude * rng.range(1.4, 5.0);
    let duration = rng.range(1.5, 5.0) * DAY;
    let mut plan = plan(rng, parts, anon, room, duration, &[Cause::Load]);
    plan.faults_may_miss = false;
    plan
}

pub(crate) fn diurnal(rng: &mut Rng) -> Plan {
    daily(rng, false)
}

pub(crate) fn office(rng: &mut Rng) -> Plan {
    daily(rng, true)
}

/// More work, more workers: each holds the same. All children of a slice, or workers of one service.
pub(crate) fn scale_out(rng: &mut Rng) -> Plan {
    let each = rng.log_range(15.0, 300.0) * MIB;
    let most = rng.int(4, 40) as f64;
    let few = (most * rng.range(0.1, 0.4)).ceil();
    let rise = rng.log_range(5.0 * MINUTE, 6.0 * HOUR);
    let hold = rng.log_range(0.5, 12.0) * HOUR;
    let from = rng.range(0.0, 2.0) * HOUR;
    let work = rng.log_range(20.0, 500.0);
    let mut parts = program(rng, 20.0 * MIB);
    let mut level = 0.0;
    parts.push(part(move |t, dt, rng: &mut Rng, held: &mut Held| {
        let up = ((t - from) / rise).clamp(0.0, 1.0);
        let down = ((t - from - rise - hold) / rise).clamp(0.0, 1.0);
        let workers = (few + (most - few) * (up - down)).round();
        let want = workers * each;
        // A worker needs a few seconds to take its memory; one that ends gives it back at once.
        let before = level;
        level = if want > level {
            level + (want - level) * (1.0 - (-dt / 8.0).exp())
        } else {
            want
        };
        held.anon += level;
        held.virt += workers * 3.0 * each;
        held.processes += workers;
        held.faulted += faults_of(level - before) + workers * work * dt * rng.range(0.95, 1.05);
    }));
    let room = each * most * rng.range(1.1, 3.0);
    let duration = from + 2.0 * rise + hold + rng.range(1.0, 6.0) * HOUR;
    plan(rng, parts, 20.0 * MIB, room, duration, &[Cause::Load])
}

/// Replicas behind one balancer: the load of the day makes all of them grow alike.
pub(crate) fn replicas(rng: &mut Rng) -> Plan {
    let office = rng.chance(0.5);
    let mut plan = daily(rng, office);
    plan.siblings = rng.int(2, 4) as usize;
    if let Bound::Parent(bytes) = plan.bound {
        plan.bound = Bound::Parent(bytes * (1.2 + plan.siblings as f64 * 1.1));
    }
    plan.duration = rng.range(1.2, 2.5) * DAY;
    plan
}

/// Jobs: memory is taken in a few large steps as data is loaded, held while it works, and released.
pub(crate) fn batch(rng: &mut Rng) -> Plan {
    let anon = rng.log_range(10.0, 200.0) * MIB;
    let most = rng.log_range(100.0, 6000.0) * MIB;
    // Loading is bound by storage and parsing: seconds.
    let steps = rng.int(1, 4) as f64;
    let loads = rng.log_range(1.0, 20.0);
    let pause = 0.4 * loads / steps;
    let rate = most / (0.6 * loads);
    let runs = rng.log_range(2.0 * MINUTE, 3.0 * HOUR);
    let idle = rng.log_range(MINUTE, 4.0 * HOUR);
    let vary = rng.range(0.0, 0.15);
    let (mut until, mut begin, mut size) = (rng.range(0.0, idle), f64::INFINITY, 0.0);
    let mut parts = program(rng, anon);
    let mut before = 0.0;
    parts.push(part(move |t, _, rng: &mut Rng, held: &mut Held| {
        if t >= until {
            if begin.is_finite() {
                begin = f64::INFINITY;
                until += idle * rng.range(0.7, 1.3);
            } else {
                begin = until;
                until += runs * rng.range(0.8, 1.2);
                size = most * (1.0 - vary * rng.unit());
            }
        }
        let mut level = 0.0;
        if begin.is_finite() {
            for step in 0..steps as u64 {
                let at = begin + step as f64 * (pause + size / steps / rate);
                level += ((t - at).max(0.0) * rate).min(size / steps);
            }
            level *= 1.0 + 0.01 * rng.normal();
            held.processes += 1.0;
        }
        held.anon += level;
        held.virt += level;
        held.faulted += faults_of(level - before);
        before = level;
    }));
    let room = most * rng.range(1.25, 4.0);
    let duration = hours(rng).max(3.0 * (runs + idle)).min(1.5 * DAY);
    plan(
        rng,
        parts,
        anon,
        room,
        duration,
        &[Cause::Load, Cause::Retention],
    )
}

/// Jobs that collect results while they work and release them at the end, the same each time.
pub(crate) fn batch_slow(rng: &mut Rng) -> Plan {
    collecting(rng, (0.04, 0.10))
}

/// The same taking most of the room: the first one looks like a leak until it ends.
pub(crate) fn batch_far(rng: &mut Rng) -> Plan {
    collecting(rng, (0.3, 0.8))
}

fn collecting(rng: &mut Rng, share: (f64, f64)) -> Plan {
    let anon = rng.log_range(10.0, 200.0) * MIB;
    let most = rng.log_range(40.0, 2000.0) * MIB;
    let room = most / rng.range(share.0, share.1);
    let runs = rng.log_range(2.0 * MINUTE, 2.0 * HOUR);
    let idle = runs * rng.log_range(0.1, 4.0);
    let first = rng.range(0.0, idle);
    let mut parts = program(rng, anon);
    parts.push(level(move |t| {
        let phase = (t - first).max(0.0) % (runs + idle);
        if t > first && phase < runs {
            most * phase / runs
        } else {
            0.0
        }
    }));
    let duration = (runs + idle) * rng.range(4.0, 10.0);
    plan(rng, parts, anon, room, duration, &[Cause::Load])
}

/// A configuration is loaded anew: old and new stand side by side, then the new one stays, which may be larger.
pub(crate) fn reload(rng: &mut Rng) -> Plan {
    let anon = rng.log_range(30.0, 2000.0) * MIB;
    let duration = hours(rng);
    let steps: Vec<(f64, f64, f64)> = (0..rng.int(1, 3))
        .map(|_| {
            let size = anon * rng.log_range(0.05, 0.6);
            (
                duration * rng.range(0.1, 0.9),
                rng.log_range(1.0, 20.0),
                size,
            )
        })
        .collect();
    let most: f64 = steps.iter().map(|&(_, _, size)| size).sum();
    let mut parts = program(rng, anon);
    parts.push(level(move |t| {
        let one = |&(at, lasts, size): &(f64, f64, f64)| {
            let peak = if t > at && t < at + 4.0 * lasts {
                1.4
            } else {
                1.0
            };
            size * ((t - at) / lasts).clamp(0.0, 1.0) * peak
        };
        steps.iter().map(one).sum()
    }));
    let room = most * rng.range(1.6, 6.0);
    plan(
        rng,
        parts,
        anon,
        room,
        duration,
        &[Cause::Load, Cause::Warmup, Cause::Cache, Cause::Retention],
    )
}

/// The program is started anew, a few times: down to little, then up to its old level within seconds or minutes.
pub(crate) fn restart(rng: &mut Rng) -> Plan {
    let own = 5.0 * MIB;
    let most = rng.log_range(50.0, 3000.0) * MIB;
    let duration = hours(rng);
    let every = duration / rng.range(1.5, 8.0);
    let tau = rng.log_range(2.0, 400.0).min(0.1 * every);
    let first = rng.range(0.0, every);
    let mut parts = program(rng, own);
    let anew = rng.chance(0.3);
    parts.push(part(move |t, _, _: &mut Rng, held: &mut Held| {
        if anew && t >= first {
            held.remade = 1 + ((t - first) / every) as u64;
        }
    }));
    parts.push(level(move |t| {
        let phase = if t < first {
            t + every
        } else {
            (t - first) % every
        };
        most * (1.0 - (-phase / tau).exp())
    }));
    parts.push(parts::churn(0.004 * most, 60.0));
    let room = most * rng.range(1.15, 4.0);
    plan(
        rng,
        parts,
        own,
        room,
        duration,
        &[Cause::Warmup, Cause::Load],
    )
}
