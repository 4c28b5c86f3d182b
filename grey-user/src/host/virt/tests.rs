//! The marks of machines that people have.

use super::*;
use crate::host::fixture::Tree;

const FLAGS: &str = "processor\t: 0\nflags\t\t: fpu vme hypervisor lahf_lm\n";
const BARE: &str = "processor\t: 0\nflags\t\t: fpu vme lahf_lm\n";
const ARM: &str = "processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x61\n";
const RELEASE: &str = "/proc/sys/kernel/osrelease";
const VENDOR: &str = "/sys/class/dmi/id/sys_vendor";
const NAME: &str = "/sys/class/dmi/id/product_name";
const CPU: &str = "/proc/cpuinfo";

fn read(files: &[(&str, &str)]) -> Option<Virt> {
    let tree = Tree::new();
    for (path, content) in files {
        tree.file(path, content);
    }
    Virt::read(&tree.host())
}

fn with_balloon(features: &str, driven: bool) -> Option<Virt> {
    let tree = Tree::new();
    tree.file(CPU, FLAGS)
        .file(VENDOR, "QEMU\n")
        .file("/sys/bus/virtio/devices/virtio0/device", "0x0002\n")
        .file("/sys/bus/virtio/devices/virtio0/features", "1111111\n")
        .file("/sys/bus/virtio/devices/virtio1/device", "0x0005\n")
        .file("/sys/bus/virtio/devices/virtio1/features", features);
    if driven {
        tree.dir("/sys/bus/virtio/devices/virtio1/driver");
    }
    Virt::read(&tree.host())
}

#[test]
fn each_machine_is_known_by_its_marks() {
    use Hypervisor as H;
    type Case<'a> = (&'a [(&'a str, &'a str)], Option<(H, &'a str)>);
    let table: &[Case<'_>] = &[
        (&[], None),
        (&[(CPU, BARE), (VENDOR, "Dell Inc.\n")], None),
        // A rented machine without a hypervisor.
        (&[(CPU, BARE), (VENDOR, "Amazon EC2\n")], None),
        (
            &[(CPU, FLAGS), (VENDOR, "Amazon EC2\n")],
            Some((H::Kvm, "Amazon EC2")),
        ),
        (
            &[(CPU, FLAGS), (VENDOR, "QEMU\n"), (NAME, "Standard PC\n")],
            Some((H::Qemu, "QEMU")),
        ),
        // A machine made for a product: its name still says KVM.
        (
            &[(CPU, FLAGS), (VENDOR, "Red Hat\n"), (NAME, "KVM\n")],
            Some((H::Kvm, "Red Hat")),
        ),
        (
            &[(CPU, FLAGS), (VENDOR, "VMware, Inc.\n")],
            Some((H::Vmware, "VMware")),
        ),
        (
            &[(CPU, FLAGS), (VENDOR, "innotek GmbH\n")],
            Some((H::VirtualBox, "VirtualBox")),
        ),
        (
            &[
                (CPU, FLAGS),
                (VENDOR, "Microsoft Corporation\n"),
                (NAME, "Virtual Machine\n"),
            ],
            Some((H::HyperV, "Hyper-V")),
        ),
        // A laptop of the same maker.
        (
            &[
                (CPU, BARE),
                (VENDOR, "Microsoft Corporation\n"),
                (NAME, "Surface\n"),
            ],
            None,
        ),
        (&[(CPU, FLAGS)], Some((H::Unknown, "a hypervisor"))),
        (
            &[
                (CPU, FLAGS),
                (
                    "/sys/devices/system/clocksource/clocksource0/available_clocksource",
                    "kvm-clock tsc\n",
                ),
            ],
            Some((H::Kvm, "KVM")),
        ),
        (
            &[
                (CPU, FLAGS),
                (RELEASE, "6.6.87.2-microsoft-standard-WSL2\n"),
            ],
            Some((H::Wsl2, "WSL2")),
        ),
        // WSL 1 is no virtual machine.
        (&[(CPU, BARE), (RELEASE, "4.4.0-19041-Microsoft\n")], None),
        (
            &[
                (CPU, FLAGS),
                (RELEASE, "6.6.87.2-microsoft-standard-WSL2\n"),
                ("/proc/sys/kernel/hostname", "docker-desktop\n"),
            ],
            Some((H::Wsl2, "WSL2 (Docker Desktop)")),
        ),
        (
            &[(CPU, ARM), (RELEASE, "6.10.14-linuxkit\n")],
            Some((H::Unknown, "Docker Desktop")),
        ),
        (
            &[(CPU, ARM), (RELEASE, "6.17.8-orbstack-00308\n")],
            Some((H::Unknown, "OrbStack")),
        ),
        (
            &[
                (CPU, ARM),
                (VENDOR, "Apple Inc.\n"),
                (NAME, "Apple Virtualization Generic Platform\n"),
                ("/run/lima-boot-done", ""),
            ],
            Some((H::Apple, "Apple Virtualization (Lima)")),
        ),
        (
            &[(CPU, ARM), (VENDOR, "Raspberry Pi\n"), (NAME, "Pi 5\n")],
            None,
        ),
        (
            &[
                (CPU, ARM),
                ("/proc/device-tree/compatible", "linux,dummy-virt\0"),
            ],
            Some((H::Qemu, "QEMU")),
        ),
        (
            &[
                (CPU, ARM),
                (
                    "/proc/device-tree/hypervisor/compatible",
                    "xen,xen-4.17\0xen,xen\0",
                ),
            ],
            Some((H::Xen, "Xen")),
        ),
        (
            &[(CPU, FLAGS), ("/sys/hypervisor/type", "xen\n")],
            Some((H::Xen, "Xen")),
        ),
        (
            &[
                (CPU, FLAGS),
                ("/sys/hypervisor/type", "xen\n"),
                ("/proc/xen/capabilities", "control_d\n"),
            ],
            None,
        ),
    ];
    for (files, expected) in table {
        let found = read(files);
        let told = found
            .as_ref()
            .map(|virt| (virt.hypervisor, virt.to_string()));
        let expected = expected.map(|(hypervisor, name)| (hypervisor, name.to_owned()));
        assert_eq!(told, expected, "{files:?}");
    }
}

#[test]
fn what_a_balloon_offers_is_read_bit_by_bit() {
    let virt = with_balloon("001001000", true).unwrap();
    let balloon = virt.balloon.clone().unwrap();
    assert_eq!(
        (
            balloon.driven,
            balloon.reporting,
            balloon.free_page_hint,
            balloon.deflate_on_oom
        ),
        (true, Some(true), Some(false), Some(true))
    );
    assert_eq!(
        (virt.reports_free_pages(), virt.advice()),
        (Some(true), None)
    );
    let virt = with_balloon("000110000", true).unwrap();
    let balloon = virt.balloon.clone().unwrap();
    assert_eq!(
        (
            balloon.reporting,
            balloon.free_page_hint,
            balloon.deflate_on_oom
        ),
        (Some(false), Some(true), Some(false))
    );
    assert!(virt.advice().unwrap().contains("free-page-reporting=on"));
    // A file that ends too early says nothing.
    let virt = with_balloon("001\n", true).unwrap();
    assert_eq!(virt.reports_free_pages(), None);
    // Without a driver nothing has been agreed on.
    let virt = with_balloon("000000000", false).unwrap();
    assert!(virt.advice().unwrap().contains("modprobe virtio_balloon"));
}

#[test]
fn of_several_balloons_the_one_that_reports_counts() {
    let tree = Tree::new();
    tree.file(CPU, FLAGS);
    for (name, features) in [("virtio1", "0000000"), ("virtio2", "0000010")] {
        tree.file(
            &format!("/sys/bus/virtio/devices/{name}/device"),
            "0x0005\n",
        )
        .file(
            &format!("/sys/bus/virtio/devices/{name}/features"),
            features,
        );
    }
    let virt = Virt::read(&tree.host()).unwrap();
    assert_eq!(virt.reports_free_pages(), Some(true));
}

#[test]
fn hypervs_balloon_does_not_show_what_it_reports() {
    let tree = Tree::new();
    tree.file(CPU, FLAGS)
        .file(VENDOR, "Microsoft Corporation\n")
        .dir("/sys/bus/vmbus/drivers/hv_balloon/1eccfd72-4b41-45ef-b73a-4a6e44c12924");
    let virt = Virt::read(&tree.host()).unwrap();
    let balloon = virt.balloon.as_ref().unwrap();
    assert_eq!((balloon.driver, balloon.reporting), (Driver::HyperV, None));
    assert_eq!(virt.advice(), None);
}

#[test]
fn every_machine_without_reports_has_an_advice() {
    let all = [
        Hypervisor::Qemu,
        Hypervisor::Kvm,
        Hypervisor::HyperV,
        Hypervisor::Wsl2,
        Hypervisor::Apple,
        Hypervisor::Vmware,
        Hypervisor::VirtualBox,
        Hypervisor::Xen,
        Hypervisor::Unknown,
    ];
    for hypervisor in all {
        for product in [None, Some(Product::Lima), Some(Product::DockerDesktop)] {
            let virt = Virt {
                hypervisor,
                vendor: None,
                product,
                balloon: None,
                reporting_order: None,
            };
            let advice = virt.advice().unwrap();
            assert!(
                advice.len() > 20 && !advice.contains('\n'),
                "{virt}: {advice}"
            );
        }
    }
}

#[test]
fn an_order_that_is_not_chosen_yet_is_absent() {
    const ORDER: &str = "/sys/module/page_reporting/parameters/page_reporting_order";
    let order = |text: &str| {
        read(&[(CPU, FLAGS), (ORDER, text)])
            .unwrap()
            .reporting_order
    };
    assert_eq!(order("9\n"), Some(9));
    assert_eq!(order("-1\n"), None);
    assert_eq!(order("11\n"), None);
    assert_eq!(read(&[(CPU, FLAGS)]).unwrap().reporting_order, None);
}
