//! Names of cgroups, processes and mounts without control characters: whoever chose them must not steer the terminal.

use grey_core::decode::printable;

use crate::diagnose::answers::Value;
use crate::diagnose::leaks::Standing;
use crate::diagnose::report::Report;

/// The report as it may be shown.
pub(super) fn clean(report: &Report) -> Report {
    let mut report = report.clone();
    for answer in &mut report.answers {
        wash(&mut answer.answer);
        answer.next.iter_mut().for_each(wash);
        for reason in &mut answer.reasons {
            wash(&mut reason.text);
            for figure in &mut reason.figures {
                if let Value::Text(text) = &mut figure.value {
                    wash(text);
                }
            }
        }
    }
    for cgroup in &mut report.cgroups.top {
        wash(&mut cgroup.path);
    }
    for process in &mut report.processes.top {
        wash(&mut process.comm);
        process.cgroup.iter_mut().for_each(wash);
    }
    for user in report.ksm.iter_mut().flat_map(|ksm| &mut ksm.processes.top) {
        wash(&mut user.comm);
    }
    report.host.iter_mut().for_each(wash);
    if let Some(leaks) = &mut report.leaks {
        leaks.standing.iter_mut().for_each(verdict);
        leaks.recovered.iter_mut().for_each(verdict);
        for grown in &mut leaks.unjudged {
            wash(&mut grown.cgroup.path);
        }
    }
    report
}

fn verdict(standing: &mut Standing) {
    let verdict = &mut standing.verdict;
    wash(&mut standing.cgroup.path);
    wash(&mut verdict.advice);
    wash(&mut verdict.evidence.reason);
    verdict.limit_cgroup.iter_mut().for_each(wash);
    if let Some(process) = &mut verdict.process {
        wash(&mut process.comm);
    }
    if let Some(grower) = &mut verdict.evidence.grower {
        wash(&mut grower.comm);
    }
}

fn wash(text: &mut String) {
    if text.chars().any(char::is_control) {
        *text = printable(text);
    }
}
