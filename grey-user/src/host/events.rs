//! Changes of memory.events of many cgroups, through one inotify descriptor.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::{CgroupFiles, HostError};

/// What a read of the notifications told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notified {
    /// The kernel's queue overflowed: any watched cgroup may have changed.
    pub overflow: bool,
}

/// Watches on memory.events. Poll it for readability.
#[derive(Debug)]
pub struct EventWatches {
    fd: OwnedFd,
    by_watch: HashMap<i32, u64>,
    by_id: HashMap<u64, i32>,
}

impl EventWatches {
    /// Without any watch yet; reads do not block.
    ///
    /// # Errors
    /// Where the kernel gives no more inotify instances (`fs.inotify.max_user_instances`).
    pub fn new() -> Result<Self, HostError> {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(|source| {
            HostError::file("open", "inotify (fs.inotify.max_user_instances)", source)
        })?;
        Ok(EventWatches {
            fd,
            by_watch: HashMap::new(),
            by_id: HashMap::new(),
        })
    }

    /// Watches a cgroup; `false` where it has no memory.events (the root, or no memory controller).
    ///
    /// # Errors
    /// Above all ENOSPC: `fs.inotify.max_user_watches` is used up.
    pub fn add(&mut self, files: &CgroupFiles) -> Result<bool, HostError> {
        // By descriptor, since the path may belong to another cgroup by now.
        let path = format!("/proc/self/fd/{}/memory.events", files.dir().as_raw_fd());
        match inotify::add_watch(&self.fd, path, WatchFlags::MODIFY) {
            Ok(watch) => {
                self.by_watch.insert(watch, files.id());
                self.by_id.insert(files.id(), watch);
                Ok(true)
            }
            Err(Errno::NOENT | Errno::NODEV | Errno::NOTDIR) => Ok(false),
            Err(source) => {
                let subject = format!("{}/memory.events", files.path().trim_end_matches('/'));
                Err(HostError::file("watch", subject, source))
            }
        }
    }

    /// Ends the watch of a cgroup. Needed also after its removal: kernfs keeps such a watch.
    pub fn remove(&mut self, id: u64) {
        if let Some(watch) = self.by_id.remove(&id) {
            self.by_watch.remove(&watch);
            // Fails only where the kernel dropped the watch by itself, which is what we want.
            let _ = inotify::remove_watch(&self.fd, watch);
        }
    }

    /// Number of cgroups watched.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether nothing is watched.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Appends the ids of the cgroups whose memory.events changed since the last call, each once.
    ///
    /// # Errors
    /// Where the descriptor cannot be read.
    pub fn read(&mut self, changed: &mut Vec<u64>) -> Result<Notified, HostError> {
        let mut space = [MaybeUninit::<u8>::uninit(); 4096];
        let mut notified = Notified::default();
        let before = changed.len();
        let mut reader = inotify::Reader::new(&self.fd, &mut space);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(source) => return Err(HostError::file("read", "inotify", source)),
            };
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                notified.overflow = true;
                continue;
            }
            let watch = event.wd();
            if event.events().contains(ReadFlags::IGNORED) {
                if let Some(id) = self.by_watch.remove(&watch) {
                    self.by_id.remove(&id);
                }
            } else if let Some(id) = self.by_watch.get(&watch) {
                changed.push(*id);
            }
        }
        changed[before..].sort_unstable();
        let mut kept = before;
        for at in before..changed.len() {
            if at == before || changed[at] != changed[kept - 1] {
                changed[kept] = changed[at];
                kept += 1;
            }
        }
        changed.truncate(kept);
        Ok(notified)
    }
}

impl AsFd for EventWatches {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fixture::Tree;
    use crate::host::{CgroupEntry, CgroupFs};

    fn cgroups(names: &[&str]) -> (Tree, Vec<CgroupFiles>) {
        let tree = Tree::new();
        tree.file(
            "/proc/self/mountinfo",
            "31 23 0:29 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        );
        for name in names {
            tree.file(
                &format!("/sys/fs/cgroup/{name}/memory.events"),
                "oom_kill 0\n",
            );
        }
        let fs = CgroupFs::discover(&tree.host());
        let open =
            |CgroupEntry { id, path }: CgroupEntry| CgroupFiles::open(&fs, id, &path).unwrap();
        let mut files: Vec<_> = fs
            .walk()
            .unwrap()
            .cgroups
            .into_iter()
            .filter_map(open)
            .collect();
        files.sort_by(|a, b| a.path().cmp(b.path()));
        (tree, files)
    }

    fn touch(tree: &Tree, name: &str) {
        tree.file(
            &format!("/sys/fs/cgroup/{name}/memory.events"),
            "oom_kill 1\n",
        );
    }

    #[test]
    fn each_changed_cgroup_is_told_once_and_the_root_has_nothing_to_watch() {
        let (tree, files) = cgroups(&["a", "b", "c"]);
        let mut watches = EventWatches::new().unwrap();
        let added: Vec<bool> = files
            .iter()
            .map(|files| watches.add(files).unwrap())
            .collect();
        assert_eq!(added, [false, true, true, true]);
        for name in ["c", "a", "c", "c"] {
            touch(&tree, name);
        }
        let mut changed = vec![99];
        assert_eq!(
            watches.read(&mut changed).unwrap(),
            Notified { overflow: false }
        );
        let mut want = vec![files[1].id(), files[3].id()];
        want.sort_unstable();
        assert_eq!(changed[0], 99, "what the caller had is kept");
        assert_eq!(changed[1..], want);
        changed.clear();
        watches.read(&mut changed).unwrap();
        assert!(changed.is_empty());
    }

    #[test]
    fn a_removed_watch_is_silent_and_leaves_nothing_behind() {
        let (tree, files) = cgroups(&["a", "b"]);
        let mut watches = EventWatches::new().unwrap();
        assert!(watches.add(&files[1]).unwrap() && watches.add(&files[2]).unwrap());
        touch(&tree, "a");
        watches.remove(files[1].id());
        watches.remove(files[1].id());
        std::fs::remove_dir_all(tree.path("/sys/fs/cgroup/b")).unwrap();
        let mut changed = Vec::new();
        watches.read(&mut changed).unwrap();
        watches.remove(files[2].id());
        assert!(!changed.contains(&files[1].id()));
        assert!(watches.is_empty() && watches.by_watch.is_empty());
    }
}
