//! Which kernel modules the tests need, and the order to load them in.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Modules by name; one that a kernel has built in, or does not have, is left out.
/// The compressors come before zram, which looks for them when its device is set up and names no dependency on them.
const WANTED: [&str; 10] = [
    "zsmalloc",
    "lzo-rle",
    "lz4",
    "lz4hc",
    "zstd",
    "zram",
    "virtio_pci",
    "virtio_balloon",
    "virtio_blk",
    "virtio_console",
];

/// A module as the guest loads it: decompressed.
#[derive(Debug, Clone)]
pub(crate) struct Module {
    pub(crate) name: String,
    pub(crate) image: Vec<u8>,
}

/// The wanted modules below `directory` with all they depend on, in the order to load them.
pub(crate) fn load_order(directory: &Path) -> Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    find(&directory.join("kernel"), &mut files)?;
    let mut order = Vec::new();
    let mut done = BTreeSet::new();
    for name in WANTED {
        visit(&canonical(name), &files, &mut done, &mut order)?;
    }
    Ok(order)
}

fn visit(
    name: &str,
    files: &BTreeMap<String, PathBuf>,
    done: &mut BTreeSet<String>,
    order: &mut Vec<Module>,
) -> Result<()> {
    if !done.insert(name.to_owned()) {
        return Ok(());
    }
    let Some(path) = files.get(name) else {
        return Ok(());
    };
    let image = decompress(path)?;
    // The packages carry no modules.dep (depmod writes it at installation); the modules themselves name theirs.
    for dependency in depends(&image) {
        visit(&canonical(&dependency), files, done, order)?;
    }
    order.push(Module {
        name: name.to_owned(),
        image,
    });
    Ok(())
}

/// The kernel takes `-` and `_` in module names for the same.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

fn find(directory: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    for entry in entries {
        let path = entry.context("list the modules")?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else if let Some((stem, _)) = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.split_once(".ko"))
        {
            files.insert(canonical(stem), path);
        }
    }
    Ok(())
}

fn decompress(path: &Path) -> Result<Vec<u8>> {
    let tool = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(path).with_context(|| format!("read {}", path.display())),
    };
    let output = Command::new(tool)
        .arg("-dc")
        .arg(path)
        .output()
        .with_context(|| format!("decompress {}: is {tool} installed?", path.display()))?;
    if !output.status.success() {
        bail!("{tool} cannot decompress {}", path.display());
    }
    Ok(output.stdout)
}

/// The `depends=` entry of a module's .modinfo section, which is a list of NUL-terminated strings.
fn depends(image: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = image.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = image[at + KEY.len()..]
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default();
    String::from_utf8_lossy(value)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_come_from_modinfo() {
        let image = b"\x7fELF..license=GPL\0depends=zsmalloc,lz4-compress\0retpoline=Y\0";
        assert_eq!(depends(image), ["zsmalloc", "lz4-compress"]);
        assert!(depends(b"license=GPL\0depends=\0").is_empty());
        assert!(depends(b"nothing").is_empty());
    }

    #[test]
    fn dependencies_are_loaded_first_and_once() {
        let directory = std::env::temp_dir().join(format!("xtask-modules-{}", std::process::id()));
        let kernel = directory.join("kernel/sub");
        fs::create_dir_all(&kernel).unwrap();
        fs::write(
            directory.join("kernel/zram.ko"),
            b"\0depends=zsmalloc,extra\0",
        )
        .unwrap();
        fs::write(kernel.join("zsmalloc.ko"), b"\0depends=\0").unwrap();
        fs::write(kernel.join("extra.ko"), b"\0depends=zsmalloc\0").unwrap();
        let names: Vec<_> = load_order(&directory)
            .unwrap()
            .into_iter()
            .map(|module| module.name)
            .collect();
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(names, ["zsmalloc", "extra", "zram"]);
    }
}
