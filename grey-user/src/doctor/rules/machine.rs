//! Rules on the machine's memory and on what the kernel offers to act with.

use grey_core::units::format_bytes as size;

use crate::host::{Facts, Presence, Virt};

use super::{Finding, Mark, finding};

pub(super) fn memory(facts: &Facts) -> Vec<Finding> {
    let memory = &facts.memory;
    let mut list = Vec::new();
    if let Some(total) = memory.meminfo.total {
        let available = memory
            .meminfo
            .available
            .map(|n| format!(", {} available", size(n)))
            .unwrap_or_default();
        list.push(finding(
            Mark::Ok,
            "RAM",
            format!("{}{available}", size(total)),
        ));
    }
    list.push(match &memory.psi {
        Some(psi) => finding(
            Mark::Ok,
            "PSI",
            match &psi.full {
                Some(full) => format!(
                    "some {:.2} %, full {:.2} % of the last 10 s",
                    psi.some.avg10, full.avg10
                ),
                None => format!("some {:.2} % of the last 10 s", psi.some.avg10),
            },
        ),
        None => finding(Mark::Off, "PSI", "not built in or switched off")
            .lost(
                "`pressure` events, the psi figures, and waking up at once when memory gets tight",
            )
            .remedy("boot with psi=1, on a kernel built with CONFIG_PSI=y"),
    });
    list.extend(swap(facts));
    for zram in &memory.zram {
        let ratio = match zram.used {
            0 => String::new(),
            #[allow(clippy::cast_precision_loss)] // Two digits are shown.
            used => format!(", {:.1} to 1", zram.stored as f64 / used as f64),
        };
        let found = format!(
            "{} holds {} in {}{ratio}",
            zram.name,
            size(zram.stored),
            size(zram.used)
        );
        list.push(finding(Mark::Ok, "zram", found));
    }
    if let Some(zswap) = &memory.zswap {
        let compressor = zswap
            .compressor
            .as_deref()
            .map(|name| format!(", {name}"))
            .unwrap_or_default();
        list.push(if zswap.enabled {
            let pool = zswap
                .pool
                .map(|pool| format!(", pool of {}", size(pool)))
                .unwrap_or_default();
            finding(Mark::Ok, "zswap", format!("on{compressor}{pool}"))
        } else {
            finding(Mark::Note, "zswap", "off")
        });
    }
    if let Some(thp) = &memory.thp {
        list.push(finding(Mark::Note, "huge pages", thp.as_str()));
    }
    if let Some(ksm) = &memory.ksm {
        let state = match ksm.run {
            Some(0) => "stopped".to_owned(),
            Some(1) => "running".to_owned(),
            Some(2) => "unmerging".to_owned(),
            _ => "state not known".to_owned(),
        };
        let saved = match ksm.pages_sharing {
            Some(pages) if pages > 0 => format!(", {pages} pages saved"),
            _ => String::new(),
        };
        list.push(finding(Mark::Note, "KSM", format!("{state}{saved}")));
    }
    if let Some(on) = memory.mglru {
        list.push(finding(
            Mark::Note,
            "MGLRU",
            if on { "on" } else { "built in, off" },
        ));
    }
    if let Some(on) = memory.damon_reclaim {
        list.push(finding(
            Mark::Note,
            "DAMON_RECLAIM",
            if on { "on" } else { "built in, off" },
        ));
    }
    list.extend(facts.virt.as_ref().map(virt));
    list
}

/// Whether the host of this virtual machine gets back what is free in it.
fn virt(virt: &Virt) -> Finding {
    let name = "virtual machine";
    let order = virt
        .reporting_order
        .map(|order| format!(", in blocks of {} and more", size(4096 << order)))
        .unwrap_or_default();
    let balloon = virt.balloon.as_ref();
    let found = match (balloon, virt.reports_free_pages()) {
        (_, Some(true)) => {
            return finding(
                Mark::Ok,
                name,
                format!("{virt}; its balloon reports free pages to the host{order}"),
            );
        }
        (Some(balloon), Some(false)) if !balloon.driven => {
            format!("{virt}; no driver for its balloon")
        }
        (Some(_), Some(false)) => format!("{virt}; its balloon does not report free pages"),
        (Some(_), None) => {
            let found = format!(
                "{virt}; whether its balloon reports free pages cannot be seen from inside"
            );
            let mut note = finding(Mark::Note, name, found);
            note.remedy = virt.advice();
            return note;
        }
        (None, _) => format!("{virt}, without a balloon"),
    };
    let mut off = finding(Mark::Off, name, found)
        .lost("memory that was used once stays with this machine: its host does not learn that it is free");
    off.remedy = virt.advice();
    off
}

fn swap(facts: &Facts) -> Option<Finding> {
    let areas = facts.memory.swaps.as_ref()?;
    let total: u64 = areas.iter().map(|area| area.size).sum();
    let used: u64 = areas.iter().map(|area| area.used).sum();
    Some(if areas.is_empty() {
        finding(Mark::Warn, "swap", "none")
            .lost("reclaiming anonymous memory: only page cache can be given back")
            .remedy("set up zram or a swap file where that is wanted")
    } else {
        let areas = if areas.len() == 1 {
            "1 area".to_owned()
        } else {
            format!("{} areas", areas.len())
        };
        finding(
            Mark::Ok,
            "swap",
            format!("{} of {} in use, {areas}", size(used), size(total)),
        )
    })
}

pub(super) fn actuators(facts: &Facts) -> Vec<Finding> {
    facts
        .features
        .iter()
        .map(|feature| {
            let note = feature.note.as_deref();
            match feature.present {
                Presence::Yes => {
                    let note = note.map(|note| format!(" ({note})")).unwrap_or_default();
                    finding(Mark::Ok, feature.name, format!("{}{note}", feature.purpose))
                }
                Presence::No => finding(Mark::Off, feature.name, note.unwrap_or("absent"))
                    .lost(feature.purpose)
                    .remedy(format!("instead: {}", feature.alternative)),
                Presence::Unknown => finding(Mark::Note, feature.name, note.unwrap_or("not known")),
            }
        })
        .collect()
}
