//! Made-up cgroups and how they behave.

use std::time::Duration;

use grey_core::event::{
    Body, Cgroup, Event, Faults, Limit, Mem, MemEvents, Psi, Reclaim, SCHEMA, Sample, Vm,
};
use grey_core::time::Timestamp;
use grey_core::view::Model;
use grey_user::ui::Info;

use crate::TICK;

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

pub(crate) struct Demo {
    pub(crate) model: Model,
    pub(crate) scene: String,
    pub(crate) second: i64,
    pub(crate) cgroups: Vec<Made>,
    random: u64,
    /// Length of the recording that is shown.
    recorded: Option<Duration>,
    available: Option<u64>,
}

pub(crate) struct Made {
    pub(crate) cgroup: Cgroup,
    pub(crate) sample: Sample,
    pub(crate) behaviour: Behaviour,
}

#[derive(Clone, Copy)]
pub(crate) enum Behaviour {
    Quiet,
    Busy,
    Leaks(u64),
    Saw,
    Squeezed,
}

impl Demo {
    pub(crate) fn new(scene: &str) -> Self {
        let mut demo = Demo {
            model: Model::new(TICK),
            scene: scene.to_owned(),
            second: 1_795_237_200,
            cgroups: Vec::new(),
            random: 42,
            recorded: None,
            available: None,
        };
        if scene == "empty" {
            return demo;
        }
        use Behaviour::{Busy, Leaks, Quiet, Saw, Squeezed};
        let pod = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod3f1c9a2e_77d0_4b0e_9a51_0d6f4c2b8e11.slice";
        let shop = format!(
            "{pod}/cri-containerd-9b1f0c7e5d3a4f6688a1c2e3b4d5f60718293a4b5c6d7e8f90a1b2c3d4e5f607.scope"
        );
        demo.add("/", "root", "/", 9 * GIB, None, Busy);
        demo.add(
            "/system.slice",
            "slice",
            "system.slice",
            3 * GIB,
            None,
            Busy,
        );
        demo.add(
            "/system.slice/postgresql.service",
            "service",
            "postgresql.service",
            1900 * MIB,
            Some(4 * GIB),
            Saw,
        );
        demo.add(
            "/system.slice/nginx.service",
            "service",
            "nginx.service",
            84 * MIB,
            Some(512 * MIB),
            Busy,
        );
        demo.add("/system.slice/docker-5c1d2e3f4a5b60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9.scope", "container", "5c1d2e3f4a5b", 700 * MIB, Some(GIB), Squeezed);
        demo.add(
            "/system.slice/systemd-journald.service",
            "service",
            "systemd-journald.service",
            48 * MIB,
            None,
            Quiet,
        );
        demo.add(
            "/system.slice/ssh.service",
            "service",
            "ssh.service",
            9 * MIB,
            None,
            Quiet,
        );
        demo.add(
            "/kubepods.slice",
            "slice",
            "kubepods.slice",
            3 * GIB,
            Some(6 * GIB),
            Busy,
        );
        demo.add(
            pod,
            "pod",
            "3f1c9a2e-77d0-4b0e-9a51-0d6f4c2b8e11",
            1200 * MIB,
            Some(2 * GIB),
            Busy,
        );
        demo.add(
            &shop,
            "container",
            "9b1f0c7e5d3a",
            1100 * MIB,
            Some(1536 * MIB),
            Leaks(4 * MIB),
        );
        demo.add("/user.slice", "slice", "user.slice", 2 * GIB, None, Busy);
        demo.add(
            "/user.slice/user-1000.slice",
            "user",
            "alice",
            2 * GIB,
            None,
            Busy,
        );
        demo.add(
            "/user.slice/user-1000.slice/session-3.scope",
            "session",
            "session-3",
            900 * MIB,
            None,
            Leaks(300 << 10),
        );
        demo.add(
            "/user.slice/user-1000.slice/user@1000.service/app.slice/app-größer-東京-メモリ.scope",
            "scope",
            "app-größer-東京-メモリ",
            240 * MIB,
            None,
            Saw,
        );
        let many = if scene == "many" { 10_000 } else { 12 };
        for n in 0..many {
            let path = format!("/machine.slice/job-{n:05}.scope");
            demo.add(
                &path,
                "scope",
                &format!("job-{n:05}"),
                (n % 37 + 1) * MIB,
                None,
                if n % 5 == 0 { Busy } else { Quiet },
            );
        }
        demo
    }

    fn add(
        &mut self,
        path: &str,
        kind: &str,
        name: &str,
        anon: u64,
        max: Option<u64>,
        behaviour: Behaviour,
    ) {
        let file = anon / 3;
        let memory = self.scene != "nomem";
        let mem = if memory {
            Mem {
                current: Some(anon + file + anon / 20),
                anon: Some(anon),
                file: Some(file),
                shmem: Some(anon / 50),
                kernel: Some(anon / 20),
                slab: Some(anon / 40),
                pagetables: Some(anon / 200),
                sock: Some(0),
                swap: Some(0),
                max: if path == "/" {
                    Limit::Unknown
                } else {
                    max.map_or(Limit::None, Limit::Bytes)
                },
                high: if path == "/" {
                    Limit::Unknown
                } else {
                    Limit::None
                },
                ..Mem::default()
            }
        } else {
            Mem::default()
        };
        let sample = Sample {
            mem_source: None,
            cpu: None,
            mem,
            faults: Some(Faults {
                minor_total: Some(1_234_567),
                major_total: memory.then_some(321),
                user_read_total: Some(400_000),
                user_write_total: Some(800_000),
                user_exec_total: Some(20_000),
                kernel_total: Some(14_567),
            }),
            vm: Some(Vm {
                mapped_total: Some(40 * GIB),
                unmapped_total: Some(38 * GIB),
                released_total: Some(2 * GIB),
                map_calls_total: Some(81_234),
                unmap_calls_total: Some(80_101),
                release_calls_total: Some(5_120),
                r#virtual: Some(anon * 6),
            }),
            reclaim: Some(Reclaim {
                stall_us_total: Some(0),
                pages_total: Some(0),
                ..Reclaim::default()
            }),
            psi: memory.then_some(Psi {
                some_us_total: 0,
                full_us_total: Some(0),
            }),
            events: memory.then(MemEvents::default),
            processes: Some(anon / (40 * MIB) + 1),
        };
        let id = Some(4000 + self.cgroups.len() as u64);
        let cgroup = Cgroup {
            id,
            path: path.to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
        };
        self.cgroups.push(Made {
            cgroup,
            sample,
            behaviour,
        });
    }

    /// Takes in a recording as it is.
    pub(crate) fn play(&mut self, path: &str) -> std::io::Result<()> {
        use std::io::BufRead as _;
        let file = std::fs::File::open(path)?;
        let lines: Box<dyn std::io::Read> = match path.ends_with(".gz") {
            true => Box::new(flate2::read::GzDecoder::new(file)),
            false => Box::new(file),
        };
        let mut first = None;
        for line in std::io::BufReader::new(lines).lines() {
            let event: Event = serde_json::from_str(&line?)?;
            let first = *first.get_or_insert(event.ts.0);
            self.recorded = Some(Duration::from_micros(
                u64::try_from(event.ts.0 - first).unwrap_or(0),
            ));
            if let (Some("/"), Body::Sample(sample)) = (
                event.cgroup.as_ref().map(|cgroup| cgroup.path.as_str()),
                &event.body,
            ) {
                self.available = sample.mem.available;
            }
            self.model.apply(&event);
        }
        Ok(())
    }

    /// A second passes.
    pub(crate) fn tick(&mut self) -> Vec<Event> {
        self.second += 1;
        let mut events = Vec::new();
        for at in 0..self.cgroups.len() {
            let random = self.next();
            let second = self.second as u64;
            let made = &mut self.cgroups[at];
            if matches!(made.behaviour, Behaviour::Quiet)
                && !(second + at as u64).is_multiple_of(30)
            {
                continue;
            }
            made.step(second, random);
            let body = Body::Sample(Box::new(made.sample.clone()));
            let cgroup = Some(made.cgroup.clone());
            events.push(self.event(cgroup, body));
        }
        if self.scene != "empty" {
            self.alerts(&mut events);
        }
        for event in &events {
            self.model.apply(event);
        }
        events
    }

    pub(crate) fn event(&self, cgroup: Option<Cgroup>, body: Body) -> Event {
        Event {
            schema: SCHEMA.to_owned(),
            ts: Timestamp(self.second * 1_000_000),
            seq: 0,
            host: "node-7".to_owned(),
            boot_id: None,
            cgroup,
            lossy: false,
            body,
        }
    }

    pub(crate) fn info(&self) -> Info {
        if let Some(elapsed) = self.recorded {
            // MemTotal and the kernel's release are not in a recording.
            let set = |name| std::env::var(name).ok();
            return Info {
                kernel: set("DEMO_KERNEL").unwrap_or_default(),
                elapsed,
                interval: TICK,
                mem_total: set("DEMO_MEM_TOTAL").and_then(|total| total.parse().ok()),
                mem_available: self.available,
                ..Info::default()
            };
        }
        Info {
            kernel: "6.12.48-amd64".to_owned(),
            elapsed: Duration::from_secs((self.second - 1_795_237_200) as u64),
            interval: TICK,
            mem_total: Some(16 * GIB),
            mem_available: Some(5 * GIB + 300 * MIB),
            source: "demo".to_owned(),
            ..Info::default()
        }
    }

    fn next(&mut self) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.random >> 33
    }
}

impl Made {
    fn step(&mut self, second: u64, random: u64) {
        let anon = self.sample.mem.anon.unwrap_or(100 * MIB);
        let (grown, faults) = match self.behaviour {
            Behaviour::Quiet => (0, 0),
            Behaviour::Busy => ((random % 9) as i64 * 4096 - 4 * 4096, random % 900),
            Behaviour::Leaks(rate) => (
                (rate / 2 + random % rate) as i64,
                rate / 4096 + random % 200,
            ),
            Behaviour::Saw if second.is_multiple_of(20) => (-((19 * 3 * MIB) as i64), 40),
            Behaviour::Saw => ((3 * MIB) as i64, 768 + random % 300),
            Behaviour::Squeezed => (
                (random % 40) as i64 * 65_536 - 20 * 65_536,
                9_000 + random % 4_000,
            ),
        };
        let anon = anon.saturating_add_signed(grown);
        if self.sample.mem.anon.is_some() {
            self.sample.mem.anon = Some(anon);
            let current =
                anon + self.sample.mem.file.unwrap_or(0) + self.sample.mem.kernel.unwrap_or(0);
            self.sample.mem.current = Some(current);
        }
        let squeezed = matches!(self.behaviour, Behaviour::Squeezed);
        if let Some(faults_of) = &mut self.sample.faults {
            faults_of.minor_total = faults_of.minor_total.map(|n| n + faults);
            faults_of.major_total = faults_of
                .major_total
                .map(|n| n + if squeezed { random % 60 } else { 0 });
        }
        if let Some(vm) = &mut self.sample.vm {
            vm.mapped_total = vm.mapped_total.map(|n| n + faults * 5000);
            vm.unmapped_total = vm.unmapped_total.map(|n| n + faults * 4000);
        }
        if squeezed {
            if let Some(reclaim) = &mut self.sample.reclaim {
                reclaim.stall_us_total =
                    reclaim.stall_us_total.map(|n| n + 90_000 + random % 80_000);
                reclaim.pages_total = reclaim.pages_total.map(|n| n + 2_000);
            }
            if let Some(psi) = &mut self.sample.psi {
                psi.some_us_total += 110_000 + random % 90_000;
                psi.full_us_total = psi.full_us_total.map(|n| n + 20_000);
            }
        }
    }
}
