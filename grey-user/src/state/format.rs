//! The bytes of a state file: a line that says what follows and its checksum, then gzip'd JSON.

use std::io::{self, Read as _};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Version of the format. A file of another one is not read.
pub const VERSION: u32 = 1;
/// A larger file is none of ours: some thousand cgroups take a few MiB.
pub const MAX_BYTES: u64 = 64 << 20;
/// The same for what it unpacks to.
const MAX_UNPACKED: u64 = 512 << 20;
const MAGIC: &str = "grey-ebpf-state";
/// The first line is shorter than this.
const MAX_HEADER: usize = 100;

/// Which run of which machine the state is of: cgroup ids and counters mean nothing elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Node name.
    pub host: String,
    /// The kernel's boot id; `None` where it cannot be read, and then it is not compared.
    pub boot_id: Option<String>,
}

/// Why a state file is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its first line is not that of a state file.
    #[error("not a state file of grey-ebpf")]
    Foreign,
    /// Of another version of the program.
    #[error("format {0}, and this program reads format {VERSION}")]
    Version(u32),
    /// Its end is missing.
    #[error("cut off: {0} of {1} bytes")]
    Truncated(u64, u64),
    /// The checksum is wrong, or the content is not what it should be.
    #[error("damaged: {0}")]
    Damaged(String),
    /// Of another machine.
    #[error("of the machine '{0}'")]
    OtherHost(String),
    /// Of this machine before it was booted.
    #[error("from before the last boot")]
    OtherBoot,
}

#[derive(Serialize)]
struct Writing<'a, T> {
    origin: &'a Origin,
    state: &'a T,
}

#[derive(Deserialize)]
struct WhoseState {
    origin: Origin,
}

#[derive(Deserialize)]
struct Reading<T> {
    state: T,
}

pub(super) fn encode<T: Serialize>(state: &T, origin: &Origin) -> io::Result<Vec<u8>> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    serde_json::to_writer(&mut packed, &Writing { origin, state })?;
    let packed = packed.finish()?;
    let mut bytes = format!(
        "{MAGIC} {VERSION} crc32={:08x} bytes={}\n",
        checksum(&packed),
        packed.len()
    )
    .into_bytes();
    bytes.extend_from_slice(&packed);
    Ok(bytes)
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8], origin: &Origin) -> Result<T, Refusal> {
    let end = bytes
        .iter()
        .take(MAX_HEADER)
        .position(|byte| *byte == b'\n')
        .ok_or(Refusal::Foreign)?;
    let header = std::str::from_utf8(&bytes[..end]).map_err(|_| Refusal::Foreign)?;
    let mut words = header.split(' ');
    if words.next() != Some(MAGIC) {
        return Err(Refusal::Foreign);
    }
    let version: u32 = words
        .next()
        .and_then(|word| word.parse().ok())
        .ok_or(Refusal::Foreign)?;
    if version != VERSION {
        return Err(Refusal::Version(version));
    }
    let damaged = |what: &str| Refusal::Damaged(what.to_owned());
    let sum = words
        .next()
        .and_then(|word| word.strip_prefix("crc32="))
        .filter(|word| word.len() == 8)
        .and_then(|word| u32::from_str_radix(word, 16).ok())
        .ok_or_else(|| damaged("its first line"))?;
    let length: u64 = words
        .next()
        .and_then(|word| word.strip_prefix("bytes="))
        .and_then(|word| word.parse().ok())
        .ok_or_else(|| damaged("its first line"))?;
    if words.next().is_some() {
        return Err(damaged("its first line"));
    }
    let packed = &bytes[end + 1..];
    let there = packed.len() as u64;
    if there < length {
        return Err(Refusal::Truncated(there, length));
    }
    if there > length {
        return Err(damaged("something was added to it"));
    }
    if checksum(packed) != sum {
        return Err(damaged("its checksum is wrong"));
    }
    let mut json = Vec::new();
    GzDecoder::new(packed)
        .take(MAX_UNPACKED)
        .read_to_end(&mut json)
        .map_err(|error| Refusal::Damaged(error.to_string()))?;
    // Whose it is comes first: the state of another version of the detector may not even be understood.
    let WhoseState { origin: of } =
        serde_json::from_slice(&json).map_err(|error| Refusal::Damaged(error.to_string()))?;
    if of.host != origin.host {
        return Err(Refusal::OtherHost(of.host));
    }
    if let (Some(then), Some(now)) = (&of.boot_id, &origin.boot_id)
        && then != now
    {
        return Err(Refusal::OtherBoot);
    }
    let Reading { state } =
        serde_json::from_slice(&json).map_err(|error| Refusal::Damaged(error.to_string()))?;
    Ok(state)
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}
