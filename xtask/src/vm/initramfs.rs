//! The initramfs: a gzip'd `newc` cpio archive (Documentation/driver-api/early-userspace/buffer-format.rst),
//! written here so that no cpio program is needed.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use flate2::{Compression, write::GzEncoder};

use super::modules::Module;
use super::programs::Extras;
use super::run::Payload;

const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const PLAIN: u32 = 0o100_644;
const SYMLINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// What goes into the guest besides modules.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// The test binary: PID 1.
    pub(crate) tests: PathBuf,
    pub(crate) grey_ebpf: PathBuf,
}

/// Writes the initramfs for one run to `target`.
pub(crate) fn write(
    target: &Path,
    programs: &Programs,
    extras: &Extras,
    modules: &[Module],
    payload: &Payload,
) -> Result<()> {
    let mut archive = Archive::default();
    for directory in [
        "bin", "sbin", "usr", "usr/bin", "usr/sbin", "dev", "proc", "sys", "tmp", "run", "root",
        "etc", "grey", "modules", "debian", "programs",
    ] {
        archive.directory(directory);
    }
    // Where the disk with real programs is mounted, their loader and libraries are where they look for them.
    for (path, target) in [
        ("lib", "debian/lib"),
        ("lib64", "debian/lib64"),
        ("usr/lib", "../debian/usr/lib"),
        ("usr/share", "../debian/usr/share"),
        ("etc/java-17-openjdk", "../debian/etc/java-17-openjdk"),
    ] {
        archive.link(path, target);
    }
    for (name, contents) in extras.files()? {
        archive.file(&format!("programs/{name}"), EXECUTABLE, &contents);
    }
    archive.file("grey/missing", PLAIN, extras.missing().as_bytes());
    // The kernel opens it for PID 1 before anything is mounted.
    archive.console("dev/console");
    archive.executable("init", &programs.tests)?;
    archive.link("bin/grey-tests", "/init");
    archive.executable("bin/grey-ebpf", &programs.grey_ebpf)?;
    let busybox = busybox()?;
    archive.executable("bin/busybox", &busybox)?;
    for applet in applets(&busybox)? {
        archive.link(&format!("bin/{applet}"), "busybox");
    }
    archive.file("etc/passwd", PLAIN, b"root:x:0:0:root:/root:/bin/sh\n");
    archive.file("etc/group", PLAIN, b"root:x:0:\n");
    let mut list = String::new();
    for module in modules {
        let path = format!("modules/{}.ko", module.name);
        archive.file(&path, PLAIN, &module.image);
        list.push_str(&format!("/{path}\n"));
    }
    archive.file("grey/modules", PLAIN, list.as_bytes());
    let (path, text) = match payload {
        Payload::Command(command) => ("grey/command", format!("{command}\n")),
        Payload::Tests(args) => ("grey/args", args.join("\n")),
    };
    archive.file(path, PLAIN, text.as_bytes());
    let file = fs::File::create(target).with_context(|| format!("create {}", target.display()))?;
    let mut gzip = GzEncoder::new(file, Compression::fast());
    gzip.write_all(&archive.finish())
        .context("write the initramfs")?;
    gzip.finish().context("finish the initramfs")?;
    Ok(())
}

/// A statically linked busybox, since the guest has no libraries.
fn busybox() -> Result<PathBuf> {
    std::env::var_os("PATH")
        .iter()
        .flat_map(std::env::split_paths)
        .map(|directory| directory.join("busybox"))
        .find(|path| path.is_file() && is_static(path))
        .context("there is no static busybox on PATH: install busybox-static")
}

/// Whether an ELF file names no interpreter (no PT_INTERP program header).
fn is_static(path: &Path) -> bool {
    const PT_INTERP: u32 = 3;
    let Ok(file) = fs::File::open(path) else {
        return false;
    };
    let mut header = [0; 64];
    if file.read_exact_at(&mut header, 0).is_err() || !header.starts_with(b"\x7fELF\x02\x01") {
        return false;
    }
    let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let mut offset = [0; 8];
    offset.copy_from_slice(&header[32..40]);
    let (start, size, count) = (u64::from_le_bytes(offset), half(54), half(56));
    (0..count).all(|index| {
        let mut kind = [0; 4];
        let at = start + u64::from(index) * u64::from(size);
        file.read_exact_at(&mut kind, at).is_ok() && u32::from_le_bytes(kind) != PT_INTERP
    })
}

fn applets(busybox: &Path) -> Result<Vec<String>> {
    let output = Command::new(busybox)
        .arg("--list")
        .output()
        .context("ask busybox for its applets")?;
    if !output.status.success() {
        bail!("{} --list failed", busybox.display());
    }
    let list = String::from_utf8_lossy(&output.stdout);
    Ok(list
        .lines()
        .filter(|applet| *applet != "busybox")
        .map(str::to_owned)
        .collect())
}

/// A cpio archive in memory.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY, (0, 0), &[]);
    }

    fn file(&mut self, path: &str, mode: u32, contents: &[u8]) {
        self.entry(path, mode, (0, 0), contents);
    }

    fn executable(&mut self, path: &str, source: &Path) -> Result<()> {
        let contents = fs::read(source).with_context(|| format!("read {}", source.display()))?;
        self.file(path, EXECUTABLE, &contents);
        Ok(())
    }

    fn link(&mut self, path: &str, target: &str) {
        self.entry(path, SYMLINK, (0, 0), target.as_bytes());
    }

    fn console(&mut self, path: &str) {
        self.entry(path, CHARACTER_DEVICE, (5, 1), &[]);
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), contents: &[u8]) {
        self.inode += 1;
        let name_size = path.len() + 1;
        let (uid, gid, links, mtime, on_major, on_minor, check) = (0, 0, 1, 0, 0, 0, 0);
        let fields = [
            self.inode,
            mode,
            uid,
            gid,
            links,
            mtime,
            contents.len() as u32,
            on_major,
            on_minor,
            device.0,
            device.1,
            name_size as u32,
            check,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_the_layout_of_newc() {
        let mut archive = Archive::default();
        archive.file("etc/x", PLAIN, b"hello");
        let bytes = archive.finish();
        assert!(bytes.starts_with(b"07070100000001000081a4"));
        assert_eq!(&bytes[54..62], b"00000005", "file size");
        assert_eq!(&bytes[94..102], b"00000006", "name size with its NUL");
        assert_eq!(&bytes[110..116], b"etc/x\0");
        assert_eq!(&bytes[116..121], b"hello");
        assert_eq!(
            &bytes[124..130],
            b"070701",
            "entries are aligned to four bytes"
        );
        assert_eq!(bytes.len() % 4, 0);
    }
}
