//! /proc/buddyinfo: free memory by block size, and how much of it is too fragmented for a given size.

use serde::{Deserialize, Serialize};

use super::{Host, HostError, figure};

/// Free memory of one zone of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// NUMA node.
    pub node: u32,
    /// `DMA`, `DMA32`, `Normal`, `Movable` …
    pub zone: String,
    /// Free blocks by order: a block of order `o` is `2^o` pages.
    pub free: Vec<u64>,
}

impl Zone {
    /// Free pages.
    #[must_use]
    pub fn free_pages(&self) -> u64 {
        pages(&self.free, 0)
    }

    /// Free pages in blocks that are large enough for `order`.
    #[must_use]
    pub fn suitable_pages(&self, order: u32) -> u64 {
        pages(&self.free, order)
    }

    /// The unusable free space index: the share of free memory, 0 to 1, that is in blocks too small for an
    /// allocation of `order`. A zone without free memory has none to use: 1.
    ///
    /// `unusable_free_index` in the kernel's mm/vmstat.c, which gives it per mille in debugfs (extfrag/unusable_index):
    /// `(free_pages - (free_blocks_suitable << order)) / free_pages`.
    #[must_use]
    pub fn unusable(&self, order: u32) -> f64 {
        unusable(self.free_pages(), self.suitable_pages(order))
    }
}

/// The content of /proc/buddyinfo.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buddy {
    /// Its lines.
    pub zones: Vec<Zone>,
}

impl Buddy {
    /// Reads /proc/buddyinfo; `None` where this machine has no such file.
    ///
    /// # Errors
    /// Where it is there and cannot be read (0400 in some containers) or understood.
    pub fn read(host: &Host) -> Result<Option<Self>, HostError> {
        const PATH: &str = "/proc/buddyinfo";
        let Some(text) = host.text_opt(PATH)? else {
            return Ok(None);
        };
        let buddy = Self::parse(&text);
        if buddy.zones.is_empty() {
            return Err(HostError::Content {
                path: PATH.into(),
                why: "no zone in it".to_owned(),
            });
        }
        Ok(Some(buddy))
    }

    /// Reads the content; a line that is not understood is left out.
    #[must_use]
    pub fn parse(content: &str) -> Self {
        Buddy {
            zones: content.lines().filter_map(zone).collect(),
        }
    }

    /// Free pages of all zones.
    #[must_use]
    pub fn free_pages(&self) -> u64 {
        self.sum(0)
    }

    /// Free bytes of all zones. MemFree may be a little larger: pages in per-CPU lists are in no block.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.free_pages()
            .saturating_mul(rustix::param::page_size() as u64)
    }

    /// [`Zone::unusable`] of the whole machine's free memory.
    #[must_use]
    pub fn unusable(&self, order: u32) -> f64 {
        unusable(self.free_pages(), self.sum(order))
    }

    /// The largest order a zone has a free block of; absent where nothing is free.
    #[must_use]
    pub fn largest_order(&self) -> Option<u32> {
        let largest = |zone: &Zone| zone.free.iter().rposition(|blocks| *blocks > 0);
        self.zones
            .iter()
            .filter_map(largest)
            .max()
            .map(|order| order as u32)
    }

    fn sum(&self, order: u32) -> u64 {
        self.zones
            .iter()
            .map(|zone| zone.suitable_pages(order))
            .fold(0, u64::saturating_add)
    }
}

/// The order of a transparent huge page (`HPAGE_PMD_ORDER`): 9 on x86-64; absent where there are none.
#[must_use]
pub fn huge_page_order(host: &Host) -> Option<u32> {
    let bytes = host
        .text_opt("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")
        .ok()??;
    let bytes = figure(bytes.trim().as_bytes())?;
    let pages = bytes / rustix::param::page_size() as u64;
    pages.is_power_of_two().then(|| pages.trailing_zeros())
}

fn pages(free: &[u64], from: u32) -> u64 {
    (0_u32..)
        .zip(free)
        .skip(from as usize)
        .map(|(order, blocks)| blocks.saturating_mul(1_u64.checked_shl(order).unwrap_or(u64::MAX)))
        .fold(0, u64::saturating_add)
}

fn unusable(free: u64, suitable: u64) -> f64 {
    if free == 0 {
        return 1.0;
    }
    free.saturating_sub(suitable) as f64 / free as f64
}

/// `Node 0, zone   Normal  12027   9652 …`
fn zone(line: &str) -> Option<Zone> {
    let (node, rest) = line.trim().strip_prefix("Node")?.split_once(',')?;
    let mut words = rest.split_whitespace();
    if words.next()? != "zone" {
        return None;
    }
    let name = words.next()?.to_owned();
    let free = words
        .map(|word| figure(word.as_bytes()))
        .collect::<Option<Vec<u64>>>()?;
    (!free.is_empty()).then_some(Zone {
        node: node.trim().parse().ok()?,
        zone: name,
        free,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fixture::Tree;

    /// From Linux 6.18.
    const REAL: &str = "\
Node 0, zone      DMA      0      0      0      0      0      0      0      0      1      1      3 
Node 0, zone    DMA32      2      1      4      2      5      4      4      4      5      3    751 
Node 0, zone   Normal  12027   9652   4775   2621   2032   1323    861    485    305    171   1551 
";

    #[test]
    fn blocks_become_pages_and_the_share_that_is_too_small() {
        let buddy = Buddy::parse(REAL);
        let names: Vec<&str> = buddy.zones.iter().map(|zone| zone.zone.as_str()).collect();
        assert_eq!(names, ["DMA", "DMA32", "Normal"]);
        let dma = &buddy.zones[0];
        assert_eq!(dma.free_pages(), 256 + 512 + 3 * 1024);
        // The kernel's own thousandths: (free - (suitable << order)) * 1000 / free.
        assert_eq!((dma.unusable(0), dma.unusable(8)), (0.0, 0.0));
        assert!((dma.unusable(9) - 256.0 / 3840.0).abs() < 1e-12);
        assert!((dma.unusable(10) - 768.0 / 3840.0).abs() < 1e-12);
        assert_eq!((dma.unusable(11), dma.unusable(99)), (1.0, 1.0));
        assert_eq!(buddy.largest_order(), Some(10));
    }

    #[test]
    fn the_machine_is_the_sum_of_its_zones() {
        let buddy = Buddy::parse(
            "Node 0, zone   Normal     6      0      1 \nNode 1, zone  Movable     0      3      0 \n",
        );
        assert_eq!(buddy.free_pages(), 6 + 4 + 6);
        assert_eq!(buddy.free_bytes(), 16 * rustix::param::page_size() as u64);
        assert_eq!((buddy.zones[1].node, buddy.largest_order()), (1, Some(2)));
        let near = |got: f64, want: f64| assert!((got - want).abs() < 1e-12, "{got} {want}");
        near(buddy.unusable(0), 0.0);
        near(buddy.unusable(1), 6.0 / 16.0);
        near(buddy.unusable(2), 12.0 / 16.0);
    }

    #[test]
    fn no_free_memory_is_all_unusable_as_the_kernel_has_it() {
        let buddy = Buddy::parse("Node 0, zone DMA 0 0 0\n");
        assert_eq!((buddy.unusable(0), buddy.largest_order()), (1.0, None));
    }

    #[test]
    fn odd_lines_are_left_out_and_huge_figures_do_not_overflow() {
        for bad in [
            "",
            "Node",
            "Node 0",
            "Node x, zone DMA 1",
            "Node 0, zone",
            "Node 0, zone DMA",
            "Node 0, zone DMA 1 x",
        ] {
            assert_eq!(Buddy::parse(bad), Buddy::default(), "{bad:?}");
        }
        let most = i64::MAX;
        let buddy = Buddy::parse(&format!(
            "Node 0, zone DMA {}",
            format!("{most} ").repeat(70)
        ));
        assert_eq!((buddy.free_pages(), buddy.unusable(3)), (u64::MAX, 0.0));
    }

    #[test]
    fn a_missing_file_is_absent_and_a_foreign_one_an_error() {
        let tree = Tree::new();
        assert_eq!(Buddy::read(&tree.host()).unwrap(), None);
        assert_eq!(huge_page_order(&tree.host()), None);
        tree.file("/proc/buddyinfo", "hello\n").file(
            "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size",
            "2097152\n",
        );
        let error = Buddy::read(&tree.host()).unwrap_err().to_string();
        assert_eq!(error, "/proc/buddyinfo: no zone in it");
        if rustix::param::page_size() == 4096 {
            assert_eq!(huge_page_order(&tree.host()), Some(9));
        }
        tree.file("/proc/buddyinfo", REAL);
        assert_eq!(Buddy::read(&tree.host()).unwrap().unwrap().zones.len(), 3);
    }
}
