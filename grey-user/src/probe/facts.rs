//! What the running kernel offers to probes: BTF offsets, prototypes, functions and record formats. Facts only.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use grey_common::{NO_OFFSET, Offsets};

use super::btf::{Btf, BtfError, Param};

/// Functions that some plan wants to hook.
const FUNCTIONS: &[&str] = &[
    "__x64_sys_mmap",
    "__x64_sys_munmap",
    "__x64_sys_mremap",
    "__x64_sys_brk",
    "__x64_sys_madvise",
    "try_to_free_mem_cgroup_pages",
    "out_of_memory",
    "__oom_kill_process",
    "do_huge_pmd_anonymous_page",
    "bpf_iter_cgroup",
];

/// Tracepoints that some plan wants to hook.
const TRACEPOINTS: &[&str] = &[
    "page_fault_user",
    "page_fault_kernel",
    "rss_stat",
    "mark_victim",
    "mm_vmscan_direct_reclaim_begin",
    "mm_vmscan_direct_reclaim_end",
    "mm_vmscan_memcg_reclaim_begin",
    "mm_vmscan_memcg_reclaim_end",
    "mm_vmscan_kswapd_wake",
    "mm_vmscan_kswapd_sleep",
    "cgroup_mkdir",
    "cgroup_rmdir",
    "cgroup_rename",
    "cgroup_attach_task",
    "sched_process_exec",
    "sched_process_exit",
];

/// Facts about this kernel.
#[derive(Debug)]
pub struct Facts {
    /// Why there is no BTF, if there is none.
    pub btf_error: Option<String>,
    /// Offsets found; the missing ones are [`NO_OFFSET`].
    pub offsets: Offsets,
    /// What was looked for and not found, in words.
    pub missing: Vec<String>,
    /// Of [`FUNCTIONS`], those that BTF knows.
    pub functions: HashSet<String>,
    /// Of [`TRACEPOINTS`], those that BTF knows, with their parameters.
    pub tracepoints: BTreeMap<String, Vec<Param>>,
    /// The folder with `events/`, if tracefs is mounted.
    pub tracefs: Option<PathBuf>,
}

impl Facts {
    /// Reads everything below `root` (`/` on a live machine).
    #[must_use]
    pub fn read(root: &Path) -> Facts {
        let tracefs = ["sys/kernel/tracing", "sys/kernel/debug/tracing"]
            .iter()
            .map(|folder| root.join(folder))
            .find(|folder| folder.join("events").is_dir());
        let mut facts = Facts {
            btf_error: None,
            offsets: Offsets::NONE,
            missing: Vec::new(),
            functions: HashSet::new(),
            tracepoints: BTreeMap::new(),
            tracefs,
        };
        let path = root.join("sys/kernel/btf/vmlinux");
        let btf = match fs::read(&path)
            .map_err(|error| no_btf(&error))
            .and_then(|data| Btf::parse(data).map_err(|error| error.to_string()))
        {
            Ok(btf) => btf,
            Err(error) => {
                facts.btf_error = Some(error);
                return facts;
            }
        };
        facts.functions = btf.functions(FUNCTIONS.iter().copied());
        facts.tracepoints = TRACEPOINTS
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), btf.tracepoint(name)?)))
            .collect();
        facts.read_offsets(&btf);
        facts
    }

    fn read_offsets(&mut self, btf: &Btf) {
        let missing = &mut self.missing;
        let mut offset = |structure: &str, member: &str| match btf.member(structure, member) {
            Ok(found) => found.offset,
            Err(error) => {
                missing.push(error.to_string());
                NO_OFFSET
            }
        };
        self.offsets = Offsets {
            task_mm: offset("task_struct", "mm"),
            task_tgid: offset("task_struct", "tgid"),
            task_comm: offset("task_struct", "comm"),
            task_signal: offset("task_struct", "signal"),
            task_cgroups: offset("task_struct", "cgroups"),
            mm_total_vm: offset("mm_struct", "total_vm"),
            mm_rss: NO_OFFSET,
            mm_rss_stride: NO_OFFSET,
            mm_pgtables: offset("mm_struct", "pgtables_bytes"),
            signal_oom_score_adj: offset("signal_struct", "oom_score_adj"),
            signal_live: offset("signal_struct", "live"),
            css_set_dfl_cgrp: offset("css_set", "dfl_cgrp"),
            cgroup_kn: offset("cgroup", "kn"),
            cgroup_root: offset("cgroup", "root"),
            root_hierarchy_id: offset("cgroup_root", "hierarchy_id"),
            kn_id: offset("kernfs_node", "id"),
            memcg_css: offset("mem_cgroup", "css"),
            css_cgroup: offset("cgroup_subsys_state", "cgroup"),
            oc_memcg: offset("oom_control", "memcg"),
            oc_chosen: offset("oom_control", "chosen"),
            oc_constraint: offset("oom_control", "constraint"),
            mm_brk: offset("mm_struct", "brk"),
            task_stack: offset("task_struct", "stack"),
            vmf_address: offset("vm_fault", "address"),
            cgroup_memory: NO_OFFSET,
            cgroup_cpu: NO_OFFSET,
            css_usage: NO_OFFSET,
        };
        // Without them nothing is lost; what needs them says so.
        self.offsets.cgroup_memory = btf
            .element(("cgroup", "subsys"), ("cgroup_subsys_id", "memory_cgrp_id"))
            .unwrap_or(NO_OFFSET);
        self.offsets.cgroup_cpu = btf
            .path("cgroup", &["bstat", "cputime", "sum_exec_runtime"])
            .unwrap_or(NO_OFFSET);
        self.offsets.css_usage = btf
            .path("mem_cgroup", &["memory", "usage"])
            .ok()
            .and_then(|usage| usage.checked_sub(self.offsets.memcg_css))
            .unwrap_or(NO_OFFSET);
        match btf.rss_stat() {
            Ok((value, stride)) => {
                (self.offsets.mm_rss, self.offsets.mm_rss_stride) = (value, stride);
            }
            Err(error) => self.missing.push(BtfError::to_string(&error)),
        }
    }

    /// Offset of a field in a classic tracepoint's record, from its format file.
    pub fn record_field(&self, category: &str, event: &str, field: &str) -> Result<u32, String> {
        let tracefs = self.tracefs.as_ref().ok_or("tracefs is not mounted")?;
        let path = tracefs
            .join("events")
            .join(category)
            .join(event)
            .join("format");
        let text =
            fs::read_to_string(&path).map_err(|error| format!("{category}:{event}: {error}"))?;
        field_offset(&text, field).ok_or_else(|| format!("{category}:{event} has no field {field}"))
    }
}

fn no_btf(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "this kernel has no BTF (/sys/kernel/btf/vmlinux; CONFIG_DEBUG_INFO_BTF)".to_owned()
        }
        _ => format!("/sys/kernel/btf/vmlinux: {error}"),
    }
}

/// `field:unsigned long error_code; offset:24; size:8; signed:0;` → 24
fn field_offset(format: &str, field: &str) -> Option<u32> {
    format.lines().find_map(|line| {
        let rest = line.trim_start().strip_prefix("field:")?;
        let (declaration, rest) = rest.split_once(';')?;
        let name = declaration.rsplit([' ', '*']).next()?.split('[').next()?;
        let offset = rest
            .trim_start()
            .strip_prefix("offset:")?
            .split(';')
            .next()?;
        (name == field).then(|| offset.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_in_a_format_file_and_never_by_prefix() {
        let format = "name: mark_victim\nID: 551\nformat:\n\
            \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
            \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
            \tfield:int pid;\toffset:8;\tsize:4;\tsigned:1;\n\
            \tfield:__data_loc char[] comm;\toffset:12;\tsize:4;\tsigned:0;\n";
        assert_eq!(field_offset(format, "pid"), Some(8));
        assert_eq!(field_offset(format, "comm"), Some(12));
        assert_eq!(field_offset(format, "rss"), None);
    }

    #[test]
    fn without_btf_every_offset_is_missing_and_the_reason_is_told() {
        let facts = Facts::read(Path::new("/nonexistent"));
        assert_eq!(facts.offsets, Offsets::NONE);
        assert!(facts.btf_error.unwrap().contains("no BTF"));
    }
}
