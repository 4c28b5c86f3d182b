//! Which files `ksm on` changes, to what and in which order: the kernel's own advisor where there is one, else rates.

use grey_core::act::{KnobFile, Value};

use super::figures::Knobs;

/// Milliseconds between two batches: the kernel's default and that of its advisor's sums.
const SLEEP_MS: u64 = 20;
/// The kernel's pages a batch without anybody's choice (`DEFAULT_PAGES_TO_SCAN`, mm/ksm.c); it is also what the kernel
/// writes there when its advisor is turned off.
pub(super) const KERNEL_PAGES: u64 = 100;
/// Fewest and most pages a batch: KSM_NPAGES_MIN and KSM_NPAGES_MAX of ksmtuned (qemu-kvm).
const PAGES: (u64, u64) = (64, 1250);
/// Seconds in which all memory that might be offered is to be scanned once: the advisor's own default
/// (advisor_target_scan_time, Documentation/admin-guide/mm/ksm.rst).
const SCAN_S: u64 = 200;
/// The same, of `--aggressive`.
const AGGRESSIVE_SCAN_S: u64 = 60;
/// Percent of a core that ksmd may take under the advisor. The kernel's default is 70, which `--aggressive` leaves.
pub(super) const CPU_PCT: u64 = 20;

/// How the scan is paced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Advisor {
    /// By the kernel, so that one scan takes a given time (6.8 and later)
    ScanTime,
    /// At fixed rates
    None,
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub file: KnobFile,
    pub new: Value,
    /// The kernel changes this file along with the next change, and leaves this in it when that one is undone.
    pub leaves: Option<Value>,
}

/// What there is to know of the machine.
pub(super) struct Found<'a> {
    pub knobs: &'a Knobs,
    /// Anonymous pages of the machine, which is the most that can be offered.
    pub anon_pages: Option<u64>,
}

/// The writes of `ksm on`, in their order; none for what holds its value already. `run` comes last, so that nothing is
/// scanned at another pace than the one asked for.
///
/// # Errors
/// The advisor was asked for and this kernel has none.
pub(super) fn on(
    found: &Found<'_>,
    advisor: Option<Advisor>,
    aggressive: bool,
) -> Result<Vec<Change>, &'static str> {
    let knobs = found.knobs;
    let number = |file| knobs.get(&file).and_then(Value::as_number);
    let mut list = List {
        knobs,
        changes: Vec::new(),
    };
    list.set(KnobFile::KsmSmartScan, 1);
    if aggressive {
        list.set(KnobFile::KsmUseZeroPages, 1);
    }
    let mode = knobs.get(&KnobFile::KsmAdvisorMode).map(Value::as_str);
    let advised = match (advisor, mode) {
        (Some(Advisor::ScanTime), None) => {
            return Err("this kernel has no KSM advisor (6.8 and later do)");
        }
        (Some(Advisor::None), _) | (None, None) => false,
        (_, Some(_)) => true,
    };
    if advised {
        if aggressive {
            let file = KnobFile::KsmAdvisorTargetScanTime;
            list.set(
                file,
                number(file).map_or(AGGRESSIVE_SCAN_S, |now| now.min(AGGRESSIVE_SCAN_S)),
            );
        } else {
            let file = KnobFile::KsmAdvisorMaxCpu;
            list.set(file, number(file).map_or(CPU_PCT, |now| now.min(CPU_PCT)));
        }
        if mode != Some("scan-time") {
            // From then on the kernel writes there itself and takes no other's value, and it forgets what was there
            // when the advisor goes: so what is there now has to be in the journal first.
            if let Some(now) = knobs.get(&KnobFile::KsmPagesToScan) {
                list.changes.push(Change {
                    file: KnobFile::KsmPagesToScan,
                    new: now.clone(),
                    leaves: Some(Value::number(KERNEL_PAGES)),
                });
            }
            list.word(KnobFile::KsmAdvisorMode, "scan-time");
        }
    } else {
        let freed = mode.is_some_and(|mode| mode != "none");
        if freed {
            list.word(KnobFile::KsmAdvisorMode, "none");
        }
        let now = if freed {
            Some(KERNEL_PAGES)
        } else {
            number(KnobFile::KsmPagesToScan)
        };
        let sleep = number(KnobFile::KsmSleepMs);
        // Rates that are not the kernel's own are somebody's choice.
        let chosen = (now, sleep) != (Some(KERNEL_PAGES), Some(SLEEP_MS));
        if aggressive {
            list.set(
                KnobFile::KsmSleepMs,
                sleep.map_or(SLEEP_MS, |now| now.min(SLEEP_MS)),
            );
            list.pages(now, now.map_or(PAGES.1, |now| now.max(PAGES.1)));
        } else if !chosen {
            let batches = SCAN_S * 1000 / SLEEP_MS;
            let pages = found.anon_pages.unwrap_or(0) / batches;
            list.pages(now, pages.clamp(PAGES.0, PAGES.1));
        }
    }
    list.set(KnobFile::KsmRun, 1);
    Ok(list.changes)
}

struct List<'a> {
    knobs: &'a Knobs,
    changes: Vec<Change>,
}

impl List<'_> {
    fn set(&mut self, file: KnobFile, value: u64) {
        self.value(file, Value::number(value));
    }

    fn word(&mut self, file: KnobFile, value: &str) {
        if let Some(value) = Value::new(value) {
            self.value(file, value);
        }
    }

    fn value(&mut self, file: KnobFile, new: Value) {
        if self.knobs.get(&file).is_some_and(|now| *now != new) {
            self.push(file, new);
        }
    }

    /// Pages a batch, where `now` is what will be there by then.
    fn pages(&mut self, now: Option<u64>, pages: u64) {
        if now.is_some_and(|now| now != pages) {
            self.push(KnobFile::KsmPagesToScan, Value::number(pages));
        }
    }

    fn push(&mut self, file: KnobFile, new: Value) {
        self.changes.push(Change {
            file,
            new,
            leaves: None,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knobs(files: &[(KnobFile, &str)]) -> Knobs {
        files
            .iter()
            .map(|(file, value)| (*file, Value::new(value).unwrap()))
            .collect()
    }

    /// Linux 5.10 after boot.
    fn old() -> Knobs {
        knobs(&[
            (KnobFile::KsmRun, "0"),
            (KnobFile::KsmPagesToScan, "100"),
            (KnobFile::KsmSleepMs, "20"),
            (KnobFile::KsmUseZeroPages, "0"),
        ])
    }

    /// Linux 6.12 after boot.
    fn new() -> Knobs {
        let mut knobs_of = old();
        knobs_of.extend(knobs(&[
            (KnobFile::KsmAdvisorMode, "none"),
            (KnobFile::KsmAdvisorMaxCpu, "70"),
            (KnobFile::KsmAdvisorTargetScanTime, "200"),
            (KnobFile::KsmAdvisorMinPages, "500"),
            (KnobFile::KsmAdvisorMaxPages, "30000"),
            (KnobFile::KsmSmartScan, "1"),
        ]));
        knobs_of
    }

    fn writes(
        knobs: &Knobs,
        anon_pages: Option<u64>,
        advisor: Option<Advisor>,
        aggressive: bool,
    ) -> Vec<String> {
        on(&Found { knobs, anon_pages }, advisor, aggressive)
            .unwrap()
            .into_iter()
            .map(|change| {
                let leaves = change
                    .leaves
                    .map_or(String::new(), |leaves| format!(" leaves {leaves}"));
                format!(
                    "{}={}{leaves}",
                    change.file.name().trim_start_matches("ksm/"),
                    change.new
                )
            })
            .collect()
    }

    #[test]
    fn the_advisor_is_used_where_there_is_one_and_what_it_overwrites_is_noted_right_before() {
        assert_eq!(
            writes(&new(), None, None, false),
            [
                "advisor_max_cpu=20",
                "pages_to_scan=100 leaves 100",
                "advisor_mode=scan-time",
                "run=1"
            ]
        );
        assert_eq!(
            writes(&new(), None, Some(Advisor::ScanTime), true),
            [
                "use_zero_pages=1",
                "advisor_target_scan_time=60",
                "pages_to_scan=100 leaves 100",
                "advisor_mode=scan-time",
                "run=1"
            ]
        );
    }

    #[test]
    fn a_tighter_bound_of_the_operators_stays_and_an_advisor_that_is_on_is_not_turned_on() {
        let mut knobs_of = new();
        knobs_of.extend(knobs(&[
            (KnobFile::KsmAdvisorMode, "scan-time"),
            (KnobFile::KsmAdvisorMaxCpu, "5"),
            (KnobFile::KsmPagesToScan, "777"),
        ]));
        // The kernel refuses a write to pages_to_scan then.
        assert_eq!(writes(&knobs_of, None, None, false), ["run=1"]);
        assert_eq!(
            writes(&knobs_of, Some(0), Some(Advisor::None), false),
            ["advisor_mode=none", "pages_to_scan=64", "run=1"]
        );
    }

    #[test]
    fn without_an_advisor_the_rate_follows_the_memory_within_its_bounds() {
        let rate = |anon_pages| writes(&old(), anon_pages, None, false)[0].clone();
        assert_eq!(rate(Some(0)), "pages_to_scan=64");
        // 8 GiB in 200 s, a batch each 20 ms.
        assert_eq!(rate(Some(8 << 18)), "pages_to_scan=209");
        assert_eq!(rate(Some(1 << 30)), "pages_to_scan=1250");
        // What is right already is not written.
        assert_eq!(rate(Some(1_000_000)), "run=1");
        assert_eq!(
            writes(&old(), None, None, true),
            ["use_zero_pages=1", "pages_to_scan=1250", "run=1"]
        );
    }

    #[test]
    fn rates_that_somebody_chose_stay_unless_more_is_asked_for() {
        let mut knobs_of = old();
        knobs_of.extend(knobs(&[
            (KnobFile::KsmPagesToScan, "3000"),
            (KnobFile::KsmSleepMs, "50"),
        ]));
        assert_eq!(writes(&knobs_of, Some(0), None, false), ["run=1"]);
        assert_eq!(
            writes(&knobs_of, Some(0), None, true),
            ["use_zero_pages=1", "sleep_millisecs=20", "run=1"]
        );
    }

    #[test]
    fn nothing_is_written_where_all_is_as_asked_and_no_advisor_is_made_up() {
        let mut knobs_of = old();
        knobs_of.extend(knobs(&[
            (KnobFile::KsmRun, "1"),
            (KnobFile::KsmPagesToScan, "64"),
        ]));
        assert_eq!(writes(&knobs_of, Some(0), None, false), [""; 0]);
        let found = Found {
            knobs: &old(),
            anon_pages: None,
        };
        assert!(on(&found, Some(Advisor::ScanTime), false).is_err());
    }
}
