//! What a trim is to be expected to free, by the allocator's own figures and what is resident of its heaps.

use grey_core::units::format_bytes;

use crate::act::agent::Answer;

/// glibc's heaps of threads begin at multiples of this (malloc/arena.c: HEAP_MAX_SIZE on 64-bit machines).
const HEAP_MAX: u64 = 64 << 20;
/// Less is next to nothing.
const WORTH: u64 = 4 << 20;

/// Bytes that a trim may free at most, as far as the allocator tells.
///
/// glibc counts as free what it has already given back. What is resident of its heaps less what is in use cannot be more
/// than what is free and still here.
#[must_use]
pub(super) fn expected(answer: &Answer, smaps: &[u8]) -> Option<u64> {
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

/// The expectation in words. `anon` is the anonymous memory of the process.
pub(super) fn words(pid: u32, answer: &Answer, expected: Option<u64>, anon: Option<u64>) -> String {
    let allocator = answer.allocator.as_str();
    let collector = match answer.collector.as_str() {
        "cpython" => "; CPython's collector runs before it and may add to that",
        _ => "",
    };
    match expected {
        _ if answer.busy => format!(
            "unknown: pid {pid} has one thread and was not seen at rest, so that nothing may look at its heap; a longer --wait may see it"
        ),
        None if allocator == "mimalloc" => format!(
            "unknown: mimalloc does not tell what it holds; each of its heaps belongs to a thread, and those of threads that live are not given back{collector}"
        ),
        None if allocator == "unknown" => {
            format!("nothing by the allocator, which is none that can be told to{collector}")
        }
        None => format!("unknown: {allocator} does not tell what it holds{collector}"),
        Some(bytes) if bytes < WORTH => {
            let others = anon
                .map(|anon| anon.saturating_sub(bytes))
                .filter(|rest| *rest >= WORTH)
                .map_or(String::new(), |rest| {
                    format!(
                        "; the other {} of anonymous memory are in use or pinned: a page goes back only when nothing in it is in use any more",
                        format_bytes(rest)
                    )
                });
            format!(
                "next to nothing: {allocator} holds {} free{others}; `grey-ebpf enforce pageout {pid} --cold` takes what is not used{collector}",
                format_bytes(bytes)
            )
        }
        Some(bytes) => format!(
            "up to {}, which {allocator} holds free{collector}",
            format_bytes(bytes)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    fn answer(allocator: &str, used: Option<u64>, free: Option<u64>) -> Answer {
        Answer {
            allocator: allocator.to_owned(),
            heap_used: used,
            heap_free: free,
            collector: "none".to_owned(),
            ..Answer::default()
        }
    }

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

    #[test]
    fn pinned_memory_is_said_to_be_pinned_and_pageout_is_offered() {
        let told = words(
            9,
            &answer("glibc", Some(1), Some(2)),
            Some(1 << 20),
            Some(300 << 20),
        );
        for part in ["next to nothing", "299M", "pinned", "pageout 9 --cold"] {
            assert!(told.contains(part), "{part}: {told}");
        }
        let told = words(9, &answer("glibc", Some(1), Some(2)), Some(64 << 20), None);
        assert_eq!(told, "up to 64M, which glibc holds free");
    }
}
