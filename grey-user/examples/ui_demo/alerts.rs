//! Made-up alerts and health.

use grey_core::event::{
    Body, Constraint, Degraded, Event, Growth, GrowthScope, Health, Oom, OomTrigger, OomVictim,
    Pressure, PressureLevel, Stall, StallKind,
};

use crate::scene::{Behaviour, Demo, GIB, MIB};

impl Demo {
    pub(crate) fn alerts(&mut self, events: &mut Vec<Event>) {
        let second = self.second;
        let cgroup = |demo: &Demo, part: &str| {
            demo.cgroups
                .iter()
                .map(|made| &made.cgroup)
                .find(|cgroup| cgroup.path.contains(part))
                .cloned()
        };
        let growth = |scope, pid, comm: &str, bytes, since_ms, rss| Body::Growth {
            growth: Growth {
                scope,
                pid,
                comm: comm.into(),
                bytes,
                since_ms,
                rss: Some(rss),
                r#virtual: None,
            },
        };
        if second % 4 == 0 {
            let rss = 1100 * MIB + (second as u64 % 600) * 4 * MIB;
            let body = growth(GrowthScope::Process, 4242, "python3", 16 * MIB, 4000, rss);
            events.push(self.event(cgroup(self, "9b1f0c"), body));
        }
        if second % 11 == 0 {
            let body = growth(
                GrowthScope::Process,
                811,
                "postgres",
                16 * MIB,
                700,
                410 * MIB,
            );
            events.push(self.event(cgroup(self, "postgres"), body));
        }
        if second % 17 == 0 {
            let body = growth(
                GrowthScope::Process,
                90_210,
                "java",
                24 * MIB,
                2500,
                640 * MIB,
            );
            events.push(self.event(cgroup(self, "docker-5c"), body));
        }
        if second % 9 == 0 {
            let stall = Stall {
                kind: StallKind::Memcg,
                us: 34_000 + (second as u64 % 7) * 9_000,
                pages: 212,
                pid: Some(90_210),
                comm: Some("java".into()),
                target: None,
                own: false,
            };
            events.push(self.event(cgroup(self, "docker-5c"), Body::Stall { stall }));
        }
        if second % 23 == 0 {
            let pressure = Pressure {
                level: PressureLevel::Some,
                threshold_us: 150_000,
                window_us: 1_000_000,
                avg10: Some(18.2),
            };
            events.push(self.event(cgroup(self, "docker-5c"), Body::Pressure { pressure }));
        }
        if second % 70 == 0 {
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
            if let Some(leaking) = self
                .cgroups
                .iter_mut()
                .find(|made| matches!(made.behaviour, Behaviour::Leaks(_)))
            {
                leaking.sample.mem.anon = leaking
                    .sample
                    .mem
                    .anon
                    .map(|anon| anon.saturating_sub(512 * MIB));
            }
            let oom = Oom {
                victim: Some(victim),
                trigger: Some(OomTrigger {
                    pid: 4250,
                    comm: "worker".into(),
                    cgroup: None,
                }),
                constraint: Some(Constraint::Memcg),
                limit_cgroup: None,
                kills: 1,
            };
            events.push(self.event(cgroup(self, "9b1f0c"), Body::Oom { oom }));
        }
        let mut health = Health {
            cpu_pct: Some(0.4),
            rss: Some(14 * MIB),
            cgroups: self.cgroups.len() as u64,
            ..Health::default()
        };
        if second % 100 > 30 {
            health.dropped.insert("growth".into(), 12);
        }
        let lost = if self.scene == "nomem" {
            "memory figures"
        } else {
            "faults by cause"
        };
        health.degraded.push(Degraded {
            probe: "mmap".into(),
            attached: "kprobe".into(),
            lost: lost.into(),
            reason: "no BTF".into(),
        });
        events.push(self.event(None, Body::Health { health }));
    }
}
