//! The list of figures, in groups.

use grey_core::event::{Limit, MemSource, Sample};
use grey_core::units::{format_bytes, format_duration_us};
use grey_core::view::{Entry, LimitKind, Model, Rates};

use crate::ui::figure;

/// A line of the list: the name of a group, or a figure with what is known of its rate.
pub(super) enum Item {
    Group(&'static str),
    Figure {
        name: &'static str,
        value: String,
        rate: String,
    },
}

/// All figures in groups.
pub(super) fn items(sample: &Sample, rates: &Rates, model: &Model, entry: &Entry) -> Vec<Item> {
    // Every field is named, so that a new one is not forgotten here.
    let Sample {
        mem,
        mem_source,
        faults,
        vm,
        reclaim,
        psi,
        events,
        // Read by `daemon` alone.
        cpu: _,
        processes,
    } = sample;
    let faults = faults.clone().unwrap_or_default();
    let vm = vm.clone().unwrap_or_default();
    let reclaim = reclaim.clone().unwrap_or_default();
    let event =
        |of: fn(&grey_core::event::MemEvents) -> u64| figure::total(events.as_ref().map(of));
    let us = |figure: Option<u64>| figure.map_or(figure::UNKNOWN.to_owned(), format_duration_us);
    let change =
        |rate: Option<f64>| rate.map_or(String::new(), |_| format!("{}/s", figure::change(rate)));
    let flow =
        |rate: Option<f64>| rate.map_or(String::new(), |_| format!("{}/s", figure::flow(rate)));
    let count =
        |rate: Option<f64>| rate.map_or(String::new(), |_| format!("{}/s", figure::count(rate)));
    let stall =
        |rate: Option<f64>| rate.map_or(String::new(), |_| format!("{}/s", figure::stall(rate)));
    let share = |rate: Option<f64>| rate.map_or(String::new(), |_| figure::percent(rate));
    let minor = rates
        .faults
        .map(|all| (all - rates.major.unwrap_or(0.0)).max(0.0));
    let use_of = model
        .limit(entry)
        .map_or(figure::UNKNOWN.to_owned(), |limit| {
            let whose = if limit.owner.path() == entry.path() {
                ""
            } else {
                "↑"
            };
            let file = match limit.kind {
                LimitKind::Max => "max",
                LimitKind::High => "high",
            };
            format!(
                "{whose}{} of {file}",
                figure::percent(Some(limit.ratio * 100.0))
            )
        });
    let mut list = List(Vec::with_capacity(48));
    list.group(match mem_source {
        Some(MemSource::Processes) => "memory (sum of processes)",
        Some(MemSource::Machine) => "memory (machine)",
        Some(MemSource::Files) | None => "memory",
    });
    list.plain("current", figure::bytes(mem.current), change(rates.memory));
    list.plain("anon", figure::bytes(mem.anon), change(rates.growth));
    list.plain("swap", figure::bytes(mem.swap), String::new());
    list.plain("file", figure::bytes(mem.file), String::new());
    list.plain("shmem", figure::bytes(mem.shmem), String::new());
    list.plain("kernel", figure::bytes(mem.kernel), String::new());
    list.plain("slab", figure::bytes(mem.slab), String::new());
    list.plain("page tables", figure::bytes(mem.pagetables), String::new());
    list.plain("sockets", figure::bytes(mem.sock), String::new());
    list.plain("max", limit_text(mem.max), String::new());
    list.plain("high", limit_text(mem.high), String::new());
    list.plain("limit used", use_of, String::new());
    list.plain("processes", figure::total(*processes), String::new());
    list.group("page faults");
    list.plain("minor", figure::total(faults.minor_total), count(minor));
    list.plain(
        "major",
        figure::total(faults.major_total),
        count(rates.major),
    );
    list.plain(
        "user read",
        figure::total(faults.user_read_total),
        String::new(),
    );
    list.plain(
        "user write",
        figure::total(faults.user_write_total),
        String::new(),
    );
    list.plain(
        "user exec",
        figure::total(faults.user_exec_total),
        String::new(),
    );
    list.plain("kernel", figure::total(faults.kernel_total), String::new());
    list.group("virtual memory");
    list.plain("size", figure::bytes(vm.r#virtual), String::new());
    list.plain("mapped", figure::bytes(vm.mapped_total), flow(rates.mapped));
    list.plain(
        "unmapped",
        figure::bytes(vm.unmapped_total),
        flow(rates.unmapped),
    );
    list.plain(
        "released",
        figure::bytes(vm.released_total),
        flow(rates.released),
    );
    list.plain(
        "map calls",
        figure::total(vm.map_calls_total),
        String::new(),
    );
    list.plain(
        "unmap calls",
        figure::total(vm.unmap_calls_total),
        String::new(),
    );
    list.plain(
        "releases",
        figure::total(vm.release_calls_total),
        String::new(),
    );
    list.group("reclaim");
    list.plain("stall", us(reclaim.stall_us_total), stall(rates.stall));
    list.plain("direct", us(reclaim.direct_us_total), String::new());
    list.plain("cgroup", us(reclaim.memcg_us_total), String::new());
    list.plain("kswapd", us(reclaim.kswapd_us_total), String::new());
    list.plain(
        "pages",
        figure::total(reclaim.pages_total),
        count(rates.reclaimed),
    );
    list.plain(
        "refaults",
        figure::total(reclaim.refault_total),
        count(rates.refaults),
    );
    list.plain("own time", us(reclaim.own_us_total), String::new());
    list.plain(
        "own pages",
        figure::total(reclaim.own_pages_total),
        String::new(),
    );
    list.group("pressure");
    list.plain(
        "some",
        us(psi.as_ref().map(|psi| psi.some_us_total)),
        share(rates.psi_some),
    );
    list.plain(
        "full",
        us(psi.as_ref().and_then(|psi| psi.full_us_total)),
        share(rates.psi_full),
    );
    list.group("memory.events");
    list.plain("high", event(|events| events.high_total), String::new());
    list.plain("max", event(|events| events.max_total), String::new());
    list.plain("oom", event(|events| events.oom_total), String::new());
    list.plain(
        "oom_kill",
        event(|events| events.oom_kill_total),
        String::new(),
    );
    list.0
}

struct List(Vec<Item>);

impl List {
    fn group(&mut self, name: &'static str) {
        self.0.push(Item::Group(name));
    }

    fn plain(&mut self, name: &'static str, value: String, rate: String) {
        self.0.push(Item::Figure { name, value, rate });
    }
}

fn limit_text(limit: Limit) -> String {
    match limit {
        Limit::Unknown => figure::UNKNOWN.to_owned(),
        Limit::None => "none".to_owned(),
        Limit::Bytes(bytes) => format_bytes(bytes),
    }
}
