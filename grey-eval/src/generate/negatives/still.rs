//! Nothing that grows in anonymous memory: idle, noise, files, kernel caches.

use grey_core::event::Cause;

use super::{Parts, hours, plan, program};
use crate::generate::parts::{self, Held, part};
use crate::generate::{DAY, HOUR, MIB, MINUTE, Plan};
use crate::rng::Rng;

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

/// A walk over many files fills the dentry and inode caches; they stay until somebody wants the memory.
pub(crate) fn dentries(rng: &mut Rng) -> Plan {
    let anon = rng.log_range(20.0, 500.0) * MIB;
    let room = rng.log_range(300.0, 8000.0) * MIB;
    let most = room * rng.log_range(0.01, 0.12);
    let lasts = rng.log_range(10.0, 30.0 * MINUTE);
    let duration = hours(rng);
    let from = rng.range(0.05, 0.5) * duration;
    let mut parts = program(rng, anon);
    parts.push(part(move |t, _, _: &mut Rng, held: &mut Held| {
        held.slab += most * ((t - from) / lasts).clamp(0.0, 1.0);
    }));
    plan(
        rng,
        parts,
        anon,
        room,
        duration,
        &[Cause::Cache, Cause::Load],
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
