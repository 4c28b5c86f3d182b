use super::*;
use crate::host::fixture::Tree;

fn presence(list: &[Feature], name: &str) -> Presence {
    list.iter()
        .find(|feature| feature.name == name)
        .unwrap()
        .present
}

#[test]
fn a_machine_with_reclaim_has_it_and_swappiness_is_not_probed() {
    let tree = Tree::new();
    tree.file(
        "/proc/self/mountinfo",
        "31 23 0:29 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
    )
    .file("/sys/fs/cgroup/cgroup.controllers", "memory\n")
    .dir("/sys/fs/cgroup/a-without-files")
    .file("/sys/fs/cgroup/b/memory.current", "0\n")
    .file("/sys/fs/cgroup/b/memory.reclaim", "")
    .file("/sys/fs/cgroup/b/cgroup.freeze", "0\n");
    let host = tree.host();
    let fs = CgroupFs::discover(&host);
    let list = detect(&host, &fs, sample_cgroup(&host, &fs).as_deref());
    assert_eq!(presence(&list, "memory.reclaim"), Presence::Yes);
    assert_eq!(presence(&list, "memory.reclaim of the root"), Presence::No);
    assert_eq!(
        presence(&list, "memory.reclaim swappiness="),
        Presence::Unknown
    );
    assert_eq!(presence(&list, "memory.peak"), Presence::No);
    assert_eq!(presence(&list, "cgroup.freeze"), Presence::Yes);
    assert_eq!(
        presence(&list, "process_madvise"),
        Presence::Unknown,
        "no call tells of a fixture"
    );
    assert_eq!(
        std::fs::read(tree.path("/sys/fs/cgroup/b/memory.reclaim")).unwrap(),
        b"",
        "nothing was written"
    );
}

#[test]
fn without_a_child_cgroup_its_files_are_unknown() {
    let tree = Tree::new();
    tree.file(
        "/proc/self/mountinfo",
        "31 23 0:29 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
    )
    .file("/sys/fs/cgroup/cgroup.controllers", "memory\n");
    let host = tree.host();
    let fs = CgroupFs::discover(&host);
    let list = detect(&host, &fs, None);
    assert_eq!(presence(&list, "memory.reclaim"), Presence::Unknown);
    assert_eq!(presence(&list, "cgroup.freeze"), Presence::Unknown);
}

#[test]
fn calls_on_this_machine_answer_and_agree_with_its_files() {
    let calls = Calls::of(&Host::live());
    // Linux 6.4 brought the prctl, 6.1 the file: who has the first has the second.
    if calls.memory_merge == Presence::Yes {
        assert!(Path::new("/proc/self/ksm_stat").exists());
    }
    assert_ne!(
        calls.process_madvise,
        Presence::No,
        "every kernel from 5.10 on has it"
    );
}
