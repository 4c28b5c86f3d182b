//! What is asked and answered: one line each, with the version in front.
//!
//! `grey-release/1 stat`, `grey-release/1 trim collector=yes wait_ms=2000`, and from the process itself
//! `grey-release/1 end`; answered by `grey-release/1 done …` or `grey-release/1 busy …` with `key=value` pairs (see
//! docs/release.md). Anything else gets no answer.

use crate::text::{number, words};

/// What every line begins with.
pub(crate) const VERSION: &str = "grey-release/1";
/// The longest question.
pub(crate) const LONGEST: usize = 127;
/// The longest time that one may wait for the program, milliseconds.
const MOST_WAIT_MS: u64 = 60_000;

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// How much the allocator holds free.
    Stat {
        /// How long to wait for the program to come to rest, milliseconds.
        wait_ms: u64,
    },
    /// Give it back.
    Trim {
        /// With the runtime's collector first.
        collector: bool,
        /// How long to wait for the collector, and for the program to come to rest, milliseconds.
        wait_ms: u64,
    },
    /// The thread is to end: the process is about to change what it may do.
    End,
}

/// Reads a question; `None` for what is none.
pub(crate) fn parse(line: &[u8]) -> Option<Request> {
    let line = line.strip_suffix(b"\n")?;
    let mut words = words(line);
    if words.next() != Some(VERSION.as_bytes()) {
        return None;
    }
    let mut request = match words.next()? {
        b"stat" => Request::Stat { wait_ms: 0 },
        b"trim" => Request::Trim {
            collector: false,
            wait_ms: 0,
        },
        b"end" => Request::End,
        _ => return None,
    };
    for word in words {
        let at = word.iter().position(|byte| *byte == b'=')?;
        let (key, value) = word.split_at_checked(at)?;
        let value = value.get(1..)?;
        match (&mut request, key) {
            (Request::Trim { collector, .. }, b"collector") => {
                *collector = match value {
                    b"yes" => true,
                    b"no" => false,
                    _ => return None,
                };
            }
            (Request::Trim { wait_ms, .. } | Request::Stat { wait_ms }, b"wait_ms") => {
                *wait_ms = number(value).filter(|ms| *ms <= MOST_WAIT_MS)?;
            }
            _ => return None,
        }
    }
    Some(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_read_as_it_is_meant() {
        assert_eq!(
            parse(b"grey-release/1 stat wait_ms=50\n"),
            Some(Request::Stat { wait_ms: 50 })
        );
        assert_eq!(
            parse(b"grey-release/1 trim collector=yes wait_ms=2000\n"),
            Some(Request::Trim {
                collector: true,
                wait_ms: 2000
            })
        );
        assert_eq!(parse(b"grey-release/1 end\n"), Some(Request::End));
    }

    #[test]
    fn whatever_else_is_no_question() {
        for line in [
            "",
            "\n",
            "grey-release/1 stat",
            "grey-release/1\n",
            "grey-release/2 trim\n",
            "grey-release/1 trim collector\n",
            "grey-release/1 trim collector=maybe\n",
            "grey-release/1 trim wait_ms=60001\n",
            "grey-release/1 trim wait_ms=-1\n",
            "grey-release/1 trim wait_ms=\n",
            "grey-release/1 trim =\n",
            "grey-release/1 trim rm=-rf\n",
            "grey-release/1 stat collector=yes\n",
            "grey-release/1 end wait_ms=1\n",
            "GET / HTTP/1.1\n",
            "\0\0\0\n",
        ] {
            assert_eq!(parse(line.as_bytes()), None, "{line:?}");
        }
    }
}
