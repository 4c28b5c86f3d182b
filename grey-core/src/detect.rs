//! Tells leaks from everything else. Pure and incremental: (time, figures) in, verdicts out; no clock, no I/O.
//! docs/detection.md explains the rules.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::{Body, Cgroup, Event, Limit, Process, Sample, Verdict};
use crate::time::Timestamp;

/// A verdict to tell: about which cgroup, and when it was reached by the time of the samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Time of the sample that made it.
    pub ts: Timestamp,
    /// The cgroup.
    pub cgroup: Cgroup,
    /// What is said of it.
    pub verdict: Verdict,
}

/// What the detector takes from one sample. An unknown figure is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// When, µs since the Unix epoch.
    pub at_us: i64,
    /// Id of the cgroup, to notice another one under the same path.
    pub id: Option<u64>,
    /// Anonymous bytes, resident.
    pub anon: Option<u64>,
    /// Swapped-out bytes.
    pub swap: Option<u64>,
    /// Page cache, bytes.
    pub file: Option<u64>,
    /// Shared memory and tmpfs, bytes.
    pub shmem: Option<u64>,
    /// Kernel memory, bytes.
    pub kernel: Option<u64>,
    /// Slab, bytes.
    pub slab: Option<u64>,
    /// Page tables, bytes.
    pub pagetables: Option<u64>,
    /// Socket buffers, bytes.
    pub sock: Option<u64>,
    /// Virtual size of the processes, bytes.
    pub virt: Option<u64>,
    /// memory.max.
    pub max: Limit,
    /// Memory the machine has left; root cgroup only.
    pub available: Option<u64>,
    /// Page faults so far.
    pub faults: Option<u64>,
    /// Processes.
    pub processes: Option<u64>,
}

/// The detector of one machine: every cgroup and process it is told of.
#[derive(Debug, Default)]
pub struct Detector {
    series: HashMap<Arc<str>, ()>,
}

/// What is kept of a detector across a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Saved {}

impl Detector {
    /// A detector that knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Detector::default()
    }

    /// Takes in an event; `sample`, `process`, `growth` and `oom` matter. Verdicts it leads to are added to `out`.
    pub fn observe(&mut self, event: &Event, out: &mut Vec<Finding>) {
        let Some(cgroup) = &event.cgroup else { return };
        match &event.body {
            Body::Sample(sample) => {
                self.sample(cgroup, &Point::of_sample(event.ts, cgroup, sample), out);
            }
            Body::Process { process } => self.process(cgroup, process, event.ts, out),
            _ => {}
        }
    }

    /// Takes in one sample of a cgroup.
    pub fn sample(&mut self, _cgroup: &Cgroup, _point: &Point, _out: &mut Vec<Finding>) {}

    /// Takes in one sample of a process.
    pub fn process(
        &mut self,
        _cgroup: &Cgroup,
        _process: &Process,
        _at: Timestamp,
        _out: &mut Vec<Finding>,
    ) {
    }

    /// The cgroup at this path is gone: closes what was open about it and forgets it.
    pub fn gone(&mut self, _path: &str, _at: Timestamp, _out: &mut Vec<Finding>) {}

    /// Number of series tracked.
    #[must_use]
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether nothing is tracked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// What to keep across a restart.
    #[must_use]
    pub fn save(&self) -> Saved {
        Saved::default()
    }

    /// A detector that goes on where `saved` was.
    #[must_use]
    pub fn restore(_saved: Saved) -> Self {
        Detector::default()
    }
}

impl Point {
    /// The figures of a `sample` event.
    #[must_use]
    pub fn of_sample(ts: Timestamp, cgroup: &Cgroup, sample: &Sample) -> Point {
        let mem = &sample.mem;
        Point {
            at_us: ts.0,
            id: cgroup.id,
            anon: mem.anon,
            swap: mem.swap,
            file: mem.file,
            shmem: mem.shmem,
            kernel: mem.kernel,
            slab: mem.slab,
            pagetables: mem.pagetables,
            sock: mem.sock,
            virt: sample.vm.as_ref().and_then(|vm| vm.r#virtual),
            max: mem.max,
            available: mem.available,
            faults: sample.faults.as_ref().and_then(|faults| faults.minor_total),
            processes: sample.processes,
        }
    }
}
