//! One cgroup: who it is, its last sample, the rates since the one before and its history.

use std::sync::Arc;

use super::history::{Basis, History};
use super::rates::Rates;
use crate::event::{Cgroup, Event, Sample};
use crate::time::Timestamp;

/// A cgroup as the view knows it.
#[derive(Clone, Debug)]
pub struct Entry {
    path: Arc<str>,
    id: Option<u64>,
    kind: Box<str>,
    name: Box<str>,
    ts: Timestamp,
    lossy: bool,
    sample: Sample,
    rates: Rates,
    history: History,
    heard_us: u64,
    generation: u64,
    changed: u64,
}

impl Entry {
    pub(super) fn new(
        cgroup: &Cgroup,
        event: &Event,
        sample: &Sample,
        elapsed_us: u64,
        generation: u64,
    ) -> Self {
        let mut history = History::new();
        history.push(&sample.mem, None, 1);
        Entry {
            path: cgroup.path.as_str().into(),
            id: cgroup.id,
            kind: cgroup.kind.as_str().into(),
            name: cgroup.name.as_str().into(),
            ts: event.ts,
            lossy: event.lossy,
            sample: sample.clone(),
            rates: Rates::default(),
            history,
            heard_us: elapsed_us,
            generation,
            changed: generation,
        }
    }

    pub(super) fn update(
        &mut self,
        cgroup: &Cgroup,
        event: &Event,
        sample: &Sample,
        tick_us: u64,
        elapsed_us: u64,
        generation: u64,
    ) {
        if self.is_another(cgroup) {
            // The path was removed and made again: nothing of the old one holds.
            *self = Entry::new(cgroup, event, sample, elapsed_us, generation);
            return;
        }
        self.id = cgroup.id.or(self.id);
        if *self.kind != *cgroup.kind {
            self.kind = cgroup.kind.as_str().into();
        }
        if *self.name != *cgroup.name {
            self.name = cgroup.name.as_str().into();
        }
        self.heard_us = elapsed_us;
        let step = event.ts.0.saturating_sub(self.ts.0);
        let tick = i64::try_from(tick_us).unwrap_or(i64::MAX);
        if step > -tick && step < tick / 4 {
            // An extra sample between ticks, or one out of order: a window this short gives no rate, only noise.
            return;
        }
        self.generation = generation;
        if step > 0 {
            let window_us = step.unsigned_abs();
            let ticks = (window_us + tick_us / 2) / tick_us;
            self.rates = Rates::between(&self.sample, sample, window_us);
            self.history.push(
                &sample.mem,
                self.rates.faults,
                usize::try_from(ticks).unwrap_or(usize::MAX),
            );
        } else {
            // The clock was set back: the length of this window is unknown.
            self.rates = Rates::default();
            self.history.push(&sample.mem, None, 1);
        }
        if self.sample != *sample {
            self.changed = generation;
            self.sample.clone_from(sample);
        }
        self.ts = event.ts;
        self.lossy = event.lossy;
    }

    /// Whether this is another cgroup under the same path.
    pub(super) fn is_another(&self, cgroup: &Cgroup) -> bool {
        matches!((self.id, cgroup.id), (Some(old), Some(new)) if old != new)
    }

    /// Path below the v2 mount, `/` for the root.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// v2 cgroup id, where known.
    #[must_use]
    pub fn id(&self) -> Option<u64> {
        self.id
    }

    /// Kind, as in the event schema.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// A name a person knows it by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The last sample.
    #[must_use]
    pub fn sample(&self) -> &Sample {
        &self.sample
    }

    /// When the last sample was taken.
    #[must_use]
    pub fn ts(&self) -> Timestamp {
        self.ts
    }

    /// Whether events were lost in the window of the last sample.
    #[must_use]
    pub fn lossy(&self) -> bool {
        self.lossy
    }

    /// Rates over the window that ended with the last sample, however old that is; [`super::Model::rates`] knows
    /// whether they still hold.
    #[must_use]
    pub fn rates(&self) -> &Rates {
        &self.rates
    }

    /// What the history is made of.
    #[must_use]
    pub fn basis(&self) -> Basis {
        self.history.basis()
    }

    /// [`super::Model::generation`] when its figures last changed.
    #[must_use]
    pub fn changed(&self) -> u64 {
        self.changed
    }

    pub(super) fn key(&self) -> Arc<str> {
        Arc::clone(&self.path)
    }

    pub(super) fn last_generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn heard_us(&self) -> u64 {
        self.heard_us
    }

    pub(super) fn history(&self) -> &History {
        &self.history
    }
}
