//! What the tests of journal and `rollback` share: a folder with a journal of given records or bytes, and how to read
//! it.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;

use anyhow::{Context as _, Result, ensure};
use grey_core::act::{Knob, KnobFile, Ledger, Record, decode_all, encode};
use serde_json::Value;

use crate::invocation::{Invocation, Scratch};

/// A folder with a journal.
pub(crate) struct Shelf {
    pub(crate) scratch: Scratch,
    state: String,
}

impl Shelf {
    pub(crate) fn new(label: &str, records: &[Record]) -> Result<Self> {
        let shelf = Self::empty(label)?;
        fs::DirBuilder::new()
            .mode(0o700)
            .create(shelf.scratch.join("state"))?;
        shelf.write(&records.iter().flat_map(encode).collect::<Vec<u8>>())?;
        Ok(shelf)
    }

    /// Without the journal's folder.
    pub(crate) fn empty(label: &str) -> Result<Self> {
        let scratch = Scratch::new(label)?;
        let state = scratch.argument("state")?;
        Ok(Self { scratch, state })
    }

    /// The folder, as an argument.
    pub(crate) fn state(&self) -> &str {
        &self.state
    }

    pub(crate) fn bytes(&self) -> Result<Vec<u8>> {
        fs::read(self.scratch.join("state/journal")).context("read the journal")
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> Result<()> {
        fs::write(self.scratch.join("state/journal"), bytes).context("write the journal")
    }

    pub(crate) fn records(&self) -> Result<Vec<Record>> {
        Ok(decode_all(&self.bytes()?).0)
    }

    pub(crate) fn ledger(&self) -> Result<Ledger> {
        Ok(Ledger::of(self.records()?))
    }

    /// `rollback --list --json`.
    pub(crate) fn list(&self) -> Result<Vec<Value>> {
        let ended =
            Invocation::new().run(&["rollback", "--list", "--json", "--state-dir", &self.state])?;
        ensure!(
            ended.code == Some(0) && ended.stderr.is_empty(),
            "{ended:?}"
        );
        ended
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}")))
            .collect()
    }
}

/// The boot id of this machine.
pub(crate) fn this_boot() -> Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("the boot id")?;
    Ok(text.trim().to_owned())
}

/// An action of this boot on a cgroup that does not exist.
pub(crate) fn begin(id: u64) -> Record {
    Record::Begin {
        id,
        at: 1_795_237_200_000 + id,
        boot: this_boot().unwrap_or_default(),
        pid: 999_999,
        kind: "limit".to_owned(),
        target: format!("/grey-none-{id}"),
        reason: "by hand".to_owned(),
    }
}

/// One of its changes.
pub(crate) fn intent(id: u64, step: u32) -> Record {
    let file = [KnobFile::MemoryHigh, KnobFile::MemoryMax][step as usize % 2];
    Record::Intent {
        id,
        step,
        knob: Knob::cgroup(&format!("/grey-none-{id}"), 1 << 40, file),
        old: grey_core::act::Value::limit(None, 4096),
        new: grey_core::act::Value::number(id << 20),
        leaves: None,
    }
}
