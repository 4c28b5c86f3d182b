//! `cargo xtask watch`: builds the program and runs `watch` with the privileges it wants.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Result;

pub(crate) fn run(args: &[String]) -> Result<ExitCode> {
    crate::build_release(&["grey-user"])?;
    let program = crate::target().join("release/grey-ebpf");
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new(&program)
    } else if on_path("sudo") {
        let mut sudo = Command::new("sudo");
        sudo.arg(&program);
        sudo
    } else {
        eprintln!("not root and no sudo: watch goes on without kernel events");
        Command::new(&program)
    };
    command.arg("watch").args(args);
    crate::become_program(command)
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .iter()
        .flat_map(std::env::split_paths)
        .any(|directory| {
            let path: &Path = &directory.join(program);
            path.is_file()
        })
}
