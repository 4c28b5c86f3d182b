//! What a trim is to be expected to free, in words.

use grey_core::units::format_bytes;

use crate::act::agent::Answer;

/// Less is next to nothing.
const WORTH: u64 = 4 << 20;

/// The expectation in words. `anon` is the anonymous memory of the process.
pub(super) fn expectation(
    pid: u32,
    answer: &Answer,
    expected: Option<u64>,
    anon: Option<u64>,
) -> String {
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
    use crate::act::agent::answer::of_heap as answer;

    #[test]
    fn pinned_memory_is_said_to_be_pinned_and_pageout_is_offered() {
        let told = expectation(
            9,
            &answer("glibc", Some(1), Some(2)),
            Some(1 << 20),
            Some(300 << 20),
        );
        for part in ["next to nothing", "299M", "pinned", "pageout 9 --cold"] {
            assert!(told.contains(part), "{part}: {told}");
        }
        let told = expectation(9, &answer("glibc", Some(1), Some(2)), Some(64 << 20), None);
        assert_eq!(told, "up to 64M, which glibc holds free");
    }
}
