//! The program that makes growth records, instruction by instruction.

use std::mem::offset_of;
use std::os::fd::RawFd;

use grey_common::{GrowthRecord, Header, LossCount, RecordKind};

/// What a record says besides: two threads that tell the same within 2 ms would be taken for one, so it took longer.
const GROWN: i32 = 16 << 20;
const SINCE_NS: i32 = 1_000_000_000;
const RSS: i32 = 64 << 20;
const TOTAL_VM: i32 = 256 << 20;

/// A process in the table of the program: cgroup id, pid, name.
pub type Row = [u64; 4];

// Registers: what a helper returns and a program's own result, its arguments, those it leaves alone, the end of the stack.
const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R4: u8 = 4;
const COUNT: u8 = 6;
const WHO: u8 = 7;
const STACK: u8 = 10;
const BPF_PSEUDO_MAP_FD: u8 = 1;
const MAP_LOOKUP_ELEM: i32 = 1;
const KTIME_GET_NS: i32 = 5;
const RINGBUF_OUTPUT: i32 = 130;

/// Where on the stack the record and a key are.
const RECORD: i16 = -(size_of::<GrowthRecord>() as i16);
const KEY: i16 = RECORD - 8;

/// Puts a record into the ring and counts it as the kernel side does (`count_record`): one more sent, and one more dropped
/// if there was no room.
pub fn code(ring: RawFd, loss: RawFd, table: RawFd, rows: i32) -> Vec<u64> {
    // Of cgroups: two of one process at once would be one crossing that two of its threads saw.
    let kind = RecordKind::CgroupGrowth as i32;
    let size = size_of::<GrowthRecord>() as i32;
    let mut code = Vec::new();
    code.push(store_32(KEY, kind));
    code.extend(look_up(loss));
    // Each in its turn: the count is of this CPU, and so is the turn.
    code.extend([
        copy(COUNT, R0),
        load(R1, COUNT, emitted()),
        modulo(R1, rows),
    ]);
    code.push(save_32(KEY, R1));
    code.extend(look_up(table));
    code.extend([copy(WHO, R0), call(KTIME_GET_NS)]);
    code.push(save(
        field(offset_of!(GrowthRecord, header) + offset_of!(Header, ktime_ns)),
        R0,
    ));
    let head = |at: usize| field(offset_of!(GrowthRecord, header) + at);
    code.extend([
        store_32(head(offset_of!(Header, kind)), kind),
        store_32(head(offset_of!(Header, size)), size),
    ]);
    let comm = offset_of!(GrowthRecord, comm);
    for (word, to) in [
        (0, head(offset_of!(Header, cgroup))),
        // With the reserved zeros behind it.
        (1, field(offset_of!(GrowthRecord, pid))),
        (2, field(comm)),
        (3, field(comm + 8)),
    ] {
        code.extend([load(R1, WHO, word * 8), save(to, R1)]);
    }
    for (at, value) in [
        (offset_of!(GrowthRecord, bytes), GROWN),
        (offset_of!(GrowthRecord, since_ns), SINCE_NS),
        (offset_of!(GrowthRecord, rss), RSS),
        (offset_of!(GrowthRecord, total_vm), TOTAL_VM),
    ] {
        code.push(store(field(at), value));
    }
    code.extend(map(R1, ring));
    code.extend([
        copy(R2, STACK),
        add(R2, RECORD.into()),
        set(R3, size),
        set(R4, 0),
    ]);
    code.extend([call(RINGBUF_OUTPUT), set(R1, 1), count(emitted(), R1)]);
    let dropped = offset_of!(LossCount, dropped) as i16;
    code.extend([skip_if_0(R0, 1), count(dropped, R1)]);
    code.extend([set(R0, 0), exit()]);
    code
}

fn emitted() -> i16 {
    offset_of!(LossCount, emitted) as i16
}

fn field(at: usize) -> i16 {
    RECORD + at as i16
}

/// The entry at the key; without one the program ends and tells 1.
fn look_up(table: RawFd) -> Vec<u64> {
    let mut code = Vec::from(map(R1, table));
    code.extend([copy(R2, STACK), add(R2, KEY.into()), call(MAP_LOOKUP_ELEM)]);
    code.extend([skip_if_not_0(R0, 2), set(R0, 1), exit()]);
    code
}

/// One instruction (struct bpf_insn): code, registers, offset, immediate.
fn instruction(code: u8, to: u8, from: u8, offset: i16, value: i32) -> u64 {
    let [low, high] = offset.to_le_bytes();
    let [a, b, c, d] = value.to_le_bytes();
    u64::from_ne_bytes([code, from << 4 | to, low, high, a, b, c, d])
}

fn set(to: u8, value: i32) -> u64 {
    instruction(0xb7, to, 0, 0, value)
}

fn copy(to: u8, from: u8) -> u64 {
    instruction(0xbf, to, from, 0, 0)
}

fn add(to: u8, value: i32) -> u64 {
    instruction(0x07, to, 0, 0, value)
}

fn modulo(to: u8, value: i32) -> u64 {
    instruction(0x97, to, 0, 0, value)
}

fn map(to: u8, fd: RawFd) -> [u64; 2] {
    [instruction(0x18, to, BPF_PSEUDO_MAP_FD, 0, fd), 0]
}

fn load(to: u8, from: u8, offset: i16) -> u64 {
    instruction(0x79, to, from, offset, 0)
}

/// A register onto the stack.
fn save(offset: i16, from: u8) -> u64 {
    instruction(0x7b, STACK, from, offset, 0)
}

fn save_32(offset: i16, from: u8) -> u64 {
    instruction(0x63, STACK, from, offset, 0)
}

/// A figure onto the stack.
fn store(offset: i16, value: i32) -> u64 {
    instruction(0x7a, STACK, 0, offset, value)
}

fn store_32(offset: i16, value: i32) -> u64 {
    instruction(0x62, STACK, 0, offset, value)
}

/// A register added to a count, atomically.
fn count(offset: i16, from: u8) -> u64 {
    instruction(0xdb, COUNT, from, offset, 0)
}

fn skip_if_0(register: u8, instructions: i16) -> u64 {
    instruction(0x15, register, 0, instructions, 0)
}

fn skip_if_not_0(register: u8, instructions: i16) -> u64 {
    instruction(0x55, register, 0, instructions, 0)
}

fn call(helper: i32) -> u64 {
    instruction(0x85, 0, 0, 0, helper)
}

fn exit() -> u64 {
    instruction(0x95, 0, 0, 0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_those_of_the_kernel() {
        // r2 = r10; r2 += -88; lock *(u64 *)(r6 + 8) += r1
        assert_eq!(
            copy(R2, STACK).to_ne_bytes(),
            [0xbf, 0xa2, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(
            add(R2, -88).to_ne_bytes(),
            [7, 2, 0, 0, 0xa8, 0xff, 0xff, 0xff]
        );
        assert_eq!(count(8, R1).to_ne_bytes(), [0xdb, 0x16, 8, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_record_is_made_of_whole_words_of_the_stack() {
        assert_eq!(size_of::<GrowthRecord>() % 8, 0);
        assert_eq!(
            offset_of!(GrowthRecord, reserved),
            offset_of!(GrowthRecord, pid) + 4
        );
    }
}
