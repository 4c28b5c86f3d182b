//! Models made from events with round figures.

use std::time::Duration;

use grey_core::event::{
    Body, Budget, Cgroup, Constraint, Degraded, Event, Faults, Growth, GrowthScope, Health, Limit,
    Mem, MemEvents, MemSource, Oom, OomTrigger, OomVictim, Pressure, PressureLevel, Psi, Reclaim,
    SCHEMA, Sample, Stall, StallKind, Vm,
};
use grey_core::time::Timestamp;
use grey_core::view::Model;

pub(super) const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// 2026-11-21 05:00:00 UTC.
pub(super) const START: i64 = 1_795_237_200_000_000;

pub(super) fn event(second: u64, path: &str, kind: &str, body: Body) -> Event {
    let name = path.rsplit('/').next().unwrap_or(path).to_owned();
    Event {
        schema: SCHEMA.into(),
        ts: Timestamp(START + second as i64 * 1_000_000),
        seq: 0,
        host: "node-7".into(),
        boot_id: None,
        cgroup: (!path.is_empty()).then(|| Cgroup {
            id: Some(42),
            path: path.into(),
            kind: kind.into(),
            name,
        }),
        lossy: path.contains("lossy"),
        body,
    }
}

/// What a cgroup does: anon at the start, growth and faults a second, limit, share of time stalled in percent.
struct Life {
    path: &'static str,
    kind: &'static str,
    anon: u64,
    growth: u64,
    faults: u64,
    max: Limit,
    stalled: u64,
}

const fn life(path: &'static str, kind: &'static str, anon: u64, growth: u64, faults: u64) -> Life {
    Life {
        path,
        kind,
        anon,
        growth,
        faults,
        max: Limit::None,
        stalled: 0,
    }
}

pub(super) const POD: &str = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod3f1c9a2e_77d0_4b0e_9a51_0d6f4c2b8e11.slice/cri-containerd-9b1f0c7e5d3a4f6688a1c2e3b4d5f60718293a4b5c6d7e8f90a1b2c3d4e5f607.scope";

fn lives() -> Vec<Life> {
    vec![
        Life {
            max: Limit::Unknown,
            ..life("/", "root", 6 * GIB, 0, 9000)
        },
        Life {
            max: Limit::Bytes(6 * GIB),
            ..life("/kubepods.slice", "slice", 3 * GIB, 4 * MIB, 2048)
        },
        Life {
            max: Limit::Bytes(1536 * MIB),
            ..life(POD, "container", 1000 * MIB, 4 * MIB, 1024)
        },
        life("/system.slice", "slice", 2 * GIB, 0, 4000),
        Life {
            max: Limit::Bytes(GIB),
            stalled: 18,
            ..life(
                "/system.slice/postgresql.service",
                "service",
                700 * MIB,
                0,
                12_345,
            )
        },
        Life {
            max: Limit::Bytes(512 * MIB),
            ..life("/system.slice/nginx.service", "service", 84 * MIB, 0, 77)
        },
        life("/system.slice/lossy.service", "service", 20 * MIB, 0, 300),
        life("/system.slice/ssh.service", "service", 9 * MIB, 0, 0),
        life(
            "/user.slice/user-1000.slice/app-größer-東京-メモリ.scope",
            "scope",
            240 * MIB,
            300 << 10,
            75,
        ),
    ]
}

fn at(life: &Life, second: u64, memory: bool) -> Sample {
    let anon = life.anon + life.growth * second;
    let us = life.stalled * 10_000 * second;
    let mem = Mem {
        current: Some(anon + anon / 4),
        anon: Some(anon),
        file: Some(anon / 5),
        shmem: Some(0),
        kernel: Some(anon / 20),
        slab: Some(anon / 40),
        pagetables: Some(anon / 200),
        sock: Some(0),
        swap: Some(0),
        max: life.max,
        high: if life.path == "/" {
            Limit::Unknown
        } else {
            Limit::None
        },
        ..Mem::default()
    };
    Sample {
        cpu: None,
        mem_source: Some(MemSource::Files),
        mem: if memory { mem } else { Mem::default() },
        faults: Some(Faults {
            minor_total: Some(1_000_000 + life.faults * second),
            major_total: memory.then_some(12),
            user_read_total: Some(400_000),
            user_write_total: Some(600_000),
            user_exec_total: None,
            kernel_total: Some(0),
        }),
        vm: Some(Vm {
            mapped_total: Some(40 * GIB + life.faults * 4096 * second),
            unmapped_total: Some(39 * GIB),
            r#virtual: Some(400 * GIB),
            ..Vm::default()
        }),
        reclaim: Some(Reclaim {
            stall_us_total: Some(us),
            pages_total: Some(20 * life.stalled * second),
            ..Reclaim::default()
        }),
        psi: memory.then_some(Psi {
            some_us_total: us,
            full_us_total: Some(us / 10),
        }),
        events: memory.then(MemEvents::default),
        processes: Some(3),
    }
}

fn run(memory: bool) -> Model {
    let mut model = Model::new(Duration::from_secs(1));
    for second in 0..=40 {
        for life in lives() {
            // What is idle is sampled every 30 ticks.
            if life.faults > 0 || second % 30 == 0 {
                let body = Body::Sample(Box::new(at(&life, second, memory)));
                model.apply(&event(second, life.path, life.kind, body));
            }
        }
    }
    let health = Health {
        cpu_pct: Some(0.4),
        rss: Some(14 * MIB),
        ..Health::default()
    };
    model.apply(&event(40, "", "", Body::Health { health }));
    model
}

/// Leaks, load, a cgroup under pressure and idle ones.
pub(super) fn busy() -> Model {
    run(true)
}

/// As [`busy`] on a machine whose cgroups have no memory controller.
pub(super) fn without_memory() -> Model {
    run(false)
}

/// As [`busy`], with every kind of alert, growing processes and losses.
pub(super) fn alerting() -> Model {
    let mut model = run(true);
    for event in alert_events() {
        model.apply(&event);
    }
    let degraded = Degraded {
        probe: "mmap".into(),
        attached: "kprobe".into(),
        lost: "nothing".into(),
        reason: "no BTF".into(),
    };
    let health = Health {
        cpu_pct: Some(2.5),
        rss: Some(15 * MIB),
        dropped: [("growth".to_owned(), 12)].into(),
        degraded: vec![degraded],
        budget: Some(Budget {
            step: 3,
            steps: vec!["stacks".to_owned(), "interval".to_owned()],
            interval_s: 4.0,
            ..Budget::default()
        }),
        ..Health::default()
    };
    model.apply(&event(43, "", "", Body::Health { health }));
    model
}

pub(super) fn sample_event() -> Event {
    event(0, "/", "root", Body::Sample(Box::default()))
}

pub(super) fn alert_events() -> Vec<Event> {
    let growth = |scope, pid, comm: &str, rss| Body::Growth {
        growth: Growth {
            scope,
            pid,
            comm: comm.into(),
            bytes: 16 * MIB,
            since_ms: 4000,
            rss,
            r#virtual: None,
        },
    };
    let victim = OomVictim {
        pid: 4242,
        comm: "python3".into(),
        anon: Some(512 * MIB),
        file: Some(MIB),
        shmem: Some(0),
        pgtables: Some(1_300_000),
        r#virtual: Some(2 * GIB),
        oom_score_adj: Some(0),
    };
    let trigger = OomTrigger {
        pid: 4250,
        comm: "worker".into(),
        cgroup: None,
    };
    let oom = Oom {
        victim: Some(victim),
        trigger: Some(trigger),
        constraint: Some(Constraint::Memcg),
        limit_cgroup: Some("/kubepods.slice".into()),
        kills: 1,
    };
    let unseen = Oom {
        victim: None,
        trigger: None,
        constraint: None,
        limit_cgroup: None,
        kills: 3,
    };
    let stall = Stall {
        kind: StallKind::Memcg,
        us: 34_000,
        pages: 212,
        pid: Some(811),
        comm: Some("postgres".into()),
        target: None,
        own: false,
    };
    let own = Stall {
        own: true,
        kind: StallKind::Direct,
        pid: None,
        comm: None,
        ..stall.clone()
    };
    let pressure = Pressure {
        level: PressureLevel::Some,
        threshold_us: 150_000,
        window_us: 1_000_000,
        avg10: Some(18.25),
    };
    let postgres = "/system.slice/postgresql.service";
    let mut events = vec![
        event(38, POD, "container", Body::Oom { oom }),
        event(
            39,
            "/system.slice/nginx.service",
            "service",
            Body::Oom { oom: unseen },
        ),
        event(40, postgres, "service", Body::Pressure { pressure }),
        event(41, "/", "root", Body::Stall { stall: own }),
        event(
            42,
            "/system.slice",
            "slice",
            growth(GrowthScope::Cgroup, 811, "postgres", None),
        ),
    ];
    for second in [40, 41, 42] {
        events.push(event(
            second,
            postgres,
            "service",
            Body::Stall {
                stall: stall.clone(),
            },
        ));
        events.push(event(
            second,
            POD,
            "container",
            growth(GrowthScope::Process, 4250, "worker", Some(700 * MIB)),
        ));
    }
    events
}

/// Cgroups by number, all active.
pub(super) fn many(number: u64) -> Model {
    let mut model = Model::new(Duration::from_secs(1));
    for second in 0..3 {
        for n in 0..number {
            let life = life("", "scope", n * MIB, n * 100, n);
            let body = Body::Sample(Box::new(at(&life, second, true)));
            model.apply(&event(
                second,
                &format!("/machine.slice/job-{n:05}.scope"),
                "scope",
                body,
            ));
        }
    }
    model
}
