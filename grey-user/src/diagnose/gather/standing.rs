//! The kernel, the cgroup tree and our standing with both.

use rustix::fs::{Access, StatVfsMountFlags};

use crate::diagnose::facts::{Denied, Standing};
use crate::host::{self, CgroupFs, Host};

pub(super) fn of(
    host: &Host,
    fs: &CgroupFs,
    machine: &host::Facts,
    mut denied: Vec<Denied>,
) -> Standing {
    for error in &machine.unreadable {
        denied.push(Denied {
            what: subject(error),
            reason: error.clone(),
            lost: "what it tells",
            remedy: "run as root, outside of a container that masks it".to_owned(),
        });
    }
    let reclaim = reclaim_file(host, fs);
    let capabilities = machine.kernel.capabilities.map(|caps| {
        host::Capabilities::NAMED
            .iter()
            .filter(|(bit, _)| caps.has(*bit))
            .map(|(_, name)| *name)
            .collect()
    });
    Standing {
        // What the kernel calls a machine that nobody has named.
        hostname: machine
            .kernel
            .hostname
            .clone()
            .filter(|name| name != "(none)"),
        boot_id: machine.kernel.boot_id.clone(),
        release: machine.kernel.release.clone(),
        euid: machine.kernel.euid,
        capabilities,
        in_user_namespace: machine.kernel.in_user_namespace,
        hidepid: machine.kernel.hidepid,
        container: container(host),
        mode: Some(fs.mode()),
        mount: fs.mount().map(Into::into),
        partial: fs.facts().partial,
        read_only: host.is_live()
            && fs
                .mount()
                .and_then(|mount| rustix::fs::statvfs(mount).ok())
                .is_some_and(|stat| stat.f_flag.contains(StatVfsMountFlags::RDONLY)),
        has_memory: fs.has_memory(),
        memory_delegated: fs.facts().memory_delegated,
        v1_memory: fs.facts().v1_memory.clone(),
        memory_disabled: host.text("/proc/cmdline").is_ok_and(|line| {
            line.split_whitespace()
                .filter_map(|word| word.strip_prefix("cgroup_disable="))
                .any(|list| list.split(',').any(|name| name == "memory"))
        }),
        reclaim_file: reclaim.map(|(there, _)| there),
        reclaim_writable: reclaim.and_then(|(_, writable)| writable),
        denied,
    }
}

/// The file an error is about: `read /proc/x: Permission denied`.
fn subject(error: &str) -> String {
    error
        .split_whitespace()
        .find(|word| word.starts_with('/'))
        .unwrap_or(error)
        .trim_end_matches(':')
        .to_owned()
}

/// Whether a cgroup that has memory.* files has a memory.reclaim, and whether we may write there.
fn reclaim_file(host: &Host, fs: &CgroupFs) -> Option<(bool, Option<bool>)> {
    let mount = fs.mount()?;
    let dirs = std::iter::once(mount.to_owned())
        .chain(host.names(mount).into_iter().map(|name| mount.join(name)));
    let mut looked = None;
    for dir in dirs {
        let file = host.path(dir.join("memory.reclaim"));
        if file.exists() {
            let writable = rustix::fs::access(&file, Access::WRITE_OK).is_ok();
            return Some((true, Some(writable)));
        }
        if host.has(dir.join("memory.current")) {
            looked = Some((false, None));
        }
    }
    looked
}

fn container(host: &Host) -> Option<&'static str> {
    [
        ("/.dockerenv", "Docker"),
        ("/run/.containerenv", "Podman"),
        ("/run/systemd/container", "systemd-nspawn or alike"),
        ("/var/run/secrets/kubernetes.io", "Kubernetes"),
    ]
    .into_iter()
    .find(|(file, _)| host.has(file))
    .map(|(_, name)| name)
}
