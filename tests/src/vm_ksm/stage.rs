//! KSM of the machine with settings that nobody has by default, two processes that offer memory, and the command.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::harness::{Finished, Observer, Outcome, TempCgroup, Workload, run};
use crate::invocation::Scratch;

pub(super) const KSM: &str = "/sys/kernel/mm/ksm";
pub(super) const M: u64 = 1 << 20;
pub(super) const PAGE: u64 = 4096;
pub(super) const SOON: Duration = Duration::from_secs(30);
/// For scans under emulation.
pub(super) const LONG: Duration = Duration::from_secs(60);

pub(super) fn figure(name: &str) -> Result<u64> {
    let path = format!("{KSM}/{name}");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    text.trim()
        .parse()
        .with_context(|| format!("{path}: {text}"))
}

pub(super) fn has(name: &str) -> bool {
    fs::exists(format!("{KSM}/{name}")).unwrap_or(false)
}

pub(super) fn put(name: &str, value: impl ToString) -> Result<()> {
    let path = format!("{KSM}/{name}");
    fs::write(&path, value.to_string()).with_context(|| path)
}

/// Every file of KSM that can be written to, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings(BTreeMap<String, String>);

impl Settings {
    pub(super) fn read() -> Result<Self> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(KSM)? {
            let entry = entry?;
            if entry.metadata()?.permissions().mode() & 0o200 != 0 {
                let name = entry.file_name().to_string_lossy().into_owned();
                files.insert(name, fs::read_to_string(entry.path())?.trim().to_owned());
            }
        }
        ensure!(files.len() >= 4, "next to nothing to be set: {files:?}");
        Ok(Self(files))
    }
}

/// KSM as it was, when this goes; until then with settings that nobody has by default.
pub(super) struct Odd(Settings);

impl Odd {
    pub(super) fn set() -> Result<Self> {
        let odd = Self(Settings::read()?);
        // What programs that have ended had merged is counted until ksmd comes by, which it does not while it is off.
        put("run", 2)?;
        put("run", 0)?;
        let values = [
            ("pages_to_scan", 123),
            ("sleep_millisecs", 17),
            ("smart_scan", 0),
            ("use_zero_pages", 0),
            ("advisor_max_cpu", 77),
            // Seconds an advisor takes for a scan: tests have not got the 60 of --aggressive.
            ("advisor_target_scan_time", 3),
        ];
        for (name, value) in values {
            if has(name) {
                put(name, value)?;
            }
        }
        Ok(odd)
    }
}

impl Drop for Odd {
    fn drop(&mut self) {
        let chosen = |text: &str| {
            let (_, rest) = text.split_once('[')?;
            Some(rest.split_once(']')?.0.to_owned())
        };
        let mut files: Vec<_> = self.0.0.iter().collect();
        // The rate cannot be written while the advisor is on.
        files.sort_by_key(|(name, _)| *name != "advisor_mode");
        for (name, value) in files {
            let _ = put(name, chosen(value).unwrap_or_else(|| value.clone()));
        }
    }
}

/// `enforce ksm ARGS` with a journal of its own.
pub(super) struct Ksm {
    pub(super) scratch: Scratch,
}

impl Ksm {
    pub(super) fn new(label: &str) -> Result<Self> {
        Ok(Self {
            scratch: Scratch::new(label)?,
        })
    }

    pub(super) fn run(&self, words: &str) -> Result<Finished> {
        let state = self.scratch.argument("state")?;
        let mut args: Vec<&str> = words.split(' ').collect();
        args.extend(["--state-dir", &state]);
        run(&args, LONG)
    }

    pub(super) fn start(&self, words: &str) -> Result<Observer> {
        let state = self.scratch.argument("state")?;
        let mut args: Vec<&str> = words.split(' ').collect();
        args.extend(["--state-dir", &state]);
        Observer::start(&args)
    }

    /// Runs it, expects it to do its work, and gives its last `outcome`.
    pub(super) fn outcome(&self, words: &str) -> Result<Value> {
        let done = self.run(words)?;
        ensure!(done.code() == Some(0), "{words}: {done:?}");
        event(&done.stdout, "outcome")
    }

    pub(super) fn status(&self) -> Result<Value> {
        let done = self.run("enforce ksm status --json")?;
        ensure!(done.code() == Some(0), "{done:?}");
        serde_json::from_str(&done.stdout).with_context(|| done.stdout.clone())
    }

    pub(super) fn refused(&self, words: &str, code: i32, says: &[&str]) -> Result<()> {
        let done = self.run(words)?;
        let told = &done.stderr;
        ensure!(
            done.code() == Some(code) && done.stdout.is_empty() && told.lines().count() == 1,
            "{words}: {done:?}"
        );
        for word in says {
            ensure!(told.contains(word), "{words}: nothing of {word:?}: {told}");
        }
        Ok(())
    }
}

pub(super) fn event(stdout: &str, kind: &str) -> Result<Value> {
    let mut found = None;
    for line in stdout.lines() {
        let event: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        if event["type"] == kind {
            found = Some(event[kind].clone());
        }
    }
    found.with_context(|| format!("no {kind} among {stdout}"))
}

pub(super) fn notes(outcome: &Value) -> String {
    outcome["notes"].to_string()
}

/// Two processes with the same pages, offered in one way each where there are two.
pub(super) fn two_alike(cgroup: &TempCgroup, bytes: u64) -> Result<[Workload; 2]> {
    let mut pair = [Workload::start(cgroup)?, Workload::start(cgroup)?];
    for workload in &mut pair {
        workload.step(&format!("equal {}", bytes / PAGE))?;
    }
    pair[0].step("offer")?;
    if pair[1].step("offer-all").is_err() {
        pair[1].step("offer")?;
    }
    Ok(pair)
}

pub(super) fn no_ksm() -> Option<Result<Outcome>> {
    (!has("run")).then(|| Outcome::skipped("this kernel has no KSM"))
}

pub(super) fn available() -> Result<u64> {
    let info = fs::read_to_string("/proc/meminfo")?;
    let kib: u64 = info
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .context("MemAvailable")?
        .parse()?;
    Ok(kib << 10)
}
