//! Builds the kernel object with a pinned toolchain and writes or compares the committed one.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

/// The compiler whose object is committed. Its LLVM major must be bpf-linker's.
const RUST: &str = "1.95.0";
const LLVM: &str = "22";
const LLVM_PREFIX_VAR: &str = "LLVM_SYS_221_PREFIX";
const BPF_LINKER: &str = "0.13.0";
const DEBIAN_PACKAGES: &str = "llvm-22-dev llvm-22 zlib1g-dev libzstd-dev libxml2-dev";
const TARGET: &str = "bpfel-unknown-none";
const OBJECT: &str = "grey-ebpf/object/grey.bpf.o";

/// Builds the object; with `check` fails if the committed one differs in any byte, else replaces it.
pub fn run(check: bool) -> anyhow::Result<()> {
    let root = workspace_root()?;
    let llvm = llvm_prefix()?;
    rust_src()?;
    let tools = bpf_linker(&root, &llvm)?;
    let built = build(&root, &tools)?;
    let fresh = strip(&llvm, &built)?;
    let committed = root.join(OBJECT);
    if check {
        let old = fs::read(&committed)
            .with_context(|| format!("cannot read the committed object {OBJECT}"))?;
        ensure!(
            old == fresh,
            "{OBJECT} ({} bytes) differs from a fresh build ({} bytes); run `cargo xtask build-ebpf` and commit the result",
            old.len(),
            fresh.len()
        );
        println!(
            "{OBJECT}: {} bytes, identical to a fresh build",
            fresh.len()
        );
    } else {
        fs::create_dir_all(committed.parent().context("the object has a folder")?)?;
        let changed = fs::read(&committed).ok().as_deref() != Some(&fresh);
        fs::write(&committed, &fresh).with_context(|| format!("cannot write {OBJECT}"))?;
        println!(
            "{OBJECT}: {} bytes, {}",
            fresh.len(),
            if changed { "written" } else { "unchanged" }
        );
    }
    Ok(())
}

fn workspace_root() -> anyhow::Result<PathBuf> {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    Ok(manifest
        .parent()
        .context("xtask lies in the workspace")?
        .to_owned())
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let shown = format!("{command:?}");
    let output = command
        .output()
        .with_context(|| format!("cannot run {shown}"))?;
    ensure!(
        output.status.success(),
        "{shown} failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn run_command(command: &mut Command) -> anyhow::Result<()> {
    let shown = format!("{command:?}");
    let status = command
        .status()
        .with_context(|| format!("cannot run {shown}"))?;
    ensure!(status.success(), "{shown} failed");
    Ok(())
}

/// Where the distribution puts this LLVM; bpf-linker links against its library.
fn llvm_prefix() -> anyhow::Result<PathBuf> {
    let prefix = env::var_os(LLVM_PREFIX_VAR).map_or_else(
        || PathBuf::from(format!("/usr/lib/llvm-{LLVM}")),
        PathBuf::from,
    );
    ensure!(
        prefix.join("bin/llvm-config").exists() && prefix.join("bin/llvm-objcopy").exists(),
        "LLVM {LLVM} is missing below {}: install it (Debian: apt-get install {DEBIAN_PACKAGES}) or set {LLVM_PREFIX_VAR}",
        prefix.display()
    );
    Ok(prefix)
}

/// `rustc` of the pinned version, through rustup so that the default toolchain may be another one.
fn pinned(tool: &str) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", RUST, tool]);
    // Set by the `cargo run` that we are under; they would win over the toolchain named here.
    for name in [
        "RUSTC",
        "RUSTUP_TOOLCHAIN",
        "CARGO",
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "CARGO_TARGET_DIR",
    ] {
        command.env_remove(name);
    }
    command
}

fn rust_src() -> anyhow::Result<()> {
    let version = output(pinned("rustc").arg("-vV")).with_context(|| {
        format!("the object is reproducible with Rust {RUST} only: install it with `rustup toolchain install {RUST}`")
    })?;
    ensure!(
        version.contains(&format!("LLVM version: {LLVM}.")),
        "rustc {RUST} carries another LLVM than {LLVM}: {version}"
    );
    let sysroot = output(pinned("rustc").args(["--print", "sysroot"]))?;
    if !Path::new(sysroot.trim())
        .join("lib/rustlib/src/rust/library/core")
        .exists()
    {
        run_command(Command::new("rustup").args([
            "component",
            "add",
            "rust-src",
            "--toolchain",
            RUST,
        ]))
        .context("rust-src is missing: install it with `rustup component add rust-src`")?;
    }
    Ok(())
}

/// The folder that holds bpf-linker of the pinned version, built into `target/` if the one on PATH is another.
fn bpf_linker(root: &Path, llvm: &Path) -> anyhow::Result<PathBuf> {
    let right = |program: &Path| {
        output(Command::new(program).arg("--version"))
            .is_ok_and(|version| version.trim().ends_with(&format!(" {BPF_LINKER}")))
    };
    let own = root.join("target/tools");
    if right(&own.join("bin/bpf-linker")) {
        return Ok(own.join("bin"));
    }
    if let Some(paths) = env::var_os("PATH")
        && let Some(folder) =
            env::split_paths(&paths).find(|folder| right(&folder.join("bpf-linker")))
    {
        return Ok(folder);
    }
    eprintln!("building bpf-linker {BPF_LINKER} into target/tools (once, about a minute)");
    let mut path = OsString::from(llvm.join("bin"));
    path.push(":");
    path.push(env::var_os("PATH").unwrap_or_default());
    run_command(
        pinned("cargo")
            .args(["install", &format!("bpf-linker@{BPF_LINKER}"), "--locked", "--no-default-features"])
            .args(["--features", &format!("llvm-{LLVM}"), "--root"])
            .arg(&own)
            .env("PATH", path)
            .env(LLVM_PREFIX_VAR, llvm),
    )
    .with_context(|| format!("bpf-linker {BPF_LINKER} does not build: it needs Debian's {DEBIAN_PACKAGES}, or their like"))?;
    Ok(own.join("bin"))
}

fn build(root: &Path, tools: &Path) -> anyhow::Result<PathBuf> {
    let sysroot = output(pinned("rustc").args(["--print", "sysroot"]))?;
    let registry = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")?;
    // The same bytes whatever the checkout's path: paths end in panic locations and in BTF line info.
    let flags = [
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        "-Ctarget-cpu=v3".to_owned(),
        "-Zlocation-detail=none".to_owned(),
        format!("--remap-path-prefix={}=/grey-ebpf", root.display()),
        format!("--remap-path-prefix={}=/cargo", registry.display()),
        format!("--remap-path-prefix={}=/rust", sysroot.trim()),
    ];
    let mut path = tools.as_os_str().to_owned();
    path.push(":");
    path.push(env::var_os("PATH").unwrap_or_default());
    run_command(
        pinned("cargo")
            .args([
                "build",
                "--release",
                "--locked",
                "--package",
                "grey-ebpf",
                "-Zbuild-std=core",
                "--target",
                TARGET,
            ])
            .arg("--target-dir")
            .arg(root.join("target/ebpf"))
            .current_dir(root)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
            .env("PATH", path),
    )
    .context("the kernel object does not build")?;
    let built = root
        .join("target/ebpf")
        .join(TARGET)
        .join("release/grey-ebpf-kern");
    if !built.exists() {
        bail!("the build left no {}", built.display());
    }
    Ok(built)
}

/// Drops what loading does not need. BTF of the object itself goes too: no relocation uses it, and its line info
/// holds paths of the machine that built it.
fn strip(llvm: &Path, built: &Path) -> anyhow::Result<Vec<u8>> {
    let stripped = built.with_extension("stripped");
    run_command(
        Command::new(llvm.join("bin/llvm-objcopy"))
            .args([
                "--strip-debug",
                "--remove-section=.BTF",
                "--remove-section=.rel.BTF",
            ])
            .args(["--remove-section=.BTF.ext", "--remove-section=.rel.BTF.ext"])
            .arg(built)
            .arg(&stripped),
    )?;
    fs::read(&stripped).with_context(|| format!("cannot read {}", stripped.display()))
}
