//! The machine of the model: memory shared by its cgroups, the kernel's own reclaim when it runs short, the OOM killer,
//! and samples of it all.

use grey_core::event::{
    Body, Cgroup, Cpu, Event, Faults, Limit, Mem, Oom, Psi, Reclaim, SCHEMA, Sample,
};
use grey_core::time::Timestamp;

use crate::load::{Load, PAGE};

pub(crate) const MIB: f64 = 1048576.0;
/// Midnight of a Saturday.
pub(crate) const START: i64 = 1_795_219_200_000_000;
/// Part of memory that the kernel keeps free.
const LOW: f64 = 0.02;
const HIGH: f64 = 0.03;
/// Part of the hot page cache that stands on the inactive list all the same.
const MIXED: f64 = 0.03;
/// Above so much inactive page cache anonymous memory is left alone.
const TRIM: f64 = 16.0 * MIB;
/// Direct reclaim frees so much a second at most.
const DIRECT: f64 = 512.0 * MIB;

/// What reclaim looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Take {
    File,
    Both,
    /// Anonymous memory that is not touched.
    Idle,
}

#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) second: u64,
    pub(crate) total: f64,
    pub(crate) swap: f64,
    /// What nobody can reclaim.
    pub(crate) kernel: f64,
    pub(crate) loads: Vec<Load>,
    pub(crate) ooms: u32,
    killed: Vec<usize>,
}

impl World {
    pub(crate) fn new(total: f64, swap: f64, loads: Vec<Load>) -> World {
        let mut world = World {
            second: 0,
            total,
            swap,
            kernel: total * 0.05,
            loads,
            ooms: 0,
            killed: Vec::new(),
        };
        // It has been running: what did not fit is out already.
        for _ in 0..100 {
            let missing = world.total * HIGH - world.free();
            world.shrink(missing.max(0.0));
        }
        world
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(START + self.second as i64 * 1_000_000)
    }

    pub(crate) fn load(&self, path: &str) -> Option<usize> {
        self.loads.iter().position(|load| load.path == path)
    }

    pub(crate) fn free(&self) -> f64 {
        let used: f64 = self.loads.iter().map(Load::resident).sum();
        self.total - self.kernel - used
    }

    pub(crate) fn swap_free(&self) -> f64 {
        let out: f64 = self.loads.iter().map(|load| load.anon.out()).sum();
        (self.swap - out).max(0.0)
    }

    /// MemAvailable, as /proc/meminfo estimates it.
    pub(crate) fn available(&self) -> f64 {
        let low = self.total * LOW;
        let file: f64 = self.loads.iter().map(|load| load.file.resident()).sum();
        (self.free() - low + file - (file / 2.0).min(low)).max(0.0)
    }

    /// Reclaims from one cgroup, as memory.reclaim does; bytes freed.
    pub(crate) fn reclaim(&mut self, index: usize, bytes: f64, take: Take) -> f64 {
        let room = self.swap_free();
        let load = &mut self.loads[index];
        match take {
            Take::File => load.take_file(bytes),
            Take::Idle => load.take_idle(self.second, bytes, room),
            Take::Both => {
                // As long as there is page cache on the inactive list the kernel takes that (mm/vmscan.c: cache_trim_mode),
                // then by swappiness 60 of 200 over what looks unused of each kind.
                let inactive = load.file.cold + load.file.dead + MIXED * load.file.hot;
                let file = inactive * 140.0;
                let anon = if room > 0.0 && inactive < TRIM {
                    (load.anon.cold + load.anon.dead + MIXED * load.anon.hot) * 60.0
                } else {
                    0.0
                };
                let share = if file + anon > 0.0 {
                    anon / (file + anon)
                } else {
                    0.0
                };
                let freed = load.take_anon(bytes * share, room);
                freed + load.take_file(bytes - freed)
            }
        }
    }

    /// One second goes by.
    pub(crate) fn step(&mut self) {
        self.second += 1;
        self.killed.clear();
        for load in &mut self.loads {
            load.work(self.second);
        }
        let (low, high) = (self.total * LOW, self.total * HIGH);
        let free = self.free();
        if free >= low {
            return;
        }
        // kswapd keeps pace with what is missing of its mark; what is taken in a hurry is waited for.
        let short = ((low - free) / low).clamp(0.0, 4.0);
        self.shrink(high - free);
        if short > 0.5 {
            let us = 50_000.0 * short.min(2.0);
            for load in &mut self.loads {
                if load.activity(self.second) > 0.0 {
                    load.stall(us);
                }
            }
        }
        while self.free() < 0.0 {
            let victim = (0..self.loads.len())
                .max_by(|a, b| {
                    let size = |at: usize| self.loads[at].anon.resident();
                    size(*a).total_cmp(&size(*b))
                })
                .unwrap();
            self.loads[victim].restart();
            self.killed.push(victim);
            self.ooms += 1;
            if self.killed.len() > self.loads.len() {
                break;
            }
        }
    }

    /// Reclaims from all: by the page cache that each has not used, then by all that each has.
    fn shrink(&mut self, bytes: f64) {
        let mut missing = bytes.min(DIRECT);
        let measures: [fn(&Load) -> f64; 3] = [
            |load| (load.file.cold + load.file.dead - TRIM).max(0.0),
            Load::resident,
            Load::resident,
        ];
        for measure in measures {
            let sizes: Vec<f64> = self.loads.iter().map(measure).collect();
            let all: f64 = sizes.iter().sum();
            if missing < PAGE || all < PAGE {
                continue;
            }
            let wanted = missing.min(all);
            for (index, size) in sizes.into_iter().enumerate() {
                missing -= self.reclaim(index, wanted * size / all, Take::Both);
            }
        }
    }

    /// What a sampler sees now.
    pub(crate) fn samples(&self) -> Vec<Event> {
        let mut events = Vec::with_capacity(self.loads.len() + 1);
        let all = |figure: fn(&Load) -> f64| self.loads.iter().map(figure).sum::<f64>();
        let root = Sample {
            mem: Mem {
                total: Some(self.total as u64),
                available: Some(self.available() as u64),
                swap_free: Some(self.swap_free() as u64),
                anon: Some(all(|load| load.anon.resident()) as u64),
                file: Some(all(|load| load.file.resident()) as u64),
                ..Mem::default()
            },
            faults: Some(Faults {
                minor_total: Some(all(|load| load.totals.minors) as u64),
                major_total: Some(all(|load| load.totals.majors) as u64),
                ..Faults::default()
            }),
            psi: Some(Psi {
                some_us_total: all(|load| load.totals.some_us) as u64,
                full_us_total: None,
            }),
            ..Sample::default()
        };
        events.push(self.event("/", "root", Body::Sample(Box::new(root))));
        for load in &self.loads {
            events.push(self.event(&load.path, load.kind, Body::Sample(Box::new(sample(load)))));
        }
        for index in &self.killed {
            let load = &self.loads[*index];
            let oom = Oom {
                victim: None,
                trigger: None,
                constraint: None,
                limit_cgroup: None,
                kills: 1,
            };
            events.push(self.event(&load.path, load.kind, Body::Oom { oom }));
        }
        events
    }

    pub(crate) fn event(&self, path: &str, kind: &str, body: Body) -> Event {
        Event {
            schema: SCHEMA.to_owned(),
            ts: self.now(),
            seq: 0,
            host: "model".to_owned(),
            boot_id: None,
            cgroup: Some(Cgroup {
                id: None,
                path: path.to_owned(),
                kind: kind.to_owned(),
                name: path.to_owned(),
            }),
            lossy: false,
            body,
        }
    }
}

fn sample(load: &Load) -> Sample {
    let totals = &load.totals;
    Sample {
        mem: Mem {
            current: Some(load.resident() as u64),
            anon: Some(load.anon.resident() as u64),
            file: Some(load.file.resident() as u64),
            shmem: Some(0),
            swap: Some(load.anon.out() as u64),
            inactive_file: Some((load.file.cold + load.file.dead + MIXED * load.file.hot) as u64),
            max: Limit::None,
            high: Limit::None,
            ..Mem::default()
        },
        faults: Some(Faults {
            minor_total: Some(totals.minors as u64),
            major_total: Some(totals.majors as u64),
            ..Faults::default()
        }),
        reclaim: Some(Reclaim {
            refault_total: Some(totals.refaults as u64),
            ..Reclaim::default()
        }),
        psi: Some(Psi {
            some_us_total: totals.some_us as u64,
            full_us_total: Some(totals.full_us as u64),
        }),
        cpu: Some(Cpu {
            usage_us_total: totals.cpu_us as u64,
        }),
        ..Sample::default()
    }
}
