//! A change of state in words: the sentence of the evidence and the one piece of advice.

use super::series::Change;
use crate::event::{Cause, Memory, State};
use crate::units::{format_bytes, format_duration_us};

fn bytes(value: f64) -> String {
    format_bytes(value.max(0.0) as u64)
}

fn time(seconds: f64) -> String {
    format_duration_us((seconds.max(0.0) * 1e6) as u64)
}

/// What grows, in words.
pub(super) fn noun(memory: Memory) -> &'static str {
    match memory {
        Memory::Anon => "anonymous memory",
        Memory::File => "page cache",
        Memory::Shmem => "shared memory",
        Memory::Kernel => "kernel memory",
        Memory::Slab => "slab",
        Memory::Pagetables => "page tables",
        Memory::Sock => "socket buffers",
        Memory::Virtual => "virtual size",
    }
}

/// What was seen.
pub(super) fn reason(memory: Memory, change: &Change) -> String {
    let what = noun(memory);
    if let (State::Recovered | State::Normal, None) = (change.state, &change.ended) {
        return match change.held {
            Some(held) => format!(
                "{what} stopped growing at {}, {} above where it began",
                bytes(held.high),
                bytes(held.high - held.from)
            ),
            None => format!("{what} is steady again"),
        };
    }
    if let Some(ended) = &change.ended {
        let episode = &ended.episode;
        let rise = time((episode.rest_at - episode.start) as f64 / 1e6);
        let from = bytes(episode.base);
        let peak = bytes(episode.peak);
        let level = bytes(ended.level);
        return match ended.cause {
            Cause::Load => format!("{what} rose from {from} to {peak} and went back to {level}"),
            Cause::Retention => format!(
                "{what} went from {from} to {peak} within {rise} and has stayed at {level} since: neither growing nor given back"
            ),
            Cause::Warmup => format!(
                "{what} rose from {from} to {level} after the start, ever slower, and came to rest"
            ),
            _ => format!("{what} rose from {from} to {level} in {rise} and came to rest there"),
        };
    }
    let Some(trend) = &change.trend else {
        return format!("{what} has changed");
    };
    let mut text = format!(
        "floor of {what} rose by {} in {}, from {} to {}",
        bytes(trend.growth()),
        time(trend.seconds()),
        bytes(trend.from),
        bytes(trend.to)
    );
    match change.cause {
        Cause::Leak => {
            text.push_str(if trend.teeth > 0.0 {
                ", seen through its ups and downs"
            } else {
                ", without falling back"
            });
            if trend.second_half >= 1.3 {
                text.push_str(", and faster of late");
            }
        }
        Cause::Load => text.push_str(", in step with the number of processes or the fault rate"),
        Cause::Warmup => text.push_str(", and slows down"),
        Cause::Cache => text.push_str(", memory that the kernel counts as cache or shared files"),
        _ => {}
    }
    text
}

/// What to do next.
pub(super) fn advice(
    memory: Memory,
    state: State,
    cause: Cause,
    who: &str,
    ttl_s: Option<f64>,
) -> String {
    let until = ttl_s.map_or_else(String::new, |ttl| {
        format!(" within {}, before it reaches its limit", time(ttl))
    });
    match (state, cause) {
        (State::Recovered | State::Normal, Cause::Leak) => {
            format!("it stopped; look what {who} did between the begin of the growth and now")
        }
        (_, Cause::Leak) => match memory {
            Memory::Anon => format!(
                "take a heap profile of {who} or restart it{until}; a limit in memory.high slows it down"
            ),
            Memory::Pagetables => format!(
                "look for many sparse or shared mappings in {who}; huge pages need fewer page tables{until}"
            ),
            Memory::Sock => {
                format!("look for connections of {who} whose peer does not read (ss -tmp){until}")
            }
            Memory::Slab | Memory::Kernel => format!(
                "compare slabtop and cgroup.stat's nr_dying_descendants over time; look for files, sockets or cgroups that {who} leaves behind{until}"
            ),
            _ => format!("look what {who} keeps{until}"),
        },
        (State::Recovered | State::Normal, Cause::Retention) => {
            "the memory went back; nothing to do".to_owned()
        }
        (_, Cause::Retention) => format!(
            "no leak: the allocator of {who} keeps freed memory; malloc_trim, MALLOC_TRIM_THRESHOLD_ or MALLOC_ARENA_MAX=2 give it back, or jemalloc"
        ),
        (_, Cause::Cache) => match memory {
            Memory::File => "nothing to do: page cache goes back when somebody needs it".to_owned(),
            Memory::Shmem => format!(
                "look for files on tmpfs and shared memory segments of {who} (df -t tmpfs, ipcs -m): only deleting them gives it back"
            ),
            _ => format!("no leak: a cache of {who} that has filled; cap it if it is too large"),
        },
        (_, Cause::Reservation) => {
            "no leak: address space that was never touched costs no memory".to_owned()
        }
        (_, Cause::Warmup) => "no leak: wait for the start to end".to_owned(),
        (_, Cause::Load) => format!("no leak: {who} takes memory for work and gives it back"),
        (_, Cause::Unknown) => "too early to tell; keep watching".to_owned(),
    }
}
