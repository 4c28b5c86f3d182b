//! `cargo xtask eval`: builds the benchmark of leak detection optimised and runs it.

use std::process::{Command, ExitCode};

use anyhow::Result;

pub(crate) fn run(args: &[String]) -> Result<ExitCode> {
    crate::build_release(&["grey-eval"])?;
    let mut command = Command::new(crate::target().join("release/grey-eval"));
    command.args(args);
    crate::become_program(command)
}
