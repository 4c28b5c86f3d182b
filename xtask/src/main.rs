//! `cargo xtask`: builds the kernel object, runs the program, tests it on real kernels.

mod build_ebpf;
mod eval;
mod kernel_table;
mod record_traces;
mod release_agent;
mod test;
mod vm;
mod vm_command;
mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask", about, version)]
enum Task {
    /// Build the kernel object and write the committed one
    BuildEbpf {
        /// Fail if the committed object differs from a fresh build instead of writing it
        #[arg(long)]
        check: bool,
    },
    /// Build grey-ebpf and run `grey-ebpf watch`, as root where needed
    Watch {
        /// Arguments of `watch`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Build the release agent, the library that `enforce trim` speaks to, and say where it is
    ReleaseAgent,
    /// Run all tests: unit, native, and in VMs on each kernel
    Test(test::Args),
    /// Boot a test VM: run the VM tests in it, or a shell command
    Vm(vm_command::Args),
    /// Score leak detection and the baselines on the benchmark
    #[command(disable_help_flag = true)]
    Eval {
        /// Arguments of the evaluation; `--help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Record real programs in a VM for the benchmark of leak detectors
    RecordTraces(record_traces::Args),
    /// Write the tables of what works on which kernel, from VM runs
    KernelTable(kernel_table::Args),
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::BuildEbpf { check } => build_ebpf::run(check).map(|()| ExitCode::SUCCESS),
        Task::Watch { args } => watch::run(&args),
        Task::ReleaseAgent => release_agent::run().map(|()| ExitCode::SUCCESS),
        Task::Test(args) => test::run(&args),
        Task::Vm(args) => vm_command::run(&args),
        Task::Eval { args } => eval::run(&args),
        Task::RecordTraces(args) => record_traces::run(&args),
        Task::KernelTable(args) => kernel_table::run(&args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}

/// The directory of the workspace.
fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}
