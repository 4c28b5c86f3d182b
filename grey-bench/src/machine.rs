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

/// What has to be said of figures from here, with a space before it; empty of a machine that runs its own instructions.
#[must_use]
pub fn caution() -> &'static str {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if is_emulated(&info) {
        " Its processors are emulated, twenty times slower and more, and not evenly so: no time or rate here is that of hardware; \
         compare figures of one table with each other only."
    } else {
        ""
    }
}

/// QEMU's own processor names itself so (target/i386/cpu.c); under KVM it is the host's.
fn is_emulated(info: &str) -> bool {
    info.lines()
        .any(|line| line.starts_with("model name") && line.contains("QEMU TCG"))
}

/// Whether huge pages can be had by those who ask for them.
#[must_use]
pub fn huge_pages() -> bool {
    fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled")
        .is_ok_and(|text| !text.contains("[never]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emulated_processor_is_told_from_a_virtual_one() {
        assert!(is_emulated(
            "processor\t: 0\nmodel name\t: QEMU TCG CPU version 2.5+\n"
        ));
        assert!(!is_emulated(
            "model name\t: AMD EPYC\nflags\t: fpu hypervisor\n"
        ));
    }
}
