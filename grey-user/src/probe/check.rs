//! Whether a hook of the plan can be used on this kernel: rules over [`Facts`].

use grey_common::{NO_OFFSET, SYS_ENTER_ARGS_OFFSET, SYS_EXIT_RET_OFFSET};

use super::btf::Param;
use super::facts::Facts;
use super::plan::{Hook, Shape};

/// Offsets in records that programs read; [`NO_OFFSET`] where the format does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordOffsets {
    /// `exceptions:page_fault_user` error_code
    pub fault_error: u32,
    /// `oom:mark_victim` pid
    pub victim_pid: u32,
    /// `vmscan:mm_vmscan_*_reclaim_end` nr_reclaimed
    pub reclaimed: u32,
}

impl RecordOffsets {
    /// From the format files.
    #[must_use]
    pub fn read(facts: &Facts) -> RecordOffsets {
        let field = |category, event, name| {
            facts
                .record_field(category, event, name)
                .unwrap_or(NO_OFFSET)
        };
        RecordOffsets {
            fault_error: field("exceptions", "page_fault_user", "error_code"),
            victim_pid: field("oom", "mark_victim", "pid"),
            reclaimed: field("vmscan", "mm_vmscan_direct_reclaim_end", "nr_reclaimed"),
        }
    }
}

/// Why a hook cannot be used on this kernel, known before anything is loaded.
pub fn check(facts: &Facts, hook: Hook) -> Result<(), String> {
    let need_btf = || facts.btf_error.clone().map_or(Ok(()), Err);
    match hook {
        Hook::Btf(name, shapes) => {
            need_btf()?;
            let params = facts
                .tracepoints
                .get(name)
                .ok_or_else(|| format!("this kernel has no BTF tracepoint {name}"))?;
            for (n, shape) in shapes.iter().enumerate() {
                let fits = match (shape, params.get(n)) {
                    (_, None) => false,
                    (Shape::Any, Some(_)) => true,
                    (Shape::Int, Some(param)) => *param == Param::Int,
                    (Shape::Struct(name), Some(param)) => {
                        *param == Param::Pointer((*name).to_owned())
                    }
                };
                if !fits {
                    return Err(format!(
                        "argument {n} of {name} is not what the program reads ({:?})",
                        params.get(n)
                    ));
                }
            }
            Ok(())
        }
        Hook::Fentry(function) | Hook::Fexit(function) => {
            need_btf()?;
            if facts.functions.contains(function) {
                Ok(())
            } else {
                Err(format!("BTF knows no function {function}"))
            }
        }
        Hook::Kprobe(_) | Hook::Kretprobe(_) => Ok(()),
        Hook::Record(category, event) => check_record(facts, category, event),
        Hook::Iter(object) => {
            need_btf()?;
            let function = format!("bpf_iter_{object}");
            if !facts.functions.contains(&function) {
                return Err("this kernel has no BPF iterator over cgroups (Linux 6.1)".to_owned());
            }
            let offsets = &facts.offsets;
            let needed = [
                offsets.cgroup_memory,
                offsets.cgroup_cpu,
                offsets.css_usage,
                offsets.cgroup_kn,
                offsets.kn_id,
            ];
            if needed.contains(&NO_OFFSET) {
                return Err(
                    "BTF does not say where a cgroup keeps its memory and CPU time".to_owned(),
                );
            }
            Ok(())
        }
    }
}

fn check_record(facts: &Facts, category: &str, event: &str) -> Result<(), String> {
    let expect = |field: &str, offset: usize| match facts.record_field(category, event, field) {
        Ok(found) if found as usize == offset => Ok(()),
        Ok(found) => Err(format!(
            "{category}:{event} keeps {field} at {found} and not at {offset}"
        )),
        Err(error) => Err(error),
    };
    match event {
        "page_fault_user" => facts.record_field(category, event, "error_code").map(drop),
        "mark_victim" => facts.record_field(category, event, "pid").map(drop),
        "mm_vmscan_direct_reclaim_end" | "mm_vmscan_memcg_reclaim_end" => {
            let found = facts.record_field(category, event, "nr_reclaimed")?;
            // Both events are of one class, and one setting serves both programs.
            if found == RecordOffsets::read(facts).reclaimed {
                Ok(())
            } else {
                Err(format!("{category}:{event} keeps nr_reclaimed at {found}"))
            }
        }
        _ if category == "syscalls" && event.starts_with("sys_exit_") => {
            expect("ret", SYS_EXIT_RET_OFFSET)
        }
        _ if category == "syscalls" => {
            // brk is looked at by its effect, so its arguments need not be where the others' are.
            let first = match event {
                "sys_enter_munmap" | "sys_enter_mmap" | "sys_enter_mremap" => Some("addr"),
                "sys_enter_madvise" => Some("start"),
                _ => None,
            };
            match first {
                Some(field) => expect(field, SYS_ENTER_ARGS_OFFSET),
                None => expect("__syscall_nr", SYS_ENTER_ARGS_OFFSET - 8),
            }
        }
        _ => facts.record_field(category, event, "common_pid").map(drop),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_tracepoint_with_other_arguments_is_refused_before_it_is_loaded() {
        let mut facts = Facts::read(Path::new("/nonexistent"));
        facts.btf_error = None;
        facts
            .tracepoints
            .insert("mark_victim".into(), vec![Param::Int]);
        assert!(check(&facts, Hook::Btf("mark_victim", &[Shape::Int])).is_ok());
        assert!(
            check(
                &facts,
                Hook::Btf("mark_victim", &[Shape::Struct("task_struct")])
            )
            .is_err()
        );
        assert!(
            check(&facts, Hook::Btf("nothing", &[]))
                .unwrap_err()
                .contains("no BTF tracepoint nothing")
        );
    }

    #[test]
    fn without_btf_the_reason_is_the_missing_btf() {
        let facts = Facts::read(Path::new("/nonexistent"));
        assert!(
            check(&facts, Hook::Fentry("out_of_memory"))
                .unwrap_err()
                .contains("no BTF")
        );
        assert!(
            check(&facts, Hook::Record("oom", "mark_victim"))
                .unwrap_err()
                .contains("tracefs")
        );
    }
}
