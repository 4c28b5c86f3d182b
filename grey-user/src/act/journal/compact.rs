//! A shorter journal in the place of a long one: written beside it, synced, renamed over it. A crash leaves one or the
//! other.

use std::os::fd::OwnedFd;

use grey_core::act::record::from_newer;
use grey_core::act::{Fault, Ledger, encode};
use rustix::fs::{AtFlags, OFlags};

use super::{FILE, Journal, fault, folder, retry, write_all};

const NEW: &str = "journal.new";
/// A journal up to this size is left as it is.
const SMALL: u64 = 1 << 20;

impl Journal {
    /// Whether it has grown so long that [`Journal::compact`] is worth its while.
    #[must_use]
    pub fn is_long(&self) -> bool {
        self.known > SMALL
    }

    /// Makes the journal as short as it can be, if it has grown long and nobody else has written to it since `ledger`
    /// was read; whether it did. Needs the right to begin actions. A failure leaves everything as it was.
    ///
    /// # Errors
    /// The new file cannot be written.
    pub fn compact(&mut self, ledger: &Ledger) -> Result<bool, Fault> {
        if !self.is_long() {
            return Ok(false);
        }
        self.shorten(ledger, self.known / 2)
    }

    /// Replaces the journal if the new one has at most `most` bytes.
    pub(super) fn shorten(&mut self, ledger: &Ledger, most: u64) -> Result<bool, Fault> {
        if self.claim.is_none() || self.unwritable.is_some() || !self.lock()? {
            return Ok(false);
        }
        let done = self.replace(ledger, most);
        self.unlock(true);
        done
    }

    fn replace(&mut self, ledger: &Ledger, most: u64) -> Result<bool, Fault> {
        if self.stale || folder::size(&self.file)? != self.known {
            return Ok(false);
        }
        let mut bytes: Vec<u8> = ledger.compacted().iter().flat_map(encode).collect();
        let old = folder::read(&self.file, super::MAX_BYTES)?;
        // What a newer version wrote is its to drop.
        for line in old
            .split(|byte| *byte == b'\n')
            .filter(|line| from_newer(line))
        {
            bytes.extend_from_slice(line);
            bytes.push(b'\n');
        }
        if bytes.len() as u64 > most {
            return Ok(false);
        }
        // One that a crash has left.
        let _ = rustix::fs::unlinkat(&*self.folder.dir, NEW, AtFlags::empty());
        let file = self.write_new(&bytes).inspect_err(|_| {
            let _ = rustix::fs::unlinkat(&*self.folder.dir, NEW, AtFlags::empty());
        })?;
        // What waits for the old file's lock finds another file under the name and goes over to it.
        (self.file, self.known) = (file, bytes.len() as u64);
        self.folder.sync().map_err(fault)?;
        Ok(true)
    }

    fn write_new(&self, bytes: &[u8]) -> Result<OwnedFd, Fault> {
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL;
        let file = match self.folder.open(NEW, flags) {
            Ok(file) => file.ok_or(Fault::Gone)?,
            Err(super::JournalError::File { fault, .. }) => return Err(fault),
            Err(error) => return Err(Fault::Other(error.to_string())),
        };
        write_all(&file, bytes).map_err(fault)?;
        retry(|| rustix::fs::fsync(&file)).map_err(fault)?;
        rustix::fs::renameat(&*self.folder.dir, NEW, &*self.folder.dir, FILE).map_err(fault)?;
        Ok(file)
    }
}
