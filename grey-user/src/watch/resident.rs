//! Gives back what this process holds and does not need: free heap, and pages of programs and libraries that were only
//! read.

use std::sync::OnceLock;

use rustix::mm::Advice;

/// Mappings of files that are there as long as the process.
static STAYS: OnceLock<Vec<(usize, usize)>> = OnceLock::new();

/// Reading the kernel's BTF takes tens of megabytes for a moment; glibc would keep them. Most of the program's code has run
/// for the only time, too: arguments, BTF, loading. What is needed again comes back by a minor fault.
pub(crate) fn give_back() {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    let found: Vec<(usize, usize)> = unwritten(&smaps).collect();
    // What is there at the first time, before there is another thread, stays: the program and its libraries. What a thread
    // maps later it may unmap at any time, and have memory of its own in its place.
    let stays = STAYS.get_or_init(|| found.clone());
    for (start, end) in found.into_iter().filter(|range| stays.contains(range)) {
        let length = end - start;
        let start = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: a private mapping of a file that stays, cannot be written and has no page of its own reads the same from the
        // file, so that dropping its pages changes nothing.
        let _ = unsafe { rustix::mm::madvise(start, length, Advice::LinuxDontNeed) };
    }
    #[cfg(target_env = "gnu")]
    // SAFETY: only gives free heap pages back to the kernel.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Lets all threads take from one heap. glibc gives each thread its own, which keeps what it had when it was fullest; ours
/// ask for memory too seldom to be in each other's way. Before the first thread.
pub(crate) fn share_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: only sets how many heaps there may be.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Start and end of the mappings in the content of /proc/PID/smaps that are nothing but their file: not writable, and
/// never written before they became so, as what the loader relocates is.
fn unwritten(smaps: &str) -> impl Iterator<Item = (usize, usize)> {
    let mut mapping = None;
    let mut zeros = 0;
    smaps.lines().filter_map(move |line| {
        let mut words = line.split_whitespace();
        match (words.next()?, words.next()?) {
            ("Anonymous:" | "Swap:", "0") => zeros += 1,
            // The last line of a mapping.
            ("VmFlags:", _) => return mapping.take().filter(|_| zeros == 2),
            (range, "r--p" | "r-xp") if !range.ends_with(':') => {
                zeros = 0;
                let is_file = words.nth(3).is_some_and(|path| path.starts_with('/'));
                mapping = range_of(range).filter(|_| is_file);
            }
            (range, _) if !range.ends_with(':') => mapping = None,
            _ => {}
        }
        None
    })
}

fn range_of(range: &str) -> Option<(usize, usize)> {
    let (start, end) = range.split_once('-')?;
    let [start, end] = [start, end].map(|at| usize::from_str_radix(at, 16).ok());
    start.zip(end).filter(|(start, end)| start < end)
}

#[cfg(test)]
mod tests {
    use super::unwritten;

    /// A mapping as smaps shows it.
    fn mapping(head: &str, anonymous: u32, swap: u32) -> String {
        format!(
            "{head}\nSize: 4 kB\nRss: 4 kB\nAnonymous: {anonymous} kB\nSwap: {swap} kB\nSwapPss: 0 kB\nVmFlags: rd mr\n"
        )
    }

    const CODE: &str = "55d0a000-55d0b000 r-xp 00001000 fe:00 131 /usr/bin/grey-ebpf";
    const FOUND: (usize, usize) = (0x55d0_a000, 0x55d0_b000);

    #[test]
    fn what_was_never_written_is_nothing_but_its_file() {
        for head in [
            CODE,
            "55d0a000-55d0b000 r--p 00000000 fe:00 131 /usr/bin/grey-ebpf",
            "55d0a000-55d0b000 r-xp 00001000 fe:00 131 /usr/lib/libc.so.6",
            "55d0a000-55d0b000 r-xp 00001000 fe:00 131 /usr/bin/grey-ebpf (deleted)",
        ] {
            let found: Vec<_> = unwritten(&mapping(head, 0, 0)).collect();
            assert_eq!(found, [FOUND], "{head}");
        }
    }

    #[test]
    fn pages_that_are_in_no_file_stay() {
        for (head, anonymous, swap) in [
            (CODE, 4, 0),
            (CODE, 0, 4),
            (
                "55d0a000-55d0b000 rw-p 00001000 fe:00 131 /usr/bin/grey-ebpf",
                0,
                0,
            ),
            (
                "55d0a000-55d0b000 r--s 00001000 fe:00 131 /var/lib/some.data",
                0,
                0,
            ),
            ("55d0a000-55d0b000 r--p 00000000 00:00 0", 0, 0),
            ("55d0a000-55d0b000 r-xp 00000000 00:00 0 [vdso]", 0, 0),
            (
                "55d0a000-55d0b000 r--s 00000000 00:10 1038 anon_inode:bpf-map",
                0,
                0,
            ),
            (
                "55d0b000-55d0a000 r-xp 00001000 fe:00 131 /usr/bin/grey-ebpf",
                0,
                0,
            ),
            (
                "zz-55d0b000 r-xp 00001000 fe:00 131 /usr/bin/grey-ebpf",
                0,
                0,
            ),
            ("", 0, 0),
        ] {
            let found = unwritten(&mapping(head, anonymous, swap)).count();
            assert_eq!(found, 0, "{head}");
        }
    }

    #[test]
    fn a_mapping_is_judged_by_its_own_lines() {
        let relocated = "55d0c000-55d0d000 r--p 00002000 fe:00 131 /usr/bin/grey-ebpf";
        let heap = "55d0e000-55d0f000 rw-p 00000000 00:00 0 [heap]";
        let smaps = mapping(relocated, 4, 0) + &mapping(CODE, 0, 0) + &mapping(heap, 0, 0);
        assert_eq!(unwritten(&smaps).collect::<Vec<_>>(), [FOUND]);
        // A kernel that does not say is not asked to drop anything.
        assert_eq!(
            unwritten(&format!("{CODE}\nSize: 4 kB\nVmFlags: rd\n")).count(),
            0
        );
    }
}
