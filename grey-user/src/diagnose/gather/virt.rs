//! Whether this machine is a virtual one, and whether its host is told of free memory.

use crate::diagnose::facts::Guest;
use crate::host::Host;

/// Bit of a virtio balloon that reports free pages (VIRTIO_BALLOON_F_REPORTING, include/uapi/linux/virtio_balloon.h).
const REPORTING: usize = 5;

pub(super) fn guest(host: &Host) -> Option<Guest> {
    let release = host
        .text("/proc/sys/kernel/osrelease")
        .unwrap_or_default()
        .to_lowercase();
    let wsl = release.contains("microsoft");
    // A hypervisor sets this bit of CPUID for its guests and nobody else does.
    let flagged = host
        .text("/proc/cpuinfo")
        .ok()?
        .lines()
        .find(|line| line.starts_with("flags"))
        .is_some_and(|line| line.split_whitespace().any(|flag| flag == "hypervisor"));
    if !wsl && !flagged {
        return None;
    }
    let virtio = devices(host, "/sys/bus/virtio/drivers/virtio_balloon", "virtio");
    let reporting = virtio
        .iter()
        .filter_map(|name| {
            host.text(format!("/sys/bus/virtio/devices/{name}/features"))
                .ok()
        })
        .filter_map(|bits| bits.as_bytes().get(REPORTING).map(|bit| *bit == b'1'))
        .reduce(|one, other| one || other);
    let hyperv = host.has("/sys/bus/vmbus/drivers/hv_balloon")
        && !devices(host, "/sys/bus/vmbus/drivers/hv_balloon", "vmbus").is_empty();
    Some(Guest {
        hypervisor: if wsl { "WSL2".to_owned() } else { name(host) },
        balloon: !virtio.is_empty() || hyperv || host.has("/sys/devices/system/xen_memory"),
        free_page_reporting: reporting,
    })
}

fn devices(host: &Host, driver: &str, prefix: &str) -> Vec<String> {
    host.names(driver)
        .into_iter()
        .filter(|name| name.starts_with(prefix) || name.contains('-'))
        .collect()
}

fn name(host: &Host) -> String {
    if let Ok(kind) = host.text("/sys/hypervisor/type") {
        return kind;
    }
    let vendor = host
        .text("/sys/class/dmi/id/sys_vendor")
        .unwrap_or_default();
    let vendor = vendor.trim();
    if vendor.is_empty() {
        "a hypervisor".to_owned()
    } else {
        vendor.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fixture::Tree;

    const FLAGS: &str = "processor\t: 0\nflags\t\t: fpu vme hypervisor lahf_lm\n";

    #[test]
    fn real_machines_are_no_guests() {
        let tree = Tree::new();
        assert_eq!(guest(&tree.host()), None);
        tree.file("/proc/cpuinfo", "flags\t\t: fpu vme\n")
            .file("/sys/class/dmi/id/sys_vendor", "Amazon EC2\n");
        assert_eq!(guest(&tree.host()), None);
    }

    #[test]
    fn free_page_reporting_is_a_bit_of_the_balloon() {
        let tree = Tree::new();
        tree.file("/proc/cpuinfo", FLAGS)
            .file("/sys/class/dmi/id/sys_vendor", "QEMU\n");
        let without = guest(&tree.host()).unwrap();
        assert_eq!(
            (without.balloon, without.free_page_reporting),
            (false, None)
        );
        for (bits, reports) in [("0110001", false), ("0110011", true)] {
            tree.dir("/sys/bus/virtio/drivers/virtio_balloon/virtio3")
                .file("/sys/bus/virtio/devices/virtio3/features", bits);
            let guest = guest(&tree.host()).unwrap();
            assert_eq!(guest.hypervisor, "QEMU");
            assert_eq!(
                (guest.balloon, guest.free_page_reporting),
                (true, Some(reports)),
                "{bits}"
            );
        }
    }

    #[test]
    fn wsl_is_known_by_its_kernel() {
        let tree = Tree::new();
        tree.file("/proc/cpuinfo", FLAGS).file(
            "/proc/sys/kernel/osrelease",
            "6.6.87.2-microsoft-standard-WSL2\n",
        );
        assert_eq!(guest(&tree.host()).unwrap().hypervisor, "WSL2");
    }
}
