//! The allocator of a process that has no agent, and what of its own makes it give memory back.

/// The allocator of a process, as far as its mappings tell. One that is linked in cannot be seen there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allocator {
    Jemalloc,
    Tcmalloc,
    Mimalloc,
    Glibc,
    Musl,
    Static,
}

impl Allocator {
    pub(super) fn of(maps: &str) -> Allocator {
        let files: Vec<&str> = maps
            .lines()
            .filter_map(|line| line.split_once('/'))
            .filter_map(|(_, path)| path.rsplit('/').next())
            .collect();
        let any = |starts: &[&str]| {
            files
                .iter()
                .any(|file| starts.iter().any(|start| file.starts_with(start)))
        };
        // A preloaded allocator takes the place of libc's, which is mapped all the same.
        if any(&["libjemalloc"]) {
            Allocator::Jemalloc
        } else if any(&["libtcmalloc"]) {
            Allocator::Tcmalloc
        } else if any(&["libmimalloc"]) {
            Allocator::Mimalloc
        } else if any(&["libc.so.6", "libc-2."]) {
            Allocator::Glibc
        } else if any(&["ld-musl-", "libc.musl-"]) {
            Allocator::Musl
        } else {
            Allocator::Static
        }
    }

    /// What it is and what of its own makes it give memory back, at the next start of the process.
    pub(super) fn advice(self) -> &'static str {
        match self {
            Allocator::Jemalloc => {
                "it uses jemalloc, which gives back sooner with MALLOC_CONF=dirty_decay_ms:1000,muzzy_decay_ms:0"
            }
            Allocator::Tcmalloc => {
                "it uses tcmalloc, which gives back sooner with TCMALLOC_RELEASE_RATE=10"
            }
            Allocator::Mimalloc => {
                "it uses mimalloc, which gives back sooner with MIMALLOC_PURGE_DELAY=0"
            }
            Allocator::Glibc => {
                "it uses glibc's malloc, which holds on to less when started with MALLOC_ARENA_MAX=2 and MALLOC_TRIM_THRESHOLD_=131072"
            }
            Allocator::Musl => {
                "it uses musl's malloc, which has no setting and gives whole groups of pages back by itself"
            }
            Allocator::Static => {
                "it is linked statically, so that its allocator cannot be seen and no agent can be loaded into it"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_allocator_is_told_from_the_mapped_files() {
        let maps = |file: &str| {
            format!(
                "7f00-7f01 r-xp 00000000 08:01 12   {file}\n5500-5600 rw-p 00000000 00:00 0      [heap]\n"
            )
        };
        for (file, want) in [
            ("/usr/lib/x86_64-linux-gnu/libc.so.6", Allocator::Glibc),
            ("/lib/x86_64-linux-gnu/libc-2.31.so", Allocator::Glibc),
            ("/lib/ld-musl-x86_64.so.1", Allocator::Musl),
            ("/usr/lib/libjemalloc.so.2", Allocator::Jemalloc),
            (
                "/usr/lib/libtcmalloc_minimal.so.4 (deleted)",
                Allocator::Tcmalloc,
            ),
            ("/usr/lib/libmimalloc.so.2.0", Allocator::Mimalloc),
            ("/opt/libc.so.6/app", Allocator::Static),
        ] {
            assert_eq!(Allocator::of(&maps(file)), want, "{file}");
        }
        let preloaded = maps("/usr/lib/libjemalloc.so.2") + &maps("/lib/libc.so.6");
        assert_eq!(Allocator::of(&preloaded), Allocator::Jemalloc);
        assert_eq!(Allocator::of(""), Allocator::Static);
    }
}
