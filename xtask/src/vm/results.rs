//! What the guest says on its results port: RFC 7464 records among the raw output of a command.

use serde::{Deserialize, Serialize};

const RECORD_SEPARATOR: u8 = 0x1e;

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// One test's result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TestResult {
    pub(crate) test: String,
    pub(crate) outcome: Outcome,
    pub(crate) seconds: f64,
    /// The reason of a skip, the output of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<String>,
    /// What a test said that failed and then passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) first_failure: Option<String>,
}

/// A record of the guest.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Record {
    /// Init is up.
    Boot {
        kernel: String,
    },
    /// The guest still schedules.
    Alive,
    /// How many tests will run.
    Plan {
        tests: usize,
    },
    Start {
        test: String,
        deadline: u64,
    },
    Result(TestResult),
    /// A question: how much memory the guest takes here. The answer goes in on the same port.
    #[serde(rename = "host_memory")]
    HostMemory,
    /// All is done; the last record.
    Exit {
        code: i32,
    },
}

/// A piece of what came in.
#[derive(Debug, PartialEq)]
pub(crate) enum Piece {
    Raw(Vec<u8>),
    Record(Record),
}

/// Splits the byte stream into records and raw output.
#[derive(Default)]
pub(crate) struct Splitter {
    /// A record that has begun, without its separator.
    record: Option<Vec<u8>>,
}

impl Splitter {
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut raw = Vec::new();
        for &byte in bytes {
            match (&mut self.record, byte) {
                (_, RECORD_SEPARATOR) => self.record = Some(Vec::new()),
                (Some(record), b'\n') => {
                    // An unreadable record is shown as output: it is a defect of the guest's, to be seen.
                    match serde_json::from_slice(record) {
                        Ok(parsed) => {
                            if !raw.is_empty() {
                                pieces.push(Piece::Raw(std::mem::take(&mut raw)));
                            }
                            pieces.push(Piece::Record(parsed));
                        }
                        Err(_) => {
                            raw.append(record);
                            raw.push(b'\n');
                        }
                    }
                    self.record = None;
                }
                (Some(record), byte) => record.push(byte),
                (None, byte) => raw.push(byte),
            }
        }
        if !raw.is_empty() {
            pieces.push(Piece::Raw(raw));
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_told_from_raw_output_across_reads() {
        let mut splitter = Splitter::default();
        let mut pieces = splitter.feed(b"out\x1e{\"event\":\"al");
        pieces.extend(splitter.feed(b"ive\"}\nput\n\x1e{\"event\":\"exit\",\"code\":3}\n"));
        assert_eq!(
            pieces,
            [
                Piece::Raw(b"out".to_vec()),
                Piece::Record(Record::Alive),
                Piece::Raw(b"put\n".to_vec()),
                Piece::Record(Record::Exit { code: 3 }),
            ]
        );
    }

    #[test]
    fn a_result_carries_its_reason() {
        let line =
            b"\x1e{\"event\":\"result\",\"suite\":\"vm\",\"test\":\"t\",\"seconds\":0.5,\"outcome\":\"skipped\",\"detail\":\"no swap\"}\n";
        let expected = TestResult {
            test: "t".into(),
            outcome: Outcome::Skipped,
            seconds: 0.5,
            detail: Some("no swap".into()),
            first_failure: None,
        };
        assert_eq!(
            Splitter::default().feed(line),
            [Piece::Record(Record::Result(expected))]
        );
    }

    #[test]
    fn a_broken_record_is_shown() {
        assert_eq!(
            Splitter::default().feed(b"\x1e{\"eve\n"),
            [Piece::Raw(b"{\"eve\n".to_vec())]
        );
    }
}
