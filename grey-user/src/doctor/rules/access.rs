//! Rules on the kernel and on what this process may do with it.

use grey_core::units::format_bytes;

use crate::doctor::ProbeStatus;
use crate::host::{Access, Capabilities, Facts, Tracefs};

use super::{Finding, Mark, finding};

pub(super) fn kernel(facts: &Facts) -> Vec<Finding> {
    let kernel = &facts.kernel;
    let mut list = Vec::new();
    if let Some(release) = &kernel.release {
        let cpus = match kernel.possible_cpus {
            Some(1) => ", 1 CPU possible".to_owned(),
            Some(n) => format!(", {n} CPUs possible"),
            None => String::new(),
        };
        list.push(finding(Mark::Ok, "release", format!("{release}{cpus}")));
    }
    let btf_lost = "BTF tracepoints, fexit, and every field that only BTF locates; \
                    classic tracepoints are used instead and cost about half as much again";
    list.push(match kernel.btf {
        Access::Readable => finding(Mark::Ok, "BTF", "/sys/kernel/btf/vmlinux"),
        Access::Denied => finding(Mark::Off, "BTF", "/sys/kernel/btf/vmlinux may not be read")
            .lost(btf_lost)
            .remedy("run as root"),
        Access::Absent => finding(
            Mark::Off,
            "BTF",
            "the kernel gives no /sys/kernel/btf/vmlinux",
        )
        .lost(btf_lost)
        .remedy("use a kernel built with CONFIG_DEBUG_INFO_BTF=y"),
    });
    list.push(tracefs(facts));
    list.push(match kernel.lockdown.as_deref() {
        Some("confidentiality") => finding(Mark::Off, "lockdown", "confidentiality")
            .lost(
                "all that programs read from kernel memory: sizes, victims, cgroups of other tasks",
            )
            .remedy("boot with lockdown=integrity, or without it"),
        Some(mode) => finding(Mark::Ok, "lockdown", mode),
        None => finding(Mark::Ok, "lockdown", "none that the kernel shows"),
    });
    match kernel.bpf_jit {
        Some(false) => list.push(
            finding(Mark::Warn, "BPF JIT", "off")
                .lost("speed: programs are interpreted, each event costs several times as much")
                .remedy("sysctl net.core.bpf_jit_enable=1"),
        ),
        Some(true) => list.push(finding(Mark::Ok, "BPF JIT", "on")),
        None => {}
    }
    match kernel.bpf_stats_enabled {
        Some(true) => list.push(finding(
            Mark::Ok,
            "BPF statistics",
            "on: `health` tells the programs' run time",
        )),
        Some(false) => list.push(
            finding(
                Mark::Note,
                "BPF statistics",
                "off: `health` does not tell the programs' run time",
            )
            .remedy("sysctl kernel.bpf_stats_enabled=1 to have it, at some cost for every event"),
        ),
        None => {}
    }
    for file in &facts.unreadable {
        list.push(
            finding(Mark::Warn, "unreadable", file.as_str())
                .lost("what this file tells is missing below")
                .remedy("run as root"),
        );
    }
    list
}

fn tracefs(facts: &Facts) -> Finding {
    let lost = "classic tracepoints and the record formats that some fields are found by";
    match &facts.kernel.tracefs {
        Tracefs::Mounted(path) => finding(Mark::Ok, "tracefs", path.display().to_string()),
        Tracefs::Denied(path) => finding(
            Mark::Off,
            "tracefs",
            format!("{} may not be read", path.display()),
        )
        .lost(lost)
        .remedy("run as root"),
        Tracefs::NotMounted if may_mount(facts) => finding(
            Mark::Ok,
            "tracefs",
            "not mounted; it is mounted for this process alone when it is needed",
        ),
        Tracefs::NotMounted => finding(Mark::Off, "tracefs", "not mounted")
            .lost(lost)
            .remedy("run as root, or mount -t tracefs tracefs /sys/kernel/tracing"),
        Tracefs::Absent => finding(Mark::Off, "tracefs", "the kernel has none")
            .lost(lost)
            .remedy("use a kernel built with CONFIG_TRACING=y"),
    }
}

pub(super) fn may_mount(facts: &Facts) -> bool {
    facts
        .kernel
        .capabilities
        .is_some_and(|caps| caps.has(Capabilities::SYS_ADMIN))
        && !facts.kernel.in_user_namespace
}

pub(super) fn may_trace(facts: &Facts) -> bool {
    facts
        .kernel
        .capabilities
        .is_some_and(Capabilities::can_trace)
        && !facts.kernel.in_user_namespace
}

pub(super) fn privileges(facts: &Facts, probes: &[ProbeStatus]) -> Vec<Finding> {
    let kernel = &facts.kernel;
    let mut list = Vec::new();
    let who = match kernel.euid {
        Some(0) => "root".to_owned(),
        Some(uid) => format!("user id {uid}"),
        None => "not known".to_owned(),
    };
    list.push(finding(
        if kernel.euid.is_some() {
            Mark::Ok
        } else {
            Mark::Note
        },
        "user",
        who,
    ));
    let lost = "all probes: faults, mappings, stalls and growth per cgroup, and who was killed by the OOM killer";
    list.push(match kernel.capabilities {
        Some(_) if kernel.in_user_namespace => {
            finding(Mark::Off, "BPF", "the capabilities hold inside a user namespace only")
                .lost(lost)
                .remedy("run outside of the user namespace (a rootless container cannot load tracing programs)")
        }
        Some(caps) if caps.has(Capabilities::BPF) && caps.has(Capabilities::PERFMON) => {
            finding(Mark::Ok, "BPF", "CAP_BPF and CAP_PERFMON")
        }
        Some(caps) if caps.has(Capabilities::SYS_ADMIN) => finding(Mark::Ok, "BPF", "CAP_SYS_ADMIN"),
        Some(_) => finding(Mark::Off, "BPF", "neither CAP_SYS_ADMIN nor CAP_BPF with CAP_PERFMON").lost(lost).remedy(
            "run as root, or: setcap cap_bpf,cap_perfmon,cap_dac_read_search=ep grey-ebpf (kernels before 5.8 need cap_sys_admin)",
        ),
        None => finding(Mark::Note, "BPF", "not known: /proc/self/status tells no capabilities"),
    });
    let sees_all = kernel
        .capabilities
        .is_some_and(|caps| caps.has(Capabilities::SYS_PTRACE));
    if kernel.hidepid && !sees_all {
        list.push(
            finding(
                Mark::Warn,
                "processes",
                "/proc hides other users' processes (hidepid)",
            )
            .lost("their figures, and their part of the sums over processes")
            .remedy("run as root, or give the binary cap_sys_ptrace"),
        );
    }
    let raises = kernel
        .capabilities
        .is_some_and(|caps| caps.has(Capabilities::SYS_RESOURCE));
    match kernel.memlock {
        Some(None) => list.push(finding(Mark::Ok, "memlock", "no limit")),
        Some(Some(limit)) => {
            let size = format_bytes(limit);
            let works = raises || probes.iter().any(|probe| probe.attached.is_some());
            list.push(if works {
                finding(Mark::Ok, "memlock", size)
            } else {
                finding(Mark::Warn, "memlock", size)
                    .lost("on kernels before 5.11 this limits the size of all BPF maps")
                    .remedy("ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit")
            });
        }
        None => {}
    }
    list
}
