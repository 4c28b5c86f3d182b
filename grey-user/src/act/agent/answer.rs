//! What the agent answers: one line of `key=value` pairs.

use super::VERSION;

/// An answer. Figures are bytes as the agent saw them; what it did not tell is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The program has one thread and did not come to rest: nothing was asked of its allocator.
    pub busy: bool,
    /// `glibc`, `jemalloc`, `tcmalloc`, `mimalloc` or `unknown`.
    pub allocator: String,
    /// In use by the program, of what the allocator hands out.
    pub heap_used: Option<u64>,
    /// Freed by the program and held by the allocator; glibc's also counts what has gone back to the kernel.
    pub heap_free: Option<u64>,
    /// In use, in mappings of their own.
    pub heap_mapped: Option<u64>,
    /// `cpython` or `none`.
    pub collector: String,
    /// `done`, `off`, `later` or `full`, where it was asked.
    pub collector_state: Option<String>,
    /// Objects that it found to be unreachable.
    pub collected: Option<u64>,
    /// Resident before anything was done, after the collector, and at the end.
    pub rss_before: Option<u64>,
    /// See `rss_before`.
    pub rss_collected: Option<u64>,
    /// See `rss_before`.
    pub rss_after: Option<u64>,
    /// Microseconds.
    pub took_us: Option<u64>,
}

impl Answer {
    /// Reads a line; `None` when it is no answer of this version. Keys of later ones are passed over.
    #[must_use]
    pub fn parse(line: &str) -> Option<Answer> {
        let mut words = line.strip_suffix('\n')?.split(' ');
        if words.next() != Some(VERSION) {
            return None;
        }
        let mut answer = Answer {
            busy: match words.next()? {
                "done" => false,
                "busy" => true,
                _ => return None,
            },
            ..Answer::default()
        };
        for word in words {
            let (key, value) = word.split_once('=')?;
            let number = || value.parse::<u64>().ok();
            match key {
                "allocator" => answer.allocator = value.to_owned(),
                "collector" => answer.collector = value.to_owned(),
                "collector_state" => answer.collector_state = Some(value.to_owned()),
                "heap_used" => answer.heap_used = Some(number()?),
                "heap_free" => answer.heap_free = Some(number()?),
                "heap_mapped" => answer.heap_mapped = Some(number()?),
                "collected" => answer.collected = Some(number()?),
                "rss_before" => answer.rss_before = Some(number()?),
                "rss_collected" => answer.rss_collected = Some(number()?),
                "rss_after" => answer.rss_after = Some(number()?),
                "took_us" => answer.took_us = Some(number()?),
                _ => {}
            }
        }
        Some(answer)
    }
}

/// An agent's answer of an allocator with so much in use and so much free.
#[cfg(test)]
pub(crate) fn of_heap(allocator: &str, used: Option<u64>, free: Option<u64>) -> Answer {
    Answer {
        allocator: allocator.to_owned(),
        heap_used: used,
        heap_free: free,
        collector: "none".to_owned(),
        ..Answer::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_keys_of_later_versions_are_passed_over() {
        let line = "grey-release/1 done pid=7 allocator=glibc heap_used=1 heap_free=2 heap_mapped=3 collector=cpython \
            collector_state=done collected=4 rss_before=5 rss_collected=6 rss_after=7 new=x took_us=8\n";
        let answer = Answer::parse(line).unwrap();
        let figures = [
            answer.heap_used,
            answer.heap_free,
            answer.heap_mapped,
            answer.collected,
            answer.rss_before,
            answer.rss_collected,
            answer.rss_after,
            answer.took_us,
        ];
        assert_eq!(figures, [1, 2, 3, 4, 5, 6, 7, 8].map(Some));
        assert_eq!((answer.busy, answer.allocator.as_str()), (false, "glibc"));
        assert_eq!(answer.collector_state.as_deref(), Some("done"));
        assert!(Answer::parse("grey-release/1 busy\n").unwrap().busy);
    }

    #[test]
    fn what_is_no_answer_is_not_taken_for_one() {
        for line in [
            "",
            "\n",
            "grey-release/1 done",
            "grey-release/2 done\n",
            "grey-release/1 maybe\n",
            "grey-release/1 done rss_after=-1\n",
            "grey-release/1 done rss_after=lots\n",
            "grey-release/1 done rss_after\n",
            "HTTP/1.1 400\n",
        ] {
            assert_eq!(Answer::parse(line), None, "{line:?}");
        }
    }
}
