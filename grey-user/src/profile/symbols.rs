//! Names for addresses: ELF symbols, DWARF with inlined functions, perf maps of interpreters and JIT compilers, the kernel's
//! symbols; else build id and offset. Other people's files are read here, so nothing in them may stop a profile.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use blazesym::helper::read_elf_build_id;
use blazesym::symbolize::source::{Elf, Kernel, Process, Source};
use blazesym::symbolize::{Input, Sym, Symbolized, Symbolizer};
use blazesym::{MaybeDefault, Pid};

use super::document::Frame;
use super::maps::Maps;
use crate::host::Host;

/// Longer names are cut: some templates fill pages.
const MOST_NAME: usize = 400;

/// What an address is.
#[derive(Clone, Debug, Default)]
pub(super) struct Resolved {
    /// Inlined functions first, then the one they are inlined into.
    pub frames: Vec<Frame>,
    /// Where the function begins.
    pub start: Option<u64>,
}

/// Resolves addresses.
pub(super) struct Symbols<'h> {
    host: &'h Host,
    symbols_only: bool,
    symbolizer: Symbolizer,
    build_ids: HashMap<String, Option<String>>,
}

impl<'h> Symbols<'h> {
    pub(super) fn new(host: &'h Host, symbols_only: bool) -> Symbols<'h> {
        Symbols {
            host,
            symbols_only,
            symbolizer: Symbolizer::builder()
                .enable_auto_reload(false)
                .enable_code_info(!symbols_only)
                .enable_inlined_fns(!symbols_only)
                .enable_demangling(true)
                .build(),
            build_ids: HashMap::new(),
        }
    }

    /// Addresses of a process's code. `maps` are its mappings, `alive` whether it still runs.
    pub(super) fn user(
        &mut self,
        pid: u32,
        maps: &Maps,
        alive: bool,
        addresses: &[u64],
    ) -> HashMap<u64, Resolved> {
        let mut resolved = if alive {
            let perf_map = perf_map_is_plain(self.host, pid);
            let source = |debug_syms| {
                let mut process = Process::new(Pid::from(pid));
                process.debug_syms = debug_syms;
                process.perf_map = perf_map;
                Source::Process(process)
            };
            self.ask(source, addresses, Input::AbsAddr)
                .into_iter()
                .zip(addresses)
                .filter_map(|(found, address)| Some((*address, found?)))
                .collect()
        } else {
            self.ended(maps, addresses)
        };
        for address in addresses {
            let entry: &mut Resolved = resolved.entry(*address).or_default();
            let place = maps.place(*address);
            if entry.frames.is_empty() {
                let frame = self.unnamed(pid, maps, *address);
                entry.frames.push(frame);
            } else if place.path.is_some() {
                // As the process names it: ours is by way of /proc.
                for frame in &mut entry.frames {
                    frame.module.clone_from(&place.path);
                }
            }
        }
        resolved
    }

    /// Of a process that has ended only its files are left.
    fn ended(&self, maps: &Maps, addresses: &[u64]) -> HashMap<u64, Resolved> {
        let mut by_file: HashMap<_, Vec<u64>> = HashMap::new();
        for address in addresses {
            if let Some(path) = maps.readable(self.host, *address) {
                by_file.entry(path).or_default().push(*address);
            }
        }
        let mut resolved = HashMap::new();
        for (path, addresses) in by_file {
            let offsets: Vec<u64> = addresses
                .iter()
                .map(|address| maps.place(*address).offset)
                .collect();
            let source = |debug_syms| {
                let mut elf = Elf::new(&path);
                elf.debug_syms = debug_syms;
                Source::Elf(elf)
            };
            let found = self.ask(source, &offsets, Input::FileOffset);
            for (address, found) in addresses.into_iter().zip(found) {
                if let Some(mut found) = found {
                    // Its code can no longer be read.
                    found.start = None;
                    resolved.insert(address, found);
                }
            }
        }
        resolved
    }

    /// Addresses of the kernel.
    pub(super) fn kernel(&self, addresses: &[u64]) -> HashMap<u64, Resolved> {
        // /proc/kallsyms has all that is needed; reading a vmlinux with its DWARF would take seconds.
        let source = |_| {
            Source::Kernel(Kernel {
                vmlinux: MaybeDefault::None,
                debug_syms: false,
                ..Kernel::default()
            })
        };
        let found = self.ask(source, addresses, Input::AbsAddr);
        let mut resolved = HashMap::new();
        for (address, found) in addresses.iter().zip(found) {
            let mut found = found.unwrap_or_else(|| Resolved {
                frames: vec![Frame {
                    offset: Some(*address),
                    ..Frame::default()
                }],
                start: None,
            });
            for frame in &mut found.frames {
                frame.kernel = true;
                frame.module = None;
            }
            resolved.insert(*address, found);
        }
        resolved
    }

    /// One answer an address. `source` is with or without debug information. Where one of its files cannot be read (as
    /// with debug information that is compressed) the others are asked for alone, and that one for its symbols.
    fn ask<'s>(
        &self,
        source: impl Fn(bool) -> Source<'s>,
        addresses: &[u64],
        input: fn(u64) -> Input<u64>,
    ) -> Vec<Option<Resolved>> {
        let all = match input(0) {
            Input::FileOffset(_) => Input::FileOffset(addresses),
            _ => Input::AbsAddr(addresses),
        };
        let (full, plain) = (source(!self.symbols_only), source(false));
        // The parsers are careful, but what they read may have been written to break them.
        let batch = catch_unwind(AssertUnwindSafe(|| self.symbolizer.symbolize(&full, all)));
        if let Ok(Ok(batch)) = batch {
            return batch
                .iter()
                .zip(addresses)
                .map(|(found, address)| resolved(found, *address))
                .collect();
        }
        let one = |source: &Source<'_>, address: u64| {
            let found = catch_unwind(AssertUnwindSafe(|| {
                self.symbolizer.symbolize_single(source, input(address))
            }));
            match found {
                Ok(Ok(found)) => Some(resolved(&found, address)),
                Ok(Err(error)) => {
                    tracing::debug!("{address:#x} of {source:?}: {error}");
                    None
                }
                Err(_) => None,
            }
        };
        addresses
            .iter()
            .map(|address| one(&full, *address).or_else(|| one(&plain, *address))?)
            .collect()
    }

    /// What can be said of an address without a symbol.
    fn unnamed(&mut self, pid: u32, maps: &Maps, address: u64) -> Frame {
        let place = maps.place(address);
        let build_id = place.path.as_ref().and_then(|path| {
            let host = self.host;
            self.build_ids
                .entry(format!("{pid}:{path}"))
                .or_insert_with(|| {
                    let file = maps.readable(host, address)?;
                    let id = catch_unwind(|| read_elf_build_id(&file)).ok()?.ok()??;
                    Some(id.iter().map(|byte| format!("{byte:02x}")).collect())
                })
                .clone()
        });
        Frame {
            module: place.path,
            build_id,
            offset: Some(place.offset),
            ..Frame::default()
        }
    }
}

/// Whether the process's perf map can be read: anybody may put a pipe there that never ends, or fill a disk with it.
fn perf_map_is_plain(host: &Host, pid: u32) -> bool {
    const MOST: u64 = 256 << 20;
    let status = host.text(format!("/proc/{pid}/status")).unwrap_or_default();
    let own = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:")?.split_whitespace().last());
    let name = format!("tmp/perf-{}.map", own.unwrap_or_default());
    [format!("/proc/{pid}/root/{name}"), format!("/{name}")]
        .iter()
        .filter_map(|path| std::fs::metadata(host.path(path)).ok())
        .all(|found| found.is_file() && found.len() <= MOST)
}

fn resolved(found: &Symbolized<'_>, address: u64) -> Option<Resolved> {
    let sym = found.as_sym()?;
    Some(Resolved {
        frames: frames(sym),
        start: Some(address.wrapping_sub(sym.offset as u64)),
    })
}

fn frames(sym: &Sym<'_>) -> Vec<Frame> {
    let module = sym.module.as_ref().map(|module| module.to_string_lossy());
    let frame = |name: &str, code: Option<&blazesym::symbolize::CodeInfo<'_>>, inlined| Frame {
        function: Some(tidy(name)),
        module: module.as_ref().map(|module| module.clone().into_owned()),
        file: code.map(|code| code.to_path().to_string_lossy().into_owned()),
        line: code.and_then(|code| code.line),
        inlined,
        ..Frame::default()
    };
    // They come from the outside in.
    let mut frames: Vec<Frame> = sym
        .inlined
        .iter()
        .rev()
        .map(|inlined| frame(&inlined.name, inlined.code_info.as_ref(), true))
        .collect();
    frames.push(frame(&sym.name, sym.code_info.as_deref(), false));
    frames
}

/// Without the hash that ends a Rust name, and not longer than anybody reads.
fn tidy(name: &str) -> String {
    let is_hash = |hash: &str| hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit());
    let name = match name.rsplit_once("::h") {
        Some((rest, hash)) if is_hash(hash) => rest,
        _ => name,
    };
    match name.char_indices().nth(MOST_NAME) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rust_name_loses_its_hash_and_nothing_else() {
        assert_eq!(tidy("app::leak::h0123456789abcdef"), "app::leak");
        assert_eq!(tidy("app::hello"), "app::hello");
        assert_eq!(tidy("ns::h0123456789abcdeX"), "ns::h0123456789abcdeX");
        assert_eq!(tidy(&"é".repeat(1000)).chars().count(), MOST_NAME + 1);
    }

    #[test]
    fn functions_of_this_program_have_their_names_and_what_is_no_code_has_none() {
        let host = Host::live();
        let pid = std::process::id();
        let maps = Maps::read(&host, pid).expect("our own mappings");
        let known = Maps::read as fn(&Host, u32) -> Option<Maps> as usize as u64;
        let addresses = [known, 0x10];
        let mut symbols = Symbols::new(&host, false);
        for alive in [true, false] {
            let found = symbols.user(pid, &maps, alive, &addresses);
            let name = found[&known]
                .frames
                .last()
                .map(Frame::name)
                .unwrap_or_default();
            assert!(
                name.contains("Maps") && name.contains("read"),
                "{alive}: {name}"
            );
            assert_eq!(found[&0x10].frames[0].name(), "0x10");
        }
    }
}
