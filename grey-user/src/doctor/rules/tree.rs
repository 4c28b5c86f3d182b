//! Rules on the cgroup tree.

use crate::host::{Facts, Mode};

use super::{Finding, Mark, finding};

pub(super) fn cgroups(facts: &Facts) -> Vec<Finding> {
    let cgroup = &facts.cgroup;
    let mut list = Vec::new();
    let unify = "boot with systemd.unified_cgroup_hierarchy=1, or with cgroup_no_v1=all";
    let at = cgroup
        .mount
        .as_ref()
        .map(|mount| mount.display().to_string())
        .unwrap_or_default();
    list.push(match cgroup.mode {
        Mode::Unified => finding(Mark::Ok, "layout", format!("unified: v2 at {at}")),
        Mode::Hybrid => finding(
            Mark::Note,
            "layout",
            format!("hybrid: v2 at {at} beside v1 hierarchies"),
        ),
        Mode::V1Only => finding(Mark::Off, "layout", "v1 only: there is no v2 tree")
            .lost("all figures per cgroup: the kernel side knows every task as one of the root")
            .remedy(unify),
        Mode::None => finding(Mark::Off, "layout", "no cgroup file system is mounted")
            .lost("all figures per cgroup")
            .remedy("mount -t cgroup2 cgroup2 /sys/fs/cgroup"),
    });
    if let Some(error) = &cgroup.error {
        list.push(
            finding(Mark::Off, "v2 tree", error.as_str())
                .lost("all that its files tell")
                .remedy("run as root with /proc and the cgroup tree of the host in view"),
        );
    }
    if cgroup.mount.is_none() {
        return list;
    }
    if cgroup.partial {
        list.push(
            finding(
                Mark::Warn,
                "view",
                format!("only a part of the tree is mounted at {at}"),
            )
            .lost("cgroups outside of that part")
            .remedy("in a container: use the host's cgroup namespace and its /sys/fs/cgroup"),
        );
    }
    if !cgroup.has_memory() {
        let found = match &cgroup.v1_memory {
            Some(path) => format!("not in the v2 tree, but on v1 at {}", path.display()),
            None => "not in the v2 tree".to_owned(),
        };
        list.push(
            finding(Mark::Off, "memory controller", found)
                .lost(
                    "memory.current, limits, memory.events and swap per cgroup; \
                     anon and file are summed from the cgroup's processes instead",
                )
                .remedy(match cgroup.v1_memory {
                    Some(_) => {
                        "boot with cgroup_no_v1=memory, or systemd.unified_cgroup_hierarchy=1"
                    }
                    None => "boot with cgroup_enable=memory, on a kernel built with CONFIG_MEMCG=y",
                }),
        );
        return list;
    }
    list.push(if cgroup.memory_delegated == Some(false) {
        finding(
            Mark::Warn,
            "memory controller",
            "in the v2 tree, but not switched on for its children",
        )
        .lost("the memory.* files of every cgroup but the root")
        .remedy(format!(
            "echo +memory > {at}/cgroup.subtree_control (systemd: MemoryAccounting=yes)"
        ))
    } else {
        finding(Mark::Ok, "memory controller", "in the v2 tree")
    });
    match facts.swap_accounting {
        Some(true) => list.push(finding(Mark::Ok, "swap per cgroup", "memory.swap.current")),
        Some(false) if facts.memory_files == Some(true) => list.push(
            finding(
                Mark::Warn,
                "swap per cgroup",
                "there is no memory.swap.current",
            )
            .lost("swap per cgroup: memory that was swapped out looks as if it had been freed")
            .remedy("boot with swapaccount=1, on a kernel built with CONFIG_SWAP=y"),
        ),
        _ => {}
    }
    list
}
