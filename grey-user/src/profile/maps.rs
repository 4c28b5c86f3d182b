//! Executable mappings of a process: which file an address of code is in, and where in it.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;

use crate::host::Host;

/// One executable mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapping {
    start: u64,
    end: u64,
    /// Of `start` in the file.
    offset: u64,
    inode: u64,
    /// As the process names it; absent for code that was made at run time.
    path: Option<String>,
}

/// The executable mappings of a process, by address.
#[derive(Clone, Debug, Default)]
pub(super) struct Maps {
    pid: u32,
    list: Vec<Mapping>,
}

/// Where in a file an address is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Absent for code that was made at run time.
    pub path: Option<String>,
    /// Offset in the file; without one the address.
    pub offset: u64,
}

impl Maps {
    /// Those of a process; `None` where it is gone.
    pub(super) fn read(host: &Host, pid: u32) -> Option<Maps> {
        let text = std::fs::read(host.path(format!("/proc/{pid}/maps"))).ok()?;
        Some(Maps {
            pid,
            list: parse(&String::from_utf8_lossy(&text)),
        })
    }

    fn find(&self, address: u64) -> Option<&Mapping> {
        let at = self.list.partition_point(|mapping| mapping.end <= address);
        self.list.get(at).filter(|mapping| mapping.start <= address)
    }

    /// Whether there is code at the address.
    pub(super) fn is_code(&self, address: u64) -> bool {
        self.find(address).is_some()
    }

    /// Where an address is.
    pub(super) fn place(&self, address: u64) -> Place {
        match self.find(address) {
            Some(mapping) if mapping.path.is_some() => Place {
                path: mapping.path.clone(),
                offset: address - mapping.start + mapping.offset,
            },
            _ => Place {
                path: None,
                offset: address,
            },
        }
    }

    /// A path at which the file of an address can be read now: in the process's own root, else the same file in ours.
    pub(super) fn readable(&self, host: &Host, address: u64) -> Option<PathBuf> {
        let mapping = self.find(address)?;
        let path = mapping.path.as_deref()?;
        if !path.starts_with('/') {
            return None;
        }
        [
            host.path(format!("/proc/{}/root{path}", self.pid)),
            host.path(path),
        ]
        .into_iter()
        .find(|path| std::fs::metadata(path).is_ok_and(|found| found.ino() == mapping.inode))
    }
}

fn parse(text: &str) -> Vec<Mapping> {
    let mut list: Vec<Mapping> = text.lines().filter_map(line).collect();
    list.sort_by_key(|mapping| mapping.start);
    list
}

/// `start-end perms offset dev inode  path`; `None` where it is not executable.
fn line(line: &str) -> Option<Mapping> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let executable = fields.next()?.contains('x');
    let offset = fields.next()?;
    let inode = fields.nth(1)?;
    let path = fields.next().unwrap_or_default().trim();
    let hex = |digits| u64::from_str_radix(digits, 16).ok();
    executable.then_some(())?;
    Some(Mapping {
        start: hex(start)?,
        end: hex(end)?,
        offset: hex(offset)?,
        inode: inode.parse().ok()?,
        path: (path.starts_with('/') || path == "[vdso]").then(|| path.to_owned()),
    })
}

/// Reads code of live processes.
#[derive(Default)]
pub(super) struct Code {
    files: HashMap<u32, Option<File>>,
}

impl Code {
    /// Whether the function that begins at `start` has made itself a stack frame before it comes to `address`:
    /// `push %rbp; mov %rsp,%rbp` among its first instructions. `None` where it cannot be read.
    pub(super) fn keeps_frame(
        &mut self,
        host: &Host,
        pid: u32,
        start: u64,
        address: u64,
    ) -> Option<bool> {
        let file = self
            .files
            .entry(pid)
            .or_insert_with(|| File::open(host.path(format!("/proc/{pid}/mem"))).ok());
        let mut code = [0; 32];
        file.as_ref()?.read_exact_at(&mut code, start).ok()?;
        Some(makes_frame(&code).is_some_and(|end| address >= start.saturating_add(end as u64)))
    }
}

/// Behind the instructions that make a frame. The compiler may put others between them.
fn makes_frame(code: &[u8]) -> Option<usize> {
    const PUSH_RBP: u8 = 0x55;
    /// Two encodings of `mov %rsp,%rbp`.
    const MOVES: [[u8; 3]; 2] = [[0x48, 0x89, 0xe5], [0x48, 0x8b, 0xec]];
    let push = code.iter().take(16).position(|byte| *byte == PUSH_RBP)?;
    let moved = code[push..]
        .windows(3)
        .position(|bytes| MOVES.iter().any(|code| bytes == code))?;
    Some(push + moved + 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
55d0c0000000-55d0c0001000 r--p 00000000 fe:00 77                         /usr/bin/web
55d0c0001000-55d0c0009000 r-xp 00001000 fe:00 77                         /usr/bin/web
7f0000000000-7f0000001000 rwxp 00000000 00:00 0
7f0000100000-7f0000200000 r-xp 00026000 fe:00 78                         /srv/a b/libx.so (deleted)
7ffd00000000-7ffd00002000 r-xp 00000000 00:00 0                          [vdso]
not a line
";

    #[test]
    fn an_address_of_code_is_an_offset_in_its_file() {
        let maps = Maps {
            pid: 1,
            list: parse(TEXT),
        };
        let place = |address| {
            let place = maps.place(address);
            (place.path, place.offset)
        };
        assert_eq!(
            place(0x55d0_c000_1234),
            (Some("/usr/bin/web".to_owned()), 0x1234)
        );
        assert_eq!(
            place(0x7f00_0010_0010),
            (Some("/srv/a b/libx.so (deleted)".to_owned()), 0x2_6010)
        );
        assert_eq!(
            place(0x7f00_0000_0010),
            (None, 0x7f00_0000_0010),
            "made at run time"
        );
        assert!(maps.is_code(0x7f00_0000_0010));
        assert!(!maps.is_code(0x55d0_c000_0010), "data");
        assert!(!maps.is_code(0x55d0_c000_9000), "behind the end");
    }

    #[test]
    fn a_function_that_makes_a_frame_is_told_from_one_that_does_not() {
        let framed = [0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x89, 0xe5, 0x41, 0x57];
        assert_eq!(makes_frame(&framed), Some(8));
        let moved_late = [0x55, 0x31, 0xc0, 0x48, 0x89, 0xe5];
        assert_eq!(makes_frame(&moved_late), Some(6));
        let memset = [
            0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x89, 0xf8, 0x48, 0x83, 0xfa, 0x20,
        ];
        assert_eq!(makes_frame(&memset), None);
        assert_eq!(makes_frame(&[]), None);
    }
}
