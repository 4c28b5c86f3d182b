//! Swap in a guest: a zram device of its kernel's.

use std::ffi::CString;
use std::fs;

use anyhow::{Context as _, Result, ensure};

const DEVICE: &str = "/dev/zram0";
const SYSFS: &str = "/sys/block/zram0";
const PAGE: usize = 4096;

/// It is off again when this goes.
#[derive(Debug)]
pub struct Swap(());

impl Swap {
    /// So many bytes of it, before they are compressed.
    ///
    /// # Errors
    /// No such device, or no right to it.
    pub fn on(bytes: u64) -> Result<Swap> {
        fs::write(format!("{SYSFS}/reset"), "1").context("reset zram0: is the module loaded?")?;
        fs::write(format!("{SYSFS}/disksize"), bytes.to_string()).context("size zram0")?;
        fs::write(DEVICE, header(bytes)?).context("write the swap header")?;
        let path = CString::new(DEVICE)?;
        // SAFETY: a valid path; the call changes nothing of this process's memory.
        let result = unsafe { libc::swapon(path.as_ptr(), 0) };
        let error = std::io::Error::last_os_error();
        ensure!(result == 0, "swapon {DEVICE}: {error}");
        Ok(Swap(()))
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
fn header(bytes: u64) -> Result<[u8; PAGE]> {
    let mut page = [0; PAGE];
    let pages = u32::try_from(bytes / PAGE as u64)?;
    ensure!(pages >= 10, "{bytes} bytes are too few for swap");
    page[1024..1028].copy_from_slice(&1_u32.to_le_bytes());
    page[1028..1032].copy_from_slice(&(pages - 1).to_le_bytes());
    page[PAGE - 10..].copy_from_slice(b"SWAPSPACE2");
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_tells_the_last_page() {
        let page = header(1 << 20).unwrap();
        assert_eq!(page[1028..1032], 255_u32.to_le_bytes());
        assert!(page.ends_with(b"SWAPSPACE2"));
        assert!(header(4096).is_err());
    }
}
