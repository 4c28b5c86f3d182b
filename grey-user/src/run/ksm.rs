//! Permission for the kernel to merge all anonymous pages of a process and of what it starts.

use crate::cli::{Failure, tell};
use crate::host::Host;

/// `PR_SET_MEMORY_MERGE` of linux/prctl.h, since Linux 6.4.
const SET_MEMORY_MERGE: libc::c_int = 67;

/// For this process, and by way of exec for the command.
pub(super) fn allow(host: &Host) -> Result<(), Failure> {
    // SAFETY: sets a flag of this process; the arguments that are not used have to be 0.
    let done = unsafe {
        libc::prctl(
            SET_MEMORY_MERGE,
            1 as libc::c_ulong,
            0 as libc::c_ulong,
            0 as libc::c_ulong,
            0 as libc::c_ulong,
        )
    };
    if done != 0 {
        let error = std::io::Error::last_os_error();
        return Err(Failure::unsupported(match error.raw_os_error() {
            Some(libc::EPERM) => {
                "--ksm: merging a whole process's pages needs CAP_SYS_RESOURCE; run it as root"
                    .to_owned()
            }
            Some(libc::EINVAL) => {
                "--ksm: this kernel cannot merge a whole process's pages; that came with Linux 6.4, and needs CONFIG_KSM"
                    .to_owned()
            }
            _ => format!("--ksm: prctl: {error}"),
        }));
    }
    let release = host.text("/proc/sys/kernel/osrelease").unwrap_or_default();
    if loses_it_at_exec(&release) {
        tell(&format!(
            "warning: --ksm: Linux {} may forget at the start of the command that its pages may be merged; 6.10 keeps it",
            release.trim()
        ));
    }
    let running = host.text("/sys/kernel/mm/ksm/run").unwrap_or_default();
    if running.trim() != "1" {
        tell(
            "warning: --ksm: nothing is merged as long as ksmd does not run: `grey-ebpf enforce ksm on` starts it",
        );
    }
    Ok(())
}

/// Kernels whose exec did not keep the permission, or kept it without looking at the new program (mended by "mm/ksm: fix
/// ksm exec support for prctl", Linux 6.10).
fn loses_it_at_exec(release: &str) -> bool {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor) < (6, 10),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_before_6_10_are_warned_of() {
        for (release, loses) in [
            ("6.4.0", true),
            ("6.9.12-arch1", true),
            ("6.10.0-rc1", false),
            ("6.12.117+deb12-cloud-amd64", false),
            ("7.2.0", false),
            ("", false),
        ] {
            assert_eq!(loses_it_at_exec(release), loses, "{release}");
        }
    }
}
