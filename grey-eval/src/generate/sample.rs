//! Runs a plan and samples it: page units, batched counters, uneven and missing ticks, limits, siblings, the machine.

use grey_core::detect::Point;
use grey_core::event::{Cgroup, Limit};

use super::classes::Class;
use super::parts::Held;
use super::{Bound, DAY, HOUR, KIB, MIB, MINUTE, Plan};
use crate::rng::Rng;
use crate::trace::{Kind, Trace, Truth};

const PAGE: f64 = 4096.0;
/// 2026-03-02T00:00:00Z, a Monday.
const EPOCH_S: f64 = 1_772_409_600.0;

/// The trace of this class and seed; always the same one.
#[must_use]
pub fn generate(class: &Class, seed: u64) -> Trace {
    let mut room = 1.0;
    loop {
        let mut rng = Rng::named(seed, class.name);
        let mut plan = (class.plan)(&mut rng);
        plan.bound = plan.bound.scaled(room);
        let mut run = Run::new(plan, &mut rng);
        run.all(&mut rng);
        // What does not leak fits under its limit, or the program would have been killed.
        if run.fullest <= FITS {
            return run.finish(class, seed);
        }
        room *= run.fullest / (FITS - 0.05);
    }
}

/// Most of the limit that memory without leak may take.
const FITS: f64 = 0.95;

fn usual_interval(duration: f64, rng: &mut Rng) -> f64 {
    if duration <= 30.0 * MINUTE {
        1.0
    } else if duration <= 3.0 * HOUR {
        rng.pick(&[1.0, 2.0, 5.0])
    } else if duration <= 13.0 * HOUR {
        rng.pick(&[2.0, 5.0, 10.0, 15.0, 30.0])
    } else if duration <= 1.5 * DAY {
        rng.pick(&[5.0, 10.0, 15.0, 30.0, 60.0])
    } else {
        rng.pick(&[15.0, 30.0, 60.0])
    }
}

struct Run {
    plan: Plan,
    interval: f64,
    /// Relative unevenness of the ticks, share of ticks that are missing, and gaps (from, to).
    uneven: f64,
    missing: f64,
    gaps: Vec<(f64, f64)>,
    /// Pages by which batched per-CPU counters may be off.
    batch: f64,
    begin: f64,
    id: u64,
    cgroups: Vec<Cgroup>,
    parent: Option<u8>,
    root: Option<u8>,
    siblings: Vec<u8>,
    has_faults: bool,
    kernel: f64,
    /// What the rest of the machine holds, and its relative deviation at the last sample.
    others: f64,
    breath: f64,
    breathed: f64,
    faults: f64,
    /// Swapped out: what is used again, and what a leak never touches again.
    hot: f64,
    cold: f64,
    reclaim_at: f64,
    has_swap: bool,
    remade: u64,
    points: Vec<(u8, Point)>,
    /// Level of anon + swap and what leaked, at the onset and at the end: (t, level, leaked).
    at_onset: Option<(f64, f64, f64)>,
    at_end: (f64, f64, f64),
    hit: Option<f64>,
    /// Largest share of the limit that was taken without a leak.
    fullest: f64,
}

impl Run {
    fn new(plan: Plan, rng: &mut Rng) -> Run {
        let interval = plan
            .interval
            .unwrap_or_else(|| usual_interval(plan.duration, rng));
        let irregular = rng.chance(0.3);
        let gaps = if irregular && rng.chance(0.4) {
            (0..rng.int(1, 3))
                .map(|_| {
                    let from = plan.duration * rng.unit();
                    (from, from + interval * rng.range(2.0, 20.0))
                })
                .collect()
        } else {
            Vec::new()
        };
        let name = format!("app-{:04x}.service", rng.int(0, 0xffff));
        let id = rng.int(1000, 900_000);
        let cgroup = |id: u64, path: &str, kind: &str, name: &str| Cgroup {
            id: Some(id),
            path: path.to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
        };
        let slice = matches!(plan.bound, Bound::Parent(_));
        let above = if slice {
            "/pods.slice"
        } else {
            "/system.slice"
        };
        let mut cgroups = vec![cgroup(id, &format!("{above}/{name}"), "service", &name)];
        let mut siblings = Vec::new();
        for index in 0..plan.siblings {
            siblings.push(cgroups.len() as u8);
            let name = format!("replica-{index}.service");
            cgroups.push(cgroup(
                id + 1 + index as u64,
                &format!("{above}/{name}"),
                "service",
                &name,
            ));
        }
        let parent = slice.then(|| {
            cgroups.push(cgroup(17, above, "slice", "pods.slice"));
            (cgroups.len() - 1) as u8
        });
        let root = matches!(plan.bound, Bound::Machine(_)).then(|| {
            cgroups.push(cgroup(1, "/", "root", "/"));
            (cgroups.len() - 1) as u8
        });
        Run {
            interval,
            uneven: if irregular {
                rng.range(0.02, 0.3)
            } else {
                0.002
            },
            missing: if irregular {
                rng.log_range(0.002, 0.12)
            } else {
                0.0
            },
            gaps,
            batch: rng.pick(&[0.0, 0.0, 16.0, 64.0, 256.0]),
            begin: EPOCH_S + (rng.unit() * 200.0 * DAY).floor(),
            id,
            cgroups,
            parent,
            root,
            siblings,
            has_faults: !plan.faults_may_miss || rng.chance(0.85),
            kernel: rng.log_range(0.3, 4.0) * MIB,
            others: rng.log_range(30.0, 900.0) * MIB,
            breath: 0.0,
            breathed: 0.0,
            faults: (rng.log_range(1e3, 1e7)).floor(),
            hot: 0.0,
            cold: 0.0,
            has_swap: plan.enforced.is_some() || rng.chance(0.8),
            remade: 0,
            reclaim_at: plan.enforced.map_or(f64::INFINITY, |(every, _)| every),
            points: Vec::new(),
            at_onset: None,
            at_end: (0.0, 0.0, 0.0),
            hit: None,
            fullest: 0.0,
            plan,
        }
    }

    fn all(&mut self, rng: &mut Rng) {
        let ticks = (self.plan.duration / self.interval).floor() as u64;
        let mut last = 0.0;
        for tick in 0..=ticks {
            let late = self.interval * self.uneven * rng.normal().abs();
            let t = tick as f64 * self.interval + late.min(0.9 * self.interval);
            let mut held = Held::default();
            for part in &mut self.plan.parts {
                part.advance(t, t - last, rng, &mut held);
            }
            let dt = t - last;
            last = t;
            self.faults += held.faulted;
            self.reclaim(t, dt, &held, rng);
            if held.remade != self.remade {
                // A new cgroup: another id, and counters from zero.
                self.remade = held.remade;
                self.id += 1;
                self.faults = 0.0;
            }
            let level = held.anon + held.shmem + held.slab + held.pagetables + held.sock;
            if self.at_onset.is_none() && self.plan.onset.is_some_and(|onset| t >= onset) {
                self.at_onset = Some((t, level, held.leaked));
            }
            self.at_end = (t, level, held.leaked);
            // Replicas share every limit but an own one.
            let replicas = match self.plan.bound {
                Bound::Own(_) => 1.0,
                _ => 1.0 + self.siblings.len() as f64 * 1.1,
            };
            let share = level * replicas / self.plan.bound.bytes();
            if held.leaked <= 0.0 {
                self.fullest = self.fullest.max(share);
            } else if share >= 1.0 {
                // The kernel kills it between two samples: none is seen at the limit.
                self.hit = Some(t);
                return;
            }
            let skipped =
                rng.chance(self.missing) || self.gaps.iter().any(|&(from, to)| t > from && t < to);
            if !skipped {
                self.sample(t, &held, rng);
            }
        }
    }

    /// Enforcement from outside moves resident pages to swap, the least used first; what is used comes back.
    fn reclaim(&mut self, t: f64, dt: f64, held: &Held, rng: &mut Rng) {
        let Some((every, share)) = self.plan.enforced else {
            return;
        };
        self.hot *= (-dt / 240.0).exp();
        while self.reclaim_at <= t {
            let resident = (held.anon - self.hot - self.cold).max(0.0);
            let wanted = (resident * share * rng.range(0.4, 1.3)).min(32.0 * MIB);
            let cold = (0.8 * wanted).min((held.leaked - self.cold).max(0.0));
            self.cold += cold;
            self.hot += wanted - cold;
            self.reclaim_at += every;
        }
        self.hot = self.hot.min(0.85 * (held.anon - self.cold).max(0.0));
    }

    fn sample(&mut self, t: f64, held: &Held, rng: &mut Rng) {
        let at_us = ((self.begin + t) * 1e3).round() as i64 * 1000;
        let pages = |bytes: f64| Some(((bytes.max(0.0) / PAGE).floor() * PAGE) as u64);
        let anon = held.anon - self.hot - self.cold + self.batch * PAGE * rng.range(-1.0, 1.0);
        let own = match self.plan.bound {
            Bound::Own(bytes) => Limit::Bytes((bytes / PAGE) as u64 * 4096),
            Bound::Parent(_) | Bound::Machine(_) => Limit::None,
        };
        let tables = held.pagetables + (held.anon + held.file + held.shmem) / 512.0;
        let point = Point {
            at_us,
            id: Some(self.id),
            anon: pages(anon.max(64.0 * KIB)),
            swap: self.has_swap.then(|| pages(self.hot + self.cold)).flatten(),
            file: pages(held.file + held.shmem),
            shmem: pages(held.shmem),
            kernel: pages(self.kernel + held.kernel + held.slab + tables),
            slab: Some(held.slab as u64),
            pagetables: pages(tables),
            sock: pages(held.sock),
            virt: pages(held.virt.max(held.anon)),
            max: own,
            available: None,
            faults: self.has_faults.then_some(self.faults as u64),
            processes: Some(held.processes.round().max(1.0) as u64),
        };
        self.points.push((0, point));
        for &sibling in &self.siblings {
            let factor = 1.0 + 0.02 * f64::from(sibling) + 0.004 * rng.normal();
            let scale = |bytes: Option<u64>| pages(bytes.unwrap_or(0) as f64 * factor);
            self.points.push((
                sibling,
                Point {
                    id: self.cgroups[usize::from(sibling)].id,
                    anon: scale(point.anon),
                    file: scale(point.file),
                    ..point
                },
            ));
        }
        let replicas = 1.0 + self.siblings.len() as f64;
        let all = |bytes: Option<u64>| pages(bytes.unwrap_or(0) as f64 * replicas);
        if let (Some(parent), Bound::Parent(bytes)) = (self.parent, self.plan.bound) {
            self.points.push((
                parent,
                Point {
                    id: Some(17),
                    anon: all(point.anon),
                    max: Limit::Bytes((bytes / PAGE) as u64 * 4096),
                    processes: point.processes.map(|count| count + 1),
                    ..point
                },
            ));
        }
        if let (Some(root), Bound::Machine(bytes)) = (self.root, self.plan.bound) {
            // The others on the machine breathe a little.
            let keep = (-(t - self.breathed) / HOUR).exp();
            self.breathed = t;
            self.breath = self.breath * keep + (1.0 - keep * keep).sqrt() * 0.01 * rng.normal();
            let others = self.others * (1.0 + self.breath);
            let used =
                (held.anon - self.hot - self.cold) * replicas + held.shmem + held.slab + tables;
            self.points.push((
                root,
                Point {
                    at_us,
                    id: Some(1),
                    anon: pages(point.anon.unwrap_or(0) as f64 * replicas + others),
                    swap: point.swap.and(all(point.swap)),
                    file: pages(held.file + 3.0 * self.others),
                    shmem: point.shmem,
                    max: Limit::None,
                    available: pages(bytes - used - (others - self.others)),
                    faults: point.faults,
                    processes: point.processes.map(|count| count + 120),
                    ..Point::default()
                },
            ));
        }
    }

    fn finish(self, class: &Class, seed: u64) -> Trace {
        let us = |t: f64| ((self.begin + t) * 1e3).round() as i64 * 1000;
        let leak = matches!(class.kind, Kind::Leak | Kind::Other);
        let (mut rate, mut limit) = (None, None);
        if let (Some(onset), Some((_, _, leaked))) = (self.plan.onset, self.at_onset) {
            let (end, level, total) = self.at_end;
            let mean = (total - leaked) / (end - onset).max(self.interval);
            rate = Some(mean);
            limit = self.hit.or_else(|| {
                (mean > 0.0)
                    .then(|| end + (self.plan.bound.bytes() - level).max(0.0) / mean)
                    .filter(|t| *t < 1e9)
            });
        }
        Trace {
            name: format!("{}/{seed}", class.name),
            class: class.name,
            kind: class.kind,
            seed,
            interval_s: self.interval,
            truth: Truth {
                leak,
                onset_us: self.plan.onset.map(us),
                rate_bps: rate,
                limit_us: limit.map(us),
                memory: self.plan.memory,
                causes: self.plan.causes.to_vec(),
                silence: self.plan.silence,
            },
            cgroups: self.cgroups,
            points: self.points,
        }
    }
}
