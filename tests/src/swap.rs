//! Swap on a zram device, which the VM kernels have as a module: what makes anonymous memory reclaimable.

use std::ffi::CString;
use std::fs;

use anyhow::{Context as _, Result, ensure};

const DEVICE: &str = "/dev/zram0";
const SYSFS: &str = "/sys/block/zram0";
const PAGE: usize = 4096;

/// Swap that is off again when this goes.
pub(crate) struct Swap(());

impl Swap {
    pub(crate) fn on(bytes: u64) -> Result<Self> {
        fs::write(format!("{SYSFS}/reset"), "1").context("reset zram0: is the module loaded?")?;
        fs::write(format!("{SYSFS}/disksize"), bytes.to_string()).context("size zram0")?;
        write_header(bytes)?;
        let path = CString::new(DEVICE)?;
        // SAFETY: a valid path; the call changes nothing of this process's memory.
        let result = unsafe { libc::swapon(path.as_ptr(), 0) };
        ensure!(
            result == 0,
            "swapon {DEVICE}: {}",
            std::io::Error::last_os_error()
        );
        Ok(Self(()))
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        if let Ok(path) = CString::new(DEVICE) {
            // SAFETY: as above.
            unsafe { libc::swapoff(path.as_ptr()) };
        }
        let _ = fs::write(format!("{SYSFS}/reset"), "1");
    }
}

/// `union swap_header` of include/linux/swap.h, version 1: what mkswap writes.
fn write_header(bytes: u64) -> Result<()> {
    let mut page = [0u8; PAGE];
    let last = u32::try_from(bytes / PAGE as u64)? - 1;
    page[1024..1028].copy_from_slice(&1u32.to_le_bytes());
    page[1028..1032].copy_from_slice(&last.to_le_bytes());
    page[PAGE - 10..].copy_from_slice(b"SWAPSPACE2");
    fs::write(DEVICE, page).context("write the swap header")
}
