//! Real programs for the guest (systemd, Redis, Python, Node, Java): Debian's packages on a read-only disk image, so that
//! the initramfs stays small.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::apt::{Archive, Package, Suite};

/// One suite for all kernels: the programs bring their own libraries, and bookworm's C library asks for Linux 3.2.
const SUITES: &[Suite] = &[
    Suite::main("bookworm"),
    Suite::security("bookworm-security"),
];

/// Libraries that only parts we never run would load.
const LEFT_OUT: [&str; 12] = [
    "libasound2",
    "libcups2",
    "libdebconfclient0",
    "libfontconfig1",
    "libfreetype6",
    "libharfbuzz0b",
    "libjpeg62-turbo",
    "liblcms2-2",
    "libnss3",
    "libpcsclite1",
    "libpam-systemd",
    "libpython3.11-stdlib",
];

/// Which programs are on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Userland {
    /// What live tests run beside a leak.
    Tests,
    /// What series are recorded from.
    Recordings,
}

/// The disk image and what is on it, beside it in a file of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Disk {
    pub(crate) image: PathBuf,
    /// Packages and versions, libraries included.
    pub(crate) packages: Vec<(String, String)>,
    wanted: Vec<String>,
}

impl Userland {
    const fn name(self) -> &'static str {
        match self {
            Self::Tests => "tests",
            Self::Recordings => "recordings",
        }
    }

    const fn wanted(self) -> &'static [&'static str] {
        match self {
            Self::Tests => &["crun", "redis-server", "python3.11-minimal", "systemd"],
            Self::Recordings => &[
                "redis-server",
                "python3.11-minimal",
                "nodejs",
                "openjdk-17-jre-headless",
            ],
        }
    }

    /// The image in `cache`, made if it is not there. The caller holds the cache's lock.
    pub(crate) fn obtain(self, cache: &Path, refresh: bool) -> Result<Disk> {
        let record = cache.join(format!("userland-{}.json", self.name()));
        let cached = fs::read(&record)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Disk>(&bytes).ok())
            .filter(|disk| disk.image.exists() && disk.wanted == self.wanted());
        if let (Some(disk), false) = (&cached, refresh) {
            return Ok(disk.clone());
        }
        match self.make(cache) {
            Ok(disk) => {
                fs::write(&record, serde_json::to_vec_pretty(&disk)?)
                    .context("record the programs")?;
                Ok(disk)
            }
            Err(error) => match cached {
                Some(disk) => {
                    eprintln!("programs for the guest: using the cached ones: {error:#}");
                    Ok(disk)
                }
                None => Err(error),
            },
        }
    }

    fn make(self, cache: &Path) -> Result<Disk> {
        let archive = Archive::open(&cache.join("apt").join("userland"), SUITES)?;
        let mut packages: Vec<Package> = Vec::new();
        for name in self.wanted() {
            let root = archive
                .versions(name)?
                .into_iter()
                .next()
                .with_context(|| format!("no suite has {name}"))?;
            let needed = archive.dependencies(&root, is_needed)?;
            for package in std::iter::once(root).chain(needed) {
                if packages.iter().all(|known| known.name != package.name) {
                    packages.push(package);
                }
            }
        }
        let staging = cache.join(format!(".userland-{}", std::process::id()));
        fs::create_dir_all(&staging).context("create a directory for the programs")?;
        let image = cache.join(format!("userland-{}.ext4", self.name()));
        let made = packages
            .iter()
            .try_for_each(|package| {
                let tree = archive.unpack(package, &cache.join("packages"))?;
                // Links, not copies: the trees are only read.
                succeed(
                    Command::new("cp")
                        .arg("-al")
                        .arg(tree.join("."))
                        .arg(&staging),
                )
            })
            .and_then(|()| make_file_system(&staging, &image));
        let _ = fs::remove_dir_all(&staging);
        made.context("make the guest's disk")?;
        Ok(Disk {
            image,
            packages: packages
                .into_iter()
                .map(|package| (package.name, package.version))
                .collect(),
            wanted: self
                .wanted()
                .iter()
                .map(|name| (*name).to_owned())
                .collect(),
        })
    }
}

/// Whether a dependency is needed to run, and not only to be installed.
fn is_needed(name: &str) -> bool {
    let parts = ["redis-tools", "lua-bitop", "lua-cjson", "zlib1g"];
    let node = [
        "node-acorn",
        "node-cjs-module-lexer",
        "node-undici",
        "node-busboy",
    ];
    let library = name.starts_with("lib") && !LEFT_OUT.contains(&name);
    library || parts.contains(&name) || node.contains(&name)
}

/// An ext4 file system with the files of `tree`; every kernel of the matrix has ext4 built in.
pub(super) fn make_file_system(tree: &Path, image: &Path) -> Result<()> {
    let bytes = size(tree)?;
    // Room for inodes and the rounding of small files to blocks.
    let mib = (bytes + bytes / 5) / (1 << 20) + 16;
    let partial = image.with_extension("partial");
    // sbin is on root's PATH only.
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let _ = fs::remove_file(&partial);
    succeed(
        Command::new("mke2fs")
            .env("PATH", path)
            .args([
                "-q",
                "-F",
                "-t",
                "ext4",
                "-O",
                "^has_journal",
                "-m",
                "0",
                "-d",
            ])
            .arg(tree)
            .arg(&partial)
            .arg(format!("{mib}M")),
    )?;
    fs::rename(&partial, image).with_context(|| format!("move {}", image.display()))
}

fn size(path: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(path).with_context(|| format!("list {}", path.display()))? {
        let entry = entry.context("list the programs")?;
        let metadata = entry.metadata().context("look at a program's file")?;
        bytes += if metadata.is_dir() {
            4096 + size(&entry.path())?
        } else {
            metadata.len().next_multiple_of(4096)
        };
    }
    Ok(bytes)
}

fn succeed(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("run {program} (package e2fsprogs has mke2fs)"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{program}: {}",
            stderr.lines().last().unwrap_or("no message")
        );
    }
    Ok(())
}
