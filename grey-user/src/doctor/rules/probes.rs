//! Rules on the probes.

use crate::doctor::ProbeStatus;
use crate::host::{Access, Facts, Tracefs};

use super::access::{may_mount, may_trace};
use super::{Finding, Mark, finding};

pub(super) fn findings(facts: &Facts, probes: &[ProbeStatus]) -> Vec<Finding> {
    if probes.is_empty() {
        return vec![
            finding(Mark::Off, "probes", "none was tried")
                .lost("faults, mappings, stalls, growth and OOM victims")
                .remedy(obstacle(facts)),
        ];
    }
    probes
        .iter()
        .map(|probe| probe_finding(facts, probe))
        .collect()
}

fn probe_finding(facts: &Facts, probe: &ProbeStatus) -> Finding {
    let ProbeStatus {
        name,
        family,
        attached,
        hook,
        cost,
        lost,
        reason,
    } = probe;
    let because = reason
        .as_ref()
        .map(|reason| format!(": {reason}"))
        .unwrap_or_default();
    let mut finding = match attached {
        Some(way) if lost.is_none() && cost.is_none() => {
            finding(Mark::Ok, name, format!("{way} {hook}"))
        }
        Some(way) => finding(Mark::Warn, name, format!("{way} {hook}{because}")),
        None => finding(Mark::Off, name, format!("not attached to {hook}{because}")),
    };
    finding.cost.clone_from(cost);
    finding.lost.clone_from(lost);
    match (finding.mark, attached) {
        (Mark::Off, _) => {
            let lost = finding
                .lost
                .take()
                .unwrap_or_else(|| format!("the `{family}` figures it feeds"));
            finding.lost(lost).remedy(obstacle(facts))
        }
        (Mark::Warn, Some(way)) if cost.is_some() && way.starts_with("syscall") => {
            finding.remedy("a kernel that lets fexit or kprobes attach makes it cheap")
        }
        (Mark::Warn, _) => finding.remedy(obstacle(facts)),
        _ => finding,
    }
}

/// The first thing in the way of probes, as advice.
fn obstacle(facts: &Facts) -> &'static str {
    if !may_trace(facts) && facts.kernel.capabilities.is_some() {
        "see `BPF` under privileges"
    } else if facts.kernel.lockdown.as_deref() == Some("confidentiality") {
        "see `lockdown` under kernel"
    } else if facts.kernel.btf != Access::Readable {
        "see `BTF` under kernel"
    } else if !matches!(facts.kernel.tracefs, Tracefs::Mounted(_)) && !may_mount(facts) {
        "see `tracefs` under kernel"
    } else {
        "nothing on this kernel; all other figures go on"
    }
}
