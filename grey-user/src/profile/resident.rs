//! Which of the followed pages are still there at the end: /proc/PID/pagemap, and /proc/kpageflags for the zero page
//! (Documentation/admin-guide/mm/pagemap.rst). A page that was freed is not there, whichever way it was freed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use grey_common::stack::HUGE_BYTES;

use crate::host::Host;

const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
/// A page of a file, or of shared anonymous memory.
const FILE_OR_SHARED: u64 = 1 << 61;
const FRAME: u64 = (1 << 55) - 1;
/// KPF_ZERO_PAGE (include/uapi/linux/kernel-page-flags.h): read and never written.
const ZERO_PAGE: u64 = 1 << 24;

/// What is left of a followed page, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// Private anonymous memory, resident or swapped out.
    pub kept: u64,
    /// File and shared pages.
    pub file: u64,
}

/// The page tables of one process.
pub(super) struct Resident {
    pagemap: File,
    kpageflags: Option<File>,
    page: u64,
    /// Entries of the 2 MiB that were looked at last.
    block: Vec<u64>,
    block_at: Option<u64>,
}

impl Resident {
    /// Opens them.
    ///
    /// # Errors
    /// The process is gone, or this is not root.
    pub(super) fn open(host: &Host, pid: u32) -> io::Result<Resident> {
        Ok(Resident {
            pagemap: File::open(host.path(format!("/proc/{pid}/pagemap")))?,
            kpageflags: File::open(host.path("/proc/kpageflags")).ok(),
            page: rustix::param::page_size() as u64,
            block: Vec::new(),
            block_at: None,
        })
    }

    /// What is left of a huge page, of which some may have been given back, and which mremap may have moved to any place.
    pub(super) fn huge(&mut self, address: u64) -> Left {
        let mut left = Left::default();
        for page in (0..HUGE_BYTES).step_by(self.page as usize) {
            let one = self.page(address.saturating_add(page), false);
            left.kept += one.kept;
            left.file += one.file;
        }
        left
    }

    /// What is left of a page. With `whole`, a page of a huge page stands for all of that: it was faulted in at once, and
    /// nobody counted it.
    pub(super) fn page(&mut self, address: u64, whole: bool) -> Left {
        self.read(address);
        let at = (address % HUGE_BYTES / self.page) as usize;
        let Some(entry) = self.block.get(at).copied() else {
            return Left::default();
        };
        let mut left = self.judge(entry);
        if whole && left.kept > 0 && is_one_frame(&self.block) {
            left.kept = HUGE_BYTES;
        }
        left
    }

    /// Entries of the 2 MiB around an address; none where they cannot be read.
    fn read(&mut self, address: u64) {
        let start = address & !(HUGE_BYTES - 1);
        if self.block_at == Some(start) {
            return;
        }
        let mut bytes = vec![0; (HUGE_BYTES / self.page * 8) as usize];
        let got = self
            .pagemap
            .read_at(&mut bytes, start / self.page * 8)
            .unwrap_or(0);
        self.block = bytes[..got]
            .chunks_exact(8)
            .map(|word| u64::from_ne_bytes(word.try_into().unwrap_or_default()))
            .collect();
        self.block_at = Some(start);
    }

    fn judge(&self, entry: u64) -> Left {
        let page = self.page;
        if entry & PRESENT == 0 {
            let kept = if entry & SWAPPED != 0 { page } else { 0 };
            return Left { kept, file: 0 };
        }
        if entry & FILE_OR_SHARED != 0 {
            return Left {
                kept: 0,
                file: page,
            };
        }
        if self.is_zero_page(entry & FRAME) {
            return Left::default();
        }
        Left {
            kept: page,
            file: 0,
        }
    }

    /// The kernel hides frame numbers (as 0) from whom may not see them.
    fn is_zero_page(&self, frame: u64) -> bool {
        let mut word = [0; 8];
        match &self.kpageflags {
            Some(file) if frame != 0 => {
                file.read_exact_at(&mut word, frame * 8).is_ok()
                    && u64::from_ne_bytes(word) & ZERO_PAGE != 0
            }
            _ => false,
        }
    }
}

/// Whether these entries are one aligned run of frames, as a huge page is.
fn is_one_frame(block: &[u64]) -> bool {
    let Some(first) = block.first() else {
        return false;
    };
    let frame = first & FRAME;
    frame != 0
        && frame.is_multiple_of(block.len() as u64)
        && block
            .iter()
            .zip(frame..)
            .all(|(entry, frame)| entry & PRESENT != 0 && entry & FRAME == frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_huge_page_is_an_aligned_run_of_present_frames() {
        let run = |from: u64| -> Vec<u64> { (from..from + 512).map(|at| PRESENT | at).collect() };
        assert!(is_one_frame(&run(512 * 7)));
        assert!(!is_one_frame(&run(512 * 7 + 1)), "not aligned");
        let mut holed = run(512);
        holed[100] = 0;
        assert!(!is_one_frame(&holed), "a page is gone");
        assert!(!is_one_frame(&[]), "nothing could be read");
        assert!(!is_one_frame(&[PRESENT; 512]), "frames are hidden");
    }
}
