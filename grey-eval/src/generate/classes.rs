//! The classes of the benchmark, how many traces each has, and the seeds.

use super::{Plan, negatives, others, positives};
use crate::rng::Rng;
use crate::trace::Kind;

/// A class of traces.
pub struct Class {
    /// Its name.
    pub name: &'static str,
    /// What it counts as.
    pub kind: Kind,
    /// Traces of a full run.
    pub count: u64,
    pub(super) plan: fn(&mut Rng) -> Plan,
}

/// Two sets of seeds that share none. A detector may be tuned on the first; what is published is scored on the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seeds {
    /// 1000 and on.
    Tune,
    /// 9000 and on.
    Test,
}

impl Seeds {
    /// The most traces of a class, in multiples of [`Class::count`], that keep the two sets apart.
    pub const MOST_TIMES: u64 = 100;

    /// The seeds of a class with this many traces.
    pub fn of(self, count: u64) -> std::ops::Range<u64> {
        let first = match self {
            Seeds::Tune => 1000,
            Seeds::Test => 9000,
        };
        first..first + count
    }

    /// `tune` or `test`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Seeds::Tune => "tune",
            Seeds::Test => "test",
        }
    }
}

macro_rules! classes {
    ($($kind:ident $count:literal $name:literal $plan:path,)+) => {
        &[$(Class { name: $name, kind: Kind::$kind, count: $count, plan: $plan },)+]
    };
}

/// All classes, in the order of the tables.
pub const CLASSES: &[Class] = classes![
    Leak 60 "malloc-0.1-mib-min" positives::slow,
    Leak 60 "malloc-1-mib-min" positives::per_minute_1,
    Leak 60 "malloc-10-mib-min" positives::per_minute_10,
    Leak 60 "malloc-100-mib-min" positives::per_minute_100,
    Leak 60 "malloc-4-mib-s" positives::fast,
    Leak 40 "mmap" positives::mmap,
    Leak 40 "accelerating" positives::accelerating,
    Leak 40 "bursts" positives::bursts,
    Leak 40 "under-sawtooth" positives::under_sawtooth,
    Leak 60 "gc-retained" positives::retained,
    Leak 40 "threads" positives::threads,
    Leak 40 "slow-and-diurnal" positives::diurnal,
    Leak 40 "enforced" positives::enforced,
    Leak 40 "beside-reservation" positives::beside_reservation,
    Leak 40 "after-warmup" positives::after_warmup,
    Leak 40 "vector" positives::vector,
    Other 20 "other-pagetables" others::pagetables,
    Other 20 "other-slab" others::slab,
    Other 20 "other-sock" others::sock,
    Other 20 "other-shmem" others::shmem,
    Negative 25 "gc-shallow" negatives::gc_shallow,
    Negative 25 "gc-deep" negatives::gc_deep,
    Negative 25 "gc-long" negatives::gc_long,
    Negative 25 "gc-irregular" negatives::gc_irregular,
    Negative 40 "cache" negatives::cache,
    Negative 40 "linear-fill" negatives::linear_fill,
    Negative 40 "jit-warmup" negatives::jit,
    Negative 30 "diurnal" negatives::diurnal,
    Negative 30 "office-hours" negatives::office,
    Negative 30 "reload" negatives::reload,
    Negative 30 "tmpfs-fill" negatives::tmpfs,
    Negative 30 "page-cache-scan" negatives::scan,
    Negative 30 "dentry-walk" negatives::dentries,
    Negative 30 "scale-out" negatives::scale_out,
    Negative 15 "replicas" negatives::replicas,
    Negative 30 "batch" negatives::batch,
    Negative 30 "batch-slow" negatives::batch_slow,
    Negative 30 "fragmentation" negatives::fragmentation,
    Negative 40 "reservation" negatives::reserved,
    Negative 40 "retention" negatives::retention,
    Negative 30 "retention-repeated" negatives::retention_repeated,
    Negative 60 "spike-near" negatives::spike_near,
    Negative 30 "idle" negatives::idle,
    Negative 30 "noise" negatives::noise,
    Negative 30 "random-walk" negatives::walk,
    Negative 30 "restart" negatives::restart,
    Ambiguous 20 "linear-fill-far" negatives::linear_fill_far,
    Ambiguous 20 "gc-far" negatives::gc_far,
    Ambiguous 20 "batch-far" negatives::batch_far,
];
