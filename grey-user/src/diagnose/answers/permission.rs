//! "What could not be read, and what would let us?"

use super::{Answer, Severity, answer, count, reason};
use crate::diagnose::facts::Facts;

pub(super) fn what_is_denied(facts: &Facts) -> Answer {
    let mut found = answer(
        "permission_denied",
        "What was this report not allowed to read?",
    );
    let machine = &facts.machine;
    let root = machine.euid == Some(0);
    for denied in &machine.denied {
        found.reasons.push(
            reason("denied", format!("{}: {}", denied.reason, denied.lost))
                .text("file", denied.what.clone(), "as it was tried")
                .text("remedy", denied.remedy.clone(), "what would let us read it"),
        );
    }
    let lacks = |name: &str| {
        machine
            .capabilities
            .as_ref()
            .is_some_and(|all| !all.contains(&name))
    };
    if machine.hidepid && lacks("CAP_SYS_PTRACE") {
        found.reasons.push(reason(
            "hidepid",
            "/proc hides other users' processes (mount option hidepid): the lists of processes are yours only",
        ));
    }
    if found.reasons.is_empty() {
        found.answer = "Nothing: everything this kernel tells could be read.".to_owned();
        return found;
    }
    if machine.in_user_namespace {
        found.reasons.push(reason(
            "user_namespace",
            "root and capabilities hold inside this user namespace only (a rootless container): the machine's own files stay closed",
        ));
    }
    if machine.partial {
        found.reasons.push(reason(
            "partial_view",
            "only a part of the cgroup tree is in view, as in a container",
        ));
    }
    found.applies = true;
    found.severity = Severity::Note;
    let n = found.reasons.len() as u64;
    let sources = format!(
        "{} {} not",
        count(n, "source"),
        if n == 1 { "was" } else { "were" }
    );
    found.answer = match (root, machine.container) {
        (false, _) => format!(
            "{sources} read, because this is not root. What they tell is absent here; the rest stands."
        ),
        (true, Some(kind)) => format!(
            "{sources} read although this is root: a container ({kind}) masks files and drops capabilities."
        ),
        (true, None) => format!(
            "{sources} read although this is root: a capability is missing, or a mount or security module forbids it."
        ),
    };
    found.next = match (root, machine.in_user_namespace, machine.container) {
        (false, ..) => vec!["sudo grey-ebpf diagnose".to_owned()],
        (true, true, _) => vec!["run it outside of the user namespace".to_owned()],
        (true, false, Some(_)) => {
            vec!["run it on the host, or with --privileged --pid=host --cgroupns=host".to_owned()]
        }
        (true, false, None) => vec!["grey-ebpf doctor    which capabilities there are".to_owned()],
    };
    if !root {
        for denied in &machine.denied {
            if denied.remedy != "run as root" && !found.next.contains(&denied.remedy) {
                found.next.push(denied.remedy.clone());
            }
        }
    }
    found
}
