//! Whether this machine is a virtual one, whose, and whether its host learns of free memory. Facts from files alone; what
//! to switch on where the host does not learn of it.

use std::fmt;

use serde::Serialize;

use super::{Host, figure_line};

mod balloon;
#[cfg(test)]
mod tests;

pub use balloon::{Balloon, Driver};

/// What runs this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Hypervisor {
    /// QEMU, with KVM or without.
    Qemu,
    /// KVM under another program than QEMU: Firecracker, Cloud Hypervisor, a cloud.
    Kvm,
    /// Hyper-V without WSL.
    HyperV,
    /// The Windows Subsystem for Linux, version 2.
    Wsl2,
    /// Apple's Virtualization framework.
    Apple,
    /// VMware.
    Vmware,
    /// `VirtualBox`.
    VirtualBox,
    /// Xen, as a guest.
    Xen,
    /// There is one, and it does not say which.
    Unknown,
}

/// What set the virtual machine up for its user, where it leaves a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Product {
    /// Lima, or Colima, which is made of it.
    Lima,
    /// Docker Desktop.
    DockerDesktop,
    /// `OrbStack`.
    OrbStack,
}

/// A virtual machine seen from its inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Virt {
    /// What runs it.
    pub hypervisor: Hypervisor,
    /// Who made the machine, by its firmware.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    /// What set it up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product: Option<Product>,
    /// Its balloon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balloon: Option<Balloon>,
    /// Free blocks of 2^n pages and larger are reported to the host (/sys/module/page_reporting). Absent where the kernel
    /// does not tell, or has not chosen yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reporting_order: Option<u32>,
}

impl fmt::Display for Hypervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hypervisor::Qemu => "QEMU",
            Hypervisor::Kvm => "KVM",
            Hypervisor::HyperV => "Hyper-V",
            Hypervisor::Wsl2 => "WSL2",
            Hypervisor::Apple => "Apple Virtualization",
            Hypervisor::Vmware => "VMware",
            Hypervisor::VirtualBox => "VirtualBox",
            Hypervisor::Xen => "Xen",
            Hypervisor::Unknown => "a hypervisor",
        })
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Product::Lima => "Lima",
            Product::DockerDesktop => "Docker Desktop",
            Product::OrbStack => "OrbStack",
        })
    }
}

/// In a few words: what set it up and what runs it.
impl fmt::Display for Virt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.product, self.hypervisor, &self.vendor) {
            (Some(product), Hypervisor::Unknown, _) => write!(f, "{product}"),
            (Some(product), hypervisor, _) => write!(f, "{hypervisor} ({product})"),
            (None, Hypervisor::Unknown | Hypervisor::Kvm, Some(vendor)) => f.write_str(vendor),
            (None, hypervisor, _) => write!(f, "{hypervisor}"),
        }
    }
}

impl Virt {
    /// `None` on real hardware, and where nothing speaks for a hypervisor. A container sees the machine that it is on.
    #[must_use]
    pub fn read(host: &Host) -> Option<Virt> {
        let product = product(host);
        let vendor = dmi(host, "sys_vendor");
        let hypervisor = hypervisor(host, vendor.as_deref(), product)?;
        Some(Virt {
            hypervisor,
            vendor,
            product,
            balloon: Balloon::find(host),
            reporting_order: host
                .text("/sys/module/page_reporting/parameters/page_reporting_order")
                .ok()
                .and_then(|text| figure_line(text.as_bytes()))
                // -1 and MAX_PAGE_ORDER + 1 stand for "not chosen yet".
                .and_then(|order| u32::try_from(order).ok().filter(|order| *order <= 10)),
        })
    }

    /// Whether the host is told of free pages; `None` where this cannot be seen from inside.
    #[must_use]
    pub fn reports_free_pages(&self) -> Option<bool> {
        self.balloon.as_ref()?.reporting
    }

    /// What to switch on so that free memory goes back to the host; `None` where it does already.
    #[must_use]
    pub fn advice(&self) -> Option<String> {
        let balloon = self.balloon.as_ref();
        match balloon.and_then(|balloon| balloon.reporting) {
            Some(true) => return None,
            Some(false)
                if balloon
                    .is_some_and(|balloon| !balloon.driven && balloon.driver == Driver::Virtio) =>
            {
                return Some(
                    "modprobe virtio_balloon: the host offers a balloon that nobody drives"
                        .to_owned(),
                );
            }
            _ => {}
        }
        // A balloon of the host's own making, whose reports cannot be seen from here.
        let hidden = balloon.is_some_and(|balloon| balloon.reporting.is_none());
        let text = match (self.hypervisor, self.product) {
            (Hypervisor::HyperV, _) if hidden => return None,
            (Hypervisor::Wsl2, _) => {
                "[wsl2] pageReporting=true in %UserProfile%\\.wslconfig, which is the default; whether Windows takes the reports cannot be seen from here"
            }
            (Hypervisor::Qemu | Hypervisor::Unknown, Some(Product::Lima)) => {
                "QEMU_SYSTEM_X86_64='qemu-system-x86_64 -device virtio-balloon-pci,free-page-reporting=on' limactl start, with vmType qemu"
            }
            (Hypervisor::Apple, _) | (_, Some(Product::DockerDesktop | Product::OrbStack)) => {
                "nothing that the guest can do: this balloon takes no reports, and the host gets memory back when the machine is stopped; QEMU has free-page-reporting=on"
            }
            (Hypervisor::Qemu, _) => {
                "-device virtio-balloon-pci,free-page-reporting=on (libvirt: <memballoon model='virtio' freePageReporting='on'/>)"
            }
            (Hypervisor::Kvm | Hypervisor::Unknown, _) => {
                "a virtio balloon with free page reporting (Cloud Hypervisor: --balloon size=0,free_page_reporting=on; Kata: enable_balloon_f_reporting; a rented machine cannot be changed)"
            }
            (Hypervisor::HyperV, _) => {
                "Set-VMMemory NAME -DynamicMemoryEnabled $true on the Windows host"
            }
            (Hypervisor::Vmware, _) => {
                "load vmw_balloon: the host takes memory by it when it runs short, and not before"
            }
            (Hypervisor::Xen, _) => "xl mem-set on the host; Xen learns of no free pages by itself",
            (Hypervisor::VirtualBox, _) => {
                "VBoxManage controlvm NAME guestmemoryballoon MIB on the host; it learns of no free pages by itself"
            }
        };
        Some(text.to_owned())
    }
}

fn hypervisor(host: &Host, vendor: Option<&str>, product: Option<Product>) -> Option<Hypervisor> {
    let release = host
        .text("/proc/sys/kernel/osrelease")
        .or_else(|_| host.text("/proc/version"))
        .unwrap_or_default()
        .to_lowercase();
    // WSL 1 translates system calls and has no virtual machine: its release says `Microsoft` without WSL2.
    if release.contains("microsoft") && (release.contains("wsl2") || host.has("/run/WSL")) {
        return Some(Hypervisor::Wsl2);
    }
    // The first domain of Xen holds the hardware.
    if host
        .text("/proc/xen/capabilities")
        .is_ok_and(|text| text.contains("control_d"))
    {
        return None;
    }
    if host
        .text("/sys/hypervisor/type")
        .is_ok_and(|text| text == "xen")
    {
        return Some(Hypervisor::Xen);
    }
    let tree = device_tree(host);
    if !(flagged(host) || tree.is_some() || arm_guest(vendor, host) || product.is_some()) {
        return None;
    }
    let name = dmi(host, "product_name").unwrap_or_default();
    let firmware = |words: &[&str]| {
        let vendor = vendor.unwrap_or_default();
        words
            .iter()
            .any(|word| vendor.contains(word) || name.contains(word))
    };
    // The names that systemd's detection looks for as well (src/basic/virt.c, dmi_vendor_table).
    Some(if firmware(&["QEMU"]) {
        Hypervisor::Qemu
    } else if firmware(&["Apple"]) {
        Hypervisor::Apple
    } else if firmware(&["VMware", "VMW"]) {
        Hypervisor::Vmware
    } else if firmware(&["VirtualBox", "innotek"]) {
        Hypervisor::VirtualBox
    } else if firmware(&["Xen"]) {
        Hypervisor::Xen
    } else if vendor == Some("Microsoft Corporation")
        || host.has("/sys/bus/vmbus/drivers/hv_balloon")
    {
        Hypervisor::HyperV
    } else if let Some(found) = tree {
        found
    } else if firmware(&["KVM", "Amazon EC2", "Google"]) || kvm_clock(host) {
        Hypervisor::Kvm
    } else {
        Hypervisor::Unknown
    })
}

/// A hypervisor sets this bit of CPUID for its guests, and nobody else does. Other architectures have none.
fn flagged(host: &Host) -> bool {
    host.text("/proc/cpuinfo").is_ok_and(|text| {
        text.lines()
            .find(|line| line.starts_with("flags"))
            .is_some_and(|line| line.split_whitespace().any(|flag| flag == "hypervisor"))
    })
}

/// On ARM the firmware's name is all there is.
fn arm_guest(vendor: Option<&str>, host: &Host) -> bool {
    let name = dmi(host, "product_name").unwrap_or_default();
    let arm = host
        .text("/proc/cpuinfo")
        .is_ok_and(|text| text.contains("CPU implementer"));
    arm && (vendor == Some("QEMU")
        || name.contains("Virtual")
        || name.contains("VMware")
        || vendor == Some("Microsoft Corporation"))
}

fn device_tree(host: &Host) -> Option<Hypervisor> {
    let compatible = |path: &str| host.text(path).unwrap_or_default();
    let told = compatible("/proc/device-tree/hypervisor/compatible");
    if told.contains("xen") {
        return Some(Hypervisor::Xen);
    }
    if told.contains("kvm") {
        return Some(Hypervisor::Kvm);
    }
    compatible("/proc/device-tree/compatible")
        .contains("linux,dummy-virt")
        .then_some(Hypervisor::Qemu)
}

/// Where there is no firmware to ask, as under Firecracker.
fn kvm_clock(host: &Host) -> bool {
    host.text("/sys/devices/system/clocksource/clocksource0/available_clocksource")
        .is_ok_and(|text| text.contains("kvm-clock"))
}

fn product(host: &Host) -> Option<Product> {
    let release = host
        .text("/proc/sys/kernel/osrelease")
        .unwrap_or_default()
        .to_lowercase();
    if release.contains("orbstack") {
        return Some(Product::OrbStack);
    }
    if release.ends_with("-linuxkit") {
        return Some(Product::DockerDesktop);
    }
    let lima = [
        "/run/lima-boot-done",
        "/mnt/lima-cidata",
        "/run/lima-guestagent.sock",
    ];
    if lima.into_iter().any(|path| host.has(path)) {
        return Some(Product::Lima);
    }
    // The distribution that Docker Desktop keeps in WSL2.
    host.text("/proc/sys/kernel/hostname")
        .is_ok_and(|name| name == "docker-desktop")
        .then_some(Product::DockerDesktop)
}

fn dmi(host: &Host, name: &str) -> Option<String> {
    let text = host.text(format!("/sys/class/dmi/id/{name}")).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}
