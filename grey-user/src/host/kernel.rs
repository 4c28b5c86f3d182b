//! The kernel and what this process may do with it.

use serde::Serialize;

use super::facts::Lookup;
use super::tracefs::Tracefs;
use super::{Host, limits, mountinfo};

/// Whether a file can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// It is there and can be read.
    Readable,
    /// It is there, but not for this process.
    Denied,
    /// There is no such file.
    Absent,
}

impl Access {
    /// Tries to open a file or directory for reading.
    #[must_use]
    pub fn of(host: &Host, path: impl AsRef<std::path::Path>) -> Self {
        match std::fs::File::open(host.path(path)) {
            Ok(_) => Access::Readable,
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Access::Denied,
            Err(_) => Access::Absent,
        }
    }
}

/// The effective capabilities of this process, a bit each (include/uapi/linux/capability.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(pub u64);

impl Serialize for Capabilities {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(
            Capabilities::NAMED
                .iter()
                .filter(|(bit, _)| self.has(*bit))
                .map(|(_, name)| name),
        )
    }
}

impl Capabilities {
    /// `CAP_DAC_READ_SEARCH`: open any file for reading, look a cgroup up by its id.
    pub const DAC_READ_SEARCH: u8 = 2;
    /// `CAP_SYS_PTRACE`: read other users' /proc/PID files.
    pub const SYS_PTRACE: u8 = 19;
    /// `CAP_SYS_ADMIN`: mount, and on kernels before 5.8 everything BPF.
    pub const SYS_ADMIN: u8 = 21;
    /// `CAP_SYS_RESOURCE`: raise limits, PSI windows of any length.
    pub const SYS_RESOURCE: u8 = 24;
    /// `CAP_PERFMON`: attach tracing programs.
    pub const PERFMON: u8 = 38;
    /// `CAP_BPF`: load programs.
    pub const BPF: u8 = 39;

    /// Those that matter here.
    pub const NAMED: [(u8, &'static str); 6] = [
        (Self::DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH"),
        (Self::SYS_PTRACE, "CAP_SYS_PTRACE"),
        (Self::SYS_ADMIN, "CAP_SYS_ADMIN"),
        (Self::SYS_RESOURCE, "CAP_SYS_RESOURCE"),
        (Self::PERFMON, "CAP_PERFMON"),
        (Self::BPF, "CAP_BPF"),
    ];

    /// Whether a capability is effective.
    #[must_use]
    pub fn has(self, bit: u8) -> bool {
        self.0 & (1 << bit) != 0
    }

    /// Whether tracing programs may be loaded and attached.
    #[must_use]
    pub fn can_trace(self) -> bool {
        self.has(Self::SYS_ADMIN) || (self.has(Self::BPF) && self.has(Self::PERFMON))
    }
}

/// Facts about the kernel and this process's standing with it. Absent means that the kernel did not tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KernelFacts {
    /// Release, as `uname -r`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// Node name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Identity of this boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// CPUs that may ever be there; per-CPU maps cost that many times their values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub possible_cpus: Option<u32>,
    /// Whether eBPF may use /sys/kernel/btf/vmlinux.
    pub btf: Access,
    /// tracefs.
    pub tracefs: Tracefs,
    /// `none`, `integrity` or `confidentiality`; absent where the kernel has no lockdown or does not show it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lockdown: Option<String>,
    /// Effective user id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub euid: Option<u32>,
    /// Effective capabilities; absent where /proc/self/status does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// Whether the capabilities hold only inside a user namespace, where they do not help with BPF.
    pub in_user_namespace: bool,
    /// Whether /proc is mounted so that other users' processes are hidden (`hidepid`) from whom lacks `CAP_SYS_PTRACE`.
    pub hidepid: bool,
    /// `kernel.unprivileged_bpf_disabled`: 0 allowed, 1 or 2 forbidden.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unprivileged_bpf_disabled: Option<u64>,
    /// `kernel.bpf_stats_enabled`: whether the kernel times our programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_stats_enabled: Option<bool>,
    /// `net.core.bpf_jit_enable`: without it programs are interpreted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_jit: Option<bool>,
    /// RLIMIT_MEMLOCK, bytes; `null` means no limit, absent means another machine's files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memlock: Option<Option<u64>>,
}

impl KernelFacts {
    /// Reads all of them; what is there and cannot be read is noted in `look`.
    #[must_use]
    pub fn read(look: &mut Lookup<'_>) -> Self {
        let status = look.text("/proc/self/status").unwrap_or_default();
        let field = |key: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
                .map(str::trim)
        };
        let live = look.host().is_live();
        KernelFacts {
            release: look.text("/proc/sys/kernel/osrelease"),
            hostname: hostname(look),
            boot_id: look.text("/proc/sys/kernel/random/boot_id"),
            possible_cpus: look
                .text("/sys/devices/system/cpu/possible")
                .and_then(|list| count_cpus(&list)),
            btf: Access::of(look.host(), "/sys/kernel/btf/vmlinux"),
            tracefs: Tracefs::find(look.host()),
            lockdown: look
                .text("/sys/kernel/security/lockdown")
                .and_then(|text| Some(text.split_once('[')?.1.split_once(']')?.0.to_owned())),
            euid: field("Uid").and_then(|uids| uids.split_whitespace().nth(1)?.parse().ok()),
            capabilities: field("CapEff")
                .and_then(|mask| u64::from_str_radix(mask, 16).ok())
                .map(Capabilities),
            // The initial namespace maps every id to itself.
            in_user_namespace: look
                .text("/proc/self/uid_map")
                .is_some_and(|map| map.split_whitespace().ne(["0", "0", "4294967295"])),
            hidepid: hidepid(look.host()),
            unprivileged_bpf_disabled: look.figure("/proc/sys/kernel/unprivileged_bpf_disabled"),
            bpf_stats_enabled: look
                .figure("/proc/sys/kernel/bpf_stats_enabled")
                .map(|on| on != 0),
            bpf_jit: look
                .figure("/proc/sys/net/core/bpf_jit_enable")
                .map(|on| on != 0),
            memlock: live.then(limits::memlock),
        }
    }
}

/// Node name of this machine, or `None` where it cannot be told.
#[must_use]
pub fn hostname(look: &mut Lookup<'_>) -> Option<String> {
    look.text("/proc/sys/kernel/hostname")
        .filter(|name| !name.is_empty())
}

fn hidepid(host: &Host) -> bool {
    let mounts = mountinfo::mounts(host).unwrap_or_default();
    mounts.iter().any(|mount| {
        mount.fstype == "proc"
            && mount.point.as_os_str() == "/proc"
            && mount.super_options.split(',').any(|option| {
                option
                    .strip_prefix("hidepid=")
                    .is_some_and(|mode| !matches!(mode, "0" | "off"))
            })
    })
}

/// Counts a list such as `0-3,8`.
fn count_cpus(list: &str) -> Option<u32> {
    list.trim().split(',').try_fold(0_u32, |sum, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        sum.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_counted_and_garbage_is_unknown() {
        let table = [
            ("0", Some(1)),
            ("0-3", Some(4)),
            ("0-1,4-7,9", Some(7)),
            ("", None),
            ("3-1", None),
            ("x", None),
        ];
        for (list, count) in table {
            assert_eq!(count_cpus(list), count, "{list}");
        }
    }

    #[test]
    fn tracing_needs_sys_admin_or_bpf_with_perfmon() {
        let caps = |bits: &[u8]| Capabilities(bits.iter().fold(0, |mask, bit| mask | 1 << bit));
        assert!(caps(&[Capabilities::SYS_ADMIN]).can_trace());
        assert!(caps(&[Capabilities::BPF, Capabilities::PERFMON]).can_trace());
        assert!(!caps(&[Capabilities::BPF]).can_trace());
        assert!(!caps(&[]).can_trace());
    }
}
