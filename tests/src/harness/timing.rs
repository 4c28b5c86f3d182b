//! When things happened: the wall clock as a workload stamps it, as an event carries it, and as a line arrived.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use grey_core::time::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

/// `ts` has milliseconds, so an instant may read up to one earlier than it was.
const TS_STEP_US: i64 = 1_000;

/// Microseconds of the wall clock.
pub(crate) fn wall_us() -> i64 {
    let time = clock_gettime(ClockId::Realtime);
    time.tv_sec * 1_000_000 + time.tv_nsec / 1000
}

/// The wall clock at an instant of the past.
pub(crate) fn wall_at(instant: Instant) -> i64 {
    wall_us() - i64::try_from(instant.elapsed().as_micros()).unwrap_or(i64::MAX)
}

/// The wall clock in an event's `ts`, microseconds.
pub(crate) fn event_us(event: &Value) -> Result<i64> {
    let text = event["ts"].as_str().context("an event without ts")?;
    let ts: Timestamp = text.parse().with_context(|| format!("ts {text}"))?;
    Ok(ts.0)
}

/// Fails unless the event's `ts` lies between two stamps taken around what it tells of.
pub(crate) fn ensure_between(event: &Value, from: i64, to: i64) -> Result<()> {
    let ts = event_us(event)?;
    ensure!(
        from - TS_STEP_US <= ts && ts <= to + TS_STEP_US,
        "ts is {} us after the last stamp before it and {} us before the first one after: {event}",
        ts - from,
        to - ts
    );
    Ok(())
}

/// Latencies of one kind, for the report of a run.
#[derive(Default)]
pub(crate) struct Latencies(Vec<i64>);

impl Latencies {
    pub(crate) fn add(&mut self, us: i64) {
        self.0.push(us);
    }

    pub(crate) fn median(&self) -> i64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or(0)
    }

    pub(crate) fn max(&self) -> i64 {
        self.0.iter().copied().max().unwrap_or(0)
    }

    /// One line for the log of a test.
    pub(crate) fn tell(&self, what: &str) {
        println!(
            "{what}: median {} us, max {} us of {}",
            self.median(),
            self.max(),
            self.0.len()
        );
    }
}
