//! Programs that leak anonymous memory.

use grey_core::event::{Cause, Memory};

use super::leaks::{self, Runtime};
use super::parts::{self, Heap, Part};
use super::{Bound, DAY, GIB, HOUR, MIB, MINUTE, Plan};
use crate::rng::Rng;

/// Room below the limit by `room`, over what the program holds anyway; most limits are the cgroup's own.
pub(crate) fn bound(rng: &mut Rng, held: f64, room: f64) -> Bound {
    let bytes = held + room;
    match rng.int(0, 9) {
        0 => Bound::Parent(bytes + 4.0 * MIB),
        1 => Bound::Machine(bytes.max(256.0 * MIB)),
        _ => Bound::Own(bytes),
    }
}

fn plan(
    rng: &mut Rng,
    parts: Vec<Box<dyn Part>>,
    held: f64,
    room: f64,
    onset: f64,
    duration: f64,
) -> Plan {
    Plan {
        parts,
        bound: bound(rng, held, room),
        duration,
        interval: None,
        onset: Some(onset),
        memory: Some(Memory::Anon),
        causes: &[Cause::Leak],
        silence: false,
        enforced: None,
        siblings: 0,
        faults_may_miss: true,
    }
}

/// A program of this size in its everyday noise.
fn program(rng: &mut Rng, anon: f64) -> Vec<Box<dyn Part>> {
    let mut parts = vec![parts::base(rng, anon)];
    parts.extend(parts::noise(rng, anon));
    parts
}

/// Some leak from their first second, others after some quiet time.
fn onset(rng: &mut Rng, shortest: f64, longest: f64) -> f64 {
    if rng.chance(0.3) {
        rng.range(0.0, 3.0)
    } else {
        rng.log_range(shortest, longest)
    }
}

/// A rate, the room it has, and how long to watch: to the limit, but at most `longest`.
fn steady(rng: &mut Rng, rate: f64, room: (f64, f64), base: (f64, f64), longest: f64) -> Plan {
    let anon = rng.log_range(base.0, base.1) * MIB;
    let room = rng.log_range(room.0, room.1) * MIB;
    let ttl = room / rate;
    let onset = onset(rng, 0.05 * ttl.min(longest), 0.3 * ttl.min(longest));
    let mut parts = program(rng, anon);
    let uneven = rng.pick(&[0.0, 0.1, 0.3, 0.6]);
    parts.push(leaks::malloc(onset, rate, uneven));
    plan(
        rng,
        parts,
        anon,
        room,
        onset,
        onset + (1.2 * ttl).min(longest),
    )
}

pub(crate) fn slow(rng: &mut Rng) -> Plan {
    steady(rng, 0.1 * MIB / MINUTE, (150.0, 2000.0), (20.0, 600.0), DAY)
}

pub(crate) fn per_minute_1(rng: &mut Rng) -> Plan {
    steady(rng, MIB / MINUTE, (200.0, 3000.0), (20.0, 2000.0), DAY)
}

pub(crate) fn per_minute_10(rng: &mut Rng) -> Plan {
    steady(
        rng,
        10.0 * MIB / MINUTE,
        (300.0, 6000.0),
        (20.0, 6000.0),
        10.0 * HOUR,
    )
}

pub(crate) fn per_minute_100(rng: &mut Rng) -> Plan {
    steady(
        rng,
        100.0 * MIB / MINUTE,
        (600.0, 12000.0),
        (20.0, 8000.0),
        4.0 * HOUR,
    )
}

/// 4 MiB a second; the limit is hit within two minutes.
pub(crate) fn fast(rng: &mut Rng) -> Plan {
    let rate = 4.0 * MIB;
    let anon = rng.log_range(20.0, 400.0) * MIB;
    let room = rate * rng.range(45.0, 118.0);
    let onset = if rng.chance(0.3) {
        rng.range(0.0, 2.0)
    } else {
        rng.log_range(10.0, 600.0)
    };
    let mut parts = program(rng, anon);
    let uneven = rng.pick(&[0.0, 0.05, 0.15]);
    parts.push(leaks::malloc(onset, rate, uneven));
    let mut plan = plan(rng, parts, anon, room, onset, onset + 200.0);
    plan.interval = Some(1.0);
    plan
}

/// Rates between half a MiB a minute and 100 MiB a minute, watched to the limit or for a day.
fn any(rng: &mut Rng) -> (f64, f64, f64, f64) {
    let rate = rng.log_range(0.5, 100.0) * MIB / MINUTE;
    let anon = rng.log_range(20.0, 1500.0) * MIB;
    let longest = rng.range(0.8, 1.2) * DAY;
    let room = (rate * rng.log_range(0.3, 30.0) * HOUR).clamp(150.0 * MIB, 16.0 * GIB);
    let ttl = (room / rate).min(longest);
    (rate, anon, room, ttl)
}

pub(crate) fn mmap(rng: &mut Rng) -> Plan {
    let (rate, anon, room, ttl) = any(rng);
    let onset = onset(rng, 0.05 * ttl, 0.3 * ttl);
    let size = (rng.log_range(64.0, 8192.0) * 1024.0).min(rate * 300.0);
    let mut parts = program(rng, anon);
    parts.push(leaks::mmap(onset, rate, size));
    plan(rng, parts, anon, room, onset, onset + 1.2 * ttl)
}

pub(crate) fn accelerating(rng: &mut Rng) -> Plan {
    let anon = rng.log_range(20.0, 1500.0) * MIB;
    let rate = rng.log_range(0.2, 5.0) * MIB / MINUTE;
    let doubling = rng.log_range(0.3, 5.0) * HOUR;
    let room = rng.log_range(300.0, 6000.0) * MIB;
    let scale = doubling / std::f64::consts::LN_2;
    let ttl = scale * (room / (rate * scale)).ln_1p();
    let onset = onset(rng, 0.05 * ttl, 0.3 * ttl);
    let mut parts = program(rng, anon);
    parts.push(leaks::accelerating(onset, rate, doubling));
    plan(rng, parts, anon, room, onset, onset + 1.1 * ttl)
}

pub(crate) fn bursts(rng: &mut Rng) -> Plan {
    let (rate, anon, room, ttl) = any(rng);
    let onset = onset(rng, 0.05 * ttl, 0.3 * ttl);
    let every = ttl / rng.log_range(25.0, 120.0);
    let lasts = every * rng.log_range(0.005, 0.3);
    let mut parts = program(rng, anon);
    parts.push(leaks::bursts(onset, rate, every, lasts));
    plan(rng, parts, anon, room, onset, onset + 1.3 * ttl)
}

pub(crate) fn under_sawtooth(rng: &mut Rng) -> Plan {
    let (rate, anon, room, ttl) = any(rng);
    let amplitude = room * rng.log_range(0.03, 0.35);
    // Collections come often against the time to the limit; otherwise none would be seen before it.
    let period = (ttl / rng.log_range(30.0, 2000.0)).clamp(2.0, 2.0 * HOUR);
    let onset = onset(rng, 0.05 * ttl, 0.3 * ttl);
    let mut parts = program(rng, anon);
    let irregular = rng.pick(&[0.0, 0.1, 0.3]);
    let live = rng.range(0.0, 0.15);
    let fresh = rng.chance(0.5).then(|| rng.range(1.1, 1.35));
    parts.push(parts::sawtooth(Heap {
        amplitude,
        period,
        irregular,
        live,
        fresh,
    }));
    parts.push(leaks::malloc(onset, rate, 0.1));
    plan(rng, parts, anon + amplitude, room, onset, onset + 1.2 * ttl)
}

pub(crate) fn retained(rng: &mut Rng) -> Plan {
    let runtime = rng.pick(&[Runtime::Java, Runtime::Go, Runtime::Python, Runtime::Node]);
    let (rate, anon, room, ttl) = any(rng);
    let live = anon.min(0.5 * room);
    let period = (ttl / rng.log_range(40.0, 1500.0)).clamp(1.0, HOUR);
    let onset = onset(rng, 0.05 * ttl, 0.3 * ttl);
    let own = rng.log_range(15.0, 120.0) * MIB;
    let mut parts = program(rng, own);
    parts.push(leaks::retained(runtime, onset, rate, live, period));
    plan(rng, parts, own + 1.6 * live, room, onset, onset + 1.2 * ttl)
}

pub(crate) fn threads(rng: &mut Rng) -> Plan {
    let anon = rng.log_range(20.0, 800.0) * MIB;
    let touched = rng.log_range(40.0, 600.0) * 1024.0;
    let every = rng.log_range(0.2, 10.0);
    let rate = touched / every;
    let room = (rate * rng.log_range(1.0, 24.0) * HOUR).clamp(150.0 * MIB, 8.0 * GIB);
    let ttl = (room / rate).min(1.5 * DAY);
    let onset = onset(rng, 0.05 * ttl, 0.3 * ttl);
    let mut parts = program(rng, anon);
    parts.push(leaks::threads(onset, every, touched, 8.0 * MIB));
    plan(rng, parts, anon, room, onset, onset + 1.2 * ttl)
}

pub(crate) fn diurnal(rng: &mut Rng) -> Plan {
    let anon = rng.log_range(50.0, 1500.0) * MIB;
    let rate = rng.log_range(0.1, 1.5) * MIB / MINUTE;
    let amplitude = anon * rng.range(0.1, 0.6);
    let days = rng.range(2.2, 4.0) * DAY;
    let onset = onset(rng, 2.0 * HOUR, 12.0 * HOUR);
    let room = rate * days * rng.range(0.9, 2.5);
    let mut parts = program(rng, anon);
    let office = rng.chance(0.4);
    parts.push(parts::daily(rng, amplitude, office));
    parts.push(leaks::malloc(onset, rate, 0.1));
    let mut plan = plan(rng, parts, anon + amplitude, room, onset, onset + days);
    plan.faults_may_miss = false;
    plan
}

pub(crate) fn enforced(rng: &mut Rng) -> Plan {
    let (rate, anon, room, ttl) = any(rng);
    let onset = onset(rng, 0.05 * ttl, 0.3 * ttl);
    let mut parts = program(rng, anon);
    parts.push(leaks::malloc(onset, rate, 0.1));
    let mut plan = plan(rng, parts, anon, room, onset, onset + 1.2 * ttl);
    plan.enforced = Some((rng.pick(&[2.0, 5.0, 6.0, 10.0]), rng.log_range(0.002, 0.05)));
    plan
}

pub(crate) fn beside_reservation(rng: &mut Rng) -> Plan {
    let (rate, _, room, ttl) = any(rng);
    let anon = rng.range(80.0, 250.0) * MIB;
    let onset = onset(rng, 0.05 * ttl, 0.3 * ttl);
    let mut parts = program(rng, anon);
    parts.push(parts::reservation(0.0, rng.range(300.0, 500.0) * GIB));
    parts.push(leaks::vector(onset, rate));
    plan(rng, parts, anon, room, onset, onset + 1.2 * ttl)
}

pub(crate) fn vector(rng: &mut Rng) -> Plan {
    let (rate, anon, room, ttl) = any(rng);
    let onset = onset(rng, 0.05 * ttl, 0.3 * ttl);
    let mut parts = program(rng, anon);
    parts.push(leaks::vector(onset, rate));
    plan(rng, parts, anon, room, onset, onset + 1.2 * ttl)
}

/// The leak begins with the program or during its warm-up.
pub(crate) fn after_warmup(rng: &mut Rng) -> Plan {
    let (rate, anon, room, ttl) = any(rng);
    let size = (anon * rng.range(0.2, 1.0)).min(0.3 * room);
    let tau = (ttl * rng.log_range(0.005, 0.05)).clamp(10.0, 20.0 * MINUTE);
    let onset = rng.range(0.0, 4.0 * tau);
    let mut parts = program(rng, anon);
    parts.push(parts::warmup(0.0, size, tau));
    parts.push(leaks::malloc(onset, rate, 0.1));
    plan(rng, parts, anon + size, room, onset, onset + 1.2 * ttl)
}
