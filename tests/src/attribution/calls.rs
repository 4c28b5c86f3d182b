//! mmap, munmap, mremap, brk and madvise: what succeeded, to the byte, and nothing else.

use anyhow::{Context as _, Result, ensure};

use super::scene::{Figures, Scene, rose_by, virtual_size};
use crate::harness::{Outcome, Workload};

const K: u64 = 4096;
const M: u64 = 1 << 20;

pub(super) const TOTALS: [&str; 6] = [
    "vm.mapped_total",
    "vm.unmapped_total",
    "vm.released_total",
    "vm.map_calls_total",
    "vm.unmap_calls_total",
    "vm.release_calls_total",
];

/// A step, and by how much each of [`TOTALS`] rises with it.
type Row = (&'static str, [u64; 6]);

const ROWS: [Row; 20] = [
    ("map 4096", [K, 0, 0, 1, 0, 0]),
    ("unmap", [0, K, 0, 0, 1, 0]),
    // Lengths are rounded up to pages.
    ("map 5000", [2 * K, 0, 0, 1, 0, 0]),
    ("unmap", [0, 2 * K, 0, 0, 1, 0]),
    ("map 1", [K, 0, 0, 1, 0, 0]),
    ("remap 4097", [K, 0, 0, 1, 0, 0]),
    ("unmap", [0, 2 * K, 0, 0, 1, 0]),
    ("map 268435456", [256 * M, 0, 0, 1, 0, 0]),
    ("unmap", [0, 256 * M, 0, 0, 1, 0]),
    ("map 1048576", [M, 0, 0, 1, 0, 0]),
    ("remap 3145728", [2 * M, 0, 0, 1, 0, 0]),
    ("remap 2097152", [0, M, 0, 1, 0, 0]),
    ("touch-last", [0, 0, 0, 0, 0, 0]),
    ("free", [0, 0, 2 * M, 0, 0, 1]),
    ("dontneed", [0, 0, 2 * M, 0, 0, 1]),
    ("willneed", [0, 0, 0, 0, 0, 0]),
    ("unmap", [0, 2 * M, 0, 0, 1, 0]),
    ("brk 122880", [30 * K, 0, 0, 1, 0, 0]),
    ("brk -122880", [0, 30 * K, 0, 1, 0, 0]),
    ("churn 300 12288", [900 * K, 900 * K, 0, 300, 300, 0]),
];

pub(crate) fn calls_count_to_the_byte() -> Result<Outcome> {
    let mut scene = Scene::new()?;
    let mut workload = Workload::start(&scene.a)?;
    let _idle = Workload::start(&scene.b)?;
    let first = scene.look()?;
    let mut before = scene.look()?;
    for (step, expected) in ROWS {
        workload.step(step)?;
        let after = scene.look()?;
        for (place, rise) in TOTALS.into_iter().zip(expected) {
            for (now, then) in [(&after.a, &before.a), (&after.parent, &before.parent)] {
                rose_by(now, then, place, rise).with_context(|| format!("step `{step}`"))?;
            }
        }
        // A second opinion: the kernel's own account of the address space.
        let size = virtual_size(workload.pid())?;
        ensure!(
            after.a.get("vm.virtual")? == size,
            "step `{step}`: virtual is {}, the process has {size}",
            after.a.get("vm.virtual")?
        );
        before = after;
    }
    before.b.unmoved(&first.b, "the sibling", &TOTALS)?;
    let both = before.a.get("vm.virtual")? + before.b.get("vm.virtual")?;
    ensure!(
        before.parent.get("vm.virtual")? == both,
        "the parent's virtual is not the sum"
    );
    Ok(Outcome::Passed)
}

pub(crate) fn calls_that_fail_count_nothing() -> Result<Outcome> {
    let mut scene = Scene::new()?;
    let mut workload = Workload::start(&scene.a)?;
    workload.step("map 1048576")?;
    let size = virtual_size(workload.pid())?;
    let before = scene.look()?;
    for call in [
        "mmap-nothing",
        "mmap-huge",
        "mmap-no-file",
        "munmap-unaligned",
        "munmap-nothing",
        "mremap-nowhere",
        "mremap-unaligned",
        "madvise-unaligned",
        "madvise-nowhere",
        "brk-low",
    ] {
        workload.step(&format!("fail {call}"))?;
    }
    workload.step(&format!("limit-as {}", size + 4 * M))?;
    for step in ["map 8388608", "remap 16777216", "brk 8388608"] {
        ensure!(
            workload.step(step).is_err(),
            "`{step}` went through the limit"
        );
    }
    let after = scene.look()?;
    after.a.unmoved(&before.a, "calls that failed", &TOTALS)?;
    ensure!(
        after.a.get("vm.virtual")? == size,
        "virtual is {}",
        after.a.get("vm.virtual")?
    );
    // The limit leaves room for this: the zero above is none of a dead probe.
    workload.step("map 2097152")?;
    rose_by(&scene.look()?.a, &after.a, "vm.mapped_total", 2 * M)?;
    Ok(Outcome::Passed)
}

/// Threads have stacks whose size is the library's business, but the difference must be what is left mapped.
pub(crate) fn mapped_less_unmapped_is_what_the_process_grew_by() -> Result<Outcome> {
    let mut scene = Scene::new()?;
    let mut workload = Workload::start(&scene.a)?;
    let before = scene.look()?;
    workload.step("threads 4 100")?;
    workload.step("map 1000000")?;
    let after = scene.look()?;
    let mapped = after.a.rise(&before.a, "vm.mapped_total")?;
    let unmapped = after.a.rise(&before.a, "vm.unmapped_total")?;
    ensure!(unmapped >= 4 * 100 * K, "only {unmapped} bytes unmapped");
    let grown = after.a.rise(&before.a, "vm.virtual")?;
    ensure!(
        mapped - unmapped == grown,
        "{mapped} mapped, {unmapped} unmapped, {grown} grown"
    );
    Ok(Outcome::Passed)
}

/// The totals of one kind in two cgroups together.
pub(super) fn sum_of_rises(pairs: [(&Figures, &Figures); 2], place: &str) -> Result<u64> {
    pairs.iter().map(|(now, then)| now.rise(then, place)).sum()
}
