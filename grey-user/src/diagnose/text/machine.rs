//! The machine: its memory as a bar and a list, pressure, swap, huge pages, KSM.

use grey_core::units::format_bytes as size;

use super::pen::{Ink, Pen, Side};
use crate::diagnose::answers::{HUGE_ORDER, signed};
use crate::diagnose::breakdown::{Breakdown, Class};
use crate::diagnose::report::Report;
use crate::host::PsiLine;
use crate::ui::figure;

/// A sum or part: how it is called, and what it means in one line.
const SUMS: [(&str, &str); 4] = [
    ("held", "total - free"),
    (
        "actual use",
        "held - reclaimable: what no reclaim gives back without swap",
    ),
    (
        "reclaimable",
        "page cache + reclaimable slab: given back on demand",
    ),
    (
        "waste",
        "held - actual use: cache; what a guest's host does not get back",
    ),
];

pub(super) fn memory(pen: &mut Pen, report: &Report) {
    let memory = &report.memory;
    pen.section("MEMORY", "where it is; /proc/meminfo");
    let Some(total) = memory.total else {
        pen.line("  not known: /proc/meminfo cannot be read");
        return;
    };
    bar(pen, memory, total);
    let swap = match (memory.swap_total, memory.swap_used) {
        (Some(0), _) => "no swap".to_owned(),
        (Some(total), Some(used)) => format!("swap {} of {} used", size(used), size(total)),
        _ => "swap not known".to_owned(),
    };
    let line = format!(
        "total {}, free {}, available {}, {swap}",
        size(total),
        figure::bytes(memory.free),
        figure::bytes(memory.available)
    );
    pen.words("", &line, 2, Ink::Plain);
    let sums = [
        memory.held,
        memory.actual_use,
        memory.reclaimable,
        memory.waste,
    ];
    for ((name, about), bytes) in SUMS.iter().zip(sums) {
        row(pen, name, bytes, total, about, Ink::Plain);
    }
    if !memory.parts.is_empty() {
        pen.line(&pen.paint("  of which", Ink::Dim));
    }
    let mut parts = memory.parts.clone();
    parts.sort_by_key(|part| std::cmp::Reverse(part.bytes));
    for part in parts.iter().filter(|part| part.bytes > 0) {
        let ink = class_ink(part.class);
        row(
            pen,
            &part.name.replace('_', " "),
            Some(part.bytes),
            total,
            part.source,
            ink,
        );
    }
    if let (Some(buffers), Some(cached)) = (memory.buffers, memory.cached) {
        let tmpfs = memory.part("shmem").map_or(String::new(), |bytes| {
            format!(", {} of it tmpfs", size(bytes))
        });
        let text = format!(
            "in the words of free(1): buffers {}, cached {}{tmpfs}",
            size(buffers),
            size(cached)
        );
        pen.words("", &text, 2, Ink::Dim);
    }
}

fn row(pen: &mut Pen, name: &str, bytes: Option<u64>, total: u64, about: &str, ink: Ink) {
    let share = bytes.map(|bytes| bytes as f64 * 100.0 / total.max(1) as f64);
    let name = pen.cell(name, 18, Side::Left, ink);
    let bytes = pen.cell(&figure::bytes(bytes), 6, Side::Right, Ink::Plain);
    let share = pen.cell(&figure::percent(share), 5, Side::Right, Ink::Plain);
    let room = pen.width().saturating_sub(36);
    let about = pen.paint(&figure::cut(about, room), Ink::Dim);
    pen.line(&format!("  {name} {bytes} {share}  {about}"));
}

fn class_ink(class: Class) -> Ink {
    match class {
        Class::Swappable => Ink::Swappable,
        Class::Fixed => Ink::Fixed,
        Class::Reclaimable => Ink::Cache,
        Class::Free => Ink::Dim,
    }
}

/// One line of blocks: program memory, the kernel's, cache, free. Each kind has a block of its own, for where there
/// are no colours.
fn bar(pen: &mut Pen, memory: &Breakdown, total: u64) {
    let of = |class: Class| -> u64 {
        memory
            .parts
            .iter()
            .filter(|part| part.class == class)
            .map(|part| part.bytes)
            .sum()
    };
    let Some(free) = memory.free.filter(|_| !memory.parts.is_empty()) else {
        return;
    };
    let pieces = [
        ("█", "programs", of(Class::Swappable), Ink::Swappable),
        ("▓", "fixed", of(Class::Fixed), Ink::Fixed),
        ("▒", "cache", of(Class::Reclaimable), Ink::Cache),
        ("░", "free", free, Ink::Dim),
    ];
    let width = pen.width().saturating_sub(4);
    let cells = cells(&pieces.map(|(_, _, bytes, _)| bytes), total, width);
    let blocks: String = pieces
        .iter()
        .zip(cells)
        .map(|((block, _, _, ink), cells)| pen.paint(&block.repeat(cells), *ink))
        .collect();
    pen.line(&format!("  {blocks}"));
    let legend: Vec<String> = pieces
        .iter()
        .map(|(block, name, bytes, ink)| {
            format!("{} {name} {}", pen.paint(block, *ink), size(*bytes))
        })
        .collect();
    pen.line(&format!("  {}", legend.join("  ")));
}

/// Cells of each piece, together `width`: rounded by the largest remainder, and what is there gets at least one.
fn cells<const N: usize>(pieces: &[u64; N], total: u64, width: usize) -> [usize; N] {
    let whole = pieces.iter().sum::<u64>().max(total).max(1) as f64;
    let exact = pieces.map(|bytes| bytes as f64 / whole * width as f64);
    let mut cells = exact.map(|cells| cells as usize);
    for (cell, bytes) in cells.iter_mut().zip(pieces) {
        if *bytes > 0 {
            *cell = (*cell).max(1);
        }
    }
    while cells.iter().sum::<usize>() != width {
        let sum: usize = cells.iter().sum();
        let error = |at: &usize| exact[*at] - cells[*at] as f64;
        let at = if sum < width {
            (0..N).max_by(|one, other| error(one).total_cmp(&error(other)))
        } else {
            (0..N)
                .filter(|at| cells[*at] > 1)
                .min_by(|one, other| error(one).total_cmp(&error(other)))
        };
        match at {
            Some(at) if sum < width => cells[at] += 1,
            Some(at) => cells[at] -= 1,
            None => break,
        }
    }
    cells
}

pub(super) fn pressure(pen: &mut Pen, report: &Report) {
    let Some(psi) = &report.pressure else {
        pen.section(
            "PRESSURE",
            "not known: PSI is not built in or switched off (boot with psi=1)",
        );
        return;
    };
    pen.section(
        "PRESSURE",
        "share of time in which tasks waited for memory; /proc/pressure/memory",
    );
    let line = |name: &str, line: &PsiLine| {
        format!(
            "  {name:<5} {:>5} of 10s {:>5} of 60s {:>5} of 5min",
            figure::percent(Some(line.avg10)),
            figure::percent(Some(line.avg60)),
            figure::percent(Some(line.avg300))
        )
    };
    pen.cut(
        &format!("{}   some task waited", line("some", &psi.some)),
        Ink::Plain,
    );
    if let Some(full) = &psi.full {
        pen.cut(
            &format!("{}   all tasks waited at once", line("full", full)),
            Ink::Plain,
        );
    }
}

pub(super) fn swap(pen: &mut Pen, report: &Report) {
    let swap = &report.swap;
    let areas = swap.areas.as_deref().unwrap_or_default();
    if areas.is_empty()
        && swap.zram.is_empty()
        && swap.zswap.as_ref().is_none_or(|zswap| !zswap.zswap.enabled)
    {
        return;
    }
    pen.section("SWAP", "where idle program memory goes");
    for area in areas {
        pen.cut(
            &format!(
                "  {}  {} of {} used, priority {}",
                area.path.display(),
                size(area.used),
                size(area.size),
                area.priority
            ),
            Ink::Plain,
        );
    }
    for zram in &swap.zram {
        pen.cut(
            &format!(
                "  {}  {} stored in {}{}",
                zram.device.name,
                size(zram.device.stored),
                size(zram.device.used),
                ratio(zram.ratio)
            ),
            Ink::Plain,
        );
    }
    if let Some(zswap) = swap.zswap.as_ref().filter(|zswap| zswap.zswap.enabled) {
        pen.cut(
            &format!(
                "  zswap  {} stored in {}{}",
                figure::bytes(zswap.zswap.stored),
                figure::bytes(zswap.zswap.pool),
                ratio(zswap.ratio)
            ),
            Ink::Plain,
        );
    }
}

fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or(String::new(), |ratio| format!(", {ratio:.1} to 1"))
}

pub(super) fn huge_pages(pen: &mut Pen, report: &Report, verbose: bool) {
    let huge = &report.huge_pages;
    pen.section("HUGE PAGES", "2 MiB pages need free memory in one piece");
    let share = huge.anon_share.map(|share| share * 100.0);
    pen.cut(
        &format!(
            "  transparent: {}; {} of program memory ({}) in them{}",
            huge.transparent.as_deref().unwrap_or("not built in"),
            figure::percent(share),
            figure::bytes(huge.anon),
            match huge.hugetlb {
                Some(bytes) if bytes > 0 => format!("; reserved (hugetlb): {}", size(bytes)),
                _ => String::new(),
            }
        ),
        Ink::Plain,
    );
    for zone in &report.fragmentation {
        let unusable = zone.unusable.get(HUGE_ORDER).map(|share| share * 100.0);
        pen.cut(
            &format!(
                "  node {} {:<8} {:>6} free, {:>5} of it in pieces too small for a huge page",
                zone.node,
                zone.zone,
                size(zone.free),
                figure::percent(unusable)
            ),
            Ink::Plain,
        );
        if verbose {
            let orders: Vec<String> = zone
                .free_blocks
                .iter()
                .enumerate()
                .map(|(order, blocks)| format!("{}:{blocks}", size(4096 << order)))
                .collect();
            pen.words(
                "",
                &format!("free blocks by size  {}", orders.join(" ")),
                4,
                Ink::Dim,
            );
        }
    }
}

pub(super) fn ksm(pen: &mut Pen, report: &Report, verbose: bool) {
    let Some(ksm) = &report.ksm else { return };
    let saved = ksm.saved.unwrap_or(0);
    if ksm.machine.run == Some(0) && saved == 0 && !verbose {
        return;
    }
    pen.section("KSM", "equal pages kept once; /sys/kernel/mm/ksm");
    let state = match ksm.machine.run {
        Some(0) => "stopped",
        Some(1) => "running",
        Some(2) => "unmerging",
        _ => "state not known",
    };
    let profit = ksm.machine.general_profit.map_or(String::new(), |profit| {
        format!(", {} after its own costs", signed(profit))
    });
    pen.cut(
        &format!(
            "  {state}; {} saved{profit}; {} pages stand in for {} more",
            size(saved),
            figure::total(ksm.machine.pages_shared),
            figure::total(ksm.machine.pages_sharing),
        ),
        Ink::Plain,
    );
    for user in &ksm.processes.top {
        pen.cut(
            &format!(
                "  {} (pid {})  {} merged",
                user.comm,
                user.pid,
                size(user.merged)
            ),
            Ink::Plain,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::cells;

    #[test]
    fn the_bar_is_full_and_hides_nothing() {
        let table: [([u64; 4], u64, [usize; 4]); 4] = [
            ([50, 0, 25, 25], 100, [20, 0, 10, 10]),
            ([1, 1, 1, 997], 1000, [1, 1, 1, 37]),
            // Counters that were read apart may exceed the whole.
            ([60, 60, 0, 0], 100, [20, 20, 0, 0]),
            ([1, 0, 0, 0], 1, [40, 0, 0, 0]),
        ];
        for (pieces, total, want) in table {
            assert_eq!(cells(&pieces, total, 40), want, "{pieces:?}");
        }
        assert_eq!(cells(&[0, 0], 0, 0), [0, 0]);
    }
}
