//! What makes a kernel reclaim: swap on a zram device, which the VM kernels have as a module, and too little memory.

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

/// A number of a file of lines `KEY NUMBER`, with or without a colon and a unit.
pub(crate) fn value_of(path: &str, key: &str) -> Result<u64> {
    let text = std::fs::read_to_string(path)?;
    let line = text
        .lines()
        .find(|line| line.split([' ', ':']).next() == Some(key))
        .with_context(|| format!("no {key} in {path}"))?;
    let number = line.split_whitespace().nth(1).context("no number")?;
    Ok(number.parse()?)
}

/// The machine's lowest watermark, raised; as it was on drop.
pub(crate) struct ShortOfMemory(String);

impl ShortOfMemory {
    const FILE: &str = "/proc/sys/vm/min_free_kbytes";

    /// So much can be allocated before the watermark.
    pub(crate) fn with_room(bytes: u64) -> Result<Self> {
        let before = Self(std::fs::read_to_string(Self::FILE)?);
        let free = value_of("/proc/meminfo", "MemFree")?;
        std::fs::write(Self::FILE, (free - bytes / 1024).to_string())?;
        Ok(before)
    }
}

impl Drop for ShortOfMemory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::write(Self::FILE, self.0.trim()) {
            eprintln!("{}: {error}", Self::FILE);
        }
    }
}
