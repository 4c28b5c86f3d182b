//! A made-up leak and the samples of it.

use grey_core::detect::{Detector, Finding, Point};
use grey_core::event::{Cgroup, Limit};
use proptest::prelude::*;

pub(crate) const START: i64 = 1_795_237_200_000_000;
pub(crate) const SECOND: i64 = 1_000_000;
pub(crate) const HOUR: i64 = 3600 * SECOND;
pub(crate) const MIB: u64 = 1 << 20;

pub(crate) fn cgroup(path: &str, id: Option<u64>) -> Cgroup {
    Cgroup {
        id,
        path: path.to_owned(),
        kind: "cgroup".to_owned(),
        name: path.to_owned(),
    }
}

/// Deterministic noise in −1..1.
pub(crate) fn noise(seed: u64, n: i64) -> f64 {
    let mut x = (n as u64 ^ seed.rotate_left(17)).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ seed;
    x = (x ^ (x >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x ^= x >> 32;
    (x % 20_001) as f64 / 10_000.0 - 1.0
}

/// A settled service that begins to leak evenly; sizes in MiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leak {
    pub(crate) base: f64,
    /// Either way, MiB.
    pub(crate) noise: f64,
    pub(crate) seed: u64,
    /// Seconds.
    pub(crate) onset: i64,
    /// MiB a second.
    pub(crate) rate: f64,
    pub(crate) limit: u64,
}

impl Leak {
    fn level(&self, second: i64) -> f64 {
        self.base
            + self.noise * noise(self.seed, second)
            + (second - self.onset).max(0) as f64 * self.rate
    }

    /// Seconds from the onset to the limit.
    pub(crate) fn whole(&self) -> f64 {
        (self.limit as f64 - self.base) / self.rate
    }

    /// Second at which it is within a twentieth of its limit.
    pub(crate) fn end(&self) -> i64 {
        self.onset + (0.95 * self.whole()) as i64
    }

    pub(crate) fn point(&self, second: i64) -> Point {
        Point {
            at_us: START + second * SECOND,
            id: Some(1),
            anon: Some((self.level(second) * 256.0) as u64 * 4096),
            swap: Some(0),
            max: Limit::Bytes(self.limit * MIB),
            ..Point::default()
        }
    }

    /// What is said of its samples, one a second, each passed through `change`, which may leave it out.
    pub(crate) fn run(&self, change: impl Fn(i64, Point) -> Option<Point>) -> Vec<Finding> {
        let mut detector = Detector::new();
        self.feed(&mut detector, 0..self.end(), change)
    }

    pub(crate) fn feed(
        &self,
        detector: &mut Detector,
        seconds: std::ops::Range<i64>,
        change: impl Fn(i64, Point) -> Option<Point>,
    ) -> Vec<Finding> {
        let cgroup = cgroup("/a", Some(1));
        let mut out = Vec::new();
        for second in seconds {
            if let Some(point) = change(second, self.point(second)) {
                detector.sample(&cgroup, &point, &mut out);
            }
        }
        out
    }
}

/// Leaks with 4 to 20 minutes to their limit, in a service of 80 to 400 MiB that was settled for ten minutes or more.
pub(crate) fn leak() -> impl Strategy<Value = Leak> {
    (
        80.0..400.0,
        0.0..0.005,
        any::<u64>(),
        600..1200i64,
        240.0..1200.0,
    )
        .prop_map(|(base, noise, seed, onset, whole)| Leak {
            base,
            noise: noise * base,
            seed,
            onset,
            rate: (1024.0 - base) / whole,
            limit: 1024,
        })
}
