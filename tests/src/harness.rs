//! What all tests share: how a test is declared, how to wait for a condition, and the three things a test
//! works with: a temporary cgroup, a workload inside it, and a running `grey-ebpf`.

#![allow(dead_code, reason = "a toolbox: each test file uses its part of it")]

mod cgroup;
mod observer;
mod process;
pub(crate) mod timing;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

#[allow(
    unused_imports,
    reason = "a toolbox: each test file uses its part of it"
)]
pub(crate) use self::{
    cgroup::{TempCgroup, cgroup_root},
    observer::{Finished, Observer, grey_ebpf, run},
    process::Workload,
};

/// How a test ended when it did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    /// This kernel or machine cannot show the fact; the reason goes into the report.
    Skipped(String),
}

impl Outcome {
    pub(crate) fn skipped(reason: impl Into<String>) -> Result<Self> {
        Ok(Self::Skipped(reason.into()))
    }
}

/// One test: its name says the fact it holds. It runs in a process of its own.
#[derive(Clone, Copy)]
pub(crate) struct Trial {
    pub(crate) name: &'static str,
    pub(crate) run: fn() -> Result<Outcome>,
    pub(crate) deadline: Duration,
    /// The kernels that a long test is shown on; all where there are none.
    kernels: &'static [&'static str],
}

impl Trial {
    pub(crate) const fn new(name: &'static str, run: fn() -> Result<Outcome>) -> Self {
        Self {
            name,
            run,
            deadline: Duration::from_secs(60),
            kernels: &[],
        }
    }

    /// Shows what differs little between kernels, and takes long, on these alone; with GREY_ALL=1 on all.
    pub(crate) const fn shown_on(self, kernels: &'static [&'static str]) -> Self {
        Self { kernels, ..self }
    }

    /// A measurement of many minutes: with GREY_ALL=1 alone.
    pub(crate) const fn on_request(self) -> Self {
        Self {
            kernels: &["no kernel"],
            ..self
        }
    }

    /// Runs it where it is to be shown.
    pub(crate) fn perform(&self) -> Result<Outcome> {
        if !self.kernels.is_empty() && std::env::var_os("GREY_ALL").is_none() {
            let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
            let mut numbers = release.split('.');
            let release = [numbers.next(), numbers.next()].map(Option::unwrap_or_default);
            if !self.kernels.contains(&release.join(".").as_str()) {
                return Outcome::skipped(format!(
                    "a long test, shown on {} unless GREY_ALL is set",
                    self.kernels.join(" and ")
                ));
            }
        }
        (self.run)()
    }

    /// Gives a long test more time than the usual minute (emulation is slow) before it is killed and fails.
    pub(crate) const fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }
}

/// Asks `condition` again and again until it yields a value, or fails after `within` and names `what` was awaited.
pub(crate) fn wait_until<T>(
    what: &str,
    within: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + within;
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if Instant::now() >= end {
            bail!("{what}: not within {within:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Fails with both figures unless `actual` lies within `percent` of `expected`.
pub(crate) fn assert_within(what: &str, actual: u64, expected: u64, percent: f64) -> Result<()> {
    let off = actual.abs_diff(expected) as f64;
    if off > expected as f64 * percent / 100.0 {
        bail!("{what}: {actual}, expected {expected} ± {percent} %");
    }
    Ok(())
}
