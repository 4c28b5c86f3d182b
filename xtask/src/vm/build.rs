//! Builds the static binaries that go into the guest.

use std::path::Path;
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
    if !no_build {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--target", TARGET, "--profile", "guest"]);
        cargo
            .args(["-p", "grey-tests", "-p", "grey-user"])
            .current_dir(root);
        for setting in PROFILE {
            cargo.args(["--config", setting]);
        }
        if !cargo.status().context("run cargo")?.success() {
            bail!(
                "the static test binaries did not build (if the target is missing: rustup target add {TARGET})"
            );
        }
    }
    // Where cargo has just put them.
    let directory = crate::target().join(TARGET).join("guest");
    let programs = Programs {
        tests: directory.join("grey-tests"),
        grey_ebpf: directory.join("grey-ebpf"),
    };
    for path in [&programs.tests, &programs.grey_ebpf] {
        if !path.is_file() {
            bail!("{} is missing: run without --no-build", path.display());
        }
    }
    Ok(programs)
}
