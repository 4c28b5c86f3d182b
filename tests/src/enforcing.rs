//! What the tests of acting share: a folder with a journal and a configuration, an action held under a lease, and the
//! knobs of a whole tree to compare.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::harness::{Finished, Observer, TempCgroup, cgroup_root, wait_until};
use crate::invocation::Scratch;

const SOON: Duration = Duration::from_secs(30);

/// Journal and configuration of one test.
pub(crate) struct Desk {
    pub(crate) scratch: Scratch,
}

impl Desk {
    /// `config` is the text of the configuration.
    pub(crate) fn new(label: &str, config: &str) -> Result<Self> {
        let scratch = Scratch::new(label)?;
        let desk = Self { scratch };
        desk.write_config(config, 0o644)?;
        Ok(desk)
    }

    pub(crate) fn write_config(&self, text: &str, mode: u32) -> Result<()> {
        let path = self.scratch.join("config.toml");
        fs::write(&path, text)?;
        Ok(fs::set_permissions(
            &path,
            fs::Permissions::from_mode(mode),
        )?)
    }

    /// `enforce ARGS` with this journal and this configuration.
    pub(crate) fn arguments(&self, args: &[&str]) -> Result<Vec<String>> {
        let mut all = vec!["enforce".to_owned()];
        all.extend(args.iter().map(ToString::to_string));
        all.extend(["--state-dir".to_owned(), self.scratch.argument("state")?]);
        all.extend(["--config".to_owned(), self.scratch.argument("config.toml")?]);
        Ok(all)
    }

    /// Runs `enforce ARGS` to its end.
    pub(crate) fn enforce(&self, args: &[&str]) -> Result<Finished> {
        let all = self.arguments(args)?;
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        crate::harness::run(&all, SOON)
    }

    /// Starts `enforce ARGS --lease LEASE --json` and waits until `file` of the cgroup holds `value`.
    pub(crate) fn hold(
        &self,
        cgroup: &TempCgroup,
        (flag, file, value): (&str, &'static str, u64),
        lease: &str,
        more: &[&str],
    ) -> Result<Held> {
        let value = value.to_string();
        let mut args = vec!["limit", cgroup.path(), flag, &value];
        args.extend(["--json", "--lease", lease]);
        args.extend(more);
        let before = cgroup.read(file)?;
        let all = self.arguments(&args)?;
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let mut observer = Observer::start(&all)?;
        observer.wait_event("the action", SOON, |event| event["type"] == "action")?;
        wait_until("the change to be in force", SOON, || {
            Ok((cgroup.read(file)? == value).then_some(()))
        })?;
        Ok(Held {
            observer,
            path: cgroup.path().to_owned(),
            knob: cgroup.directory().join(file),
            before,
        })
    }
}

/// An action under a lease.
pub(crate) struct Held {
    observer: Observer,
    path: String,
    knob: PathBuf,
    before: String,
}

impl Held {
    /// Awaits that it is taken back; the `rollback` event and when it came. The knob is as before then.
    pub(crate) fn rolled_back(&mut self, within: Duration) -> Result<(Value, Instant)> {
        let event = self
            .observer
            .wait_event("a rollback", within, |event| event["type"] == "rollback")?;
        let at = self.observer.found_at().context("no time of the line")?;
        let now = fs::read_to_string(&self.knob)?;
        ensure!(
            now.trim_end() == self.before,
            "{} holds {now}, it was {}",
            self.knob.display(),
            self.before
        );
        let rollback = event["rollback"].clone();
        ensure!(
            rollback["restored"].as_array().map(Vec::len) == Some(1)
                && event["cgroup"]["path"] == self.path.as_str(),
            "{event}"
        );
        Ok((rollback, at))
    }

    /// The watchdog took it back within 2 s of `trigger`, said that it was for `cause`, and ended with 4 and one line.
    pub(crate) fn tripped(self, cause: &str, trigger: Instant) -> Result<()> {
        self.tripped_after(&[], cause, trigger)
    }

    /// As [`Held::tripped`], after lines on stderr that say these words.
    pub(crate) fn tripped_after(
        mut self,
        words: &[&str],
        cause: &str,
        trigger: Instant,
    ) -> Result<()> {
        let (rollback, at) = self.rolled_back(SOON)?;
        let told = rollback["cause"].as_str().unwrap_or_default().to_owned();
        ensure!(told.starts_with(&format!("{cause}: ")), "{rollback}");
        let took = at.saturating_duration_since(trigger);
        println!(
            "{cause}: rolled back {} ms after it ({told})",
            took.as_millis()
        );
        ensure!(took <= Duration::from_secs(2), "only after {took:?}");
        let finished = self.observer.finish(SOON)?;
        ensure!(
            finished.code() == Some(4)
                && finished.stderr.lines().count() == 1 + words.len()
                && finished.stderr.contains(&told)
                && words
                    .iter()
                    .zip(finished.stderr.lines())
                    .all(|(word, line)| line.contains(word)),
            "{finished:?}"
        );
        Ok(())
    }

    /// Nothing took it back before its lease was over. On a machine that is held up the guard is sometimes the first to
    /// see that it is, and then there is nothing left to roll back.
    pub(crate) fn lasted(mut self) -> Result<()> {
        let outcome = self
            .observer
            .wait_event("an outcome", SOON, |event| event["type"] == "outcome")?;
        ensure!(outcome["outcome"]["verdict"] == "revert", "{outcome}");
        for event in self.observer.events()? {
            ensure!(
                event["type"] != "rollback" || event["rollback"]["cause"] == "lease",
                "{event}"
            );
        }
        let now = fs::read_to_string(&self.knob)?;
        ensure!(now.trim_end() == self.before, "it holds {now}");
        let finished = self.observer.finish(SOON)?;
        ensure!(
            finished.code() == Some(0) && finished.stderr.is_empty(),
            "{finished:?}"
        );
        Ok(())
    }
}

/// What all knobs of all cgroups hold, and those of the machine.
pub(crate) fn knobs() -> Result<BTreeMap<PathBuf, String>> {
    const FILES: [&str; 6] = [
        "memory.high",
        "memory.max",
        "memory.min",
        "memory.low",
        "memory.swap.max",
        "cgroup.freeze",
    ];
    let mut all = BTreeMap::new();
    let mut folders = vec![cgroup_root()?];
    while let Some(folder) = folders.pop() {
        for file in FILES {
            keep(&mut all, &folder.join(file));
        }
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
        }
    }
    for entry in fs::read_dir("/sys/kernel/mm/ksm")
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if matches!(
            &*name,
            "run" | "pages_to_scan" | "sleep_millisecs" | "advisor_mode"
        ) {
            keep(&mut all, &entry.path());
        }
    }
    Ok(all)
}

fn keep(all: &mut BTreeMap<PathBuf, String>, path: &Path) {
    if let Ok(text) = fs::read_to_string(path) {
        all.insert(path.to_owned(), text);
    }
}
