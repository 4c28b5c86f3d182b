//! Pages that mremap moves come to their new place without a fault: they are followed to where they are now.

use std::collections::{HashMap, HashSet};

use grey_common::stack::{HUGE_BYTES, MoveRecord, PageKey, StackKey, is_followed};

use crate::probe::{StackProbe, StackTables};

/// Moved pages that are followed on.
const MOST_MOVED: usize = 262_144;
/// Pages of one move that are looked at: 64 GiB.
const MOST_RANGE: usize = 16 << 20;

/// Pages that are no longer where they were faulted in.
pub(super) struct Moves {
    page: u64,
    moved: HashMap<PageKey, Moved>,
    /// Those that found no room.
    pub lost: u64,
}

/// A page that mremap moved.
struct Moved {
    /// Where it was when its fault was seen, which says whether it is followed.
    first: u64,
    stack: StackKey,
}

impl Moves {
    pub(super) fn new() -> Moves {
        Moves {
            page: rustix::param::page_size() as u64,
            moved: HashMap::new(),
            lost: 0,
        }
    }

    /// Takes in all moves since the last look. Soon after each: what is faulted in at the old place since then is taken for
    /// what was moved.
    pub(super) fn follow(&mut self, probe: &mut StackProbe, shift: u64) {
        while let Some(record) = probe.next_move() {
            let end = record.from.saturating_add(record.bytes);
            let again: Vec<PageKey> = self
                .moved
                .keys()
                .filter(|key| key.tgid == record.tgid && (record.from..end).contains(&key.address))
                .copied()
                .collect();
            let mut here: Vec<(PageKey, Moved)> = Vec::new();
            for key in again {
                here.extend(self.moved.remove(&key).map(|moved| (key, moved)));
            }
            for key in followed(&record, shift, self.page) {
                if let Some(stack) = probe.take_page(&key) {
                    let first = key.address;
                    here.push((key, Moved { first, stack }));
                }
            }
            for (key, moved) in here {
                if self.moved.len() >= MOST_MOVED {
                    self.lost += 1;
                    break;
                }
                let address = (key.address - record.from).wrapping_add(record.to);
                self.moved.insert(PageKey { address, ..key }, moved);
            }
        }
    }

    /// Leaves of the pages those that are followed at this shift, each where it is now.
    pub(super) fn settle(&self, tables: &mut StackTables, shift: u64) {
        // What was faulted in at a place is newer than what was moved there.
        let newer: HashSet<PageKey> = tables.pages.iter().map(|(key, _)| *key).collect();
        let wanted =
            |key: &PageKey, first: u64| key.huge == 1 || is_followed(first / self.page, shift);
        tables.pages.retain(|(key, _)| wanted(key, key.address));
        let moved = self
            .moved
            .iter()
            .filter(|(key, moved)| !newer.contains(key) && wanted(key, moved.first))
            .map(|(key, moved)| (*key, moved.stack));
        tables.pages.extend(moved);
    }
}

/// The pages of a moved range that may be in the table.
fn followed(record: &MoveRecord, shift: u64, page: u64) -> impl Iterator<Item = PageKey> {
    let pages = record.from / page..record.from.saturating_add(record.bytes).div_ceil(page);
    let tgid = record.tgid;
    // Bounded by what a process can have, whatever the record says.
    pages.take(MOST_RANGE).flat_map(move |number| {
        let address = number * page;
        let key = |huge| PageKey {
            address,
            tgid,
            huge,
        };
        let small = is_followed(number, shift).then(|| key(0));
        let huge = address.is_multiple_of(HUGE_BYTES).then(|| key(1));
        [small, huge].into_iter().flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_moved_range_every_followed_page_is_looked_for_and_no_other() {
        let record = MoveRecord {
            from: 510 * 4096,
            to: 0,
            bytes: 4 * 4096,
            tgid: 7,
            reserved: 0,
        };
        let all: Vec<(u64, u32)> = followed(&record, 0, 4096)
            .map(|key| (key.address / 4096, key.huge))
            .collect();
        assert_eq!(all, [(510, 0), (511, 0), (512, 0), (512, 1), (513, 0)]);
        let few: Vec<u64> = followed(&record, 2, 4096)
            .filter(|key| key.huge == 0)
            .map(|key| key.address / 4096)
            .collect();
        let want: Vec<u64> = (510..514).filter(|page| is_followed(*page, 2)).collect();
        assert_eq!(few, want);
    }

    #[test]
    fn a_moved_page_counts_where_it_is_unless_something_newer_is_there() {
        let key = |address| PageKey {
            address,
            tgid: 7,
            huge: 0,
        };
        let stack = |user| StackKey {
            user,
            ..StackKey::default()
        };
        let mut moves = Moves::new();
        for (address, user) in [(8192, 1), (12_288, 2)] {
            let (first, stack) = (4096, stack(user));
            moves.moved.insert(key(address), Moved { first, stack });
        }
        let mut tables = StackTables {
            pages: vec![(key(12_288), stack(3))],
            ..StackTables::default()
        };
        moves.settle(&mut tables, 0);
        let mut found: Vec<(u64, i32)> = tables
            .pages
            .iter()
            .map(|(key, stack)| (key.address, stack.user))
            .collect();
        found.sort_unstable();
        assert_eq!(found, [(8192, 1), (12_288, 3)]);
    }
}
