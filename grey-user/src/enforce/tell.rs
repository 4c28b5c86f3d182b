//! What an action tells: lines for people, NDJSON for pipelines.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, SystemTime};

use grey_core::act::{Damage, Undone};
use grey_core::event::{
    ActionOutcome, Body, Cgroup, Event, OutcomeVerdict, RestoredFile, Rollback, SCHEMA, SkippedFile,
};
use grey_core::identity::identify;
use grey_core::time::Timestamp;
use grey_core::units::{format_bytes, format_duration_us};
use grey_core::view::printable;

use crate::act::Scene;
use crate::cli::{self, Failure};

use super::{Plan, time};

/// Where it is told.
pub(crate) struct Tell {
    json: bool,
    terminal: bool,
    seq: u64,
    host: String,
    boot_id: Option<String>,
    cgroup: Option<Cgroup>,
}

impl Tell {
    pub(crate) fn new(scene: &Scene, json: bool) -> Tell {
        let text = |path: &str| Some(scene.host.text(path).ok()?.trim().to_owned());
        Tell {
            json,
            terminal: !json && io::stderr().is_terminal(),
            seq: 0,
            host: text("/proc/sys/kernel/hostname").unwrap_or_default(),
            boot_id: text("/proc/sys/kernel/random/boot_id"),
            cgroup: None,
        }
    }

    fn event(&mut self, body: Body) -> Result<(), Failure> {
        let ts = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_micros() as i64);
        let event = Event {
            schema: SCHEMA.to_owned(),
            ts: Timestamp(ts),
            seq: self.seq,
            host: self.host.clone(),
            boot_id: self.boot_id.clone(),
            cgroup: self.cgroup.clone(),
            lossy: false,
            body,
        };
        self.seq += 1;
        let mut line = serde_json::to_string(&event)
            .map_err(|error| Failure::failed(format!("event: {error}")))?;
        line.push('\n');
        cli::print(&line).map(|_| ())
    }

    /// What is about to be done, or would be.
    pub(crate) fn plan(&mut self, plan: &Plan) -> Result<(), Failure> {
        self.cgroup = plan
            .target
            .as_ref()
            .map(|target| identify(&target.path).cgroup(target.id, &target.path));
        let action = &plan.action;
        if self.json {
            return self.event(Body::Action {
                action: Box::new(action.clone()),
            });
        }
        let mut text = String::new();
        if let Some(id) = action.id {
            text.push_str(&format!("action {id}: "));
        }
        text.push_str(&format!(
            "{} {}",
            printable(&action.kind),
            printable(&action.target)
        ));
        if let Some(bytes) = action.planned_bytes {
            text.push_str(&format!(", up to {}", format_bytes(bytes)));
        }
        if action.dry_run {
            text.push_str(" (dry run: nothing is written)");
        }
        text.push('\n');
        for write in &action.writes {
            let old = write
                .old
                .as_deref()
                .map_or(String::new(), |old| format!("{} -> ", printable(old)));
            let once = if write.reversible {
                ""
            } else {
                "  (cannot be taken back)"
            };
            text.push_str(&format!(
                "  {}  {old}{}{once}\n",
                printable(&write.file),
                printable(&write.new)
            ));
        }
        if let Some(effect) = &action.effect {
            text.push_str(&format!("  expected: {effect}\n"));
        }
        if let Some(lease) = plan.lease {
            text.push_str(&format!("  taken back after {}\n", time(lease)));
        }
        cli::print(&text).map(|_| ())
    }

    /// What came of it.
    pub(crate) fn outcome(&mut self, outcome: &ActionOutcome) -> Result<(), Failure> {
        if self.json {
            return self.event(Body::Outcome {
                outcome: Box::new(outcome.clone()),
            });
        }
        let mut text = match outcome.verdict {
            OutcomeVerdict::Commit => "done".to_owned(),
            OutcomeVerdict::Revert => "taken back".to_owned(),
        };
        if let (Some(before), Some(after)) = (&outcome.before, &outcome.after) {
            let mut figure = |name: &str, from: Option<u64>, to: Option<u64>| {
                if let (Some(from), Some(to)) = (from, to) {
                    text.push_str(&format!(
                        "\n  {name:<10} {:>6} -> {:>6}",
                        format_bytes(from),
                        format_bytes(to)
                    ));
                }
            };
            figure("memory", before.current, after.current);
            figure("anonymous", before.anon, after.anon);
            figure("file", before.file, after.file);
            figure("swap", before.swap, after.swap);
            figure("resident", before.rss, after.rss);
            figure("available", before.available, after.available);
        }
        if let Some(freed) = outcome.freed_bytes {
            text.push_str(&format!("\n  freed      {:>6}", format_bytes(freed)));
        }
        if let Some(kept) = outcome.kept_bytes {
            text.push_str(&format!("\n  kept       {:>6}", format_bytes(kept)));
        }
        if let Some(us) = outcome.psi_delta_us {
            text.push_str(&format!("\n  stalled    {:>6}", format_duration_us(us)));
        }
        if let Some(us) = outcome.took_us {
            text.push_str(&format!("\n  took       {:>6}", format_duration_us(us)));
        }
        for note in &outcome.notes {
            text.push_str(&format!("\n  {}", printable(note)));
        }
        text.push('\n');
        cli::print(&text).map(|_| ())
    }

    /// What was taken back. Nothing is told where there was nothing to take back.
    pub(crate) fn undone(
        &mut self,
        id: Option<u64>,
        cause: &str,
        undone: &Undone,
    ) -> Result<(), Failure> {
        if undone.restored.is_empty() && undone.skipped.is_empty() && undone.failed.is_empty() {
            return Ok(());
        }
        let rollback = rollback(id, cause, undone);
        if let Some(fault) = &undone.journal {
            cli::tell(&format!(
                "journal: {fault}; what was taken back is not noted there, and rollback will look at it again"
            ));
        }
        if self.json {
            return self.event(Body::Rollback {
                rollback: Box::new(rollback),
            });
        }
        let mut text = format!("rolled back ({})\n", printable(cause));
        for file in &rollback.restored {
            text.push_str(&format!(
                "  {}  {} -> {}\n",
                printable(&file.file),
                printable(&file.from),
                printable(&file.to)
            ));
        }
        for file in &rollback.skipped {
            text.push_str(&format!(
                "  {}  left alone: {}\n",
                printable(&file.file),
                printable(&file.why)
            ));
        }
        cli::print(&text).map(|_| ())
    }

    /// What was taken back, as an event of this cgroup.
    pub(crate) fn rollback(
        &mut self,
        cgroup: Option<Cgroup>,
        id: Option<u64>,
        cause: &str,
        undone: &Undone,
    ) -> Result<(), Failure> {
        self.cgroup = cgroup;
        self.event(Body::Rollback {
            rollback: Box::new(rollback(id, cause, undone)),
        })
    }

    /// What of the journal was damaged.
    pub(crate) fn damage(&self, damage: &Damage) {
        if damage.lines > 0 {
            cli::tell(&format!(
                "journal: {} lines are damaged or of a newer version: skipped, all others are used",
                damage.lines
            ));
        }
    }

    pub(crate) fn held(&self, id: u64, lease: Duration) {
        if self.terminal {
            cli::tell(&format!(
                "held for {}; Ctrl-C or `grey-ebpf rollback --id {id}` takes it back now",
                time(lease)
            ));
        }
    }

    /// The time left of a lease, on a terminal.
    pub(crate) fn left(&self, left: Duration) {
        if self.terminal {
            let _ = io::stderr()
                .write_all(format!("\r\x1b[K{:.1}s left", left.as_secs_f64()).as_bytes());
        }
    }

    /// A line of progress, on a terminal.
    pub(crate) fn progress(&self, line: &str) {
        if self.terminal {
            let _ = io::stderr().write_all(format!("\r\x1b[K{line}").as_bytes());
        }
    }

    /// Takes the line of progress away.
    pub(crate) fn clear(&self) {
        if self.terminal {
            let _ = io::stderr().write_all(b"\r\x1b[K");
        }
    }
}

/// The event of what was taken back.
pub(crate) fn rollback(id: Option<u64>, cause: &str, undone: &Undone) -> Rollback {
    Rollback {
        id,
        cause: cause.to_owned(),
        restored: undone
            .restored
            .iter()
            .map(|(knob, from, to)| RestoredFile {
                file: knob.to_string(),
                from: from.to_string(),
                to: to.to_string(),
            })
            .collect(),
        skipped: undone
            .skipped
            .iter()
            .map(|(knob, how)| SkippedFile {
                file: knob.to_string(),
                why: how.to_string(),
            })
            .chain(undone.failed.iter().map(|(knob, fault)| SkippedFile {
                file: knob.to_string(),
                why: fault.to_string(),
            }))
            .collect(),
    }
}
