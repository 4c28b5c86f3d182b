//! Own cost, losses and degraded probes.

use std::collections::BTreeMap;

use grey_common::{RecordKind, loss};
use grey_core::budget::Step;
use grey_core::event::{Body, Degraded, Health};
use grey_core::time::Timestamp;

use super::{Notice, Observer};
use crate::host::OwnCost;

impl Observer {
    /// Tells what watching costs and what was lost.
    pub fn health(&mut self, now: Timestamp, out: &mut Vec<Notice>) {
        self.update_losses();
        let cost = OwnCost::now();
        let cpu_pct = self.last_cost.and_then(|(then, before)| {
            let wall = now.0 - then.0;
            let spent = cost.cpu_us.saturating_sub(before.cpu_us) as f64;
            (wall > 0).then(|| (spent * 10_000.0 / wall as f64).round() / 100.0)
        });
        self.last_cost = Some((now, cost));
        let (emitted, dropped) = self.loss_tables();
        let mut map_entries = BTreeMap::new();
        if let Some(kernel) = &self.kernel {
            map_entries.insert(
                "cgroup_slots".to_owned(),
                kernel.counters.cgroups().count() as u64,
            );
            map_entries.insert(
                "cgroup_slots_free".to_owned(),
                u64::from(kernel.counters.capacity() - 1)
                    - kernel.counters.cgroups().count() as u64,
            );
            map_entries.insert(
                "processes".to_owned(),
                kernel.counters.processes().count() as u64,
            );
        }
        let health = Health {
            cpu_pct,
            rss: cost.rss,
            // Else it is what was measured now and then for the budget.
            bpf_ns_total: self
                .kernel
                .as_ref()
                .filter(|_| self.stats_are_on())
                .map(crate::probe::Kernel::run_time_ns)
                .filter(|ns| *ns > 0),
            emitted,
            read: self
                .read
                .iter()
                .map(|(kind, count)| ((*kind).to_owned(), *count))
                .collect(),
            dropped,
            rejected: self.rejected,
            degraded: self.degraded(),
            cgroups: self.known.len() as u64,
            map_entries,
            fds: cost.fds,
            budget: self.budget_figures(),
        };
        self.emit(Body::Health { health }, now, None, out);
    }

    fn degraded(&self) -> Vec<Degraded> {
        let mut degraded: Vec<Degraded> = self
            .probes
            .iter()
            .filter(|probe| probe.attached.is_none() || probe.cost.is_some())
            .map(|probe| Degraded {
                probe: probe.name.clone(),
                attached: probe.attached.clone().unwrap_or_else(|| "off".to_owned()),
                lost: probe
                    .lost
                    .clone()
                    .or_else(|| probe.cost.clone())
                    .unwrap_or_default(),
                reason: probe.reason.clone().unwrap_or_default(),
            })
            .collect();
        let interval = self.interval().unwrap_or_default().as_secs_f64();
        for (step, attached, lost) in [
            (
                Step::Stacks,
                "off".to_owned(),
                "stacks of confirmed verdicts",
            ),
            (
                Step::Interval,
                format!("every {interval} s"),
                "figures between two looks (events come at once as before)",
            ),
            (
                Step::Recorder,
                "one minute".to_owned(),
                "figures of incidents more than a minute before them",
            ),
        ] {
            if self.spares(step) {
                degraded.push(Degraded {
                    probe: step.name().to_owned(),
                    attached,
                    lost: lost.to_owned(),
                    reason: "to keep the budget".to_owned(),
                });
            }
        }
        if !self.fs.has_memory() {
            degraded.push(Degraded {
                probe: "memory_files".to_owned(),
                attached: "off".to_owned(),
                lost: "memory.* figures of cgroups (mem, psi, events)".to_owned(),
                reason: "the cgroup v2 tree has no memory controller".to_owned(),
            });
        }
        degraded
    }

    /// Everything dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.losses.iter().map(|row| row.dropped).sum()
    }

    /// Takes the loss table and remembers whether anything was lost since the tick before.
    pub(super) fn update_losses(&mut self) {
        let Some(kernel) = &self.kernel else { return };
        match kernel.counters.losses() {
            Ok(losses) => {
                self.losses = losses;
                self.lost_last_tick = self.dropped() > self.dropped_at_tick;
            }
            Err(error) => {
                self.read_errors += 1;
                tracing::warn!("loss table: {error}");
            }
        }
    }

    /// Records of cgroups that came, went or were renamed for which there was no room.
    pub(super) fn lifecycle_losses(&self) -> u64 {
        [
            RecordKind::CgroupMade,
            RecordKind::CgroupRemoved,
            RecordKind::CgroupRenamed,
        ]
        .iter()
        .filter_map(|kind| self.losses.get(*kind as usize))
        .map(|row| row.dropped)
        .sum()
    }

    /// (emitted, dropped) by name; a kind that never came up is left out of both.
    fn loss_tables(&self) -> (BTreeMap<String, u64>, BTreeMap<String, u64>) {
        let mut emitted = BTreeMap::new();
        let mut dropped = BTreeMap::new();
        for kind in RecordKind::ALL {
            if let Some(row) = self.losses.get(kind as usize)
                && row.emitted > 0
            {
                emitted.insert(kind.name().to_owned(), row.emitted);
                dropped.insert(kind.name().to_owned(), row.dropped);
            }
        }
        for (row, name) in [
            (loss::CGROUP_SLOTS, "cgroup_slots"),
            (loss::PROCESS_TABLE, "process_table"),
            (loss::PAIRING, "pairing"),
        ] {
            if let Some(row) = self.losses.get(row as usize)
                && row.dropped > 0
            {
                dropped.insert(name.to_owned(), row.dropped);
            }
        }
        if self.read_errors > 0 {
            dropped.insert("file_reads".to_owned(), self.read_errors);
        }
        (emitted, dropped)
    }
}
