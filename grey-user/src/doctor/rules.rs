//! Rules over the facts: what each of them takes away from `watch`, and what helps.

use crate::host::Facts;

use super::{Finding, Mark, ProbeStatus, Section};

mod access;
mod machine;
mod probes;
mod tree;

/// Where `watch` gets figures per cgroup from.
pub(super) struct Sources {
    attached: usize,
    probes: usize,
    /// The memory.* files.
    files: bool,
    /// Processes summed by cgroup.procs, and the pressure files.
    tree: bool,
}

impl Sources {
    pub(super) fn of(facts: &Facts, probes: &[ProbeStatus]) -> Self {
        let tree = facts.cgroup.mount.is_some() && facts.cgroup.error.is_none();
        Sources {
            attached: probes
                .iter()
                .filter(|probe| probe.attached.is_some())
                .count(),
            probes: probes.len(),
            files: tree && facts.cgroup.has_memory(),
            tree,
        }
    }

    pub(super) fn any(&self) -> bool {
        self.attached > 0 || self.tree
    }

    pub(super) fn summary(&self) -> String {
        let mut parts = Vec::new();
        if self.attached > 0 {
            parts.push(format!("{} of {} probes", self.attached, self.probes));
        }
        if self.files {
            parts.push("the memory.* files of each cgroup".to_owned());
        } else if self.tree {
            parts.push("the processes of each cgroup".to_owned());
        }
        if parts.is_empty() {
            return "no probe is attached and there is no cgroup v2 tree to read".to_owned();
        }
        format!("figures come from {}", parts.join(" and "))
    }
}

pub(super) fn sections(facts: &Facts, probes: &[ProbeStatus]) -> Vec<Section> {
    vec![
        Section {
            name: "kernel",
            findings: access::kernel(facts),
        },
        Section {
            name: "privileges",
            findings: access::privileges(facts, probes),
        },
        Section {
            name: "cgroups",
            findings: tree::cgroups(facts),
        },
        Section {
            name: "probes",
            findings: probes::findings(facts, probes),
        },
        Section {
            name: "memory",
            findings: machine::memory(facts),
        },
        Section {
            name: "actuators",
            findings: machine::actuators(facts),
        },
    ]
}

fn finding(mark: Mark, name: impl Into<String>, found: impl Into<String>) -> Finding {
    Finding {
        mark,
        name: name.into(),
        found: found.into(),
        lost: None,
        cost: None,
        remedy: None,
    }
}

impl Finding {
    fn lost(mut self, lost: impl Into<String>) -> Self {
        self.lost = Some(lost.into());
        self
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}
