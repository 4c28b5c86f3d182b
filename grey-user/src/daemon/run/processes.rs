//! Who is large in a cgroup, for a report.

use serde_json::{Value, json};

use crate::host::{CgroupFs, Host, ProcFs};

/// The largest processes of a cgroup and below.
pub(super) fn top_processes(
    host: &Host,
    cgroups: &CgroupFs,
    path: &str,
    most: usize,
) -> Vec<Value> {
    let Ok(mut procs) = ProcFs::open(host) else {
        return Vec::new();
    };
    let below = if path == "/" {
        String::new()
    } else {
        path.to_owned()
    };
    let paths: Vec<String> = cgroups.walk().map_or(Vec::new(), |walk| {
        walk.cgroups
            .into_iter()
            .map(|entry| entry.path)
            .filter(|at| {
                at == path
                    || at
                        .strip_prefix(&below)
                        .is_some_and(|rest| rest.starts_with('/'))
            })
            .collect()
    });
    let mut found: Vec<(u64, Value)> = paths
        .iter()
        .flat_map(|path| cgroups.pids(path).unwrap_or_default())
        .filter_map(|pid| {
            let mem = procs.memory(pid).ok()??;
            let held = mem.anon.unwrap_or(0) + mem.swap.unwrap_or(0);
            let value = json!({
                "pid": pid, "comm": mem.comm, "rss": mem.rss, "anon": mem.anon, "swap": mem.swap,
            });
            Some((held, value))
        })
        .collect();
    found.sort_by_key(|(held, _)| std::cmp::Reverse(*held));
    found
        .into_iter()
        .take(most)
        .map(|(_, value)| value)
        .collect()
}
