//! Kernel samepage merging: of the machine, and of one process.

use serde::{Deserialize, Serialize};

use super::facts::Lookup;
use super::memory::chosen;
use super::{HostError, ProcFs, figure, figure_line};

/// KSM, where it is built in: /sys/kernel/mm/ksm (Documentation/admin-guide/mm/ksm.rst).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ksm {
    /// `run`: 0 stopped, 1 running, 2 unmerging.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<u64>,
    /// Pages kept once for several users.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pages_shared: Option<u64>,
    /// Pages saved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pages_sharing: Option<u64>,
    /// Pages that are offered and have no equal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pages_unshared: Option<u64>,
    /// Pages that change too fast to be merged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pages_volatile: Option<u64>,
    /// Pages scanned since boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pages_scanned: Option<u64>,
    /// Pages passed over by the smart scan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pages_skipped: Option<u64>,
    /// Pages of zeros merged into the zero page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zero_pages: Option<u64>,
    /// How often all offered memory was scanned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_scans: Option<u64>,
    /// Pages a scan batch takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pages_to_scan: Option<u64>,
    /// Pause between two batches, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sleep_millisecs: Option<u64>,
    /// Most users of one merged page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_page_sharing: Option<u64>,
    /// Whether pages that did not merge of late are passed over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smart_scan: Option<bool>,
    /// Bytes saved less KSM's own, where the kernel computes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub general_profit: Option<i64>,
    /// The advisor in use (`none`, `scan-time`), where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advisor: Option<String>,
}

impl Ksm {
    /// Reads it; `None` where KSM is not built in. What is there and cannot be read is noted in `look`.
    #[must_use]
    pub fn read(look: &mut Lookup<'_>) -> Option<Self> {
        const DIR: &str = "/sys/kernel/mm/ksm";
        if !look.host().has(DIR) {
            return None;
        }
        let mut figure = |name: &str| look.figure(format!("{DIR}/{name}"));
        let ksm = Ksm {
            run: figure("run"),
            pages_shared: figure("pages_shared"),
            pages_sharing: figure("pages_sharing"),
            pages_unshared: figure("pages_unshared"),
            pages_volatile: figure("pages_volatile"),
            pages_scanned: figure("pages_scanned"),
            pages_skipped: figure("pages_skipped"),
            zero_pages: figure("ksm_zero_pages"),
            full_scans: figure("full_scans"),
            pages_to_scan: figure("pages_to_scan"),
            sleep_millisecs: figure("sleep_millisecs"),
            max_page_sharing: figure("max_page_sharing"),
            smart_scan: figure("smart_scan").map(|on| on == 1),
            general_profit: None,
            advisor: None,
        };
        Some(Ksm {
            general_profit: look
                .text(format!("{DIR}/general_profit"))
                .and_then(|text| text.parse().ok()),
            advisor: look
                .text(format!("{DIR}/advisor_mode"))
                .and_then(|text| chosen(&text)),
            ..ksm
        })
    }
}

/// KSM of one process. A line this kernel does not have is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcKsm {
    /// Pages merged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merging_pages: Option<u64>,
    /// Pages KSM keeps track of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rmap_items: Option<u64>,
    /// Pages merged into the zero page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zero_pages: Option<u64>,
    /// Bytes saved less what keeping track costs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profit: Option<i64>,
    /// Whether all its memory is offered (`prctl(PR_SET_MEMORY_MERGE)`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merge_any: Option<bool>,
    /// Whether a part of its memory is offered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mergeable: Option<bool>,
}

impl ProcKsm {
    /// Reads the content of ksm_stat.
    #[must_use]
    pub fn parse(content: &[u8]) -> Self {
        let mut ksm = ProcKsm::default();
        for line in content.split(|byte| *byte == b'\n') {
            let Some(blank) = line.iter().position(|byte| *byte == b' ') else {
                continue;
            };
            let value = line[blank + 1..].trim_ascii();
            match line[..blank].trim_ascii_end() {
                b"ksm_merging_pages" => ksm.merging_pages = figure(value),
                b"ksm_rmap_items" => ksm.rmap_items = figure(value),
                b"ksm_zero_pages" => ksm.zero_pages = figure(value),
                b"ksm_process_profit" => {
                    ksm.profit = std::str::from_utf8(value)
                        .ok()
                        .and_then(|text| text.parse().ok());
                }
                b"ksm_merge_any:" => ksm.merge_any = yes(value),
                b"ksm_mergeable:" => ksm.mergeable = yes(value),
                _ => {}
            }
        }
        ksm
    }
}

fn yes(value: &[u8]) -> Option<bool> {
    match value {
        b"yes" => Some(true),
        b"no" => Some(false),
        _ => None,
    }
}

impl ProcFs {
    /// ksm_stat of a process, and ksm_merging_pages where that is all there is; `None` when the process is gone or
    /// the kernel tells neither.
    ///
    /// # Errors
    /// Of another user's process above all: [`HostError::is_permission`] tells (it takes `CAP_SYS_PTRACE`).
    pub fn ksm(&mut self, pid: u32) -> Result<Option<ProcKsm>, HostError> {
        let stat = self.content(pid, "ksm_stat")?.map(ProcKsm::parse);
        if let Some(ksm) = &stat
            && ksm.merging_pages.is_some()
        {
            return Ok(stat);
        }
        // 6.1 has it in a file of its own only.
        let merging = self
            .content(pid, "ksm_merging_pages")?
            .and_then(figure_line);
        Ok(match (stat, merging) {
            (None, None) => None,
            (stat, merging_pages) => Some(ProcKsm {
                merging_pages,
                ..stat.unwrap_or_default()
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Host;
    use crate::host::fixture::Tree;

    #[test]
    fn each_line_of_ksm_stat_has_its_field() {
        // Linux 7.2's file, the figures made different.
        let read = ProcKsm::parse(
            b"ksm_rmap_items 11\nksm_zero_pages 12\nksm_merging_pages 13\nksm_process_profit -14\n\
              ksm_merge_any: no\nksm_mergeable: yes\n",
        );
        let want = ProcKsm {
            merging_pages: Some(13),
            rmap_items: Some(11),
            zero_pages: Some(12),
            profit: Some(-14),
            merge_any: Some(false),
            mergeable: Some(true),
        };
        assert_eq!(read, want);
        assert_eq!(
            ProcKsm::parse(b"ksm_rmap_items x\nksm_merge_any: maybe\nksm\n\xff \xff"),
            ProcKsm::default()
        );
    }

    #[test]
    fn a_kernel_with_one_of_the_two_files_gives_what_it_has() {
        let tree = Tree::new();
        // As on 6.1, and as on a kernel before ksm_stat.
        tree.file("/proc/7/ksm_stat", "ksm_rmap_items 5\n")
            .file("/proc/7/ksm_merging_pages", "3\n")
            .file("/proc/8/ksm_merging_pages", "4\n")
            .dir("/proc/9");
        let mut proc = ProcFs::open(&tree.host()).unwrap();
        let figures = |proc: &mut ProcFs, pid| {
            let ksm = proc.ksm(pid).unwrap();
            ksm.map(|ksm| (ksm.rmap_items, ksm.merging_pages))
        };
        assert_eq!(figures(&mut proc, 7), Some((Some(5), Some(3))));
        assert_eq!(figures(&mut proc, 8), Some((None, Some(4))));
        assert_eq!(figures(&mut proc, 9), None);
    }

    #[test]
    fn this_process_merges_nothing_and_says_so_where_the_kernel_has_ksm() {
        let mut proc = ProcFs::open(&Host::live()).unwrap();
        let own = std::process::id();
        let there = std::path::Path::new("/proc/self/ksm_merging_pages").exists();
        let read = proc.ksm(own).unwrap();
        assert_eq!(read.and_then(|ksm| ksm.merging_pages), there.then_some(0));
    }

    #[test]
    fn the_machines_figures_come_from_their_own_files_and_absent_ones_stay_absent() {
        let names = [
            "run",
            "pages_shared",
            "pages_sharing",
            "pages_unshared",
            "pages_volatile",
            "pages_scanned",
            "pages_skipped",
            "ksm_zero_pages",
            "full_scans",
            "pages_to_scan",
            "sleep_millisecs",
            "max_page_sharing",
        ];
        let tree = Tree::new();
        let host = tree.host();
        assert_eq!(Ksm::read(&mut Lookup::on(&host)), None);
        for (at, name) in names.iter().enumerate() {
            tree.file(
                &format!("/sys/kernel/mm/ksm/{name}"),
                &format!("{}\n", at + 1),
            );
        }
        tree.file("/sys/kernel/mm/ksm/smart_scan", "1\n")
            .file("/sys/kernel/mm/ksm/general_profit", "-4096\n")
            .file("/sys/kernel/mm/ksm/advisor_mode", "none [scan-time]\n");
        let ksm = Ksm::read(&mut Lookup::on(&host)).unwrap();
        let got = [
            ksm.run,
            ksm.pages_shared,
            ksm.pages_sharing,
            ksm.pages_unshared,
            ksm.pages_volatile,
            ksm.pages_scanned,
            ksm.pages_skipped,
            ksm.zero_pages,
            ksm.full_scans,
            ksm.pages_to_scan,
            ksm.sleep_millisecs,
            ksm.max_page_sharing,
        ];
        assert_eq!(
            got.map(Option::unwrap),
            [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
        );
        assert_eq!(
            (ksm.smart_scan, ksm.general_profit),
            (Some(true), Some(-4096))
        );
        assert_eq!(ksm.advisor.as_deref(), Some("scan-time"));
        // Linux 5.10 has none of these.
        for name in [
            "smart_scan",
            "general_profit",
            "advisor_mode",
            "pages_scanned",
            "pages_skipped",
            "ksm_zero_pages",
        ] {
            tree.without(&format!("/sys/kernel/mm/ksm/{name}"));
        }
        let old = Ksm::read(&mut Lookup::on(&host)).unwrap();
        assert_eq!(
            (old.general_profit, old.pages_skipped, old.zero_pages),
            (None, None, None)
        );
        assert_eq!(
            (old.smart_scan, old.advisor, old.pages_scanned),
            (None, None, None)
        );
        assert_eq!((old.run, old.full_scans), (Some(1), Some(9)));
    }
}
