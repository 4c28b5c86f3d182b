//! How much anonymous memory swap can take, for the machine and for a cgroup.

use grey_core::units::format_bytes;
use grey_core::view::printable;

use crate::act::Scene;
use crate::host::MemInfo;

/// Room, and what bounds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub bytes: u64,
    pub bound: String,
}

/// The room for a cgroup's pages.
///
/// # Errors
/// Why nothing can take them, and what to do.
pub(crate) fn room(scene: &Scene, cgroup: &str) -> Result<Room, String> {
    let info = MemInfo::read(&scene.host).map_err(|error| error.to_string())?;
    let limits = ancestors(cgroup).map(|path| {
        let dir = scene.cgroups.reach(&path);
        // Absent without a memory controller or swap accounting: then nothing is bounded there.
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).ok();
        let limit = read("memory.swap.max").and_then(|text| text.trim().parse().ok());
        let used = read("memory.swap.current").and_then(|text| text.trim().parse().ok());
        (path, limit, used)
    });
    least(info.swap_total, info.swap_free, limits)
}

/// `/a/b`, `/a`; never the root, which has no limits.
fn ancestors(path: &str) -> impl Iterator<Item = String> + use<> {
    let mut next = Some(path.trim_end_matches('/').to_owned());
    std::iter::from_fn(move || {
        let path = next.take().filter(|path| !path.is_empty())?;
        next = path.rsplit_once('/').map(|(parent, _)| parent.to_owned());
        Some(path)
    })
}

fn least(
    total: Option<u64>,
    free: Option<u64>,
    limits: impl Iterator<Item = (String, Option<u64>, Option<u64>)>,
) -> Result<Room, String> {
    if total.unwrap_or(0) == 0 {
        return Err(
            "this machine has no swap, so that nothing can take the pages; add zram or a swap file"
                .to_owned(),
        );
    }
    let mut room = Room {
        bytes: free.unwrap_or(0),
        bound: "free swap".to_owned(),
    };
    if room.bytes == 0 {
        return Err(format!(
            "all {} of swap are in use, so that nothing can take the pages; add zram or a swap file",
            format_bytes(total.unwrap_or(0))
        ));
    }
    for (path, limit, used) in limits {
        let Some(limit) = limit else { continue };
        let left = limit.saturating_sub(used.unwrap_or(0));
        if left == 0 {
            return Err(format!(
                "memory.swap.max of {} is reached ({}), so that its pages cannot go to swap; raise it",
                printable(&path),
                format_bytes(limit)
            ));
        }
        if left < room.bytes {
            room = Room {
                bytes: left,
                bound: format!("memory.swap.max of {}", printable(&path)),
            };
        }
    }
    Ok(room)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_of_swap_and_the_limits_above_bounds() {
        let at = |path: &str, limit, used| (path.to_owned(), limit, used);
        let room = |total, free, limits: &[(String, Option<u64>, Option<u64>)]| {
            least(Some(total), Some(free), limits.iter().cloned())
        };
        assert!(least(None, None, std::iter::empty()).is_err());
        assert!(room(0, 0, &[]).is_err_and(|why| why.contains("no swap")));
        assert!(room(9, 0, &[]).is_err_and(|why| why.contains("in use")));
        let free = room(9, 5, &[at("/a", None, Some(3))]).unwrap();
        assert_eq!((free.bytes, free.bound.as_str()), (5, "free swap"));
        let bound = room(
            9,
            5,
            &[at("/a/b", Some(9), None), at("/a", Some(7), Some(4))],
        )
        .unwrap();
        assert_eq!(
            (bound.bytes, bound.bound.as_str()),
            (3, "memory.swap.max of /a")
        );
        let reached = room(9, 5, &[at("/a", Some(2), Some(4))]);
        assert!(reached.is_err_and(|why| why.contains("of /a is reached")));
        assert!(room(9, 5, &[at("/a", Some(0), None)]).is_err());
    }

    #[test]
    fn the_root_bounds_nothing() {
        let all = |path| ancestors(path).collect::<Vec<_>>();
        assert_eq!(all("/a/b"), ["/a/b", "/a"]);
        assert!(all("/").is_empty());
    }
}
