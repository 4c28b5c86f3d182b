//! The device by which a host takes memory back, and what it offers.

use serde::Serialize;

use crate::host::Host;

const DEVICES: &str = "/sys/bus/virtio/devices";
/// `VIRTIO_ID_BALLOON` (include/uapi/linux/virtio_ids.h).
const BALLOON: &str = "0x0005";
/// Bits of include/uapi/linux/virtio_balloon.h.
const DEFLATE_ON_OOM: usize = 2;
const FREE_PAGE_HINT: usize = 3;
const REPORTING: usize = 5;

/// Who talks to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Driver {
    /// `virtio_balloon`.
    Virtio,
    /// `hv_balloon` of Hyper-V and WSL2.
    HyperV,
    /// Xen's.
    Xen,
    /// `vmw_balloon`.
    Vmware,
}

/// A balloon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Balloon {
    /// Whose.
    pub driver: Driver,
    /// Whether a driver is bound to it: without one nothing of what it offers is in use.
    pub driven: bool,
    /// Free pages are reported to the host as they come. Absent where the guest cannot see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reporting: Option<bool>,
    /// Free pages are told when the host asks, which it does for migrations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_page_hint: Option<bool>,
    /// It gives memory back before the guest kills for want of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deflate_on_oom: Option<bool>,
}

impl Balloon {
    pub(super) fn find(host: &Host) -> Option<Balloon> {
        virtio(host).or_else(|| other(host))
    }
}

/// Of several, one that reports.
fn virtio(host: &Host) -> Option<Balloon> {
    let mut balloons: Vec<Balloon> = host
        .names(DEVICES)
        .into_iter()
        .filter_map(|name| {
            let kind = host.text(format!("{DEVICES}/{name}/device")).ok()?;
            if kind.trim() != BALLOON {
                return None;
            }
            // A character for each bit of what the device and its driver have agreed on, the first for bit 0.
            let features = host.text(format!("{DEVICES}/{name}/features")).ok();
            let bit = |at: usize| Some(*features.as_ref()?.as_bytes().get(at)? == b'1');
            Some(Balloon {
                driver: Driver::Virtio,
                driven: host.has(format!("{DEVICES}/{name}/driver")),
                reporting: bit(REPORTING),
                free_page_hint: bit(FREE_PAGE_HINT),
                deflate_on_oom: bit(DEFLATE_ON_OOM),
            })
        })
        .collect();
    balloons.sort_by_key(|balloon| balloon.reporting != Some(true));
    balloons.into_iter().next()
}

fn other(host: &Host) -> Option<Balloon> {
    let driver = if host
        .names("/sys/bus/vmbus/drivers/hv_balloon")
        .iter()
        // Devices are named by their GUID; the other entries are the driver's own.
        .any(|name| name.contains('-'))
    {
        Driver::HyperV
    } else if host.has("/sys/devices/system/xen_memory") {
        Driver::Xen
    } else if host.has("/sys/module/vmw_balloon") {
        Driver::Vmware
    } else {
        return None;
    };
    Some(Balloon {
        driver,
        driven: true,
        // Hyper-V's reports free pages since 5.13 where the host takes them, and says so in the kernel's log alone.
        reporting: (driver != Driver::HyperV).then_some(false),
        free_page_hint: None,
        deflate_on_oom: None,
    })
}
