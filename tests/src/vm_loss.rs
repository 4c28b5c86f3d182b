//! The facts of `loss.rs` on the kernel of a VM, OOM kills among them.

use anyhow::{Result, ensure};

use crate::harness::{Outcome, TempCgroup, Trial, Workload};
use crate::loss;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "vm_loss_is_counted_by_kind_with_a_page_of_ring",
            is_counted_by_kind_with_a_page_of_ring,
        )
        .shown_on(&["5.10", "6.12"]),
        Trial::new(
            "vm_loss_is_none_with_a_large_ring",
            loss::is_none_with_a_large_ring,
        )
        .shown_on(&["5.10", "6.12"]),
    ]
}

fn is_counted_by_kind_with_a_page_of_ring() -> Result<Outcome> {
    let kinds = ["cgroup_made", "cgroup_removed", "process_growth", "oom"];
    loss::page_of_ring(&kinds, || {
        let cgroup = TempCgroup::new("loss-oom")?;
        cgroup.write("memory.max", 4 << 20)?;
        let mut workload = Workload::start(&cgroup)?;
        workload.step("oom-score -1000")?;
        workload.step("oom-storm 3")?;
        ensure!(
            cgroup.stat("memory.events", "oom_kill")? == 3,
            "not 3 kills"
        );
        Ok(())
    })
}
