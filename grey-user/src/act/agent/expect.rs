//! What a trim is to be expected to free, by the allocator's own figures and what is resident of its heaps.

use std::fs;
use std::time::{Duration, Instant};

use crate::host::Host;

use super::{Answer, Question, ask, is_loaded};

/// glibc's heaps of threads begin at multiples of this (malloc/arena.c: HEAP_MAX_SIZE on 64-bit machines).
const HEAP_MAX: u64 = 64 << 20;
/// Most processes of one look, and how long it may take: an observer does not wait for those it observes.
const MOST: usize = 32;
const WITHIN: Duration = Duration::from_millis(100);

/// Bytes that a trim may free at most, as far as the allocator tells.
///
/// glibc counts as free what it has already given back. What is resident of its heaps less what is in use cannot be more
/// than what is free and still here.
#[must_use]
pub fn expected(answer: &Answer, smaps: &[u8]) -> Option<u64> {
    let free = answer.heap_free?;
    if answer.allocator != "glibc" {
        return Some(free);
    }
    let here = heaps(smaps)?.saturating_sub(answer.heap_used?);
    Some(free.min(here))
}

/// Resident bytes of the mappings that are glibc's heaps, out of /proc/PID/smaps.
fn heaps(smaps: &[u8]) -> Option<u64> {
    let mut sum = None;
    let mut is_heap = false;
    for line in smaps.split(|byte| *byte == b'\n') {
        let line = std::str::from_utf8(line).ok()?;
        if let Some(rss) = line.strip_prefix("Rss:") {
            if is_heap {
                let kib: u64 = rss.trim().strip_suffix("kB")?.trim().parse().ok()?;
                sum = Some(sum.unwrap_or(0) + kib * 1024);
            }
        } else if line
            .as_bytes()
            .first()
            .is_some_and(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
        {
            is_heap = heap(line);
        }
    }
    sum
}

/// Whether the head of a mapping is that of a heap: `[heap]`, or anonymous and where a heap of a thread begins.
fn heap(head: &str) -> bool {
    let mut words = head.split_whitespace();
    let (Some(addresses), Some(rights)) = (words.next(), words.next()) else {
        return false;
    };
    let path = words.nth(3);
    let start = addresses
        .split_once('-')
        .and_then(|(start, _)| u64::from_str_radix(start, 16).ok());
    path == Some("[heap]")
        || path.is_none()
            && rights == "rw-p"
            && start.is_some_and(|start| start.is_multiple_of(HEAP_MAX))
}

/// Bytes that the release agents among these processes are expected to free at most; `None` where there is no agent. The
/// programs go on as they are: one that goes without its allocator's locks is not asked further, and counts as holding
/// `kept`, which is what was seen from outside.
#[must_use]
pub fn held(host: &Host, pids: impl IntoIterator<Item = u32>, kept: u64) -> Option<u64> {
    let end = Instant::now() + WITHIN;
    let (mut sum, mut unknown) = (None, false);
    for pid in pids.into_iter().take(MOST) {
        let read = |name| fs::read(host.path(format!("/proc/{pid}/{name}")));
        let loaded = read("maps").is_ok_and(|maps| is_loaded(&String::from_utf8_lossy(&maps)));
        if !loaded {
            continue;
        }
        let question = Question::Stat {
            wait: Duration::ZERO,
        };
        let Ok(answer) = ask(host, pid, question, &mut || Instant::now() < end) else {
            continue;
        };
        unknown |= answer.busy;
        let smaps = read("smaps").unwrap_or_default();
        let bytes = expected(&answer, &smaps).unwrap_or(0);
        sum = Some(sum.unwrap_or(0_u64).saturating_add(bytes));
    }
    sum.map(|sum| if unknown { sum.max(kept) } else { sum })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::act::agent::answer::of_heap as answer;

    const SMAPS: &[u8] =
        b"55d0c8e00000-55d0e1000000 rw-p 00000000 00:00 0                          [heap]
Size:             395264 kB
Rss:              395000 kB
Pss:              395000 kB
7f2d54000000-7f2d58000000 rw-p 00000000 00:00 0
Rss:                1000 kB
7f2d59100000-7f2d5a000000 rw-p 00000000 00:00 0
Rss:               15360 kB
7f2d5c000000-7f2d5d000000 r--p 00000000 08:01 42   /usr/lib/locale/locale-archive
Rss:                 400 kB
VmFlags: rd mr mw me ac
";

    #[test]
    fn heaps_are_the_main_one_and_those_where_threads_have_theirs() {
        assert_eq!(heaps(SMAPS), Some(396_000 * 1024));
        assert_eq!(heaps(b""), None);
        assert_eq!(heaps(b"\xff\n"), None);
    }

    #[test]
    fn what_glibc_has_given_back_already_is_not_expected_again() {
        let of = |used: u64, free: u64| {
            expected(&answer("glibc", Some(used << 10), Some(free << 10)), SMAPS).map(|it| it >> 10)
        };
        assert_eq!(of(6_000, 389_000), Some(389_000));
        // 389,000 KiB free by its count, but of its heaps only 10,000 KiB more are resident than are in use.
        assert_eq!(of(386_000, 389_000), Some(10_000));
        assert_eq!(of(400_000, 389_000), Some(0));
        assert_eq!(expected(&answer("jemalloc", None, Some(7)), b""), Some(7));
        assert_eq!(expected(&answer("mimalloc", None, None), SMAPS), None);
    }
}
