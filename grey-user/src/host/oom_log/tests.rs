use super::*;
use crate::host::fixture::Tree;

/// The same kill in three kernels' words: 16 MiB limit on /grp, the victim in /grp/web.
const REAL: [(&str, &str); 3] = [
    ("5.10", include_str!("../testdata/kmsg-oom-5.10")),
    ("6.12", include_str!("../testdata/kmsg-oom-6.12")),
    ("7.2", include_str!("../testdata/kmsg-oom-7.2")),
];

fn read(text: &str) -> Vec<OomRecord> {
    oom_records(&records(text))
}

#[test]
fn a_limits_kill_is_told_alike_by_every_kernel() {
    for (kernel, text) in REAL {
        let found = read(text);
        assert_eq!(found.len(), 1, "{kernel}");
        let record = &found[0];
        assert_eq!(record.comm, "web", "{kernel}");
        assert_eq!(record.trigger.as_deref(), Some("web"), "{kernel}");
        assert_eq!(record.constraint, OomConstraint::Memcg, "{kernel}");
        assert_eq!(record.limit_cgroup.as_deref(), Some("/grp"), "{kernel}");
        assert_eq!(
            record.victim_cgroup.as_deref(),
            Some("/grp/web"),
            "{kernel}"
        );
        assert_eq!(
            (record.usage, record.limit),
            (Some(16 << 20), Some(16 << 20)),
            "{kernel}"
        );
        assert_eq!(
            (record.order, record.oom_score_adj),
            (Some(0), Some(0)),
            "{kernel}"
        );
        let near =
            |bytes: Option<u64>| bytes.is_some_and(|bytes| bytes.abs_diff(16 << 20) < 512 << 10);
        assert!(
            near(record.anon) && near(record.cgroup_anon),
            "{kernel}: {record:?}"
        );
        assert_eq!(record.cgroup_file, Some(0), "{kernel}");
        assert_eq!(record.candidates.len(), 1, "{kernel}");
        assert_eq!(record.candidates[0].pid, record.pid, "{kernel}");
        assert!(record.candidates[0].rss > 16 << 20, "{kernel}: {record:?}");
        assert!(record.boot_us > 1_000_000 && !record.group, "{kernel}");
    }
}

#[test]
fn the_machine_running_out_names_no_cgroup_of_a_limit() {
    let found = read(
        "4,1,7000000,-;cc1plus invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE|__GFP_COMP), order=0, oom_score_adj=0\n\
         6,2,7000001,-;Tasks state (memory values in pages):\n\
         6,3,7000002,-;[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name\n\
         6,4,7000003,-;[    100]     0   100     6481       10    81920       20          -900 small one\n\
         6,5,7000003,-;[    200]  1000   200   900000   800000    81920      100             0 cc1plus\n\
         6,6,7000004,-;oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/user.slice/a,b,task=cc1plus,pid=200,uid=1000\n\
         3,7,7000005,-;Out of memory: Killed process 200 (cc1plus) total-vm:3600000kB, anon-rss:3199996kB, file-rss:4kB, shmem-rss:0kB, UID:1000 pgtables:80kB oom_score_adj:0\n",
    );
    assert_eq!(found.len(), 1);
    let record = &found[0];
    assert_eq!(
        (record.constraint, &record.limit_cgroup),
        (OomConstraint::Global, &None)
    );
    // The victim's path has a comma in it.
    assert_eq!(record.victim_cgroup.as_deref(), Some("/user.slice/a,b"));
    let names: Vec<&str> = record
        .candidates
        .iter()
        .map(|task| task.comm.as_str())
        .collect();
    assert_eq!(names, ["cc1plus", "small one"]);
    assert_eq!(
        record.candidates[1].swap,
        20 * rustix::param::page_size() as u64
    );
}

#[test]
fn a_group_kill_makes_a_record_of_each_process_with_the_limit() {
    let found = read(
        "4,1,7,-;a invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0\n\
         6,2,7,-;memory: usage 4096kB, limit 4096kB, failcnt 1\n\
         6,3,7,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/g,task_memcg=/g,task=a,pid=5,uid=0\n\
         3,5,9,-;Memory cgroup out of memory: Killed process 5 (a) total-vm:1kB, anon-rss:2kB, file-rss:3kB, shmem-rss:4kB, UID:0 pgtables:5kB oom_score_adj:0\n\
         6,4,8,-;Tasks in /g are going to be killed due to memory.oom.group set\n\
         3,5,10,-;Memory cgroup out of memory: Killed process 5 (a) total-vm:1kB, anon-rss:2kB, file-rss:3kB, shmem-rss:4kB, UID:0 pgtables:5kB oom_score_adj:0\n\
         3,6,9,-;Memory cgroup out of memory: Killed process 6 (b) (x) total-vm:1kB, anon-rss:2kB, file-rss:3kB, shmem-rss:4kB, UID:0 pgtables:5kB oom_score_adj:-7\n",
    );
    let told: Vec<_> = found
        .iter()
        .map(|record| (record.pid, record.comm.as_str(), record.group, record.limit))
        .collect();
    assert_eq!(
        told,
        [
            (5, "a", true, Some(4 << 20)),
            (6, "b) (x", true, Some(4 << 20))
        ]
    );
    assert_eq!(found[1].oom_score_adj, Some(-7));
}

#[test]
fn a_kill_whose_report_the_kernel_left_out_has_only_its_victim() {
    let found = read(
        "4,1,7,-;a invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0\n\
         6,2,7,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/g,task_memcg=/g,task=a,pid=5,uid=0\n\
         3,3,9,-;Memory cgroup out of memory: Killed process 9 (z) total-vm:1kB, anon-rss:2kB, file-rss:3kB, shmem-rss:4kB, UID:0 pgtables:5kB oom_score_adj:0\n",
    );
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].pid, found[0].constraint),
        (9, OomConstraint::Memcg)
    );
    assert_eq!((&found[0].limit_cgroup, &found[0].trigger), (&None, &None));
}

#[test]
fn other_lines_and_cut_ones_are_no_kill_and_no_panic() {
    for text in [
        "",
        "no record",
        "6,1,x,-;a invoked oom-killer: ",
        "6,1,5,-;Killed process",
        "6,1,5,-;Killed process 7",
        "6,1,5,-;Killed process x (a) total-vm:1kB",
        "6,1,5,-;systemd: Killed process 7 (a) total-vm:1kB",
        "6,1,5,-;oom-kill:constraint=",
        "6,1,5,-;[  pid  ] name rss\n6,2,5,-;[",
        "6,1,5,-;memory: usage \n6,1,5,-;Memory cgroup stats for ",
    ] {
        assert_eq!(read(text), [], "{text}");
    }
    // Cut anywhere.
    for (_, text) in REAL {
        for end in (0..text.len())
            .filter(|end| text.is_char_boundary(*end))
            .step_by(7)
        {
            let _ = read(&text[..end]);
        }
    }
}

#[test]
fn the_log_is_read_from_its_file_and_may_be_missing() {
    let tree = Tree::new();
    assert_eq!(kernel_log(&tree.host()).unwrap(), None);
    tree.file(
        "/dev/kmsg",
        "6,1,5,-;one\n SUBSYSTEM=x\n4,2,6,-,caller=T1;two;three\n",
    );
    let log = kernel_log(&tree.host()).unwrap().unwrap();
    assert_eq!(log, [(5, "one".to_owned()), (6, "two;three".to_owned())]);
}
