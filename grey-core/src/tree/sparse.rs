//! Counters that most cgroups have none of.

use grey_common::CgroupCounters;

const NONE: &CgroupCounters = &CgroupCounters {
    fault_user_read: 0,
    fault_user_write: 0,
    fault_user_exec: 0,
    fault_kernel: 0,
    mmap_calls: 0,
    mmap_bytes: 0,
    munmap_calls: 0,
    munmap_bytes: 0,
    mremap_calls: 0,
    mremap_grown_bytes: 0,
    mremap_shrunk_bytes: 0,
    brk_calls: 0,
    brk_grown_bytes: 0,
    brk_shrunk_bytes: 0,
    madvise_calls: 0,
    madvise_bytes: 0,
    direct_runs: 0,
    direct_ns: 0,
    direct_pages: 0,
    memcg_runs: 0,
    memcg_ns: 0,
    memcg_pages: 0,
    kswapd_ns: 0,
    own_runs: 0,
    own_ns: 0,
    own_pages: 0,
};

/// Counters that take a word until the first is counted: of thousands of cgroups few do anything.
#[derive(Clone, Debug, Default)]
pub struct Sparse(Option<Box<CgroupCounters>>);

impl Sparse {
    /// The counters.
    #[must_use]
    pub fn get(&self) -> &CgroupCounters {
        self.0.as_deref().unwrap_or(NONE)
    }

    /// Adds `delta` field by field, wrapping.
    pub fn add(&mut self, delta: &CgroupCounters) {
        if delta != NONE {
            self.0.get_or_insert_default().add(delta);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_counted_takes_no_room_and_what_is_counted_adds_up() {
        let mut sparse = Sparse::default();
        sparse.add(NONE);
        assert!(sparse.0.is_none() && sparse.get() == &CgroupCounters::default());
        let one = CgroupCounters {
            mmap_calls: 1,
            ..CgroupCounters::default()
        };
        sparse.add(&one);
        sparse.add(&one);
        assert_eq!(sparse.get().mmap_calls, 2);
    }
}
