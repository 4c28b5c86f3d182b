//! Real kernels for the tests: Debian's packages, an initramfs of our own making, QEMU, and what the guest reports.

mod apt;
mod build;
mod files;
mod initramfs;
mod kernel;
mod modules;
mod programs;
mod qemu;
mod resident;
mod results;
mod run;
mod scratch;
mod sources;
mod userland;

use std::path::PathBuf;

use anyhow::Result;

pub(crate) use self::{
    kernel::REQUIRED,
    results::{Outcome, Piece, Record, Splitter, TestResult},
    run::{Machines, Payload, seconds},
    userland::Userland,
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

impl VmOptions {
    /// The names of the kernels to run on: those asked for, each of which must be in the matrix, else `otherwise`.
    pub(crate) fn kernels(
        &self,
        asked: &[String],
        otherwise: &[&'static str],
    ) -> Result<Vec<String>> {
        if self.kernel_image.is_some() {
            return Ok(vec!["provided".to_owned()]);
        }
        if asked.is_empty() {
            return Ok(otherwise.iter().map(|name| (*name).to_owned()).collect());
        }
        asked
            .iter()
            .map(|name| Ok(kernel::Kernel::find(name)?.name.to_owned()))
            .collect()
    }
}

/// The names of the whole matrix, oldest first.
pub(crate) fn matrix() -> Vec<&'static str> {
    kernel::KERNELS.iter().map(|kernel| kernel.name).collect()
}
