//! Several lives at the same time: a cgroup each with a limit and a program, and one `watch` of all.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Program;
use crate::harness::{Observer, TempCgroup, timing::event_us};

/// A cgroup and what runs in it.
pub(crate) struct Life {
    // Fields go in their order: the program before its cgroup.
    pub(crate) program: Option<Program>,
    pub(crate) cgroup: TempCgroup,
}

impl Life {
    /// An empty cgroup, limited to `max` bytes if there is a limit. Without `swap` it never swaps.
    pub(crate) fn new(label: &str, max: Option<u64>, swap: bool) -> Result<Self> {
        let cgroup = TempCgroup::new(label)?;
        if let Some(max) = max {
            cgroup.write("memory.max", max)?;
        }
        if !swap {
            cgroup.write("memory.swap.max", 0)?;
        }
        Ok(Self {
            program: None,
            cgroup,
        })
    }

    pub(crate) fn run(&mut self, command: &[&str], variables: &[(&str, &str)]) -> Result<()> {
        self.program = Some(Program::start(&self.cgroup, command, variables)?);
        Ok(())
    }

    pub(crate) fn program(&mut self) -> Result<&mut Program> {
        self.program.as_mut().context("nothing runs here")
    }

    pub(crate) fn path(&self) -> &str {
        self.cgroup.path()
    }
}

/// `watch` of some cgroups, a sample of each a second.
pub(crate) struct Live {
    pub(crate) watch: Observer,
}

impl Live {
    /// Up and looking.
    pub(crate) fn start(lives: &[&Life]) -> Result<Self> {
        let mut args = vec!["watch", "--json", "--interval", "1s", "--slow-ticks", "1"];
        for life in lives {
            args.extend(["--cgroup", life.path()]);
        }
        let mut watch = Observer::start(&args)?;
        watch.wait_event("the first health line", Duration::from_secs(20), |event| {
            event["type"] == "health"
        })?;
        Ok(Self { watch })
    }

    /// The first `confirmed` `leak` of this cgroup.
    pub(crate) fn leak(&mut self, life: &Life, within: Duration) -> Result<Value> {
        let path = life.path().to_owned();
        self.watch
            .wait_event("a confirmed leak", within, |event| {
                is_about(event, &path)
                    && event["verdict"]["state"] == "confirmed"
                    && event["verdict"]["cause"] == "leak"
            })
            .with_context(|| format!("{path} had {:?}", self.told_of(life)))
    }

    /// Lets time pass until a sample of `life` is that late, µs of the wall clock.
    pub(crate) fn until(&mut self, life: &Life, us: i64) -> Result<()> {
        let path = life.path().to_owned();
        let left = us - crate::harness::timing::wall_us();
        let within = Duration::from_micros(left.max(0).unsigned_abs()) + Duration::from_secs(30);
        self.watch
            .wait_event("samples up to then", within, |event| {
                event["type"] == "sample"
                    && event["cgroup"]["path"] == path.as_str()
                    && event_us(event).is_ok_and(|at| at >= us)
            })
            .map(drop)
    }

    /// Verdicts about the cgroup or one of its processes, so far.
    pub(crate) fn verdicts(&mut self, life: &Life) -> Result<Vec<Value>> {
        let path = life.path();
        Ok(self
            .watch
            .events()?
            .into_iter()
            .filter(|event| event["type"] == "verdict" && event["cgroup"]["path"] == path)
            .collect())
    }

    /// Samples of the cgroup so far.
    pub(crate) fn samples(&mut self, life: &Life) -> Result<Vec<Value>> {
        let path = life.path();
        Ok(self
            .watch
            .events()?
            .into_iter()
            .filter(|event| event["type"] == "sample" && event["cgroup"]["path"] == path)
            .collect())
    }

    /// `state/cause` of each verdict so far, to be printed.
    pub(crate) fn told_of(&mut self, life: &Life) -> Vec<String> {
        let verdicts = self.verdicts(life).unwrap_or_default();
        verdicts.iter().map(state_of).collect()
    }

    /// Fails if anything was confirmed about the cgroup, or called a leak.
    pub(crate) fn ensure_silent(&mut self, life: &Life, what: &str) -> Result<()> {
        let loud: Vec<Value> = self
            .verdicts(life)?
            .into_iter()
            .filter(|event| event["verdict"]["state"] == "confirmed" || is_leak(event))
            .collect();
        println!("{what}: {:?}", self.told_of(life));
        ensure!(loud.is_empty(), "{what} is no leak: {loud:?}");
        Ok(())
    }

    /// Fails if the cgroup was ever called a leak.
    pub(crate) fn ensure_no_leak(&mut self, life: &Life, what: &str) -> Result<()> {
        let leaks: Vec<Value> = self.verdicts(life)?.into_iter().filter(is_leak).collect();
        println!("{what}: {:?}", self.told_of(life));
        ensure!(leaks.is_empty(), "{what} is no leak: {leaks:?}");
        Ok(())
    }
}

fn is_about(event: &Value, path: &str) -> bool {
    event["type"] == "verdict"
        && event["cgroup"]["path"] == path
        && event["verdict"].get("process").is_none()
}

fn is_leak(event: &Value) -> bool {
    event["verdict"]["cause"] == "leak"
}

/// `state/cause of MEMORY`.
fn state_of(event: &Value) -> String {
    let word = |field: &str| event["verdict"][field].as_str().unwrap_or("?").to_owned();
    format!("{}/{} of {}", word("state"), word("cause"), word("memory"))
}

/// A figure of a sample, 0 where the program has not begun.
pub(crate) fn bytes(sample: &Value, field: &str) -> u64 {
    sample["mem"][field].as_u64().unwrap_or(0)
}
