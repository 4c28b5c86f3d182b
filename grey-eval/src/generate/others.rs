//! Growth without bound of memory that is not anonymous: page tables, slab, sockets, shared memory.

use grey_core::event::{Cause, Memory};

use super::parts::{self, Held, part};
use super::positives::bound;
use super::{GIB, HOUR, MIB, MINUTE, Plan};
use crate::rng::Rng;

fn growth(rng: &mut Rng, memory: Memory, rates: (f64, f64)) -> Plan {
    let anon = rng.log_range(30.0, 800.0) * MIB;
    let rate = rng.log_range(rates.0, rates.1) * MIB / MINUTE;
    let room = (rate * rng.log_range(1.0, 24.0) * HOUR).clamp(200.0 * MIB, 8.0 * GIB);
    let ttl = (room / rate).min(24.0 * HOUR);
    let onset = if rng.chance(0.3) {
        0.0
    } else {
        rng.range(0.05, 0.3) * ttl
    };
    let mut parts = vec![parts::base(rng, anon)];
    parts.extend(parts::noise(rng, anon));
    parts.push(part(move |t, _, rng: &mut Rng, held: &mut Held| {
        let level = (t - onset).max(0.0) * rate;
        held.leaked += level;
        match memory {
            Memory::Pagetables => {
                held.pagetables += level;
                held.virt += level * 512.0;
            }
            Memory::Slab => held.slab += level,
            // Queues breathe while they grow.
            Memory::Sock => held.sock += level * (1.0 + 0.01 * rng.normal()),
            _ => held.shmem += level,
        }
    }));
    Plan {
        parts,
        bound: bound(rng, anon, room),
        duration: onset + 1.2 * ttl,
        interval: None,
        onset: Some(onset),
        memory: Some(memory),
        causes: &[Cause::Leak],
        silence: false,
        enforced: None,
        siblings: 0,
        faults_may_miss: true,
    }
}

pub(crate) fn pagetables(rng: &mut Rng) -> Plan {
    growth(rng, Memory::Pagetables, (0.3, 10.0))
}

pub(crate) fn slab(rng: &mut Rng) -> Plan {
    growth(rng, Memory::Slab, (0.3, 30.0))
}

pub(crate) fn sock(rng: &mut Rng) -> Plan {
    growth(rng, Memory::Sock, (0.3, 30.0))
}

pub(crate) fn shmem(rng: &mut Rng) -> Plan {
    growth(rng, Memory::Shmem, (0.5, 60.0))
}
