//! Growth with a bound: collected heaps, caches, warm-up, allocators, reservations.

use grey_core::event::Cause;

use super::{hours, level, plan, program};
use crate::generate::parts::{self, Heap, Held, faults_of, part};
use crate::generate::{DAY, GIB, HOUR, MIB, MINUTE, Plan};
use crate::rng::Rng;

/// What a steady climb may take of the room before anything like it was seen.
const AN_EIGHTH: f64 = 0.12;

fn gc(rng: &mut Rng, share: (f64, f64), period: (f64, f64), irregular: f64) -> Plan {
    let anon = rng.log_range(30.0, 3000.0) * MIB;
    let amplitude = anon * rng.log_range(share.0, share.1);
    let period = rng.log_range(period.0, period.1);
    let room = (amplitude * (1.3 + 2.0 * irregular) * rng.range(1.1, 3.0)).max(100.0 * MIB);
    let fresh = amplitude > AN_EIGHTH * room || rng.chance(0.5);
    collected(rng, anon, room, period, irregular, (amplitude, fresh))
}

fn collected(
    rng: &mut Rng,
    anon: f64,
    room: f64,
    period: f64,
    irregular: f64,
    (amplitude, fresh): (f64, bool),
) -> Plan {
    let mut parts = program(rng, anon);
    parts.push(parts::sawtooth(Heap {
        amplitude,
        period,
        irregular,
        live: rng.range(0.0, 0.2),
        // Collectors let the heap grow step by step.
        fresh: fresh.then(|| rng.range(1.1, 1.35)),
    }));
    let duration = hours(rng).max(12.0 * period);
    plan(
        rng,
        parts,
        anon,
        room,
        duration,
        &[Cause::Load, Cause::Warmup],
    )
}

/// A full-grown heap whose first tooth is seen from within and takes most of the room.
pub(crate) fn gc_far(rng: &mut Rng) -> Plan {
    let anon = rng.log_range(30.0, 1000.0) * MIB;
    let room = rng.log_range(200.0, 4000.0) * MIB;
    let period = rng.log_range(MINUTE, 3.0 * HOUR);
    let amplitude = room * rng.range(0.3, 0.75);
    collected(rng, anon, room, period, 0.1, (amplitude, false))
}

pub(crate) fn gc_shallow(rng: &mut Rng) -> Plan {
    gc(rng, (0.02, 0.25), (2.0, 600.0), 0.1)
}

pub(crate) fn gc_deep(rng: &mut Rng) -> Plan {
    gc(rng, (0.4, 3.0), (5.0, 1200.0), 0.1)
}

/// A large young generation and little work: collections are minutes to hours apart.
pub(crate) fn gc_long(rng: &mut Rng) -> Plan {
    gc(rng, (0.1, 0.6), (20.0 * MINUTE, 3.0 * HOUR), 0.1)
}

pub(crate) fn gc_irregular(rng: &mut Rng) -> Plan {
    gc(rng, (0.1, 1.5), (5.0, 1800.0), 0.3)
}

/// A cache filled by misses up to its cap. Popularity is skewed, so that the number of distinct keys grows like a power
/// of the requests (Heaps' law); with uniform keys it flattens exponentially.
pub(crate) fn cache(rng: &mut Rng) -> Plan {
    let anon = rng.log_range(20.0, 400.0) * MIB;
    let room = rng.log_range(200.0, 8000.0) * MIB;
    let skewed = rng.chance(0.75);
    let cap = room
        * if skewed {
            rng.range(0.1, 0.85)
        } else {
            rng.range(0.1, 0.4)
        };
    let fill = rng.log_range(10.0 * MINUTE, 12.0 * HOUR);
    let mut parts = program(rng, anon);
    if skewed {
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
        rng.range(0.3, 1.0) * tau,
        0.3 * size,
        1.5 * tau,
    ));
    let room = size * rng.log_range(2.0, 12.0);
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
    let rise = rng.log_range(1.0, 20.0);
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

/// The same where the limit is near and each second counts: most of the room filled within seconds, often from the
/// program's first moment on, and kept.
pub(crate) fn spike_near(rng: &mut Rng) -> Plan {
    let anon = rng.log_range(3.0, 60.0) * MIB;
    let room = rng.log_range(250.0, 4000.0) * MIB;
    let kept = room * rng.range(0.3, 0.85);
    let from = if rng.chance(0.5) {
        rng.range(0.0, 3.0)
    } else {
        rng.log_range(5.0, 300.0)
    };
    let rise = rng.log_range(2.0, 20.0);
    let mut parts = program(rng, anon);
    parts.push(level(move |t| kept * ((t - from) / rise).clamp(0.0, 1.0)));
    let duration = from + rise + rng.range(120.0, 900.0);
    let causes = &[Cause::Retention, Cause::Load, Cause::Warmup, Cause::Cache];
    let mut plan = plan(rng, parts, anon, room, duration, causes);
    plan.interval = Some(1.0);
    plan
}

/// Each spike is held back by the allocator as far as it goes beyond those before it.
pub(crate) fn retention_repeated(rng: &mut Rng) -> Plan {
    let anon = rng.log_range(60.0, 600.0) * MIB;
    let largest = anon * rng.range(0.6, 2.0);
    let duration = hours(rng);
    let every = duration / rng.range(4.0, 30.0);
    let rise = rng.log_range(1.0, 20.0).min(0.1 * every);
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
