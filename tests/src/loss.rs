//! What is lost when nobody reads: every record is read or counted as dropped, and the windows say so.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Observer, Outcome, TempCgroup, Workload};

const SOON: Duration = Duration::from_secs(40);
/// Cgroups made and removed: two records of 296 bytes each, which is far more than a page and less than 4 MiB.
const CGROUPS: usize = 60;

/// A `watch` with rings of that size, which has attached its probes and shown a tick without loss.
fn watch(ring: &str) -> Result<Observer> {
    let args = [
        "watch",
        "--json",
        "--interval",
        "50ms",
        "--growth",
        "1M",
        "--ring",
        ring,
    ];
    let mut observer = Observer::start(&args)?;
    observer.wait_event("the first health line", SOON, |event| {
        event["type"] == "health"
    })?;
    Ok(observer)
}

/// More than a page of records of each ring while `watch` is stopped; then it goes on.
fn storm(observer: &Observer, more: impl FnOnce() -> Result<()>) -> Result<()> {
    let cgroup = TempCgroup::new("storm")?;
    let mut workload = Workload::start(&cgroup)?;
    observer.signal(Signal::STOP)?;
    for n in 0..CGROUPS {
        drop(TempCgroup::new(&format!("loss-{n}"))?);
    }
    // Each round grows by 2 MiB from the low point before: more than 46 records of 88 bytes.
    workload.step("churn-touch 80 512")?;
    more()?;
    observer.signal(Signal::CONT)
}

fn count(health: &Value, table: &str, kind: &str) -> u64 {
    health[table][kind].as_u64().unwrap_or(0)
}

/// Whether every record of the kernel side has been read or is counted as dropped. A loss that nobody counted would
/// keep the sides apart for ever; records under way do so until the next look.
fn balanced(health: &Value) -> bool {
    let kinds = health["emitted"].as_object();
    kinds.is_some_and(|kinds| {
        kinds.keys().all(|kind| {
            let emitted = count(health, "emitted", kind);
            count(health, "read", kind) + count(health, "dropped", kind) == emitted
        })
    })
}

fn balanced_health(observer: &mut Observer) -> Result<Value> {
    let event = observer.wait_event(
        "a health line that adds up",
        Duration::from_secs(20),
        |event| {
            event["type"] == "health"
                && balanced(&event["health"])
                && count(&event["health"], "emitted", "process_growth") >= 80
        },
    )?;
    ensure!(event["health"]["rejected"] == 0, "rejected: {event}");
    Ok(event["health"].clone())
}

fn ended_well(observer: Observer) -> Result<()> {
    let finished = observer.stop(Signal::INT, SOON)?;
    ensure!(
        finished.code() == Some(0),
        "{:?}: {}",
        finished.status,
        finished.stderr
    );
    Ok(())
}

/// `more` may add to the storm; `kinds` must have been dropped in part.
pub(crate) fn page_of_ring(kinds: &[&str], more: impl FnOnce() -> Result<()>) -> Result<Outcome> {
    let mut observer = watch("4K")?;
    let is_lossy = |event: &Value| event["type"] == "sample" && event["lossy"] == true;
    storm(&observer, more)?;
    observer.wait_event("a sample of the lossy window", SOON, is_lossy)?;
    observer.wait_event("a sample of a window without loss", SOON, |event| {
        event["type"] == "sample" && event["lossy"] == false
    })?;
    let health = balanced_health(&mut observer)?;
    for kind in kinds {
        let (dropped, read) = (
            count(&health, "dropped", kind),
            count(&health, "read", kind),
        );
        ensure!(dropped > 0, "no {kind} was dropped: {health}");
        println!("{kind}: {read} read, {dropped} dropped");
    }
    ended_well(observer)?;
    Ok(Outcome::Passed)
}

pub(crate) fn is_counted_by_kind_with_a_page_of_ring() -> Result<Outcome> {
    page_of_ring(&["cgroup_made", "cgroup_removed", "process_growth"], || {
        Ok(())
    })
}

pub(crate) fn is_none_with_a_large_ring() -> Result<Outcome> {
    let mut observer = watch("4M")?;
    storm(&observer, || Ok(()))?;
    let health = balanced_health(&mut observer)?;
    let dropped = health["dropped"].as_object().context("no dropped")?;
    ensure!(
        dropped.values().all(|count| *count == 0),
        "dropped: {health}"
    );
    for kind in ["cgroup_made", "cgroup_removed", "process_growth"] {
        let least = if kind == "process_growth" {
            80
        } else {
            CGROUPS as u64
        };
        ensure!(count(&health, "read", kind) >= least, "{kind}: {health}");
    }
    let lossy = observer
        .events()?
        .iter()
        .filter(|event| event["lossy"] == true)
        .count();
    ensure!(lossy == 0, "{lossy} lossy lines without a loss");
    ended_well(observer)?;
    Ok(Outcome::Passed)
}
