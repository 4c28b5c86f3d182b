//! Kernel files whose content can be put back, and their values.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A knob: where it is and which file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Knob {
    /// The cgroup or the machine.
    #[serde(flatten)]
    pub place: Place,
    /// The file.
    pub file: KnobFile,
}

/// Where a knob is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Place {
    /// A cgroup; its id tells it from a later one of the same path.
    Cgroup {
        /// Path below the v2 mount.
        cgroup: String,
        /// v2 cgroup id.
        cgroup_id: u64,
    },
    /// The machine.
    Machine {},
}

macro_rules! knob_files {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal,)*) => {
        /// The files that are changed reversibly. Anything else is never written to as a knob.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum KnobFile {
            $($(#[doc = $doc])* #[serde(rename = $name)] $variant,)*
        }

        impl KnobFile {
            /// All of them.
            pub const ALL: &[KnobFile] = &[$(KnobFile::$variant,)*];

            /// Its name: below the cgroup's directory, or below [`KnobFile::folder`].
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(KnobFile::$variant => $name,)* }
            }
        }
    };
}

knob_files! {
    /// Bytes or `max`; above it the cgroup is throttled and reclaimed.
    MemoryHigh = "memory.high",
    /// Bytes or `max`; above it the cgroup's OOM killer runs.
    MemoryMax = "memory.max",
    /// Bytes that are never reclaimed.
    MemoryMin = "memory.min",
    /// Bytes that are reclaimed last.
    MemoryLow = "memory.low",
    /// Bytes or `max` that may be swapped out.
    SwapMax = "memory.swap.max",
    /// `1` stops the cgroup's processes, `0` lets them go on.
    Freeze = "cgroup.freeze",
    /// `0` stopped, `1` running, `2` stopped and everything unmerged.
    KsmRun = "ksm/run",
    /// Pages a scan.
    KsmPagesToScan = "ksm/pages_to_scan",
    /// Milliseconds between scans.
    KsmSleepMs = "ksm/sleep_millisecs",
    /// `none` or `scan-time` (6.8 and later).
    KsmAdvisorMode = "ksm/advisor_mode",
    /// Percent of a CPU the advisor may use.
    KsmAdvisorMaxCpu = "ksm/advisor_max_cpu",
    /// Seconds one whole scan may take.
    KsmAdvisorTargetScanTime = "ksm/advisor_target_scan_time",
    /// The advisor's lower bound of pages a scan.
    KsmAdvisorMinPages = "ksm/advisor_min_pages_to_scan",
    /// The advisor's upper bound of pages a scan.
    KsmAdvisorMaxPages = "ksm/advisor_max_pages_to_scan",
    /// Whether pages that never merge are looked at less often (6.7 and later).
    KsmSmartScan = "ksm/smart_scan",
    /// Whether empty pages are merged with the kernel's zero page.
    KsmUseZeroPages = "ksm/use_zero_pages",
    /// Free blocks of 2^n pages and larger are reported to the host of this virtual machine (5.14 and later).
    ReportingOrder = "page_reporting_order",
}

impl KnobFile {
    /// The file of this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<KnobFile> {
        Self::ALL.iter().copied().find(|file| file.name() == name)
    }

    /// Whether it is a file of cgroups.
    #[must_use]
    pub const fn of_cgroups(self) -> bool {
        matches!(
            self,
            KnobFile::MemoryHigh
                | KnobFile::MemoryMax
                | KnobFile::MemoryMin
                | KnobFile::MemoryLow
                | KnobFile::SwapMax
                | KnobFile::Freeze
        )
    }

    /// Where it is, if it is one of the machine.
    #[must_use]
    pub const fn folder(self) -> &'static str {
        match self {
            KnobFile::ReportingOrder => "/sys/module/page_reporting/parameters",
            _ => "/sys/kernel/mm",
        }
    }

    /// What the file's text says, in the form it would be written in; `None` for what no knob can hold.
    /// A choice (`none [scan-time]`) gives what is chosen.
    #[must_use]
    pub fn value(self, text: &[u8]) -> Option<Value> {
        let word = self.canonical(text)?;
        Some(Value(std::str::from_utf8(word).ok()?.to_owned()))
    }

    /// As [`KnobFile::value`], in place: the part of the text that is the value.
    #[must_use]
    pub fn canonical(self, text: &[u8]) -> Option<&[u8]> {
        let text = text.trim_ascii();
        let at = |bracket| text.iter().position(|byte| *byte == bracket);
        let word = match (at(b'['), at(b']')) {
            (Some(from), Some(to)) if from < to => text.get(from + 1..to)?,
            _ => text,
        };
        Value::fits(word).then_some(word)
    }
}

impl Knob {
    /// A file of a cgroup.
    #[must_use]
    pub fn cgroup(path: &str, id: u64, file: KnobFile) -> Knob {
        Knob {
            place: Place::Cgroup {
                cgroup: path.to_owned(),
                cgroup_id: id,
            },
            file,
        }
    }

    /// A file of the machine.
    #[must_use]
    pub fn machine(file: KnobFile) -> Knob {
        Knob {
            place: Place::Machine {},
            file,
        }
    }

    /// The cgroup's path, if it is one of a cgroup.
    #[must_use]
    pub fn cgroup_path(&self) -> Option<&str> {
        match &self.place {
            Place::Cgroup { cgroup, .. } => Some(cgroup),
            Place::Machine {} => None,
        }
    }
}

impl fmt::Display for Knob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Cgroup { cgroup, .. } => {
                write!(f, "{}/{}", cgroup.trim_end_matches('/'), self.file.name())
            }
            Place::Machine {} => write!(f, "{}/{}", self.file.folder(), self.file.name()),
        }
    }
}

/// What a knob holds: a decimal integer, `max`, or a word; never anything a shell or a kernel parser could take for two.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Value(String);

impl Value {
    /// The longest value.
    pub const MAX_LEN: usize = 31;

    /// A value; `None` unless it is one short word.
    #[must_use]
    pub fn new(text: &str) -> Option<Value> {
        Self::fits(text.as_bytes()).then(|| Value(text.to_owned()))
    }

    fn fits(word: &[u8]) -> bool {
        !word.is_empty()
            && word.len() <= Self::MAX_LEN
            && word
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    }

    /// A number.
    #[must_use]
    pub fn number(number: u64) -> Value {
        Value(number.to_string())
    }

    /// A limit: `None` is `max`. The kernel counts in pages, rounds down, and reads the largest counts as `max`.
    #[must_use]
    pub fn limit(bytes: Option<u64>, page: u64) -> Value {
        // PAGE_COUNTER_MAX is LONG_MAX / PAGE_SIZE pages.
        match bytes {
            Some(bytes) if bytes / page < i64::MAX as u64 / page => {
                Value::number(bytes / page * page)
            }
            _ => Value("max".to_owned()),
        }
    }

    /// The text to write.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number, if it is one.
    #[must_use]
    pub fn as_number(&self) -> Option<u64> {
        self.0.parse().ok()
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Value {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Value, &'static str> {
        Value::new(&text).ok_or("no value of a knob")
    }
}

impl From<Value> for String {
    fn from(value: Value) -> String {
        value.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_has_the_form_it_is_written_in() {
        let read = |file: KnobFile, text: &str| file.value(text.as_bytes()).map(String::from);
        assert_eq!(read(KnobFile::MemoryHigh, "max\n").as_deref(), Some("max"));
        assert_eq!(
            read(KnobFile::MemoryHigh, "104857600\n").as_deref(),
            Some("104857600")
        );
        assert_eq!(
            read(KnobFile::KsmAdvisorMode, "[none] scan-time\n").as_deref(),
            Some("none")
        );
        assert_eq!(
            read(KnobFile::KsmAdvisorMode, "none [scan-time]\n").as_deref(),
            Some("scan-time")
        );
        for bad in [
            "",
            "\n",
            "1 2",
            "a\0",
            "0123456789012345678901234567890123",
            "é",
        ] {
            assert_eq!(read(KnobFile::KsmRun, bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_limit_is_what_the_kernel_will_read_back() {
        assert_eq!(Value::limit(Some(100_000_001), 4096).as_str(), "99999744");
        assert_eq!(Value::limit(None, 4096).as_str(), "max");
        assert_eq!(Value::limit(Some(u64::MAX), 4096).as_str(), "max");
        assert_eq!(Value::limit(Some(0), 4096).as_str(), "0");
    }

    #[test]
    fn names_lead_back_to_their_files() {
        for file in KnobFile::ALL {
            assert_eq!(KnobFile::of_name(file.name()), Some(*file));
        }
    }
}
