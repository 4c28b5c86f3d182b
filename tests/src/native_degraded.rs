//! The facts of `degraded.rs` on this machine itself.

use std::time::Duration;

use crate::degraded;
use crate::harness::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "native_degraded_each_probe_can_fail_alone",
            degraded::each_probe_can_fail_alone,
        )
        .with_deadline(Duration::from_secs(120)),
        Trial::new(
            "native_degraded_all_probes_off_leave_the_files",
            degraded::all_probes_off_leave_the_files,
        ),
        Trial::new(
            "native_degraded_without_its_probe_there_are_no_growth_events",
            degraded::without_its_probe_there_are_no_growth_events,
        ),
        Trial::new(
            "native_degraded_calls_by_syscall_tracepoints_are_counted_exactly",
            degraded::calls_by_syscall_tracepoints_are_counted_exactly,
        ),
        Trial::new(
            "native_degraded_faults_by_classic_tracepoints_are_counted_exactly",
            degraded::faults_by_classic_tracepoints_are_counted_exactly,
        ),
        Trial::new(
            "native_degraded_growth_by_rss_stat_is_told_in_time",
            degraded::growth_by_rss_stat_is_told_in_time,
        ),
    ]
}
