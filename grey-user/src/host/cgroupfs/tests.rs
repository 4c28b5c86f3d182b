use super::*;
use crate::host::fixture::{OwnCgroup, Tree};

const PROC: &str = "22 27 0:21 / /proc rw - proc proc rw";

fn machine(mounts: &[&str]) -> Tree {
    let tree = Tree::new();
    tree.file(
        "/proc/self/mountinfo",
        &format!("{PROC}\n{}\n", mounts.join("\n")),
    );
    tree
}

#[test]
fn the_layout_is_told_from_the_mounts() {
    let v2 = "31 23 0:29 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate";
    let v2_beside = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
    let v1 = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";
    let named = "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd";
    let table: [(&[&str], Mode, Option<&str>, bool); 5] = [
        (&[v2], Mode::Unified, Some("/sys/fs/cgroup"), false),
        (
            &[v1, v2_beside],
            Mode::Hybrid,
            Some("/sys/fs/cgroup/unified"),
            true,
        ),
        (
            &[named, v2_beside],
            Mode::Hybrid,
            Some("/sys/fs/cgroup/unified"),
            false,
        ),
        (&[v1, named], Mode::V1Only, None, true),
        (&[], Mode::None, None, false),
    ];
    for (mounts, mode, mount, v1_memory) in table {
        let fs = CgroupFs::discover(&machine(mounts).host());
        assert_eq!(fs.mode(), mode, "{mounts:?}");
        assert_eq!(fs.mount(), mount.map(Path::new), "{mounts:?}");
        assert_eq!(fs.facts().v1_memory.is_some(), v1_memory, "{mounts:?}");
        assert!(!fs.has_memory(), "{mounts:?}");
    }
}

#[test]
fn the_whole_tree_is_taken_before_a_part_of_it() {
    let part = "50 23 0:29 /system.slice/x /data/part rw - cgroup2 cgroup2 rw";
    let host = "51 23 0:29 / /host/sys/fs/cgroup rw - cgroup2 cgroup2 rw";
    let fs = CgroupFs::discover(&machine(&[part, host]).host());
    assert_eq!(
        (fs.mount(), fs.facts().partial),
        (Some(Path::new("/host/sys/fs/cgroup")), false)
    );
    let fs = CgroupFs::discover(&machine(&[part]).host());
    assert_eq!(
        (fs.mount(), fs.facts().partial),
        (Some(Path::new("/data/part")), true)
    );
}

#[test]
fn a_tree_that_cannot_be_opened_says_so() {
    let fs =
        CgroupFs::discover(&machine(&["31 23 0:29 / /nowhere rw - cgroup2 cgroup2 rw"]).host());
    assert!(
        fs.facts()
            .error
            .as_deref()
            .unwrap()
            .contains("open /nowhere"),
        "{:?}",
        fs.facts()
    );
    assert!(matches!(fs.walk(), Err(HostError::NoCgroup2)));
    let blind = CgroupFs::discover(&Tree::new().host());
    assert!(
        blind
            .facts()
            .error
            .as_deref()
            .unwrap()
            .contains("/proc/self/mountinfo")
    );
}

#[test]
fn a_walk_gives_every_cgroup_once_and_parents_first() {
    let tree = machine(&["31 23 0:29 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw"]);
    tree.file("/sys/fs/cgroup/cgroup.controllers", "cpu memory pids\n")
        .file("/sys/fs/cgroup/cgroup.subtree_control", "memory\n")
        .file(
            "/sys/fs/cgroup/system.slice/a.service/cgroup.procs",
            "12\n0\n7\n",
        )
        .dir("/sys/fs/cgroup/user.slice");
    let fs = CgroupFs::discover(&tree.host());
    assert!(fs.has_memory());
    assert_eq!(fs.facts().memory_delegated, Some(true));
    let walk = fs.walk().unwrap();
    let paths: Vec<&str> = walk
        .cgroups
        .iter()
        .map(|entry| entry.path.as_str())
        .collect();
    let mut sorted = paths.clone();
    sorted.sort_unstable();
    assert_eq!(
        sorted,
        [
            "/",
            "/system.slice",
            "/system.slice/a.service",
            "/user.slice"
        ]
    );
    let at = |path| paths.iter().position(|found| *found == path).unwrap();
    assert!(at("/system.slice") < at("/system.slice/a.service"));
    for entry in &walk.cgroups {
        let stat = rustix::fs::stat(fs.reach(&entry.path)).unwrap();
        assert_eq!(entry.id, stat.st_ino, "{}", entry.path);
    }
    assert_eq!(fs.lookup(walk.cgroups[0].id).as_deref(), Some("/"));
    assert_eq!(
        fs.id_of("/user.slice"),
        Some(walk.cgroups[at("/user.slice")].id)
    );
    assert_eq!((fs.id_of("/gone"), fs.lookup(u64::MAX)), (None, None));
    assert_eq!(
        fs.pids("/system.slice/a.service").unwrap(),
        [12, 7],
        "0 is nobody we could look up"
    );
    assert_eq!(fs.pids("/gone").unwrap(), [0_u32; 0]);
}

#[test]
fn a_real_cgroup_is_found_by_id_until_it_is_removed() {
    let fs = CgroupFs::discover(&Host::live());
    let Some(own) = OwnCgroup::make(&fs, "lookup") else {
        return;
    };
    let walk = fs.walk().unwrap();
    let entry = walk
        .cgroups
        .iter()
        .find(|entry| entry.path == own.path())
        .unwrap()
        .clone();
    assert_eq!(fs.lookup(entry.id), Some(entry.path));
    drop(own);
    assert_eq!(fs.lookup(entry.id), None);
}
