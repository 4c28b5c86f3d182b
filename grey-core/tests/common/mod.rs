//! Events to hold against the schema: written by hand as JSON, and made from the types.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "test code outside a #[test] function")]

use grey_core::event::*;
use grey_core::schema::json_schema;
use grey_core::time::Timestamp;
use serde_json::{Value, json};

/// Every `type` a line can have.
pub(crate) const TYPES: [&str; 11] = [
    "sample", "process", "growth", "verdict", "oom", "stall", "pressure", "action", "outcome",
    "rollback", "health",
];

pub(crate) fn validator() -> jsonschema::Validator {
    jsonschema::options()
        .should_validate_formats(true)
        .build(&json_schema())
        .unwrap()
}

/// A line of this type as a user sees it, written by hand.
pub(crate) fn example(name: &str) -> Value {
    let mut line = json!({
        "schema": "grey-ebpf/1", "type": name, "ts": "2026-11-21T05:00:00.123Z", "seq": 17, "host": "n1",
        "boot_id": "0b1c2d3e-0000-4000-8000-0123456789ab", "lossy": false,
    });
    if name != "health" {
        line["cgroup"] = json!({
            "id": 4242, "path": "/system.slice/nginx.service", "kind": "service", "name": "nginx.service",
        });
    }
    let body = match name {
        "sample" => json!({
            "mem": {
                "current": 104857600, "anon": 73400320, "file": 20971520, "shmem": 0, "kernel": 4194304, "slab": 2097152,
                "pagetables": 1048576, "sock": 4096, "swap": 0, "available": 8589934592u64, "max": null,
                "high": 268435456, "inactive_file": 4194304, "total": 17179869184u64, "swap_free": 2147483648u64,
            },
            "cpu": { "usage_us_total": 123456 },
            "faults": {
                "minor_total": 120000, "major_total": 12, "user_read_total": 50000, "user_write_total": 60000,
                "user_exec_total": 9000, "kernel_total": 1012,
            },
            "vm": {
                "mapped_total": 1073741824, "unmapped_total": 536870912, "released_total": 65536,
                "map_calls_total": 420, "unmap_calls_total": 211, "release_calls_total": 16, "virtual": 2147483648u64,
            },
            "reclaim": {
                "stall_us_total": 1500, "pages_total": 2048, "direct_us_total": 500, "memcg_us_total": 1000,
                "own_pages_total": 0, "own_us_total": 0, "refault_total": 77,
            },
            "psi": { "some_us_total": 2500, "full_us_total": 900 },
            "events": { "high_total": 3, "max_total": 0, "oom_total": 0, "oom_kill_total": 0 },
            "processes": 5,
        }),
        "process" => json!({ "process": {
            "pid": 812, "comm": "nginx", "rss": 12582912, "anon": 8388608, "swap": 0, "virtual": 134217728,
        } }),
        "growth" => json!({ "growth": {
            "scope": "process", "pid": 812, "comm": "nginx", "bytes": 16777216, "since_ms": 840, "rss": 29360128,
            "virtual": 134217728,
        } }),
        "verdict" => json!({ "verdict": {
            "state": "confirmed", "cause": "leak", "memory": "anon", "process": { "pid": 812, "comm": "nginx" },
            "rate_bps": 17476.3, "rate_ci95": [17100.0, 17900.5], "confidence": 0.99, "growth_bytes": 104857600,
            "since": "2026-11-21T03:20:00.000Z", "limit_bytes": 1073741824, "limit_cgroup": "/system.slice",
            "ttl_s": 49152.0, "ttl_ci95_s": [48000.0, 50300.0],
            "evidence": {
                "reason": "grew 100M in 1h 40m without falling back", "base_bytes": 104857600, "level_bytes": 209715200,
                "peak_before_bytes": 110100480, "window_s": 6000.0, "needed_s": 5900.0, "bucket_s": 180.0, "floors": 33,
                "z": 7.9, "tau": 0.98, "second_half": 1.02, "largest_step": 0.04, "room_taken": 0.11,
                "virtual_growth_bytes": 105906176, "processes": [5, 5],
                "grower": { "pid": 812, "comm": "nginx", "bytes": 104857600 },
            },
            "stacks": [{
                "pid": 812, "comm": "nginx", "function": "ngx_cache_add", "kept_bytes": 41943040, "faulted_bytes": 50331648,
                "frames": ["memset", "ngx_cache_add", "main"],
            }],
            "advice": "capture a heap profile of nginx (812) before it reaches its limit",
        } }),
        "oom" => json!({ "oom": {
            "victim": {
                "pid": 812, "comm": "nginx", "anon": 67108864, "file": 4096, "shmem": 0, "pgtables": 204800,
                "virtual": 134217728, "oom_score_adj": -500,
            },
            "trigger": { "pid": 813, "comm": "nginx", "cgroup": "/system.slice/nginx.service" },
            "constraint": "memcg", "limit_cgroup": "/system.slice/nginx.service", "kills": 1,
        } }),
        "stall" => json!({ "stall": {
            "kind": "memcg", "us": 15300, "pages": 64, "pid": 812, "comm": "nginx",
            "target": "/system.slice/nginx.service", "own": false,
        } }),
        "pressure" => json!({ "pressure": {
            "level": "some", "threshold_us": 150000, "window_us": 1000000, "avg10": 12.5,
        } }),
        "action" => json!({ "action": {
            "id": 7, "kind": "limit", "target": "/system.slice/nginx.service", "planned_bytes": 33554432,
            "reason": "asked for on the command line", "dry_run": false,
            "writes": [{
                "file": "/system.slice/nginx.service/memory.high", "old": "max", "new": "134217728", "reversible": true,
            }],
            "effect": "throttled and reclaimed above 128M", "lease_s": 30.0,
            "policy": "proactive", "expected_harm": 0.02,
        } }),
        "outcome" => json!({ "outcome": {
            "id": 7, "kind": "limit", "target": "/system.slice/nginx.service", "freed_bytes": 33554432,
            "kept_bytes": 16777216, "psi_delta_us": 1200, "refaults": 12, "verdict": "commit",
            "notes": ["32M of 64M: nothing else could be reclaimed"],
            "before": {
                "current": 167772160, "anon": 100663296, "file": 67108864, "swap": 0, "rss": 100663296,
                "available": 1073741824, "free": 536870912, "refaults": 0, "psi_some_us": 100, "psi_full_us": 50,
                "major_faults": 3, "cpu_us": 1000000, "ksm_profit": -4096,
                "free_huge": 2097152,
            },
            "after": { "current": 134217728 },
            "took_us": 15300,
        } }),
        "rollback" => json!({ "rollback": {
            "id": 7, "cause": "oom_kill: 1 in /system.slice/nginx.service",
            "restored": [{ "file": "/system.slice/nginx.service/memory.high", "from": "134217728", "to": "max" }],
            "skipped": [{
                "file": "/system.slice/nginx.service/memory.max", "why": "was written by somebody else since",
            }],
        } }),
        "health" => json!({ "health": {
            "cpu_pct": 0.4, "rss": 9437184, "bpf_ns_total": 120000000, "emitted": { "growth": 12, "oom": 1 },
            "read": { "growth": 11, "oom": 1 }, "dropped": { "growth": 1 }, "rejected": 0,
            "degraded": [{
                "probe": "vm", "attached": "off", "lost": "mapped and unmapped bytes", "reason": "fentry refused: EPERM",
            }],
            "cgroups": 61, "map_entries": { "cgroups": 61 }, "fds": 140,
        } }),
        other => panic!("no example of type {other}"),
    };
    for (key, value) in body.as_object().unwrap() {
        line[key] = value.clone();
    }
    line
}

/// Events with every field known, and with as few as possible.
pub(crate) fn every_event() -> Vec<Event> {
    let mut bodies: Vec<Body> = TYPES
        .iter()
        .map(|name| serde_json::from_value::<Event>(example(name)).unwrap().body)
        .collect();
    bodies.extend([
        Body::Sample(Box::default()),
        Body::Sample(Box::new(Sample {
            mem_source: Some(MemSource::Files),
            mem: Mem {
                current: Some(u64::MAX),
                max: Limit::Bytes(u64::MAX),
                high: Limit::None,
                ..Mem::default()
            },
            faults: Some(Faults::default()),
            vm: Some(Vm::default()),
            reclaim: Some(Reclaim {
                kswapd_us_total: Some(0),
                ..Reclaim::default()
            }),
            psi: Some(Psi::default()),
            cpu: Some(Cpu { usage_us_total: 0 }),
            events: Some(MemEvents::default()),
            processes: Some(0),
        })),
        Body::Process {
            process: Process::default(),
        },
        Body::Growth {
            growth: Growth {
                scope: GrowthScope::Cgroup,
                pid: 0,
                comm: String::new(),
                bytes: 0,
                since_ms: 0,
                rss: None,
                r#virtual: None,
            },
        },
        Body::Oom {
            oom: Oom {
                victim: None,
                trigger: None,
                constraint: None,
                limit_cgroup: None,
                kills: 3,
            },
        },
        Body::Stall {
            stall: Stall {
                kind: StallKind::Kswapd,
                us: 1,
                pages: 0,
                pid: None,
                comm: None,
                target: None,
                own: true,
            },
        },
        Body::Pressure {
            pressure: Pressure {
                level: PressureLevel::Full,
                threshold_us: 1,
                window_us: 2,
                avg10: None,
            },
        },
        Body::Health {
            health: Health::default(),
        },
        Body::Health {
            health: Health {
                budget: Some(Budget {
                    cpu_pct: Some(1.25),
                    bpf_pct: Some(0.5),
                    bpf_estimated: Some("not permitted".to_owned()),
                    limit_cpu_pct: Some(1.0),
                    memory_bytes: Some(8 << 20),
                    limit_memory_bytes: Some(64 << 20),
                    window_s: 30.0,
                    step: 3,
                    steps: vec!["stacks".to_owned(), "interval".to_owned()],
                    interval_s: 4.0,
                    exceeded: vec!["cpu".to_owned()],
                    exhausted: true,
                }),
                ..Health::default()
            },
        },
    ]);
    for constraint in [
        Constraint::Memcg,
        Constraint::Global,
        Constraint::Cpuset,
        Constraint::Mempolicy,
    ] {
        bodies.push(Body::Oom {
            oom: Oom {
                victim: None,
                trigger: None,
                constraint: Some(constraint),
                limit_cgroup: None,
                kills: 1,
            },
        });
    }
    bodies
        .into_iter()
        .zip(0..)
        .map(|(body, seq)| Event {
            schema: SCHEMA.to_owned(),
            ts: Timestamp(1_795_237_200_123_000),
            seq,
            host: "n1".to_owned(),
            boot_id: (seq % 2 == 0).then(|| "0b1c2d3e".to_owned()),
            cgroup: (seq % 3 != 0).then(|| Cgroup {
                id: (seq % 2 == 0).then_some(u64::MAX),
                path: "/odd \"name\"\n/é".to_owned(),
                kind: "cgroup".to_owned(),
                name: "é".to_owned(),
            }),
            lossy: seq % 2 == 1,
            body,
        })
        .collect()
}
