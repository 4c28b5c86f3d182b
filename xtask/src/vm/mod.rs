//! Real kernels for the tests: Debian's packages, an initramfs of our own making, QEMU, and what the guest reports.

mod apt;
mod build;
mod initramfs;
mod kernel;
mod modules;
mod qemu;
mod results;
mod run;

use std::path::PathBuf;

pub(crate) use self::{
    kernel::{KERNELS, REQUIRED},
    results::{Outcome, Piece, Record, TestResult},
    run::{Machines, Payload, VmRun, seconds},
};

/// What `cargo xtask vm` and `cargo xtask test` have in common.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct VmOptions {
    /// Use the test binaries as they are, without building them
    #[arg(long)]
    pub(crate) no_build: bool,
    /// Look for newer kernel packages, also where some are cached
    #[arg(long)]
    pub(crate) refresh: bool,
    /// Print the guest's console as well
    #[arg(long)]
    pub(crate) keep_console: bool,
    /// Boot this kernel image instead of a Debian package
    #[arg(long, value_name = "PATH")]
    pub(crate) kernel_image: Option<PathBuf>,
    /// The modules of --kernel-image: a directory such as /lib/modules/VERSION
    #[arg(long, value_name = "DIR", requires = "kernel_image")]
    pub(crate) modules: Option<PathBuf>,
}
