//! OOM kills: the machine's count, the kernel's log, and the counts of the cgroups that still exist.

use std::cmp::Reverse;

use crate::diagnose::facts::{Cgroups, Denied, Oom, OomCgroup};
use crate::host::{Host, VmStat, oom_log};

/// Kills told one by one.
const RECORDS: usize = 20;

pub(super) fn read(host: &Host, cgroups: &Cgroups, denied: &mut Vec<Denied>) -> Oom {
    let log = match oom_log::kernel_log(host) {
        Ok(log) => log,
        Err(error) => {
            denied.push(Denied {
                what: "/dev/kmsg".to_owned(),
                reason: error.to_string(),
                lost: "which limit an OOM kill hit and what was using the memory",
                remedy:
                    "run as root, or give the binary cap_syslog (and a /dev/kmsg in a container)"
                        .to_owned(),
            });
            None
        }
    };
    let log_read = log.is_some();
    let mut records = oom_log::oom_records(&log.unwrap_or_default());
    records.reverse();
    records.truncate(RECORDS);
    let mut found: Vec<OomCgroup> = cgroups
        .all()
        .filter_map(|cgroup| {
            let events = cgroup.events.as_ref()?;
            // Without memory.events.local (before 5.2) a parent cannot be told from its children.
            let kills = cgroup
                .own_events
                .as_ref()?
                .oom_kill
                .filter(|kills| *kills > 0)?;
            Some(OomCgroup {
                path: cgroup.path.clone(),
                kills,
                group_kills: events.oom_group_kill.filter(|kills| *kills > 0),
                limit: cgroup.limit.clone(),
            })
        })
        .collect();
    found.sort_by_key(|cgroup| Reverse(cgroup.kills));
    Oom {
        uptime_us: uptime(host),
        kills_since_boot: VmStat::read(host).ok().and_then(|stat| stat.oom_kill),
        records,
        log_read,
        cgroups: found,
    }
}

/// The first figure of /proc/uptime.
fn uptime(host: &Host) -> Option<u64> {
    let text = host.text("/proc/uptime").ok()?;
    let seconds: f64 = text.split_whitespace().next()?.parse().ok()?;
    (seconds >= 0.0).then_some((seconds * 1e6) as u64)
}
