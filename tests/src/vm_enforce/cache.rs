//! Real page cache: files of zeros on an ext4 file system of its own. They are holes, so that the disk below, a zram
//! device, takes no memory.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::invocation::Scratch;

const CONTROL: &str = "/sys/class/zram-control";
const SIZE: u64 = 512 << 20;

/// The file system; it goes with this.
pub(crate) struct Files {
    device: u32,
    directory: Scratch,
}

impl Files {
    pub(crate) fn new() -> Result<Self> {
        let device = fs::read_to_string(format!("{CONTROL}/hot_add"))
            .context("one more zram device: is the module loaded?")?
            .trim()
            .parse()?;
        let files = Self {
            device,
            directory: Scratch::new("files")?,
        };
        let path = format!("/dev/zram{device}");
        fs::write(
            format!("/sys/block/zram{device}/disksize"),
            SIZE.to_string(),
        )?;
        let made = Command::new("mke2fs").arg(&path).output()?;
        ensure!(made.status.success(), "mke2fs: {made:?}");
        let target = files.directory.join("");
        mount(path.as_str(), &target, "ext4", MountFlags::NOATIME, None)
            .with_context(|| format!("mount {path}"))?;
        Ok(files)
    }

    /// A file of so many zeros.
    pub(crate) fn file(&self, name: &str, bytes: u64) -> Result<String> {
        fs::File::create(self.directory.join(name))?.set_len(bytes)?;
        self.directory.argument(name)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = unmount(self.directory.join(""), UnmountFlags::empty());
        let _ = fs::write(format!("/sys/block/zram{}/reset", self.device), "1");
        let _ = fs::write(format!("{CONTROL}/hot_remove"), self.device.to_string());
    }
}
