//! `cargo xtask release-agent`: builds the library that is loaded into programs, and sees that it can be loaded anywhere.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// What it may leave to the program that it is loaded into: every libc has these, of any age.
const LEFT_TO_THE_PROGRAM: [&str; 8] = [
    "__cxa_finalize",
    "__gmon_start__",
    "_ITM_deregisterTMCloneTable",
    "_ITM_registerTMCloneTable",
    "dlsym",
    "memcpy",
    "memset",
    "strlen",
];

/// Builds it and says where it is.
pub(crate) fn run() -> Result<()> {
    println!("{}", build(&crate::workspace())?.display());
    Ok(())
}

/// Builds it: without std and without libc, as the program that it is loaded into may have any.
pub(crate) fn build(root: &Path) -> Result<PathBuf> {
    let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "rustc",
            "--quiet",
            "-p",
            "grey-release",
            "--profile",
            "agent",
        ])
        .args([
            "--crate-type",
            "cdylib",
            "--",
            "-C",
            "link-arg=-nodefaultlibs",
        ])
        .current_dir(root)
        .status()
        .context("run cargo")?;
    ensure!(built.success(), "grey-release did not build");
    let library = crate::target().join("agent/libgrey_release.so");
    loads_anywhere(&library)?;
    Ok(library)
}

/// It needs no other library, and no symbol that some libc does not have.
fn loads_anywhere(library: &Path) -> Result<()> {
    // readelf comes with the linker.
    let output = Command::new("readelf")
        .args(["--wide", "--dynamic", "--dyn-syms"])
        .arg(library)
        .output()
        .context("run readelf")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && text.contains("INIT_ARRAY"),
        "readelf: {text}"
    );
    ensure!(
        !text.contains("(NEEDED)"),
        "{}: needs a library:\n{text}",
        library.display()
    );
    for line in text.lines().filter(|line| line.contains(" UND ")) {
        let name = line.split_whitespace().nth(7).unwrap_or_default();
        ensure!(
            name.is_empty() || LEFT_TO_THE_PROGRAM.contains(&name),
            "{}: needs {name}, which not every program has",
            library.display()
        );
    }
    Ok(())
}
