//! `cargo xtask bench`: builds the benchmark of costs and the program optimised and runs it.

use std::process::{Command, ExitCode};

use anyhow::{Result, ensure};

pub(crate) fn run(args: &[String]) -> Result<ExitCode> {
    ensure!(
        rustix::process::geteuid().is_root() || args.iter().any(|arg| arg == "--help"),
        "the benchmark attaches eBPF programs: run it as root"
    );
    crate::build_release(&["grey-bench", "grey-user"])?;
    let mut command = Command::new(crate::target().join("release/grey-bench"));
    command.args(args);
    crate::become_program(command)
}
