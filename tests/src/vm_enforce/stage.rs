//! A cgroup with page cache and anonymous memory that nobody uses, and `enforce` upon it.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::cache::Files;
use crate::harness::{Finished, TempCgroup, Workload, run};
use crate::invocation::Scratch;

pub(crate) const M: u64 = 1 << 20;
pub(crate) const PAGE: u64 = 4096;
/// An action at the pace of emulation.
const LONG: Duration = Duration::from_secs(60);

/// The workload goes before its cgroup.
pub(crate) struct Stage {
    pub(crate) workload: Workload,
    pub(crate) cgroup: TempCgroup,
    pub(crate) files: Files,
    pub(crate) scratch: Scratch,
}

impl Stage {
    /// With so much page cache and so much anonymous memory.
    pub(crate) fn new(cache: u64, anon: u64) -> Result<Self> {
        let files = Files::new()?;
        let cgroup = TempCgroup::new("enforced")?;
        let workload = Workload::start(&cgroup)?;
        let mut stage = Self {
            workload,
            cgroup,
            files,
            scratch: Scratch::new("enforce")?,
        };
        if anon > 0 {
            stage.workload.step(&format!("touch {}", anon / PAGE))?;
        }
        if cache > 0 {
            stage.fill("cache", cache)?;
        }
        Ok(stage)
    }

    /// So much page cache more.
    pub(crate) fn fill(&mut self, name: &str, cache: u64) -> Result<()> {
        let file = self.files.file(name, cache)?;
        let read = self.workload.step(&format!("read {file}"))?;
        ensure!(read == cache.to_string(), "read {read} bytes of {cache}");
        let held = self.file()?;
        ensure!(
            held + 2 * M >= cache,
            "{held} bytes of page cache after {cache} were read"
        );
        Ok(())
    }

    pub(crate) fn current(&self) -> Result<u64> {
        self.cgroup.number("memory.current")
    }

    /// Page cache on the lists.
    pub(crate) fn file(&self) -> Result<u64> {
        Ok(self.stat("active_file")? + self.stat("inactive_file")?)
    }

    pub(crate) fn stat(&self, key: &str) -> Result<u64> {
        self.cgroup.stat("memory.stat", key)
    }

    pub(crate) fn swapped(&self) -> Result<u64> {
        self.cgroup.number("memory.swap.current")
    }

    /// Whether this kernel can be asked to reclaim.
    pub(crate) fn has_reclaim(&self) -> bool {
        self.cgroup.has("memory.reclaim")
    }

    pub(crate) fn state_dir(&self) -> Result<String> {
        self.scratch.argument("state")
    }

    /// `enforce ARGS` upon this stage's journal.
    pub(crate) fn enforce(&self, args: &[&str]) -> Result<Finished> {
        let state = self.state_dir()?;
        // First, since an argument may be `--`.
        let mut all = vec!["enforce", "--state-dir", &state];
        all.extend(args);
        run(&all, LONG)
    }

    /// The events of an `enforce ARGS` that was done.
    pub(crate) fn done(&self, args: &[&str]) -> Result<Events> {
        let mut all = args.to_vec();
        all.push("--json");
        let done = self.enforce(&all)?;
        ensure!(done.code() == Some(0), "{args:?}: {done:?}");
        Events::of(&done)
    }

    /// Everything of the cgroup that can be set.
    pub(crate) fn settings(&self) -> Result<BTreeMap<String, String>> {
        settings(&self.cgroup)
    }
}

/// Everything of a cgroup that can be set: its files that can be written and read, but those that answer with figures.
pub(crate) fn settings(cgroup: &TempCgroup) -> Result<BTreeMap<String, String>> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut settings = BTreeMap::new();
    for entry in fs::read_dir(cgroup.directory())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let figures = name.ends_with(".pressure") || name.ends_with(".peak");
        let mode = entry.metadata()?.permissions().mode();
        if entry.file_type()?.is_file() && mode & 0o600 == 0o600 && !figures {
            // A file of a controller that has nothing to say here.
            let text = cgroup.read(&name).unwrap_or_default();
            settings.insert(name, text);
        }
    }
    ensure!(
        settings
            .get("memory.high")
            .is_some_and(|high| high == "max"),
        "{settings:?}"
    );
    Ok(settings)
}

/// What an action told.
#[derive(Debug)]
pub(crate) struct Events(pub(crate) Vec<Value>);

impl Events {
    pub(crate) fn of(done: &Finished) -> Result<Events> {
        let events = done.stdout.lines().map(|line| {
            let event: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            anyhow::Ok(event)
        });
        Ok(Events(events.collect::<Result<_>>()?))
    }

    fn one(&self, kind: &str) -> Result<&Value> {
        let mut found = self.0.iter().filter(|event| event["type"] == kind);
        let event = found
            .next()
            .with_context(|| format!("no {kind}: {self:?}"))?;
        ensure!(found.next().is_none(), "more than one {kind}: {self:?}");
        Ok(&event[kind])
    }

    pub(crate) fn action(&self) -> Result<&Value> {
        self.one("action")
    }

    pub(crate) fn outcome(&self) -> Result<&Value> {
        self.one("outcome")
    }

    /// The outcome's notes in one text.
    pub(crate) fn notes(&self) -> Result<String> {
        Ok(self.outcome()?["notes"].to_string())
    }
}

/// At least 95 % of `wanted`.
pub(crate) fn nearly(what: &str, bytes: u64, wanted: u64) -> Result<()> {
    ensure!(
        bytes >= wanted / 100 * 95,
        "{what}: {} MiB of {} MiB",
        bytes / M,
        wanted / M
    );
    Ok(())
}
