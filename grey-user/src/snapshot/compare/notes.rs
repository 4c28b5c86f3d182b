//! What to know before believing a comparison: other host, other boot, cgroups made again, pids given out again.

use grey_core::event::MemSource;
use serde::Serialize;

use super::super::document::Snapshot;
use super::{CgroupChange, ProcessChange, Status};

/// One thing to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// What it is, for programs.
    pub code: &'static str,
    /// One sentence.
    pub text: String,
}

pub(super) fn of(
    before: &Snapshot,
    after: &Snapshot,
    same_boot: bool,
    cgroups: &[CgroupChange],
    processes: &[ProcessChange],
) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut note = |code, text: String| notes.push(Note { code, text });
    if before.host != after.host {
        note(
            "other_host",
            format!(
                "the snapshots are of two machines, {} and {}",
                before.host, after.host
            ),
        );
    }
    if !same_boot {
        let what = match before.host == after.host {
            true => "the machine was rebooted in between",
            false => "they are of two boots",
        };
        note(
            "other_boot",
            format!("{what}: cgroups are matched by path, and processes are not compared"),
        );
    }
    if let (Some(old), Some(new)) = (&before.kernel, &after.kernel)
        && old != new
    {
        note(
            "other_kernel",
            format!("the kernels differ: {old} and {new}"),
        );
    }
    if after.ts < before.ts {
        note(
            "wrong_order",
            "the second snapshot is the older one: what is shown as a reduction was growth"
                .to_owned(),
        );
    }
    if before.chosen != after.chosen {
        note(
            "other_choice",
            "they were saved with different --cgroup: only what both chose is compared".to_owned(),
        );
    }
    let recreated = count(cgroups, |change| change.status == Status::Recreated);
    if recreated > 0 {
        note(
            "recreated",
            format!(
                "{recreated} of the cgroups were removed and made again under the same path, such as by a restart"
            ),
        );
    }
    let reused = count(processes, |change| {
        change.pid_reused && change.status == Status::New
    });
    if reused > 0 {
        note(
            "pid_reused",
            format!(
                "{reused} of the pids belong to another process now: these are shown as gone and new"
            ),
        );
    }
    let from_processes = cgroups
        .iter()
        .any(|change| change.mem_source == Some(MemSource::Processes));
    if from_processes {
        note(
            "mem_from_processes",
            "the cgroup tree has no memory controller: figures of cgroups are sums over their processes".to_owned(),
        );
    }
    let denied = before.processes.denied.max(after.processes.denied);
    if denied > 0 {
        note(
            "pss_denied",
            format!(
                "PSS and USS of {} be read: save as root; until then RSS stands in",
                plural(
                    usize::try_from(denied).unwrap_or(usize::MAX),
                    "process could not",
                    "processes could not"
                )
            ),
        );
    }
    notes
}

fn count<T>(list: &[T], of: impl Fn(&T) -> bool) -> usize {
    list.iter().filter(|entry| of(entry)).count()
}

fn plural(count: usize, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}
