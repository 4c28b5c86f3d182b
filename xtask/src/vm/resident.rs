//! What a guest takes of this machine's memory, as the kernel counts it for the QEMU process.

use std::fs;

use anyhow::{Context as _, Result};
use serde::Serialize;

/// Bytes.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Resident {
    /// All of the process: VmRSS.
    rss: u64,
    /// Of that, the guest's RAM: the mapping of its size. The rest is the emulator, whose translated code grows.
    #[serde(skip_serializing_if = "Option::is_none")]
    ram: Option<u64>,
    /// Of the guest's RAM, what is held in huge pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    ram_huge: Option<u64>,
}

/// Measures the process `pid` with `memory` bytes of guest RAM.
pub(super) fn of(pid: u32, memory: u64) -> Result<Resident> {
    let read = |name: &str| {
        let path = format!("/proc/{pid}/{name}");
        fs::read_to_string(&path).with_context(|| format!("read {path}"))
    };
    let rss = kib(&read("status")?, "VmRSS").context("no VmRSS")?;
    let smaps = read("smaps")?;
    let ram = ram(&smaps, memory);
    Ok(Resident {
        rss,
        ram: ram.and_then(|entry| kib(entry, "Rss")),
        ram_huge: ram.and_then(|entry| kib(entry, "AnonHugePages")),
    })
}

/// The entry of the writable mapping of that size. A mapping begins with a line `START-END PERMISSIONS …`.
fn ram(smaps: &str, memory: u64) -> Option<&str> {
    let mut rest = smaps;
    while let Some(at) = rest.find("\nVmFlags:") {
        let end = rest[at + 1..]
            .find('\n')
            .map_or(rest.len(), |end| at + 1 + end);
        let (entry, after) = rest.split_at(end);
        let header = entry.trim_start().lines().next().unwrap_or_default();
        if header.contains(" rw-") && kib(entry, "Size") == Some(memory) {
            return Some(entry);
        }
        rest = after;
    }
    None
}

/// A line `KEY: NUMBER kB`, in bytes.
fn kib(text: &str, key: &str) -> Option<u64> {
    let number = text.lines().find_map(|line| {
        let rest = line.strip_prefix(key)?.strip_prefix(':')?;
        rest.trim().strip_suffix(" kB")
    })?;
    Some(number.trim().parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_ram_is_the_writable_mapping_of_its_size() {
        let smaps = "\
7f0000000000-7f0000002000 r-xp 00000000 00:00 0\nSize:                  8 kB\nRss:                   8 kB\nVmFlags: rd ex\n\
7f0000003000-7f0000005000 rw-p 00000000 00:00 0\nSize:                  8 kB\nRss:                   4 kB\nAnonHugePages:         0 kB\nVmFlags: rd wr\n";
        let entry = ram(smaps, 8 << 10).unwrap();
        assert_eq!(kib(entry, "Rss"), Some(4 << 10));
        assert_eq!(ram(smaps, 16 << 10), None);
        assert_eq!(kib("VmRSS:\t  12 kB\n", "VmRSS"), Some(12 << 10));
    }
}
