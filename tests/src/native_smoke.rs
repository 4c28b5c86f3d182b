//! Whether the harness works on the machine itself, where it only observes.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::harness::{Outcome, Trial, Workload, cgroup_root, grey_ebpf, run};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "native_workload_answers_each_step",
            workload_answers_each_step,
        ),
        Trial::new(
            "native_grey_ebpf_says_its_version",
            grey_ebpf_says_its_version,
        ),
        Trial::new(
            "native_machine_has_a_v2_hierarchy",
            machine_has_a_v2_hierarchy,
        ),
    ]
}

fn workload_answers_each_step() -> Result<Outcome> {
    let mut workload = Workload::start_here()?;
    workload.step("touch 10")?;
    workload.step("unmap")?;
    ensure!(workload.step("unmap").is_err(), "nothing is left to unmap");
    ensure!(
        workload.step(&format!("map {}", usize::MAX >> 1)).is_err(),
        "an impossible mapping succeeded"
    );
    ensure!(
        workload.step("fork-touch 10")?.ends_with("exit 0"),
        "the child failed"
    );
    workload.send("exit 3")?;
    ensure!(
        workload.wait(Duration::from_secs(10))?.code() == Some(3),
        "another exit code"
    );
    Ok(Outcome::Passed)
}

fn grey_ebpf_says_its_version() -> Result<Outcome> {
    let finished = run(&["--version"], Duration::from_secs(10))?;
    ensure!(
        finished.code() == Some(0),
        "{} --version: {finished:?}",
        grey_ebpf().display()
    );
    ensure!(
        finished.stdout.starts_with("grey-ebpf "),
        "{}",
        finished.stdout
    );
    Ok(Outcome::Passed)
}

fn machine_has_a_v2_hierarchy() -> Result<Outcome> {
    match cgroup_root() {
        Ok(_) => Ok(Outcome::Passed),
        Err(error) => Outcome::skipped(format!("{error:#}")),
    }
}
