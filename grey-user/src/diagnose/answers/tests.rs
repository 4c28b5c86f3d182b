//! The rules by tables: for each cause the facts that make it, and facts close by that do not.

use grey_core::event::Limit;

use super::*;
use crate::diagnose::facts::*;
use crate::host::oom_log::{OomCandidate, OomConstraint, OomRecord};
use crate::host::psi::{PsiFile, PsiLine};
use crate::host::{Ksm, MemInfo, Mode};

const M: u64 = 1 << 20;
const G: u64 = 1 << 30;

/// A machine of 16 GiB with nothing wrong: 4 GiB of programs, 2 GiB of cache, swap.
fn fine() -> Facts {
    Facts {
        meminfo: MemInfo {
            total: Some(16 * G),
            free: Some(9 * G),
            available: Some(11 * G),
            anon: Some(4 * G),
            shmem: Some(10 * M),
            cached: Some(2 * G),
            buffers: Some(0),
            active_file: Some(G),
            inactive_file: Some(G),
            kernel_reclaimable: Some(200 * M),
            slab_unreclaimable: Some(100 * M),
            unevictable: Some(0),
            mlocked: Some(0),
            hugetlb: Some(0),
            pagetables: Some(20 * M),
            swap_total: Some(4 * G),
            swap_free: Some(4 * G),
            ..MemInfo::default()
        },
        psi: Some(psi(0.0, 0.0)),
        ksm: Some(Ksm {
            run: Some(0),
            ..Ksm::default()
        }),
        machine: Standing {
            release: Some("6.12.1".to_owned()),
            euid: Some(0),
            mode: Some(Mode::Unified),
            mount: Some("/sys/fs/cgroup".into()),
            has_memory: true,
            memory_delegated: Some(true),
            reclaim_file: Some(true),
            reclaim_writable: Some(true),
            ..Standing::default()
        },
        oom: Oom {
            kills_since_boot: Some(0),
            log_read: true,
            ..Oom::default()
        },
        ..Facts::default()
    }
}

fn psi(some: f64, full: f64) -> PsiFile {
    let line = |avg| PsiLine {
        avg10: avg,
        avg60: avg,
        avg300: avg,
        total_us: 0,
    };
    PsiFile {
        some: line(some),
        full: Some(line(full)),
    }
}

fn cgroup(path: &str, current: u64) -> CgroupUse {
    CgroupUse {
        path: path.to_owned(),
        current: Some(current),
        ..CgroupUse::default()
    }
}

fn of(facts: &Facts, id: &str) -> Answer {
    let breakdown = Breakdown::of(&facts.meminfo);
    answers(facts, &breakdown)
        .into_iter()
        .find(|answer| answer.id == id)
        .unwrap()
}

/// Ids of the causes an answer names.
fn causes(facts: &Facts, id: &str) -> Vec<&'static str> {
    of(facts, id)
        .reasons
        .iter()
        .map(|reason| reason.id)
        .collect()
}

fn with(change: impl FnOnce(&mut Facts)) -> Facts {
    let mut facts = fine();
    change(&mut facts);
    facts
}

#[test]
fn a_machine_without_trouble_raises_no_question() {
    let facts = fine();
    let all = answers(&facts, &Breakdown::of(&facts.meminfo));
    assert_eq!(all.len(), 8);
    for answer in &all {
        assert!(!answer.applies, "{answer:?}");
        assert!(!answer.answer.is_empty(), "{}", answer.id);
    }
}

#[test]
fn nothing_known_is_no_trouble_and_no_panic() {
    let facts = Facts::default();
    for answer in answers(&facts, &Breakdown::default()) {
        assert!(!answer.answer.is_empty(), "{}", answer.id);
        if answer.id != "reclaim_unavailable" {
            assert!(!answer.applies, "{answer:?}");
        }
    }
}

#[test]
fn the_worst_comes_first_and_every_finding_says_what_to_do() {
    let facts = with(|facts| {
        facts.psi = Some(psi(30.0, 20.0));
        facts.machine.reclaim_file = Some(false);
        facts.cgroups.top = vec![CgroupUse {
            max: Limit::Bytes(100 * M),
            ..cgroup("/a", 99 * M)
        }];
        facts.meminfo.free = Some(G);
        facts.meminfo.anon = Some(12 * G);
    });
    let all = answers(&facts, &Breakdown::of(&facts.meminfo));
    let told: Vec<(&str, Severity)> = all
        .iter()
        .filter(|answer| answer.applies)
        .map(|answer| (answer.id, answer.severity))
        .collect();
    assert_eq!(
        told,
        [
            ("memory_pressure", Severity::Critical),
            ("near_limit", Severity::Warning),
            ("ram_not_reducing", Severity::Note),
            ("reclaim_unavailable", Severity::Note),
        ]
    );
    for answer in all.iter().filter(|answer| answer.applies) {
        assert!(!answer.next.is_empty(), "{}", answer.id);
    }
    // Those that do not apply come after all that do.
    assert!(all.iter().skip(told.len()).all(|answer| !answer.applies));
}

#[test]
fn pressure_is_told_by_waiting_and_by_what_is_left() {
    let table: [(&str, Facts, Severity); 7] = [
        ("quiet", fine(), Severity::Ok),
        (
            "some waiting",
            with(|f| f.psi = Some(psi(2.0, 0.0))),
            Severity::Warning,
        ),
        (
            "much waiting",
            with(|f| f.psi = Some(psi(12.0, 0.0))),
            Severity::Critical,
        ),
        (
            "all waiting",
            with(|f| f.psi = Some(psi(6.0, 6.0))),
            Severity::Critical,
        ),
        (
            "8 % left",
            with(|f| f.meminfo.available = Some(16 * G / 12)),
            Severity::Warning,
        ),
        (
            "100 MiB left",
            with(|f| f.meminfo.available = Some(100 * M)),
            Severity::Critical,
        ),
        (
            "swap full",
            with(|f| f.meminfo.swap_free = Some(M)),
            Severity::Warning,
        ),
    ];
    for (name, facts, severity) in table {
        let answer = of(&facts, "memory_pressure");
        assert_eq!(
            (answer.severity, answer.applies),
            (severity, severity > Severity::Note),
            "{name}"
        );
    }
    // Without PSI what is left still tells.
    let blind = with(|f| {
        f.psi = None;
        f.meminfo.available = Some(100 * M);
    });
    assert_eq!(of(&blind, "memory_pressure").severity, Severity::Critical);
}

#[test]
fn memory_that_does_not_go_down_has_the_cause_that_holds_most_first() {
    let table: [(&str, Facts, &[&str]); 12] = [
        (
            "cache",
            with(|f| {
                f.meminfo.free = Some(G);
                f.meminfo.inactive_file = Some(9 * G);
            }),
            &["page_cache", "anon"],
        ),
        (
            "programs without swap",
            with(|f| {
                f.meminfo.anon = Some(12 * G);
                f.meminfo.swap_total = Some(0);
                f.meminfo.swap_free = Some(0);
            }),
            &["anon", "page_cache"],
        ),
        (
            "swap full",
            with(|f| f.meminfo.swap_free = Some(10 * M)),
            &["anon", "swap_full", "page_cache"],
        ),
        (
            "tmpfs",
            with(|f| f.meminfo.shmem = Some(5 * G)),
            &["tmpfs", "anon", "page_cache"],
        ),
        (
            "locked",
            with(|f| f.meminfo.unevictable = Some(3 * G)),
            &["anon", "mlocked", "page_cache"],
        ),
        (
            "hugetlb",
            with(|f| f.meminfo.hugetlb = Some(6 * G)),
            &["hugetlb", "anon", "page_cache"],
        ),
        (
            "slab",
            with(|f| f.meminfo.slab_unreclaimable = Some(3 * G)),
            &["anon", "slab_unreclaimable", "page_cache"],
        ),
        (
            "page tables",
            with(|f| f.meminfo.pagetables = Some(G)),
            &["anon", "page_cache", "pagetables"],
        ),
        (
            "protected",
            with(|f| {
                f.cgroups.top = vec![
                    CgroupUse {
                        low: Some(8 * G),
                        ..cgroup("/db", 5 * G)
                    },
                    CgroupUse {
                        min: Some(G),
                        ..cgroup("/db/inner", 4 * G)
                    },
                    CgroupUse {
                        min: Some(G),
                        ..cgroup("/dbx", 10 * M)
                    },
                ];
            }),
            &["protected", "anon", "page_cache"],
        ),
        (
            "dying cgroups",
            with(|f| f.cgroups.dying = Some(5000)),
            &["anon", "page_cache", "dying_cgroups"],
        ),
        (
            "few dying cgroups",
            with(|f| f.cgroups.dying = Some(50)),
            &["anon", "page_cache"],
        ),
        (
            "drivers",
            with(|f| f.meminfo.free = Some(4 * G)),
            &["unaccounted", "anon", "page_cache"],
        ),
    ];
    for (name, mut facts, want) in table {
        // What holds memory is held: otherwise the rest would count as unaccounted for.
        if name != "drivers" {
            let known: u64 = Breakdown::of(&facts.meminfo)
                .parts
                .iter()
                .filter(|part| part.name != "unaccounted")
                .map(|part| part.bytes)
                .sum();
            facts.meminfo.free = Some((16 * G).saturating_sub(known));
        }
        assert_eq!(causes(&facts, "ram_not_reducing"), want, "{name}");
    }
}

#[test]
fn protection_counts_what_is_there_and_once() {
    let facts = with(|f| {
        f.cgroups.top = vec![
            CgroupUse {
                low: Some(8 * G),
                ..cgroup("/db", 5 * G)
            },
            CgroupUse {
                min: Some(G),
                ..cgroup("/db/inner", 4 * G)
            },
        ];
    });
    let answer = of(&facts, "ram_not_reducing");
    let reason = answer
        .reasons
        .iter()
        .find(|reason| reason.id == "protected")
        .unwrap();
    assert_eq!(reason.figures[0].value, Value::Bytes(5 * G));
    assert!(
        reason.text.contains("1 cgroup,") && reason.text.contains("/db"),
        "{}",
        reason.text
    );
}

#[test]
fn idle_huge_pages_are_told_as_idle() {
    let facts = with(|f| {
        f.meminfo.hugetlb = Some(4 * G);
        f.meminfo.huge_page_size = Some(2 * M);
        f.meminfo.huge_pages_free = Some(1024);
        f.meminfo.huge_pages_reserved = Some(24);
    });
    let answer = of(&facts, "ram_not_reducing");
    let reason = answer
        .reasons
        .iter()
        .find(|reason| reason.id == "hugetlb")
        .unwrap();
    assert_eq!(reason.figures[1].value, Value::Bytes(1000 * 2 * M));
    assert!(reason.text.contains("vm.nr_hugepages"), "{}", reason.text);
}

#[test]
fn a_guest_is_told_of_only_where_its_host_does_not_learn_of_free_pages() {
    let guest = |balloon, reporting| Guest {
        hypervisor: "QEMU".to_owned(),
        balloon,
        free_page_reporting: reporting,
    };
    let table = [
        (None, false),
        (Some(guest(true, Some(true))), false),
        // Hyper-V: not known.
        (Some(guest(true, None)), false),
        (Some(guest(true, Some(false))), true),
        (Some(guest(false, None)), true),
    ];
    for (guest, told) in table {
        let facts = with(|f| f.guest = guest.clone());
        let answer = of(&facts, "ram_not_reducing");
        assert_eq!(
            answer.reasons.iter().any(|reason| reason.id == "guest"),
            told,
            "{guest:?}"
        );
        assert_eq!(answer.applies, told, "{guest:?}");
        if told {
            assert!(
                answer.next[0].contains("free-page-reporting=on"),
                "{:?}",
                answer.next
            );
        }
    }
}

#[test]
fn reclaim_is_refused_by_the_first_thing_in_its_way() {
    let table: [(&str, Facts, Option<&str>); 9] = [
        ("there", fine(), None),
        (
            "5.10",
            with(|f| f.machine.reclaim_file = Some(false)),
            Some("old_kernel"),
        ),
        (
            "v1",
            with(|f| {
                f.machine.mode = Some(Mode::Hybrid);
                f.machine.has_memory = false;
                f.machine.v1_memory = Some("/sys/fs/cgroup/memory".into());
                f.machine.reclaim_file = None;
            }),
            Some("cgroup_v1"),
        ),
        (
            "v1 only",
            with(|f| {
                f.machine.mode = Some(Mode::V1Only);
                f.machine.has_memory = false;
            }),
            Some("cgroup_v1"),
        ),
        (
            "no controller",
            with(|f| f.machine.has_memory = false),
            Some("no_controller"),
        ),
        (
            "disabled",
            with(|f| {
                f.machine.memory_disabled = true;
                f.machine.has_memory = false;
            }),
            Some("disabled"),
        ),
        (
            "not delegated",
            with(|f| {
                f.machine.memory_delegated = Some(false);
                f.machine.reclaim_file = None;
            }),
            Some("not_delegated"),
        ),
        (
            "read-only",
            with(|f| f.machine.read_only = true),
            Some("read_only"),
        ),
        (
            "not root",
            with(|f| f.machine.reclaim_writable = Some(false)),
            Some("no_permission"),
        ),
    ];
    for (name, facts, want) in table {
        let answer = of(&facts, "reclaim_unavailable");
        assert_eq!(
            answer.reasons.first().map(|reason| reason.id),
            want,
            "{name}"
        );
        assert_eq!(answer.applies, want.is_some(), "{name}");
        assert_eq!(answer.next.len(), usize::from(want.is_some()), "{name}");
    }
}

#[test]
fn ksm_says_why_it_does_not_merge() {
    let ksm = |run, shared, sharing, unshared, full_scans, profit| {
        Some(Ksm {
            run: Some(run),
            pages_shared: Some(shared),
            pages_sharing: Some(sharing),
            pages_unshared: Some(unshared),
            pages_volatile: Some(0),
            full_scans: Some(full_scans),
            general_profit: Some(profit),
            pages_to_scan: Some(100),
            sleep_millisecs: Some(20),
            ..Ksm::default()
        })
    };
    let users = |offering| KsmUsers {
        looked_at: Some(10),
        offering: Some(offering),
        top: Vec::new(),
    };
    // Cause, state of KSM, processes that offer memory, whether it is worth telling.
    let table = [
        ("stopped", ksm(0, 0, 0, 0, 0, 0), 0, false),
        ("stopped", ksm(0, 0, 0, 0, 0, 0), 2, true),
        ("stopped", ksm(0, 10, 900, 5, 9, 1), 2, true),
        ("unmerging", ksm(2, 0, 0, 0, 9, 0), 2, true),
        ("nobody_asked", ksm(1, 0, 0, 0, 50, 0), 0, true),
        ("not_yet", ksm(1, 0, 0, 0, 0, 0), 1, true),
        ("not_yet", ksm(1, 0, 0, 800, 1, 0), 1, true),
        ("no_equals", ksm(1, 0, 0, 90_000, 30, -1), 1, true),
        ("no_equals", ksm(1, 3, 7, 90_000, 30, 1), 1, true),
        ("no_profit", ksm(1, 50, 900, 500, 30, -4096), 1, true),
        ("merging", ksm(1, 50, 9_000, 500, 30, 4096), 1, false),
        // 60 million pages at 5,000 a second: 200 minutes.
        (
            "merging",
            ksm(1, 50, 30_000_000, 30_000_000, 30, 4096),
            1,
            true,
        ),
    ];
    for (want, ksm, offering, applies) in table {
        let facts = with(|f| {
            f.ksm = ksm.clone();
            f.ksm_users = users(offering);
        });
        let answer = of(&facts, "ksm_not_merging");
        assert_eq!(answer.reasons[0].id, want, "{ksm:?}");
        assert_eq!(answer.applies, applies, "{want} {ksm:?}");
        assert_eq!(
            answer.answer.starts_with("Yes"),
            want == "merging",
            "{}",
            answer.answer
        );
    }
    let none = with(|f| f.ksm = None);
    assert!(of(&none, "ksm_not_merging").answer.contains("CONFIG_KSM"));
}

#[test]
fn an_advisor_paces_the_scan_by_itself() {
    let facts = with(|f| {
        f.ksm = Some(Ksm {
            run: Some(1),
            pages_sharing: Some(60_000_000),
            full_scans: Some(30),
            pages_to_scan: Some(100),
            sleep_millisecs: Some(20),
            advisor: Some("scan-time".to_owned()),
            ..Ksm::default()
        });
    });
    assert!(!of(&facts, "ksm_not_merging").applies);
}

#[test]
fn a_cgroup_full_of_cache_is_near_no_limit() {
    let full = |reclaimable| CgroupUse {
        max: Limit::Bytes(100 * M),
        reclaimable: Some(reclaimable),
        ..cgroup("/a", 100 * M)
    };
    let told = |cgroup: CgroupUse| {
        of(
            &with(|f| f.cgroups.top = vec![cgroup.clone()]),
            "near_limit",
        )
        .applies
    };
    assert!(told(full(0)));
    assert!(told(full(9 * M)));
    assert!(!told(full(40 * M)));
    assert!(!told(CgroupUse {
        max: Limit::None,
        ..full(0)
    }));
    assert!(!told(CgroupUse {
        current: None,
        ..full(0)
    }));
}

#[test]
fn what_was_denied_is_told_with_what_would_help() {
    let denied = || Denied {
        what: "/dev/kmsg".to_owned(),
        reason: "open /dev/kmsg: Operation not permitted (os error 1)".to_owned(),
        lost: "why something was killed",
        remedy: "give the binary cap_syslog".to_owned(),
    };
    let table: [(&str, Facts, &str, &str); 4] = [
        (
            "user",
            with(|f| f.machine.euid = Some(1000)),
            "not root",
            "sudo",
        ),
        (
            "container",
            with(|f| f.machine.container = Some("Docker")),
            "Docker",
            "--privileged",
        ),
        (
            "namespace",
            with(|f| f.machine.in_user_namespace = true),
            "root",
            "outside of the user namespace",
        ),
        ("root", fine(), "capability", "doctor"),
    ];
    for (name, mut facts, says, next) in table {
        facts.machine.denied.push(denied());
        let answer = of(&facts, "permission_denied");
        assert!(
            answer.applies && answer.answer.contains(says),
            "{name}: {}",
            answer.answer
        );
        assert!(answer.next[0].contains(next), "{name}: {:?}", answer.next);
        assert!(answer.reasons[0].text.contains("/dev/kmsg"), "{name}");
        assert_eq!(
            answer.next.iter().any(|next| next.contains("cap_syslog")),
            name == "user",
            "{name}"
        );
    }
    let hidden = with(|f| {
        f.machine.hidepid = true;
        f.machine.capabilities = Some(vec![]);
    });
    assert_eq!(causes(&hidden, "permission_denied"), ["hidepid"]);
    let sees = with(|f| {
        f.machine.hidepid = true;
        f.machine.capabilities = Some(vec!["CAP_SYS_PTRACE"]);
    });
    assert!(!of(&sees, "permission_denied").applies);
}

fn record() -> OomRecord {
    OomRecord {
        boot_us: 1_000_000,
        pid: 7,
        comm: "web".to_owned(),
        constraint: OomConstraint::Memcg,
        limit_cgroup: Some("/shop".to_owned()),
        victim_cgroup: Some("/shop/web".to_owned()),
        anon: Some(90 * M),
        limit: Some(100 * M),
        usage: Some(100 * M),
        cgroup_anon: Some(95 * M),
        cgroup_file: Some(M),
        candidates: vec![OomCandidate {
            pid: 7,
            comm: "web".to_owned(),
            rss: 90 * M,
            swap: 0,
        }],
        ..OomRecord::default()
    }
}

#[test]
fn a_kill_names_victim_limit_and_what_used_the_memory() {
    let told = |change: fn(&mut OomRecord)| {
        let mut record = record();
        change(&mut record);
        of(
            &with(|f| {
                f.oom.records = vec![record];
                f.oom.kills_since_boot = Some(1);
                f.oom.uptime_us = Some(181_000_000);
            }),
            "oom_killed",
        )
    };
    let answer = told(|_| ());
    assert!(answer.applies && answer.severity == Severity::Critical);
    assert_eq!(
        answer.answer,
        "1 kill since boot. The last, 3min ago: web (pid 7) in /shop/web was killed at the limit of /shop above it (100M); it had 90M of program memory."
    );
    assert!(
        answer.reasons[0].text.starts_with("3min ago: web"),
        "{}",
        answer.reasons[0].text
    );
    let figures: Vec<String> = answer.reasons[0]
        .figures
        .iter()
        .map(|figure| format!("{}={}", figure.name, figure.value))
        .collect();
    for want in [
        "limit=100M",
        "usage=100M",
        "limit_cgroup=/shop",
        "victim_cgroup=/shop/web",
        "was_using=web (pid 7) 90M",
    ] {
        assert!(figures.contains(&want.to_owned()), "{want}: {figures:?}");
    }
    assert!(
        answer.next[0].contains("--cgroup '/shop'"),
        "{:?}",
        answer.next
    );
    assert!(answer.next[1].contains("leak"), "{:?}", answer.next);

    let own = told(|record| record.victim_cgroup.clone_from(&record.limit_cgroup));
    assert!(
        own.answer.contains("at its own limit (100M)"),
        "{}",
        own.answer
    );
    let group = told(|record| record.group = true);
    assert!(
        group.answer.contains("with all of its group"),
        "{}",
        group.answer
    );
    let global = told(|record| {
        record.constraint = OomConstraint::Global;
        record.limit_cgroup = None;
    });
    assert!(
        global.answer.contains("the whole machine ran out"),
        "{}",
        global.answer
    );
    assert!(global.next[0].contains("MemoryMax="), "{:?}", global.next);
    let bare = told(|record| {
        *record = OomRecord {
            pid: 7,
            comm: "web".to_owned(),
            constraint: OomConstraint::Memcg,
            ..OomRecord::default()
        };
    });
    assert!(
        bare.answer
            .ends_with("web (pid 7) was killed at the limit of a cgroup."),
        "{}",
        bare.answer
    );
}

#[test]
fn kills_without_a_log_come_from_the_counters() {
    let counted = |change: fn(&mut Facts)| {
        of(
            &with(|f| {
                f.oom.kills_since_boot = Some(3);
                f.oom.cgroups = vec![OomCgroup {
                    path: "/shop/web".to_owned(),
                    kills: 3,
                    group_kills: Some(1),
                    limit: Some(EffectiveLimit {
                        cgroup: "/shop".to_owned(),
                        bytes: 100 * M,
                        current: Some(M),
                    }),
                }];
                change(f);
            }),
            "oom_killed",
        )
    };
    let closed = counted(|f| f.oom.log_read = false);
    assert!(
        closed.answer.starts_with("3 kills since boot") && closed.answer.contains("may not read"),
        "{}",
        closed.answer
    );
    assert_eq!(
        closed.reasons[0].text,
        "/shop/web: 3 kills of its processes since it began, under the limit of 100M of /shop"
    );
    assert!(closed.next[0].starts_with("sudo"), "{:?}", closed.next);
    let gone = counted(|_| ());
    assert!(
        gone.answer.contains("no longer has them"),
        "{}",
        gone.answer
    );
    // Kills in a container whose /proc/vmstat does not count.
    let inside = counted(|f| f.oom.kills_since_boot = None);
    assert!(
        inside.applies && inside.answer.starts_with("3 kills;"),
        "{}",
        inside.answer
    );
}

#[test]
fn a_kill_of_yesterday_is_no_alarm() {
    let facts = with(|f| {
        f.oom.records = vec![record()];
        f.oom.kills_since_boot = Some(1);
        f.oom.uptime_us = Some(90_000_000_000);
    });
    assert_eq!(of(&facts, "oom_killed").severity, Severity::Warning);
}

#[test]
fn fragmentation_matters_where_huge_pages_are_wanted_and_memory_is_free() {
    let zone = |free: u64, unusable: f64| ZoneUse {
        node: 0,
        zone: "Normal".to_owned(),
        free,
        free_blocks: vec![],
        unusable: vec![unusable; 11],
    };
    let told = |thp: &str, zones: Vec<ZoneUse>| {
        of(
            &with(|f| {
                f.thp = Some(thp.to_owned());
                f.zones = zones;
            }),
            "fragmentation",
        )
    };
    assert!(told("madvise", vec![zone(4 * G, 0.9)]).applies);
    assert!(!told("never", vec![zone(4 * G, 0.9)]).applies);
    assert!(!told("always", vec![zone(4 * G, 0.5)]).applies);
    assert!(!told("always", vec![zone(100 * M, 0.9)]).applies);
    // Weighed by what is free: a small zone does not spoil a large one.
    let mixed = told("always", vec![zone(4 * G, 0.1), zone(100 * M, 1.0)]);
    assert!(!mixed.applies, "{}", mixed.answer);
}

#[test]
fn figures_name_their_kind_in_json() {
    let reason = reason("x", "text")
        .bytes("a", 5, "file")
        .count("b", 2, "file")
        .text("c", "w", "file");
    let json = serde_json::to_value(&reason).unwrap();
    assert_eq!(
        json["figures"][0],
        serde_json::json!({"name": "a", "bytes": 5, "source": "file"})
    );
    assert_eq!(json["figures"][1]["count"], 2);
    assert_eq!(json["figures"][2]["text"], "w");
}
