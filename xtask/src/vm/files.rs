//! Files for guests to read: an ext4 image with a small and a large file of pseudo-random bytes, so that nothing on the
//! way can take them for zeros.

use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::userland::make_file_system;

/// By which the guest finds the disk.
pub(super) const SERIAL: &str = "grey-files";
/// Names and sizes; the tests know them too (`tests/src/outside.rs`).
const FILES: [(&str, u64); 2] = [("hot", 100_000_000), ("cold", 500_000_000)];

/// The image in `cache`, made if it is not there. The caller holds the cache's lock.
pub(super) fn obtain(cache: &Path) -> Result<PathBuf> {
    let image = cache.join("files.ext4");
    if image.exists() {
        return Ok(image);
    }
    let staging = cache.join(format!(".files-{}", std::process::id()));
    fs::create_dir_all(&staging).context("create a directory for the guest's files")?;
    let made = FILES
        .iter()
        .zip(1..)
        .try_for_each(|((name, length), seed)| write(&staging.join(name), *length, seed))
        .and_then(|()| make_file_system(&staging, &image));
    let _ = fs::remove_dir_all(&staging);
    made.context("make the disk with files to read")?;
    Ok(image)
}

/// `SplitMix64` (Steele, Lea and Flood, 2014): does not compress, and is the same every time.
fn write(path: &Path, length: u64, seed: u64) -> Result<()> {
    let file = fs::File::create(path).with_context(|| format!("create {}", path.display()))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let mut state = seed << 32;
    let mut left = length;
    while left > 0 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let bytes = (word ^ (word >> 31)).to_le_bytes();
        let part = left.min(8);
        out.write_all(&bytes[..part as usize])?;
        left -= part;
    }
    out.flush()
        .with_context(|| format!("write {}", path.display()))
}
