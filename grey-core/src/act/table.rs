//! What the guard remembers of the changes in force: fixed size, no allocation, and the one rule of undoing.

/// What undoing a change comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The file holds the old value: nothing to do.
    Back,
    /// It holds ours: the old value is written.
    Restore,
    /// It holds somebody else's, which stays.
    Foreign,
}

/// The rule of undoing: `old` is put back only where the file still holds our `new`, or what the kernel `leaves` in it
/// when a later change of ours is undone.
#[must_use]
pub fn undo(current: &[u8], old: &[u8], new: &[u8], leaves: Option<&[u8]>) -> Verdict {
    if current == old {
        Verdict::Back
    } else if current == new || leaves == Some(current) {
        Verdict::Restore
    } else {
        Verdict::Foreign
    }
}

/// A short text of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text {
    len: u8,
    bytes: [u8; super::Value::MAX_LEN],
}

impl Text {
    /// A copy of these bytes; `None` where they are too long.
    #[must_use]
    pub fn new(text: &[u8]) -> Option<Text> {
        let mut bytes = [0; super::Value::MAX_LEN];
        bytes.get_mut(..text.len())?.copy_from_slice(text);
        Some(Text {
            len: text.len() as u8,
            bytes,
        })
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// One change in force. `F` is what the file is reached by: a descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Slot<F> {
    /// The action.
    pub id: u64,
    /// Its step.
    pub step: u32,
    /// When the guard undoes it by itself, on the clock of whoever asks; `u64::MAX` for never.
    pub until: u64,
    /// What to put back.
    pub old: Text,
    /// What we wrote.
    pub new: Text,
    /// See [`super::Record::Intent`].
    pub leaves: Option<Text>,
    /// The file.
    pub file: F,
}

/// The changes in force, in the order they were made.
#[derive(Clone, Debug)]
pub struct Table<F, const N: usize> {
    slots: [Option<Slot<F>>; N],
    used: usize,
}

impl<F: Copy, const N: usize> Default for Table<F, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<F: Copy, const N: usize> Table<F, N> {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Table {
            slots: [None; N],
            used: 0,
        }
    }

    /// How many changes are in force.
    #[must_use]
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Remembers a change; false where there is no room.
    #[must_use]
    pub fn arm(&mut self, slot: Slot<F>) -> bool {
        let Some(place) = self.slots.get_mut(self.used) else {
            return false;
        };
        *place = Some(slot);
        self.used += 1;
        true
    }

    /// Another time at which an action's changes are undone by themselves.
    pub fn lease(&mut self, id: u64, until: u64) {
        for slot in self.slots[..self.used].iter_mut().flatten() {
            if slot.id == id {
                slot.until = until;
            }
        }
    }

    /// Forgets an action's changes (one `step`, or all), giving each file to `dropped`.
    pub fn release(&mut self, id: u64, step: Option<u32>, mut dropped: impl FnMut(F)) {
        let mut kept = 0;
        for at in 0..self.used {
            let Some(slot) = self.slots[at].take() else {
                continue;
            };
            if slot.id == id && step.is_none_or(|step| step == slot.step) {
                dropped(slot.file);
            } else {
                self.slots[kept] = Some(slot);
                kept += 1;
            }
        }
        self.used = kept;
    }

    /// The newest change that is due at `now`, or the newest of all with `now` at `u64::MAX`.
    #[must_use]
    pub fn due(&self, now: u64) -> Option<Slot<F>> {
        self.slots[..self.used]
            .iter()
            .rev()
            .flatten()
            .find(|slot| slot.until <= now)
            .copied()
    }

    /// The next time at which something is due.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        self.slots[..self.used]
            .iter()
            .flatten()
            .map(|slot| slot.until)
            .min()
            .filter(|until| *until != u64::MAX)
    }

    /// The changes in force, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Slot<F>> {
        self.slots[..self.used].iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(id: u64, step: u32, until: u64) -> Slot<u8> {
        Slot {
            id,
            step,
            until,
            old: Text::new(b"max").unwrap(),
            new: Text::new(b"4096").unwrap(),
            leaves: None,
            file: 0,
        }
    }

    #[test]
    fn old_comes_back_only_in_the_place_of_new() {
        assert_eq!(undo(b"1", b"0", b"1", None), Verdict::Restore);
        assert_eq!(undo(b"0", b"0", b"1", None), Verdict::Back);
        assert_eq!(undo(b"2", b"0", b"1", None), Verdict::Foreign);
        assert_eq!(undo(b"2", b"0", b"1", Some(b"2")), Verdict::Restore);
        assert_eq!(undo(b"0", b"0", b"1", Some(b"0")), Verdict::Back);
    }

    #[test]
    fn the_newest_is_due_first_and_a_full_table_says_so() {
        let mut table: Table<u8, 3> = Table::new();
        assert!(table.arm(slot(1, 0, 50)));
        assert!(table.arm(slot(1, 1, 50)));
        assert!(table.arm(slot(2, 0, u64::MAX)));
        assert!(!table.arm(slot(3, 0, 1)));
        assert_eq!(table.due(49).map(|slot| slot.id), None);
        assert_eq!(table.next_due(), Some(50));
        assert_eq!(table.due(50).map(|slot| (slot.id, slot.step)), Some((1, 1)));
        table.release(1, Some(1), |_| ());
        assert_eq!(table.due(50).map(|slot| (slot.id, slot.step)), Some((1, 0)));
        assert_eq!(table.due(u64::MAX).map(|slot| slot.id), Some(2));
        table.release(2, None, |_| ());
        table.lease(1, u64::MAX);
        assert_eq!((table.len(), table.next_due()), (1, None));
    }
}
