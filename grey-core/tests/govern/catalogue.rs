//! Machines of the model, each different by its seed.

use crate::load::{Load, Pool};
use crate::world::{MIB, World};

/// SplitMix64 (Steele, Lea and Flood, 2014): the same numbers on every machine.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `low` up to `high`.
    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// About `middle`, a quarter up or down.
    pub(crate) fn about(&mut self, middle: f64) -> f64 {
        middle * self.between(0.75, 1.25)
    }
}

pub(crate) fn pool(hot: f64, cold: f64, dead: f64) -> Pool {
    Pool {
        hot: hot * MIB,
        cold: cold * MIB,
        dead: dead * MIB,
        ..Pool::default()
    }
}

/// A database, a web server with bursts, a backup that reads everything once, a batch job in shifts, a container that
/// nobody asks, and a service that grows: more than the machine has at ease.
pub(crate) fn mixed(seed: u64) -> World {
    let mut dice = Dice::new(seed);
    let d = &mut dice;
    let service = |name: &str| format!("/system.slice/{name}.service");
    let loads = vec![
        Load {
            path: service("db"),
            anon: pool(d.about(500.0), d.about(300.0), 0.0),
            file: pool(d.about(400.0), d.about(500.0), 0.0),
            hot_s: d.about(4.0),
            cold_s: d.about(3600.0),
            stream: d.about(0.1) * MIB,
            cpus: 1.0,
            daily: 0.4,
            ..Load::default()
        },
        Load {
            path: service("web"),
            anon: pool(d.about(200.0), d.about(150.0), 0.0),
            file: pool(d.about(100.0), d.about(80.0), 0.0),
            burst: Some((d.about(200.0) * MIB, 300 + d.next() % 300, 40)),
            hot_s: d.about(2.0),
            drift: 0.2,
            ..Load::default()
        },
        Load {
            path: service("backup"),
            anon: pool(20.0, 10.0, 0.0),
            stream: d.about(3.0) * MIB,
            shifts: Some((600, 3000)),
            phase: d.next() % 3600,
            ..Load::default()
        },
        Load {
            path: service("batch"),
            anon: pool(d.about(250.0), d.about(50.0), 0.0),
            file: pool(d.about(200.0), d.about(100.0), 0.0),
            hot_s: d.about(20.0),
            shifts: Some((900, 900)),
            phase: d.next() % 1800,
            cpus: 1.5,
            ..Load::default()
        },
        Load {
            path: "/docker/0123456789ab".to_owned(),
            kind: "container",
            anon: pool(2.0, d.about(200.0), 0.0),
            file: pool(1.0, d.about(100.0), 0.0),
            hot_s: 600.0,
            cold_s: 86_400.0,
            cpus: 0.001,
            ..Load::default()
        },
        Load {
            path: service("grows"),
            anon: pool(50.0, 20.0, 0.0),
            growth: d.about(0.1) * MIB,
            growth_most: d.about(500.0) * MIB,
            cpus: 0.1,
            ..Load::default()
        },
    ];
    let total = d.between(2400.0, 2700.0) * MIB;
    World::new(total, 512.0 * MIB, loads)
}

/// One service with a hot set of about 40 %, the rest cold (most of that for good), and bursts; memory is not short.
pub(crate) fn hot_and_cold(seed: u64) -> World {
    let mut dice = Dice::new(seed);
    let d = &mut dice;
    let load = Load {
        path: "/system.slice/work.service".to_owned(),
        anon: pool(d.about(160.0), d.about(80.0), d.about(160.0)),
        file: pool(d.about(240.0), d.about(120.0), d.about(240.0)),
        hot_s: d.about(5.0),
        cold_s: d.about(7200.0),
        burst: Some((d.about(100.0) * MIB, 180 + d.next() % 120, 30)),
        stream: d.about(0.05) * MIB,
        cpus: 1.0,
        ..Load::default()
    };
    World::new(2048.0 * MIB, 1024.0 * MIB, vec![load])
}

/// A node with room to spare and nine cgroups of all sorts: by day, by night, round the clock, seldom and hardly ever
/// used; mostly cache, mostly anonymous; hot and cold.
pub(crate) fn node(seed: u64) -> World {
    let mut dice = Dice::new(seed ^ 0xd1ce);
    let d = &mut dice;
    let service = |name: &str| format!("/system.slice/{name}.service");
    let container = |name: &str| format!("/docker/{name}");
    let loads = vec![
        // Used by day alone, and then nearly all of it.
        Load {
            path: service("shop"),
            file: pool(d.about(150.0), d.about(500.0), 0.0),
            anon: pool(d.about(150.0), d.about(60.0), 0.0),
            cold_s: d.about(500.0),
            daily: 0.98,
            ..Load::default()
        },
        Load {
            path: container("intranet"),
            kind: "container",
            file: pool(d.about(60.0), d.about(250.0), 0.0),
            anon: pool(d.about(80.0), d.about(40.0), 0.0),
            cold_s: d.about(800.0),
            hot_s: d.about(20.0),
            daily: 0.99,
            cpus: 0.2,
            ..Load::default()
        },
        // Reports by night.
        Load {
            path: service("reports"),
            file: pool(d.about(80.0), d.about(400.0), 0.0),
            anon: pool(d.about(50.0), d.about(100.0), 0.0),
            cold_s: d.about(600.0),
            daily: 0.98,
            least_at: 14.0,
            cpus: 1.0,
            ..Load::default()
        },
        // Round the clock.
        Load {
            path: service("db"),
            file: pool(d.about(500.0), d.about(120.0), 0.0),
            anon: pool(d.about(300.0), d.about(60.0), 0.0),
            hot_s: d.about(8.0),
            cold_s: d.about(3600.0),
            stream: d.about(0.03) * MIB,
            cpus: 1.0,
            ..Load::default()
        },
        Load {
            path: container("cache"),
            kind: "container",
            file: pool(10.0, 20.0, 0.0),
            anon: pool(d.about(250.0), d.about(250.0), 0.0),
            hot_s: d.about(15.0),
            cold_s: d.about(300.0),
            cpus: 0.6,
            ..Load::default()
        },
        // Written or read once.
        Load {
            path: service("logs"),
            file: pool(5.0, d.about(30.0), d.about(300.0)),
            anon: pool(20.0, 90.0, 0.0),
            stream: d.about(0.12) * MIB,
            cpus: 0.1,
            ..Load::default()
        },
        Load {
            path: service("backup"),
            file: pool(5.0, 20.0, d.about(200.0)),
            anon: pool(30.0, 90.0, 0.0),
            stream: d.about(0.6) * MIB,
            shifts: Some((1800, 5400)),
            phase: d.next() % 7200,
            ..Load::default()
        },
        // Hardly ever.
        Load {
            path: container("demo"),
            kind: "container",
            file: pool(2.0, d.about(150.0), d.about(50.0)),
            anon: pool(5.0, d.about(150.0), 0.0),
            hot_s: 900.0,
            cold_s: 200_000.0,
            cpus: 0.001,
            ..Load::default()
        },
        Load {
            path: container("wiki"),
            kind: "container",
            file: pool(d.about(20.0), d.about(200.0), d.about(80.0)),
            anon: pool(d.about(40.0), d.about(120.0), 0.0),
            hot_s: d.about(30.0),
            cold_s: d.about(20_000.0),
            shifts: Some((900, 2700)),
            phase: d.next() % 3600,
            cpus: 0.05,
            ..Load::default()
        },
    ];
    World::new(65_536.0 * MIB, 2048.0 * MIB, loads)
}
