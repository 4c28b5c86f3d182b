//! A cheap source of events: a program of ours that puts growth records into the ring of a `watch` that runs, run by hand.
//! What it tells of has not happened; ring, counts, reader and lines are the real ones.

mod code;

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData, MapInfo, MapType};
use grey_common::COMM_LEN;

use crate::load::used;
use crate::{bpf, cgroup};
use code::{Row, code};

/// Between two bursts.
pub const STEP: Duration = Duration::from_micros(500);
/// A burst is at most what this time asks for.
pub const BURST: Duration = Duration::from_millis(1);
/// Processes that are told of, one after the other.
const MOST: usize = 1024;

/// The program, loaded for one `watch`.
#[derive(Debug)]
pub struct Feed {
    program: OwnedFd,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Fed {
    /// Records, with those that found no room.
    pub count: u64,
    /// The time that took.
    pub seconds: f64,
    /// Processors that took.
    pub cpu: f64,
}

impl Feed {
    /// For the `watch` with this pid.
    ///
    /// # Errors
    /// It has no rings, or the kernel does not take the program (5.8).
    pub fn of(watch: u32) -> Result<Feed> {
        let rows = rows()?;
        ensure!(!rows.is_empty(), "no process to tell of");
        let table = table(&rows)?;
        let (ring, loss) = (map_of(watch, "GROWTH")?, map_of(watch, "LOSS")?);
        let fd = |map: &MapData| map.fd().as_fd().as_raw_fd();
        let rows = i32::try_from(rows.len())?;
        let code = code(fd(&ring), fd(&loss), fd(&table), rows);
        // From here on the program holds the maps.
        let program = bpf::load(bpf::SCHED_CLS, "feed", &code, (0, 0))
            .context("the program that makes events")?;
        Ok(Feed { program })
    }

    /// So many records a second for this time, in bursts; what is late is made up for at twice the pace at most.
    ///
    /// # Errors
    /// The kernel does not run the program.
    pub fn at(&self, rate: u32, time: Duration) -> Result<Fed> {
        let rate = f64::from(rate);
        let most = (rate * BURST.as_secs_f64()).ceil() as u64;
        let all = (rate * time.as_secs_f64()) as u64;
        let (begun, before, mut count) = (Instant::now(), used(), 0);
        while count < all {
            let until = (begun.elapsed() + STEP).as_secs_f64();
            let burst = all
                .min((rate * until) as u64)
                .saturating_sub(count)
                .min(most);
            if burst > 0 {
                bpf::run(self.program.as_fd(), u32::try_from(burst)?)?;
                count += burst;
            }
            std::thread::sleep(STEP);
        }
        std::thread::sleep(time.saturating_sub(begun.elapsed()));
        let seconds = begun.elapsed().as_secs_f64();
        Ok(Fed {
            count,
            seconds,
            cpu: (used() - before) / seconds,
        })
    }
}

/// An array of these rows. Taken anew by its id, as aya's arrays keep their descriptor to themselves.
fn table(rows: &[Row]) -> Result<MapData> {
    let (key, value) = (size_of::<u32>() as u32, size_of::<Row>() as u32);
    let kind = MapType::Array as u32;
    let map = aya_obj::Map::new_from_params(kind, key, value, rows.len() as u32, 0);
    let map = MapData::create(map, "feed", None)?;
    let id = map.info()?.id();
    let mut array = Array::<_, Row>::try_from(Map::Array(map))?;
    for (number, row) in rows.iter().enumerate() {
        array.set(number as u32, row, 0)?;
    }
    Ok(MapData::from_id(id)?)
}

/// The map of that name that a process holds.
fn map_of(pid: u32, name: &str) -> Result<MapData> {
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let Some(id) = map_id(&text) else { continue };
        let info = MapInfo::from_id(id)?;
        if info.name_as_str() == Some(name) {
            return Ok(MapData::from_id(id)?);
        }
    }
    anyhow::bail!("the process {pid} holds no map {name}");
}

fn map_id(fdinfo: &str) -> Option<u32> {
    let line = fdinfo.lines().find_map(|line| line.strip_prefix("map_id:"));
    line?.trim().parse().ok()
}

/// The processes that live, as the program tells of them.
fn rows() -> Result<Vec<Row>> {
    let mount = cgroup::mount()?;
    let mut rows = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let pid = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        // One may end meanwhile.
        if let Some(row) = pid.and_then(|pid: u32| row(&mount, pid).ok()) {
            rows.push(row);
        }
    }
    rows.truncate(MOST);
    Ok(rows)
}

fn row(mount: &Path, pid: u32) -> Result<Row> {
    let file = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}"));
    let groups = file("cgroup")?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    let cgroup = fs::metadata(mount.join(path.context("no v2 cgroup")?))?.ino();
    let mut comm = [0; COMM_LEN];
    for (to, from) in comm[..COMM_LEN - 1]
        .iter_mut()
        .zip(file("comm")?.trim().bytes())
    {
        *to = from;
    }
    let word = |at: usize| {
        comm[at..]
            .first_chunk()
            .map_or(0, |part| u64::from_ne_bytes(*part))
    };
    Ok([cgroup, pid.into(), word(0), word(8)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_known_by_its_id() {
        assert_eq!(map_id("pos:\t0\nmap_type:\t27\nmap_id:\t41\n"), Some(41));
        assert_eq!(map_id("pos:\t0\nlink_type:\traw\nprog_id:\t7\n"), None);
    }
}
