//! The stacks of a profile by name: which addresses of each are code, whom the walk missed, and what they are called.

use std::collections::{HashMap, HashSet};

use grey_common::stack::StackKey;

use super::document::Frame;
use super::maps::{Code, Maps};
use super::symbols::{Resolved, Symbols};
use crate::host::{Host, ProcFs};
use crate::probe::StackTables;

/// What must be known of a process before it ends.
pub(super) struct Known {
    pub comm: String,
    pub maps: Maps,
}

impl Known {
    /// `None` where the process is gone.
    pub(super) fn of(host: &Host, pid: u32) -> Option<Known> {
        let maps = Maps::read(host, pid)?;
        let comm = ProcFs::open(host).ok()?.comm(pid).ok()??;
        Some(Known { comm, maps })
    }
}

/// The addresses of all stacks with their names.
pub(super) struct Names {
    /// Addresses by way in, the innermost first, as far as they are code.
    walks: HashMap<StackKey, Walk>,
    user: HashMap<u32, HashMap<u64, Resolved>>,
    kernel: HashMap<u64, Resolved>,
}

/// Addresses to be looked up.
#[derive(Default)]
struct Walk {
    user: Vec<u64>,
    /// The caller of the innermost function, which the walk by frame pointers misses.
    caller: Option<u64>,
    kernel: Vec<u64>,
}

impl Names {
    pub(super) fn find(
        host: &Host,
        processes: &HashMap<u32, Known>,
        tables: &StackTables,
        symbols_only: bool,
    ) -> Names {
        let none = Maps::default();
        let maps = |tgid: u32| processes.get(&tgid).map_or(&none, |known| &known.maps);
        let mut walks: HashMap<StackKey, Walk> = tables
            .counts
            .iter()
            .map(|(key, _)| (*key, walk(key, tables, maps(key.tgid))))
            .collect();
        let mut addresses: HashMap<u32, HashSet<u64>> = HashMap::new();
        for (key, walk) in &walks {
            let of_process = addresses.entry(key.tgid).or_default();
            of_process.extend(&walk.user);
            of_process.extend(walk.caller);
        }
        let mut symbols = Symbols::new(host, symbols_only);
        let user: HashMap<u32, HashMap<u64, Resolved>> = addresses
            .into_iter()
            .map(|(tgid, addresses)| {
                let addresses: Vec<u64> = addresses.into_iter().collect();
                let alive = host.has(format!("/proc/{tgid}/maps"));
                (tgid, symbols.user(tgid, maps(tgid), alive, &addresses))
            })
            .collect();
        let kernel: HashSet<u64> = walks
            .values()
            .flat_map(|walk| walk.kernel.iter().copied())
            .collect();
        let kernel: Vec<u64> = kernel.into_iter().collect();
        let kernel = symbols.kernel(&kernel);
        // Where the function keeps a frame, what is on top of the stack is something else.
        let mut code = Code::default();
        for (key, walk) in &mut walks {
            let keeps = walk.user.first().and_then(|inner| {
                let start = user.get(&key.tgid)?.get(inner)?.start?;
                code.keeps_frame(host, key.tgid, start, *inner)
            });
            if keeps == Some(true) {
                walk.caller = None;
            }
        }
        Names {
            walks,
            user,
            kernel,
        }
    }

    /// Whether nothing led on from the innermost function.
    pub(super) fn is_broken(&self, key: &StackKey) -> bool {
        self.walks.get(key).is_none_or(|walk| walk.user.len() <= 1)
    }

    /// The frames of a stack, the innermost first.
    pub(super) fn frames(&self, key: &StackKey) -> Vec<Frame> {
        let Some(walk) = self.walks.get(key) else {
            return Vec::new();
        };
        let mut frames: Vec<Frame> = walk
            .kernel
            .iter()
            .filter_map(|address| self.kernel.get(address))
            .flat_map(|found| found.frames.clone())
            .collect();
        drop_fault(&mut frames);
        let names = self.user.get(&key.tgid);
        let inner = walk.user.iter().take(1);
        let rest = walk.user.iter().skip(1);
        for address in inner.chain(&walk.caller).chain(rest) {
            if let Some(found) = names.and_then(|names| names.get(address)) {
                frames.extend_from_slice(&found.frames);
            }
        }
        frames
    }
}

fn walk(key: &StackKey, tables: &StackTables, maps: &Maps) -> Walk {
    let mut walk = Walk::default();
    if let Some(stack) = tables.stacks.get(&key.user) {
        // Without frame pointers it runs into data.
        walk.user = call_sites(stack)
            .take_while(|address| maps.is_code(*address))
            .collect();
        if key.caller != 0 && stack.get(1) != Some(&key.caller) && maps.is_code(key.caller) {
            walk.caller = Some(key.caller - 1);
        }
    }
    if let Some(stack) = tables.stacks.get(&key.kernel) {
        walk.kernel = call_sites(stack).collect();
    }
    walk
}

/// All but the innermost address are where a call returns to; the call itself is before that.
fn call_sites(stack: &[u64]) -> impl Iterator<Item = u64> {
    stack.iter().enumerate().map(|(at, address)| {
        if at == 0 {
            *address
        } else {
            address.wrapping_sub(1)
        }
    })
}

/// Kernel frames of the fault itself and of the program that looks at it say nothing: what led to it comes after.
fn drop_fault(frames: &mut Vec<Frame>) {
    const ENTRIES: [&str; 4] = [
        "asm_exc_page_fault",
        "exc_page_fault",
        "page_fault",
        "handle_mm_fault",
    ];
    let last = frames.iter().rposition(|frame| {
        frame
            .function
            .as_deref()
            .is_some_and(|name| ENTRIES.contains(&name))
    });
    if let Some(last) = last {
        frames.drain(..=last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_kernel_stack_what_led_to_the_fault_is_left() {
        let frame = |name: &str| Frame {
            function: Some(name.to_owned()),
            kernel: true,
            ..Frame::default()
        };
        let mut frames: Vec<Frame> = [
            "bpf_prog_1234_stack_kernel",
            "exc_page_fault",
            "asm_exc_page_fault",
            "rep_movs_alternative",
            "ksys_read",
        ]
        .map(frame)
        .into();
        drop_fault(&mut frames);
        let names: Vec<String> = frames.iter().map(Frame::name).collect();
        assert_eq!(names, ["rep_movs_alternative", "ksys_read"]);
    }
}
