//! "Why is memory.reclaim not available?"

use super::{Answer, Severity, answer, reason};
use crate::diagnose::facts::Facts;
use crate::host::Mode;

pub(super) fn why_not_available(facts: &Facts) -> Answer {
    let mut found = answer(
        "reclaim_unavailable",
        "Can one cgroup's memory be reclaimed (memory.reclaim)?",
    );
    let machine = &facts.machine;
    let mount = machine
        .mount
        .as_ref()
        .map(|mount| mount.display().to_string())
        .unwrap_or_default();
    let release = machine.release.as_deref().unwrap_or("unknown");
    // Only the first that holds: the others follow from it.
    let (id, text, remedy) = if machine.memory_disabled {
        (
            "disabled",
            "the memory controller is switched off by cgroup_disable=memory on the kernel's command line".to_owned(),
            "take cgroup_disable=memory off the kernel's command line and boot again".to_owned(),
        )
    } else if machine.mode == Some(Mode::None) {
        (
            "no_cgroups",
            "no cgroup file system is mounted".to_owned(),
            "mount -t cgroup2 cgroup2 /sys/fs/cgroup    (root)".to_owned(),
        )
    } else if let Some(v1) = machine.v1_memory.as_ref().filter(|_| !machine.has_memory) {
        (
            "cgroup_v1",
            format!(
                "the memory controller is on cgroup v1 ({}), and memory.reclaim is a file of v2",
                v1.display()
            ),
            "boot with systemd.unified_cgroup_hierarchy=1 (or cgroup_no_v1=memory)".to_owned(),
        )
    } else if machine.mode == Some(Mode::V1Only) {
        (
            "cgroup_v1",
            "there are cgroup v1 hierarchies only, and memory.reclaim is a file of v2".to_owned(),
            "boot with systemd.unified_cgroup_hierarchy=1".to_owned(),
        )
    } else if !machine.has_memory {
        (
            "no_controller",
            format!("the v2 tree at {mount} has no memory controller"),
            "boot with cgroup_enable=memory, on a kernel built with CONFIG_MEMCG=y; in a container, see the host's tree".to_owned(),
        )
    } else if machine.reclaim_file == Some(false) {
        (
            "old_kernel",
            format!("this kernel ({release}) has no memory.reclaim: it came with Linux 5.19"),
            "use Linux 5.19 or newer; until then memory.high set below memory.current reclaims too, but throttles".to_owned(),
        )
    } else if machine.reclaim_file.is_none() && machine.memory_delegated == Some(false) {
        (
            "not_delegated",
            format!("the memory controller is not switched on for the cgroups below {mount}"),
            format!(
                "echo +memory > {mount}/cgroup.subtree_control    (systemd: MemoryAccounting=yes)"
            ),
        )
    } else if machine.read_only {
        (
            "read_only",
            format!("{mount} is mounted read-only, as container runtimes do"),
            "run on the host, or in a container with a writable cgroup mount (docker --privileged --cgroupns=host)".to_owned(),
        )
    } else if machine.reclaim_writable == Some(false) {
        (
            "no_permission",
            "memory.reclaim is there, but not for this user".to_owned(),
            "run as root, or have the cgroup delegated (systemd: Delegate=yes)".to_owned(),
        )
    } else if machine.reclaim_file.is_none() {
        found.answer = "Not known: there is no cgroup to look at.".to_owned();
        return found;
    } else {
        found.answer = "Yes.".to_owned();
        return found;
    };
    found.applies = true;
    // Nothing is lost by it until somebody wants to reclaim.
    found.severity = Severity::Note;
    found.answer = format!("No: {text}.");
    found
        .reasons
        .push(reason(id, text).text("kernel", release, "uname -r").text(
            "layout",
            layout(machine.mode),
            "/proc/self/mountinfo",
        ));
    found.next.push(remedy);
    found
}

fn layout(mode: Option<Mode>) -> &'static str {
    match mode {
        Some(Mode::Unified) => "unified",
        Some(Mode::Hybrid) => "hybrid",
        Some(Mode::V1Only) => "v1 only",
        Some(Mode::None) => "none",
        None => "not known",
    }
}
