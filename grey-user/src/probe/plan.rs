//! Which programs serve which probe, in order of cost, and what is lost without them. A table; nothing
//! is loaded here.

/// How a program attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// BTF tracepoint; the pattern its first parameters must have.
    Btf(&'static str, &'static [Shape]),
    /// Entry of a kernel function.
    Fentry(&'static str),
    /// Exit of a kernel function.
    Fexit(&'static str),
    /// kprobe on a kernel function.
    Kprobe(&'static str),
    /// kretprobe on a kernel function.
    Kretprobe(&'static str),
    /// Classic tracepoint: category and event.
    Record(&'static str, &'static str),
    /// A walk over all objects of a kind, when asked for.
    Iter(&'static str),
}

/// What a parameter of a BTF tracepoint must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Anything.
    Any,
    /// An integer.
    Int,
    /// A pointer to this structure.
    Struct(&'static str),
}

/// One way to serve a probe: all its programs, or none.
#[derive(Clone, Debug)]
pub struct Way {
    /// As `doctor` and `health` call it.
    pub label: &'static str,
    /// (program in the object, where it attaches)
    pub programs: Vec<(&'static str, Hook)>,
    /// What it costs beyond its own run time.
    pub cost: Option<&'static str>,
}

/// A probe: one thing that is seen, or not.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Unique name.
    pub name: &'static str,
    /// fault, vm, oom, reclaim, growth, lifecycle, level.
    pub family: &'static str,
    /// Where it looks, for people.
    pub hook: &'static str,
    /// What is not seen without it.
    pub lost: &'static str,
    /// In order of cost.
    pub ways: Vec<Way>,
}

/// The label of the way that needs no program of its own.
pub const WITHIN_FAULTS: &str = "in the fault program";
/// The probe that tells when what is known of a task's cgroup no longer holds.
pub const TASK_CGROUP: &str = "task_cgroup";
/// The probe that says in one walk how much memory each cgroup holds.
pub const CGROUP_LEVELS: &str = "cgroup_levels";
/// The label of the last resort for system calls.
pub const SYSCALL_TRACEPOINT: &str = "syscall tracepoint";

const SYSCALL_COST: &str = "an enabled syscall tracepoint puts every system call of every process on the slow path (a getppid loop ran 26 % slower)";

/// All probes, in the order they are attached.
#[must_use]
pub fn probes() -> Vec<Probe> {
    let mut all = vec![
        Probe {
            name: "fault_user",
            family: "fault",
            hook: "page_fault_user",
            lost: "page faults of user code by cgroup (faults.minor_total, faults.user_*)",
            ways: tracepoint(
                &[(
                    "fault_user",
                    "page_fault_user",
                    &[Shape::Int, Shape::Any, Shape::Int],
                )],
                &[("fault_user_record", "exceptions", "page_fault_user")],
            ),
        },
        Probe {
            name: "fault_kernel",
            family: "fault",
            hook: "page_fault_kernel",
            lost: "page faults in kernel mode by cgroup (faults.minor_total, faults.kernel_total)",
            ways: tracepoint(
                &[("fault_kernel", "page_fault_kernel", &[])],
                &[("fault_kernel_record", "exceptions", "page_fault_kernel")],
            ),
        },
        Probe {
            name: "growth",
            family: "growth",
            hook: "page_fault_user",
            lost: "growth events (what grows is seen at the next tick only)",
            ways: vec![
                Way {
                    label: WITHIN_FAULTS,
                    programs: vec![],
                    cost: None,
                },
                Way {
                    label: "BTF tracepoint",
                    programs: vec![(
                        "growth_rss_stat",
                        Hook::Btf("rss_stat", &[Shape::Struct("mm_struct")]),
                    )],
                    cost: None,
                },
            ],
        },
        Probe {
            name: "oom_control",
            family: "oom",
            hook: "out_of_memory",
            lost: "whether an OOM kill was a memory cgroup's or the machine's (oom.constraint, oom.limit_cgroup)",
            ways: vec![Way {
                label: "fentry",
                programs: vec![
                    ("oom_control_enter", Hook::Fentry("out_of_memory")),
                    ("oom_control_leave", Hook::Fexit("out_of_memory")),
                ],
                cost: None,
            }],
        },
        Probe {
            name: "oom_victim",
            family: "oom",
            hook: "mark_victim",
            lost: "who the OOM killer chose (oom events then come from memory.events, without a victim)",
            ways: vec![
                // The entry of __oom_kill_process tells a kill from a pass for a task that is dying anyway.
                Way {
                    label: "BTF tracepoint and fentry",
                    programs: vec![
                        ("oom_victim_enter", Hook::Fentry("__oom_kill_process")),
                        (
                            "oom_mark_victim_killed",
                            Hook::Btf("mark_victim", &[Shape::Struct("task_struct")]),
                        ),
                    ],
                    cost: None,
                },
                Way {
                    label: "fentry and BTF tracepoint",
                    programs: vec![
                        ("oom_victim_enter", Hook::Fentry("__oom_kill_process")),
                        (
                            "oom_mark_victim_pid_killed",
                            Hook::Btf("mark_victim", &[Shape::Int]),
                        ),
                    ],
                    cost: None,
                },
                Way {
                    label: "BTF tracepoint",
                    programs: vec![(
                        "oom_mark_victim",
                        Hook::Btf("mark_victim", &[Shape::Struct("task_struct")]),
                    )],
                    cost: None,
                },
                Way {
                    label: "BTF tracepoint (pid only)",
                    programs: vec![(
                        "oom_mark_victim_pid",
                        Hook::Btf("mark_victim", &[Shape::Int]),
                    )],
                    cost: None,
                },
                Way {
                    label: "classic tracepoint (pid only)",
                    programs: vec![("oom_mark_victim_record", Hook::Record("oom", "mark_victim"))],
                    cost: None,
                },
            ],
        },
        Probe {
            name: "reclaim_target",
            family: "reclaim",
            hook: "try_to_free_mem_cgroup_pages",
            lost: "which cgroup a memcg reclaim took from (its pages are counted where it ran)",
            ways: vec![Way {
                label: "fentry",
                programs: vec![(
                    "reclaim_target",
                    Hook::Fentry("try_to_free_mem_cgroup_pages"),
                )],
                cost: None,
            }],
        },
    ];
    all.push(reclaim(
        "reclaim_memcg",
        "mm_vmscan_memcg_reclaim_begin, _end",
        "stalls and pages of memcg reclaim (reclaim.stall_us_total, memcg_us_total, pages_total)",
        &[
            ("reclaim_memcg_begin", "mm_vmscan_memcg_reclaim_begin", &[]),
            (
                "reclaim_memcg_end",
                "mm_vmscan_memcg_reclaim_end",
                &[Shape::Int],
            ),
        ],
        &[
            (
                "reclaim_memcg_begin_record",
                "vmscan",
                "mm_vmscan_memcg_reclaim_begin",
            ),
            (
                "reclaim_memcg_end_record",
                "vmscan",
                "mm_vmscan_memcg_reclaim_end",
            ),
        ],
    ));
    all.push(reclaim(
        "reclaim_direct",
        "mm_vmscan_direct_reclaim_begin, _end",
        "stalls and pages of direct reclaim (reclaim.stall_us_total, direct_us_total, pages_total)",
        &[
            (
                "reclaim_direct_begin",
                "mm_vmscan_direct_reclaim_begin",
                &[],
            ),
            (
                "reclaim_direct_end",
                "mm_vmscan_direct_reclaim_end",
                &[Shape::Int],
            ),
        ],
        &[
            (
                "reclaim_direct_begin_record",
                "vmscan",
                "mm_vmscan_direct_reclaim_begin",
            ),
            (
                "reclaim_direct_end_record",
                "vmscan",
                "mm_vmscan_direct_reclaim_end",
            ),
        ],
    ));
    all.push(reclaim(
        "reclaim_kswapd",
        "mm_vmscan_kswapd_wake, _sleep",
        "how long kswapd was awake (reclaim.kswapd_us_total)",
        &[
            ("reclaim_kswapd_wake", "mm_vmscan_kswapd_wake", &[]),
            ("reclaim_kswapd_sleep", "mm_vmscan_kswapd_sleep", &[]),
        ],
        &[
            (
                "reclaim_kswapd_wake_record",
                "vmscan",
                "mm_vmscan_kswapd_wake",
            ),
            (
                "reclaim_kswapd_sleep_record",
                "vmscan",
                "mm_vmscan_kswapd_sleep",
            ),
        ],
    ));
    all.extend(calls());
    all.push(Probe {
        name: "cgroup_lifecycle",
        family: "lifecycle",
        hook: "cgroup_mkdir, cgroup_rmdir, cgroup_rename",
        lost: "cgroups that come and go between two scans (new ones show up to 30 ticks late)",
        ways: tracepoint(
            &[
                (
                    "cgroup_made",
                    "cgroup_mkdir",
                    &[Shape::Struct("cgroup"), Shape::Any],
                ),
                (
                    "cgroup_removed",
                    "cgroup_rmdir",
                    &[Shape::Struct("cgroup"), Shape::Any],
                ),
                (
                    "cgroup_renamed",
                    "cgroup_rename",
                    &[Shape::Struct("cgroup"), Shape::Any],
                ),
            ],
            &[],
        ),
    });
    all.push(Probe {
        name: "process_lifecycle",
        family: "lifecycle",
        hook: "sched_process_exec, sched_process_exit",
        lost: "prompt clean-up of ended processes (their entries go at the next slow scan)",
        ways: tracepoint(
            &[
                ("process_exec", "sched_process_exec", &[]),
                ("process_exit", "sched_process_exit", &[]),
            ],
            &[],
        ),
    });
    all.push(Probe {
        name: TASK_CGROUP,
        family: "lifecycle",
        hook: "cgroup_attach_task, sched_process_exit",
        lost: "nothing, but every page fault has to ask for its cgroup (some 10 ns more)",
        ways: tracepoint(
            &[
                ("task_moved", "cgroup_attach_task", &[]),
                ("task_ended", "sched_process_exit", &[]),
            ],
            &[],
        ),
    });
    all.push(Probe {
        name: CGROUP_LEVELS,
        family: "level",
        hook: "bpf_iter_cgroup",
        lost: "nothing, but whether a quiet cgroup has changed is read from its files, a few cgroups at each tick",
        ways: vec![Way {
            label: "BPF iterator",
            programs: vec![(CGROUP_LEVELS, Hook::Iter("cgroup"))],
            cost: None,
        }],
    });
    all
}

/// Names of the probes of `profile`.
pub const STACK_USER: &str = "stack_user";
/// Huge pages.
pub const STACK_HUGE: &str = "stack_huge";

/// The probes of `profile`, in the order they are attached: what belongs to a fault is there before the first one is seen.
#[must_use]
pub fn stack_probes() -> Vec<Probe> {
    let only = |label, program, hook| {
        vec![Way {
            label,
            programs: vec![(program, hook)],
            cost: None,
        }]
    };
    let fault = |event| Hook::Btf(event, &[Shape::Int, Shape::Any, Shape::Int]);
    vec![
        Probe {
            name: STACK_HUGE,
            family: "stack",
            hook: "do_huge_pmd_anonymous_page",
            lost: "huge pages that were freed again; those that are left are found by their page frames",
            ways: only(
                "fexit",
                STACK_HUGE,
                Hook::Fexit("do_huge_pmd_anonymous_page"),
            ),
        },
        Probe {
            name: "stack_mremap",
            family: "stack",
            hook: "__x64_sys_mremap",
            lost: "who brought in what mremap moved, as realloc does with large blocks: it counts as gone",
            ways: vec![
                Way {
                    label: "fexit",
                    programs: vec![("stack_mremap", Hook::Fexit("__x64_sys_mremap"))],
                    cost: None,
                },
                Way {
                    label: "kprobe",
                    programs: vec![
                        ("stack_mremap_kprobe", Hook::Kprobe("__x64_sys_mremap")),
                        (
                            "stack_mremap_kretprobe",
                            Hook::Kretprobe("__x64_sys_mremap"),
                        ),
                    ],
                    cost: None,
                },
                Way {
                    label: SYSCALL_TRACEPOINT,
                    programs: vec![
                        (
                            "stack_mremap_enter",
                            Hook::Record("syscalls", "sys_enter_mremap"),
                        ),
                        (
                            "stack_mremap_exit",
                            Hook::Record("syscalls", "sys_exit_mremap"),
                        ),
                    ],
                    cost: Some(SYSCALL_COST),
                },
            ],
        },
        Probe {
            name: STACK_USER,
            family: "stack",
            hook: "page_fault_user",
            lost: "stacks of page faults",
            ways: only("BTF tracepoint", STACK_USER, fault("page_fault_user")),
        },
        Probe {
            name: "stack_kernel",
            family: "stack",
            hook: "page_fault_kernel",
            lost: "stacks of page faults in kernel mode, as of read() into fresh memory",
            ways: only("BTF tracepoint", "stack_kernel", fault("page_fault_kernel")),
        },
    ]
}

type BtfProgram = (&'static str, &'static str, &'static [Shape]);
type RecordProgram = (&'static str, &'static str, &'static str);

fn tracepoint(btf: &[BtfProgram], record: &[RecordProgram]) -> Vec<Way> {
    let mut ways = vec![Way {
        label: "BTF tracepoint",
        programs: btf
            .iter()
            .map(|(program, event, shape)| (*program, Hook::Btf(event, shape)))
            .collect(),
        cost: None,
    }];
    if !record.is_empty() {
        ways.push(Way {
            label: "classic tracepoint",
            programs: record
                .iter()
                .map(|(program, category, event)| (*program, Hook::Record(category, event)))
                .collect(),
            cost: Some("about half as much again as a BTF tracepoint"),
        });
    }
    ways
}

fn reclaim(
    name: &'static str,
    hook: &'static str,
    lost: &'static str,
    btf: &[BtfProgram],
    record: &[RecordProgram],
) -> Probe {
    Probe {
        name,
        family: "reclaim",
        hook,
        lost,
        ways: tracepoint(btf, record),
    }
}

fn calls() -> Vec<Probe> {
    macro_rules! call {
        ($name:literal, $call:literal, $lost:literal, fexit: $fexit:expr) => {{
            const FUNCTION: &str = concat!("__x64_sys_", $call);
            Probe {
                name: $name,
                family: "vm",
                hook: FUNCTION,
                lost: $lost,
                ways: vec![
                    Way {
                        label: "fexit",
                        programs: $fexit(FUNCTION),
                        cost: None,
                    },
                    Way {
                        label: "kprobe",
                        programs: vec![
                            (concat!($name, "_kprobe"), Hook::Kprobe(FUNCTION)),
                            (concat!($name, "_kretprobe"), Hook::Kretprobe(FUNCTION)),
                        ],
                        cost: Some("a breakpoint or jump at both ends of each such call"),
                    },
                    Way {
                        label: SYSCALL_TRACEPOINT,
                        programs: vec![
                            (
                                concat!($name, "_enter"),
                                Hook::Record("syscalls", concat!("sys_enter_", $call)),
                            ),
                            (
                                concat!($name, "_exit"),
                                Hook::Record("syscalls", concat!("sys_exit_", $call)),
                            ),
                        ],
                        cost: Some(SYSCALL_COST),
                    },
                ],
            }
        }};
    }
    let exit = |program: &'static str| {
        move |function: &'static str| vec![(program, Hook::Fexit(function))]
    };
    let both = |function: &'static str| {
        vec![
            ("vm_brk_fentry", Hook::Fentry(function)),
            ("vm_brk", Hook::Fexit(function)),
        ]
    };
    vec![
        call!("vm_mmap", "mmap", "mmap calls and bytes (vm.mapped_total, vm.map_calls_total), and growth by MAP_POPULATE before the next fault", fexit: exit("vm_mmap")),
        call!("vm_munmap", "munmap", "munmap calls and bytes (vm.unmapped_total, vm.unmap_calls_total)", fexit: exit("vm_munmap")),
        call!("vm_mremap", "mremap", "mremap bytes (vm.mapped_total, vm.unmapped_total)", fexit: exit("vm_mremap")),
        call!("vm_brk", "brk", "heap growth by brk (vm.mapped_total, vm.unmapped_total)", fexit: both),
        call!("vm_madvise", "madvise", "memory given back by madvise (vm.released_total)", fexit: exit("vm_madvise")),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_every_probe_says_what_is_lost() {
        let all = probes();
        let names: HashSet<_> = all.iter().map(|probe| probe.name).collect();
        assert_eq!(names.len(), all.len());
        assert!(
            all.iter()
                .all(|probe| !probe.lost.is_empty() && !probe.ways.is_empty())
        );
    }
}
