//! Programs that do not leak, though many of them grow.

use grey_core::event::Cause;

use super::parts::{self, Held, Part, faults_of, part};
use super::positives::bound;
use super::{Bound, DAY, GIB, HOUR, MIB, MINUTE, Plan};
use crate::rng::Rng;

type Parts = Vec<Box<dyn Part>>;

fn plan(
    rng: &mut Rng,
    parts: Parts,
    held: f64,
    room: f64,
    duration: f64,
    causes: &'static [Cause],
) -> Plan {
    Plan {
        parts,
        bound: bound(rng, held, room),
        duration,
        interval: None,
        onset: None,
        memory: None,
        causes,
        silence: true,
        enforced: None,
        siblings: 0,
        faults_may_miss: true,
    }
}

fn program(rng: &mut Rng, anon: f64) -> Parts {
    let mut parts = vec![parts::base(rng, anon)];
    parts.extend(parts::noise(rng, anon));
    parts
}

/// A level given by a function of time, with the faults of its growth.
fn level(mut at: impl FnMut(f64) -> f64 + 'static) -> Box<dyn Part> {
    let mut before = 0.0;
    part(move |t, _, _: &mut Rng, held: &mut Held| {
        let level = at(t);
        held.anon += level;
        held.virt += level;
        held.faulted += faults_of(level - before);
        before = level;
    })
}

/// Observed for 3 to 36 hours.
fn hours(rng: &mut Rng) -> f64 {
    rng.log_range(3.0, 36.0) * HOUR
}

fn gc(rng: &mut Rng, share: (f64, f64), period: (f64, f64), irregular: f64) -> Plan {
    let anon = rng.log_range(30.0, 3000.0) * MIB;
    let amplitude = anon * rng.log_range(share.0, share.1);
    let period = rng.log_range(period.0, period.1);
    let mut parts = program(rng, anon);
    let live = rng.range(0.0, 0.2);
    parts.push(parts::sawtooth(amplitude, period, irregular, live));
    let room = (amplitude * rng.range(1.3, 4.0)).max(100.0 * MIB);
    let duration = hours(rng).max(8.0 * period);
    plan(
        rng,
        parts,
        anon,
        room,
        duration,
        &[Cause::Load, Cause::Warmup],
    )
}

pub(crate) fn gc_shallow(rng: &mut Rng) -> Plan {
    gc(rng, (0.02, 0.25), (2.0, 600.0), 0.1)
}

pub(crate) fn gc_deep(rng: &mut Rng) -> Plan {
    gc(rng, (0.4, 3.0), (5.0, 1200.0), 0.1)
}

/// A large young generation and little work: collections are minutes to hours apart.
/// The heap's maximum stays under half of the room, as operators set it.
pub(crate) fn gc_long(rng: &mut Rng) -> Plan {
    gc(rng, (0.1, 0.6), (20.0 * MINUTE, 3.0 * HOUR), 0.1)
}

pub(crate) fn gc_irregular(rng: &mut Rng) -> Plan {
    gc(rng, (0.1, 1.5), (5.0, 1800.0), 0.4)
}

/// A cache filled by misses up to its cap. Popularity is skewed, so that the number of distinct keys grows like a power
/// of the requests (Heaps' law); with uniform keys it flattens exponentially.
pub(crate) fn cache(rng: &mut Rng) -> Plan {
    let anon = rng.log_range(20.0, 400.0) * MIB;
    let room = rng.log_range(200.0, 8000.0) * MIB;
    let cap = room * rng.range(0.1, 0.85);
    let fill = rng.log_range(10.0 * MINUTE, 12.0 * HOUR);
    let mut parts = program(rng, anon);
    if rng.chance(0.75) {
        let power = rng.range(0.45, 0.75);
        parts.push(level(move |t| cap * (t / fill).powf(power).min(1.0)));
    } else {
        let keys = cap * rng.range(0.7, 1.1);
        parts.push(level(move |t| {
            (keys * (1.0 - (-3.0 * t / fill).exp())).min(cap)
        }));
    }
    let duration = fill * rng.range(1.5, 4.0) + 2.0 * HOUR;
    let mut plan = plan(
        rng,
        parts,
        anon,
        room,
        duration,
        &[Cause::Cache, Cause::Warmup],
    );
    plan.silence = cap < 0.3 * room;
    plan
}

/// A store filled at a constant rate to maxmemory, as by a bulk load; the cap is a small part of the room.
pub(crate) fn linear_fill(rng: &mut Rng) -> Plan {
    fill(rng, (0.02, 0.12))
}

/// The same with a cap that takes up to three quarters of the room: until it ends it looks like a leak.
pub(crate) fn linear_fill_far(rng: &mut Rng) -> Plan {
    fill(rng, (0.2, 0.75))
}

fn fill(rng: &mut Rng, share: (f64, f64)) -> Plan {
    let anon = rng.log_range(10.0, 60.0) * MIB;
    let cap = rng.log_range(32.0, 2000.0) * MIB;
    let room = cap / rng.range(share.0, share.1);
    let rate = rng.log_range(0.2, 60.0) * MIB;
    let from = rng.range(0.0, 600.0);
    let mut parts = program(rng, anon);
    parts.push(level(move |t| ((t - from).max(0.0) * rate).min(cap)));
    // A full store goes on overwriting: the allocator's waste breathes.
    parts.push(parts::churn(0.004 * cap, 60.0));
    let duration = rng.range(1.0, 8.0) * HOUR + 3.0 * cap / rate;
    plan(
        rng,
        parts,
        anon,
        room,
        duration,
        &[Cause::Cache, Cause::Warmup, Cause::Load],
    )
}

pub(crate) fn jit(rng: &mut Rng) -> Plan {
    let anon = rng.log_range(40.0, 600.0) * MIB;
    let size = rng.log_range(30.0, 500.0) * MIB;
    let tau = rng.log_range(30.0, 30.0 * MINUTE);
    let mut parts = program(rng, anon);
    parts.push(parts::warmup(0.0, 0.7 * size, tau));
    parts.push(parts::warmup(
        rng.range(0.5, 2.0) * tau,
        0.3 * size,
        1.5 * tau,
    ));
    let room = size * rng.log_range(1.5, 12.0);
    let duration = hours(rng).max(12.0 * tau);
    plan(
        rng,
        parts,
        anon,
        room,
        duration,
        &[Cause::Warmup, Cause::Cache],
    )
}

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

/// Files are unpacked into a tmpfs, used for a while and deleted.
pub(crate) fn tmpfs(rng: &mut Rng) -> Plan {
    let anon = rng.log_range(20.0, 500.0) * MIB;
    let room = rng.log_range(300.0, 8000.0) * MIB;
    let most = room * rng.range(0.05, 0.5);
    let lasts = rng.log_range(3.0, 10.0 * MINUTE);
    let every = lasts + rng.log_range(10.0 * MINUTE, 8.0 * HOUR);
    let kept = rng.range(0.2, 0.95) * every;
    let mut parts = program(rng, anon);
    let first = rng.range(0.0, 0.5) * every;
    parts.push(part(move |t, _, _: &mut Rng, held: &mut Held| {
        let phase = t - first;
        if phase > 0.0 && phase % every < kept {
            // Whole files: an eighth of the set each.
            held.shmem += most * (8.0 * ((phase % every) / lasts).min(1.0)).floor() / 8.0;
        }
    }));
    let duration = hours(rng);
    plan(
        rng,
        parts,
        anon,
        room,
        duration,
        &[Cause::Cache, Cause::Load],
    )
}

/// A scan reads files until the page cache takes all the room; reclaim then keeps it there.
pub(crate) fn scan(rng: &mut Rng) -> Plan {
    let anon = rng.log_range(20.0, 1000.0) * MIB;
    let room = rng.log_range(200.0, 8000.0) * MIB;
    let rate = rng.log_range(1.0, 300.0) * MIB;
    let from = rng.range(0.0, HOUR);
    let mut parts = program(rng, anon);
    let cached = 0.7 * room;
    parts.push(part(move |t, _, rng: &mut Rng, held: &mut Held| {
        let full = ((t - from).max(0.0) * rate).min(cached);
        held.file += full * (1.0 - 0.01 * rng.unit());
    }));
    let duration = hours(rng);
    plan(rng, parts, anon, room, duration, &[Cause::Cache])
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
    let rate = rng.log_range(100.0, 800.0) * MIB;
    let steps = rng.int(1, 6) as f64;
    let pause = rng.log_range(1.0, 30.0);
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

/// An allocator whose free lists spread over more pages, ever more slowly.
pub(crate) fn fragmentation(rng: &mut Rng) -> Plan {
    let anon = rng.log_range(100.0, 3000.0) * MIB;
    let most = anon * rng.range(0.15, 0.8);
    let tau = rng.log_range(5.0 * MINUTE, 3.0 * HOUR);
    let power = rng.range(0.7, 1.5);
    let mut parts = program(rng, anon);
    parts.push(level(move |t| most * (1.0 - (1.0 + t / tau).powf(-power))));
    let room = most * rng.range(1.3, 6.0);
    let duration = (tau * rng.range(8.0, 25.0)).clamp(4.0 * HOUR, 2.0 * DAY);
    plan(
        rng,
        parts,
        anon,
        room,
        duration,
        &[Cause::Warmup, Cause::Retention, Cause::Cache],
    )
}

/// 400 GB virtual, 150 MB resident.
pub(crate) fn reserved(rng: &mut Rng) -> Plan {
    let anon = rng.range(100.0, 200.0) * MIB;
    let duration = hours(rng);
    let total = rng.range(300.0, 500.0) * GIB;
    let mut parts = program(rng, anon);
    let seen = rng.chance(0.6);
    match rng.int(0, 2) {
        _ if !seen => parts.push(parts::reservation(0.0, total)),
        0 => parts.push(parts::reservation(duration * rng.range(0.1, 0.6), total)),
        1 => {
            // Arena by arena.
            let from = duration * rng.range(0.05, 0.3);
            let every = duration * rng.range(0.1, 0.5) / 100.0;
            parts.push(part(move |t, _, _: &mut Rng, held: &mut Held| {
                held.virt += total * ((t - from) / every).floor().clamp(0.0, 100.0) / 100.0;
            }));
        }
        _ => {
            let from = duration * rng.range(0.05, 0.3);
            let rate = total / (duration * rng.range(0.2, 0.6));
            parts.push(part(move |t, _, _: &mut Rng, held: &mut Held| {
                held.virt += ((t - from).max(0.0) * rate).min(total);
            }));
        }
    }
    let room = rng.log_range(200.0, 8000.0) * MIB;
    let mut plan = plan(rng, parts, anon, room, duration, &[Cause::Reservation]);
    plan.silence = !seen;
    plan
}

/// A spike whose memory the allocator keeps: 390 MB instead of 150 MB for the rest of its life; later spikes fit in it.
pub(crate) fn retention(rng: &mut Rng) -> Plan {
    let anon = rng.log_range(60.0, 600.0) * MIB;
    let kept = anon * rng.range(0.8, 2.2);
    let over = kept * rng.range(0.0, 0.5);
    let duration = hours(rng);
    let from = duration * rng.range(0.05, 0.4);
    let rise = rng.log_range(1.0, 60.0);
    let hold = rng.log_range(5.0, 600.0);
    let trimmed = rng.chance(0.15).then(|| duration * rng.range(0.7, 0.95));
    let mut parts = program(rng, anon);
    parts.push(level(move |t| {
        if t < from || trimmed.is_some_and(|at| t >= at) {
            return 0.0;
        }
        let spike = if t < from + rise + hold { over } else { 0.0 };
        (kept + spike) * ((t - from) / rise).min(1.0)
    }));
    let room = (kept + over) * rng.range(1.3, 5.0);
    let mut plan = plan(rng, parts, anon, room, duration, &[Cause::Retention]);
    plan.silence = false;
    plan
}

/// Each spike is held back by the allocator as far as it goes beyond those before it.
pub(crate) fn retention_repeated(rng: &mut Rng) -> Plan {
    let anon = rng.log_range(60.0, 600.0) * MIB;
    let largest = anon * rng.range(0.6, 2.0);
    let duration = hours(rng);
    let every = duration / rng.range(4.0, 30.0);
    let rise = rng.log_range(1.0, 40.0).min(0.1 * every);
    let mut parts = program(rng, anon);
    let (mut next, mut kept, mut before, mut size) = (None, 0.0, 0.0, 0.0);
    let mut at = f64::NEG_INFINITY;
    parts.push(part(move |t, _, rng: &mut Rng, held: &mut Held| {
        let due = *next.get_or_insert_with(|| 0.1 * duration + every * rng.unit());
        if t >= due {
            at = due;
            next = Some(due + every * rng.range(0.5, 1.5));
            // The first requests are already among the large ones.
            size = largest * rng.range(0.75, 1.0);
        }
        let grown = size * ((t - at) / rise).clamp(0.0, 1.0);
        kept = f64::max(kept, grown);
        held.anon += kept;
        held.virt += kept;
        held.faulted += faults_of(kept - before);
        before = kept;
    }));
    let room = largest * rng.range(1.5, 5.0);
    plan(
        rng,
        parts,
        anon,
        room,
        duration,
        &[Cause::Retention, Cause::Load, Cause::Warmup],
    )
}

pub(crate) fn idle(rng: &mut Rng) -> Plan {
    let anon = rng.log_range(1.0, 4000.0) * MIB;
    let parts: Parts = vec![
        parts::base(rng, anon),
        parts::churn(rng.log_range(4.0, 128.0) * 1024.0, 60.0),
    ];
    let room = rng.log_range(100.0, 8000.0) * MIB;
    let duration = rng.range(0.5, 3.0) * DAY;
    plan(rng, parts, anon, room, duration, &[Cause::Load])
}

pub(crate) fn noise(rng: &mut Rng) -> Plan {
    let anon = rng.log_range(50.0, 4000.0) * MIB;
    let mut parts = program(rng, anon);
    let deviation = anon * rng.log_range(0.01, 0.12);
    parts.push(parts::churn(deviation, rng.log_range(5.0, 600.0)));
    let room = deviation * rng.range(7.0, 30.0);
    let duration = rng.range(0.3, 2.0) * DAY;
    plan(rng, parts, anon, room, duration, &[Cause::Load])
}

/// Wanders far and slowly, but comes back.
pub(crate) fn walk(rng: &mut Rng) -> Plan {
    let anon = rng.log_range(100.0, 4000.0) * MIB;
    let mut parts = program(rng, anon);
    let deviation = anon * rng.log_range(0.02, 0.12);
    parts.push(parts::churn(deviation, rng.log_range(0.3, 4.0) * HOUR));
    let room = deviation * rng.range(8.0, 30.0);
    let duration = rng.range(0.7, 3.0) * DAY;
    plan(rng, parts, anon, room, duration, &[Cause::Load])
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
