//! The whole machine's figures, and how much of their change the parts explain.

use super::super::document::Snapshot;
use super::{Accounted, CgroupChange, Figures, ProcessChange, topmost};

/// A change of the machine below this says nothing of shares.
const LEAST: i64 = 1 << 20;

/// Figures of /proc/meminfo; `in_use` counts what cannot be had back without swapping, `held` all that is not free.
pub(super) fn figures(before: &Snapshot, after: &Snapshot) -> Figures {
    let memory = (&before.machine.memory, &after.machine.memory);
    type Info = crate::host::MemInfo;
    let pair = |name, figure: fn(&Info) -> Option<u64>| (name, figure(memory.0), figure(memory.1));
    Figures::of(
        [
            pair("in_use", |info| info.total?.checked_sub(info.available?)),
            pair("held", |info| info.total?.checked_sub(info.free?)),
            pair("available", |info| info.available),
            pair("free", |info| info.free),
            pair("anon", |info| info.anon),
            pair("swap", Info::swap_used),
            pair("anon_swap", |info| {
                info.anon?.checked_add(info.swap_used()?)
            }),
            pair("cache", |info| info.cached?.checked_add(info.buffers?)),
            pair("shmem", |info| info.shmem),
            pair("slab", |info| info.slab),
            pair("pagetables", |info| info.pagetables),
        ],
        (true, true),
    )
}

/// What the topmost cgroups and the processes explain of it.
pub(super) fn accounted(
    machine: &Figures,
    cgroups: &[CgroupChange],
    processes: &[ProcessChange],
) -> Accounted {
    let by_files = topmost(cgroups).any(|change| change.figure == Some("current"));
    let (figure, of) = match by_files {
        true => ("held", "current"),
        false => ("anon_swap", "anon_swap"),
    };
    let machine_bytes = machine.reduction(figure);
    let cgroups_bytes = topmost(cgroups)
        .filter_map(|change| change.figures.reduction(of))
        .reduce(i64::saturating_add);
    let cgroups_pct = match (machine_bytes, cgroups_bytes) {
        (Some(whole), Some(part)) if whole.unsigned_abs() >= LEAST.unsigned_abs() => {
            Some((part as f64 / whole as f64 * 1000.0).round() / 10.0)
        }
        _ => None,
    };
    Accounted {
        figure,
        machine_bytes,
        cgroups_bytes,
        cgroups_pct,
        processes_bytes: processes
            .iter()
            .filter_map(|process| process.change.reduction_bytes)
            .reduce(i64::saturating_add),
        processes_by_rss: processes
            .iter()
            .filter(|process| process.figure == Some("rss"))
            .count(),
    }
}
