use super::*;
use crate::host::fixture::{OwnCgroup, Tree};
use crate::host::flat::testing::numbered;
use crate::host::memstat::MemStat;

/// Files read in VMs of these kernels.
const REAL: [(&str, &str); 4] = [
    ("5.10", include_str!("../testdata/memory.stat-5.10")),
    ("6.1", include_str!("../testdata/memory.stat-6.1")),
    ("6.12", include_str!("../testdata/memory.stat-6.12")),
    ("7.2", include_str!("../testdata/memory.stat-7.2")),
];

/// memory.events of Linux 7.2.
const EVENTS: &str =
    "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\nsock_throttled 0\n";

/// cgroup.stat of Linux 6.12, the figures made different.
const CGROUP_STAT: &str = "nr_descendants 7\nnr_subsys_cpuset 1\nnr_subsys_memory 9\nnr_dying_descendants 3\n\
    nr_dying_subsys_cpuset 0\nnr_dying_subsys_memory 2\n";

#[test]
fn every_line_of_memory_stat_has_its_field_on_every_kernel() {
    for (kernel, content) in REAL {
        let (text, values) = numbered(content);
        for (key, got) in FullStat::parse(&text).by_key() {
            assert_eq!(got, values.get(key).copied(), "{key} on {kernel}");
        }
    }
    for (kernel, content) in REAL {
        let (text, _) = numbered(content);
        let (slow, hot) = (FullStat::parse(&text), MemStat::parse(text.as_bytes()));
        assert_eq!(slow.kernel_total(), hot.kernel_total(), "{kernel}");
        assert_eq!(slow.refault_total(), hot.refault_total(), "{kernel}");
    }
    let newest = FullStat::parse(REAL[3].1).by_key();
    let missing: Vec<&str> = newest
        .into_iter()
        .filter_map(|(key, value)| value.is_none().then_some(key))
        .collect();
    // Counted only where the mount asks for it.
    assert_eq!(missing, ["hugetlb"]);
}

#[test]
fn reclaimable_is_cache_and_shrinkable_slab_and_absent_where_a_part_is() {
    let stat = FullStat::parse(
        "inactive_file 100\nactive_file 20\nslab_reclaimable 3\nfile 500\nshmem 380\n",
    );
    assert_eq!((stat.reclaimable(), stat.huge()), (Some(123), None));
    assert_eq!(
        FullStat::parse("inactive_file 100\nactive_file 20\n").reclaimable(),
        None
    );
    assert_eq!(FullStat::parse("anon_thp 4\nfile_thp 2\n").huge(), Some(6));
}

#[test]
fn events_have_the_lines_their_kernel_has() {
    let old = FullEvents::parse("low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\n");
    let new = FullEvents::parse(
        "low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\nsock_throttled 7\n",
    );
    assert_eq!(
        (old.low, old.oom_kill, old.oom_group_kill),
        (Some(1), Some(5), None)
    );
    assert_eq!((new.oom_group_kill, new.sock_throttled), (Some(6), Some(7)));
    let (text, values) = numbered(EVENTS);
    for (key, got) in FullEvents::parse(&text).by_key() {
        assert_eq!(got, values.get(key).copied(), "{key}");
    }
    let (text, values) = numbered(CGROUP_STAT);
    for (key, got) in CgroupStat::parse(&text).by_key() {
        assert_eq!(got, values.get(key).copied(), "{key}");
    }
    let stat = CgroupStat::parse(CGROUP_STAT);
    assert_eq!(
        (stat.descendants, stat.dying_descendants),
        (Some(7), Some(3))
    );
    assert_eq!((stat.memory, stat.dying_memory), (Some(9), Some(2)));
    assert_eq!(
        CgroupStat::parse("nr_descendants 0\nnr_dying_descendants 0\n").dying_memory,
        None
    );
}

#[test]
fn a_cgroup_gives_all_its_files_and_an_older_kernels_fewer() {
    let tree = Tree::new();
    let at = "/sys/fs/cgroup/a";
    tree.file(
        "/proc/self/mountinfo",
        "31 23 0:29 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
    )
    .file("/sys/fs/cgroup/cgroup.stat", CGROUP_STAT)
    .file(&format!("{at}/cgroup.procs"), "")
    .file(&format!("{at}/memory.current"), "3358720\n")
    .file(&format!("{at}/memory.peak"), "4358144\n")
    .file(&format!("{at}/memory.max"), "max\n")
    .file(&format!("{at}/memory.high"), "16777216\n")
    .file(&format!("{at}/memory.low"), "0\n")
    .file(&format!("{at}/memory.oom.group"), "1\n")
    .file(&format!("{at}/memory.stat"), REAL[3].1)
    .file(&format!("{at}/memory.events"), "oom_kill 2\n")
    .file(&format!("{at}/memory.events.local"), "oom_kill 1\n")
    .file(&format!("{at}/memory.pressure"), "nonsense\n");
    let fs = CgroupFs::discover(&tree.host());
    let detail = CgroupDetail::read(&fs, "/a").unwrap().unwrap();
    assert_eq!(
        (detail.current, detail.peak),
        (Some(3_358_720), Some(4_358_144))
    );
    assert_eq!(
        (detail.max, detail.high, detail.low),
        (Limit::None, Limit::Bytes(16 << 20), Limit::Bytes(0))
    );
    assert_eq!(
        (detail.min, detail.swap, detail.swap_max),
        (Limit::Unknown, None, Limit::Unknown)
    );
    assert_eq!(detail.oom_group, Some(true));
    let kills = |events: &Option<FullEvents>| events.as_ref().unwrap().oom_kill;
    assert_eq!(
        (kills(&detail.events), kills(&detail.events_local)),
        (Some(2), Some(1))
    );
    assert!(
        detail.stat.unwrap().anon.is_some() && detail.cgroups.is_none() && detail.psi.is_none()
    );
    assert_eq!(detail.errors, Vec::<String>::new());
    assert_eq!(CgroupDetail::read(&fs, "/b").unwrap(), None);
    let dying = dying_cgroups(&tree.host(), &fs).unwrap();
    assert_eq!(dying.dying_descendants, Some(3));
}

#[test]
fn a_cgroup_of_this_machine_is_read_and_a_removed_one_is_gone() {
    let fs = CgroupFs::discover(&Host::live());
    let Some(own) = OwnCgroup::make(&fs, "detail") else {
        return;
    };
    let detail = CgroupDetail::read(&fs, own.path()).unwrap().unwrap();
    assert_eq!(detail.cgroups.unwrap().descendants, Some(0));
    assert_eq!(
        detail.current.is_some(),
        fs.has_memory() && detail.stat.is_some()
    );
    let path = own.path().to_owned();
    drop(own);
    assert_eq!(CgroupDetail::read(&fs, &path).unwrap(), None);
}
