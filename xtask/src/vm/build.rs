//! Builds the static binaries that go into the guest.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::initramfs::Programs;

const TARGET: &str = "x86_64-unknown-linux-musl";
/// The profile `guest`: optimized, since the guest is emulated, but without the link-time optimization that makes a
/// release slow to build.
const PROFILE: [&str; 4] = [
    r#"profile.guest.inherits="release""#,
    r#"profile.guest.lto="off""#,
    "profile.guest.codegen-units=16",
    "profile.guest.incremental=true",
];

/// The static test binary and the static `grey-ebpf`, built first unless `no_build`.
pub(crate) fn programs(root: &Path, no_build: bool) -> Result<Programs> {
    build(root, no_build, &["grey-tests", "grey-user"])?;
    Ok(Programs {
        tests: built("grey-tests")?,
        grey_ebpf: built("grey-ebpf")?,
    })
}

/// Another static program of the workspace, whose package has its name, built in the same way.
pub(crate) fn program(root: &Path, no_build: bool, name: &str) -> Result<PathBuf> {
    build(root, no_build, &[name])?;
    built(name)
}

fn build(root: &Path, no_build: bool, packages: &[&str]) -> Result<()> {
    if no_build {
        return Ok(());
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--target", TARGET, "--profile", "guest"]);
    for package in packages {
        cargo.args(["-p", package]);
    }
    for setting in PROFILE {
        cargo.args(["--config", setting]);
    }
    cargo.current_dir(root);
    if !cargo.status().context("run cargo")?.success() {
        bail!(
            "the static binaries did not build (if the target is missing: rustup target add {TARGET})"
        );
    }
    Ok(())
}

/// Where cargo has just put it.
fn built(name: &str) -> Result<PathBuf> {
    let path = crate::target().join(TARGET).join("guest").join(name);
    if !path.is_file() {
        bail!("{} is missing: run without --no-build", path.display());
    }
    Ok(path)
}
