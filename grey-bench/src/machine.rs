//! What it was measured on, in a line.

use std::fs;

/// The machine: processor, kernel, memory, whether it is virtual.
#[must_use]
pub fn described() -> String {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let info = text("/proc/cpuinfo");
    let field = |name: &str| {
        info.lines()
            .find_map(|line| line.split_once(':').filter(|(key, _)| key.trim() == name))
            .map_or("unknown", |(_, value)| value.trim())
            .to_owned()
    };
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = text("/proc/meminfo")
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemTotal:")?
                .split_whitespace()
                .next()?
                .parse::<u64>()
                .ok()
        })
        .unwrap_or(0);
    format!(
        "{processors} processors ({}{}), {:.1} GiB, Linux {}",
        field("model name"),
        if field("flags").split(' ').any(|flag| flag == "hypervisor") {
            ", in a virtual machine"
        } else {
            ""
        },
        memory as f64 / f64::from(1 << 20),
        text("/proc/sys/kernel/osrelease").trim()
    )
}

/// Whether huge pages can be had by those who ask for them.
#[must_use]
pub fn huge_pages() -> bool {
    fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled")
        .is_ok_and(|text| !text.contains("[never]"))
}
