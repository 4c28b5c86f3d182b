//! Which kernels there are to test on, and where a bootable image and its modules come from.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use super::apt::{Archive, Package, Suite};

/// A kernel of the matrix. The package is a meta-package, since the versions behind it move.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kernel {
    pub(crate) name: &'static str,
    package: &'static str,
    suites: &'static [Suite],
}

/// The kernel without which a test run means nothing.
pub(crate) const REQUIRED: &str = "6.12";

const BOOKWORM: &[Suite] = &[
    Suite::main("bookworm"),
    Suite::security("bookworm-security"),
];

/// Oldest first; docs/kernels.md says why these.
pub(crate) const KERNELS: [Kernel; 4] = [
    Kernel {
        name: "5.10",
        package: "linux-image-cloud-amd64",
        suites: &[
            Suite::main("bullseye"),
            Suite::security("bullseye-security"),
        ],
    },
    Kernel {
        name: "6.1",
        package: "linux-image-cloud-amd64",
        suites: BOOKWORM,
    },
    Kernel {
        name: "6.12",
        package: "linux-image-6.12-cloud-amd64",
        suites: BOOKWORM,
    },
    Kernel {
        name: "7.2",
        package: "linux-image-cloud-amd64",
        suites: &[Suite::main("sid")],
    },
];

/// A kernel that can be booted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Bootable {
    pub(crate) image: PathBuf,
    /// The directory that has `kernel/`, if there are modules.
    pub(crate) modules: Option<PathBuf>,
    /// What it came from, for the report.
    pub(crate) origin: String,
}

impl Kernel {
    pub(crate) fn find(name: &str) -> Result<Self> {
        let names = KERNELS.map(|kernel| kernel.name).join(", ");
        KERNELS
            .into_iter()
            .find(|kernel| kernel.name == name)
            .with_context(|| format!("no kernel {name} in the matrix; there are {names}"))
    }

    /// The image of this kernel: one that the user provides, the cached one, or a fresh download.
    pub(crate) fn obtain(self, cache: &Path, refresh: bool) -> Result<Bootable> {
        if let Some(provided) = self.provided()? {
            return Ok(provided);
        }
        let record = cache.join(self.name).join("kernel.json");
        let cached = fs::read(&record)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Bootable>(&bytes).ok())
            .filter(|bootable| bootable.image.exists());
        if let (Some(bootable), false) = (&cached, refresh) {
            return Ok(bootable.clone());
        }
        match self.download(cache) {
            Ok(bootable) => {
                fs::create_dir_all(cache.join(self.name))
                    .context("create the kernel's directory")?;
                fs::write(&record, serde_json::to_vec_pretty(&bootable)?)
                    .context("record the kernel")?;
                Ok(bootable)
            }
            Err(error) => match cached {
                Some(bootable) => {
                    eprintln!(
                        "kernel {}: using the cached {}: {error:#}",
                        self.name, bootable.origin
                    );
                    Ok(bootable)
                }
                None => Err(error),
            },
        }
    }

    /// `GREY_VM_KERNEL_6_12=/path/vmlinuz` and `GREY_VM_MODULES_6_12=/lib/modules/…`.
    fn provided(self) -> Result<Option<Bootable>> {
        let suffix = self.name.replace('.', "_");
        let Some(image) = std::env::var_os(format!("GREY_VM_KERNEL_{suffix}")) else {
            return Ok(None);
        };
        let modules = std::env::var_os(format!("GREY_VM_MODULES_{suffix}")).map(PathBuf::from);
        provided(image.into(), modules).map(Some)
    }

    fn download(self, cache: &Path) -> Result<Bootable> {
        let suffix = self.name.replace('.', "_");
        let archive = Archive::open(&cache.join("apt").join(self.name), self.suites).map_err(|error| {
            anyhow!(
                "{error:#}; or provide the kernel with GREY_VM_KERNEL_{suffix}=/path/vmlinuz and \
                 GREY_VM_MODULES_{suffix}=/lib/modules/VERSION"
            )
        })?;
        let mut failure = None;
        // The index of an old suite may name a version whose file has left the mirror, beside one that is there.
        for meta in archive.versions(self.package)? {
            if !meta.version.starts_with(&format!("{}.", self.name)) {
                failure
                    .get_or_insert_with(|| anyhow!("{} is at {} now", self.package, meta.version));
                continue;
            }
            match self.unpack(&archive, &meta, cache) {
                Ok(bootable) => return Ok(bootable),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        Err(failure.unwrap_or_else(|| anyhow!("no suite has {}", self.package)))
    }

    fn unpack(self, archive: &Archive, meta: &Package, cache: &Path) -> Result<Bootable> {
        let packages = archive.dependencies(meta, |name| {
            ["linux-image-", "linux-binary-", "linux-modules-"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
        })?;
        let mut image = None;
        let mut modules = None;
        for package in &packages {
            let tree = archive.unpack(package, &cache.join("packages"))?;
            image = image.or(find_image(&tree));
            modules = modules.or(find_modules(&tree));
        }
        Ok(Bootable {
            image: image.with_context(|| format!("no vmlinuz in the packages of {}", meta.name))?,
            modules,
            origin: format!("Debian {}", meta.version),
        })
    }
}

/// A kernel that the user named by its files.
pub(crate) fn provided(image: PathBuf, modules: Option<PathBuf>) -> Result<Bootable> {
    if !image.is_file() {
        bail!("no kernel image at {}", image.display());
    }
    let origin = image.display().to_string();
    Ok(Bootable {
        image,
        modules,
        origin,
    })
}

/// `boot/vmlinuz-VERSION`, or since Debian 14 `usr/lib/modules/VERSION/vmlinuz`.
fn find_image(tree: &Path) -> Option<PathBuf> {
    let boot = entries(&tree.join("boot")).find(|path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))
    });
    let beside_modules = || {
        entries(&tree.join("usr/lib/modules"))
            .map(|directory| directory.join("vmlinuz"))
            .find(|path| path.is_file())
    };
    boot.or_else(beside_modules)
}

fn find_modules(tree: &Path) -> Option<PathBuf> {
    ["lib/modules", "usr/lib/modules"]
        .iter()
        .flat_map(|place| entries(&tree.join(place)))
        .find(|directory| {
            directory.join("kernel/mm").is_dir() || directory.join("kernel/drivers").is_dir()
        })
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
}
