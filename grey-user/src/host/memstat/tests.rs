use std::collections::HashMap;
use std::fmt::Write;

use super::*;

/// Files read in VMs of these kernels.
const REAL: [(&str, &str); 4] = [
    ("5.10", include_str!("../testdata/memory.stat-5.10")),
    ("6.1", include_str!("../testdata/memory.stat-6.1")),
    ("6.12", include_str!("../testdata/memory.stat-6.12")),
    ("7.2", include_str!("../testdata/memory.stat-7.2")),
];

/// The file with a value of its own in each line, so that no field can pass for another.
fn numbered(content: &str) -> (String, HashMap<&str, u64>) {
    let mut text = String::new();
    let mut values = HashMap::new();
    for (at, line) in content.lines().enumerate() {
        let key = line.split_once(' ').unwrap().0;
        let value = 4096 * (at as u64 + 1);
        let _ = writeln!(text, "{key} {value}");
        values.insert(key, value);
    }
    (text, values)
}

#[test]
fn every_field_comes_from_its_own_line_on_every_kernel() {
    for (kernel, content) in REAL {
        let (text, values) = numbered(content);
        let stat = MemStat::parse(text.as_bytes());
        let want = |key: &str| values.get(key).copied();
        let fields = [
            ("anon", stat.anon),
            ("file", stat.file),
            ("shmem", stat.shmem),
            ("kernel", stat.kernel),
            ("kernel_stack", stat.kernel_stack),
            ("pagetables", stat.pagetables),
            ("sec_pagetables", stat.sec_pagetables),
            ("percpu", stat.percpu),
            ("sock", stat.sock),
            ("vmalloc", stat.vmalloc),
            ("slab", stat.slab),
            ("workingset_refault_anon", stat.refault_anon),
            ("workingset_refault_file", stat.refault_file),
            ("workingset_refault", stat.refault),
            ("pgfault", stat.pgfault),
            ("pgmajfault", stat.pgmajfault),
            ("pgscan", stat.pgscan),
            ("pgsteal", stat.pgsteal),
            ("pgsteal_proactive", stat.pgsteal_proactive),
        ];
        for (key, got) in fields {
            assert_eq!(got, want(key), "{key} on {kernel}");
        }
    }
}

#[test]
fn what_a_kernel_does_not_tell_is_absent() {
    let stat = |at: usize| MemStat::parse(REAL[at].1.as_bytes());
    assert_eq!(
        (stat(0).kernel, stat(0).pagetables, stat(0).vmalloc),
        (None, None, None)
    );
    assert_eq!(
        (stat(1).pgsteal_proactive, stat(2).pgsteal_proactive),
        (None, None)
    );
    assert_eq!(stat(3).pgsteal_proactive, Some(0));
    assert!(
        REAL.iter()
            .all(|(_, content)| MemStat::parse(content.as_bytes()).pgsteal.is_some())
    );
}

#[test]
fn kernel_memory_is_the_sum_of_its_parts_only_where_the_kernel_gives_no_sum() {
    let old = MemStat::parse(b"kernel_stack 16384\npercpu 640\nsock 4096\nslab 1000\n");
    assert_eq!(
        old.kernel_total(),
        Some(16384 + 640 + 1000),
        "sock is no part of it"
    );
    let new = MemStat::parse(b"kernel 99\nkernel_stack 16384\n");
    assert_eq!(new.kernel_total(), Some(99));
    assert_eq!(MemStat::parse(b"anon 1\n").kernel_total(), None);
}

#[test]
fn refaults_are_summed_or_taken_from_the_old_line() {
    let total = |content: &[u8]| MemStat::parse(content).refault_total();
    assert_eq!(
        total(b"workingset_refault_anon 3\nworkingset_refault_file 4\n"),
        Some(7)
    );
    assert_eq!(total(b"workingset_refault 5\n"), Some(5));
    assert_eq!(total(b"anon 5\n"), None);
}

#[test]
fn garbage_is_absent_and_never_zero() {
    let anon = |content: &[u8]| MemStat::parse(content).anon;
    assert_eq!(
        anon(b"anon 12"),
        Some(12),
        "a last line without its newline"
    );
    let garbage: [&[u8]; 11] = [
        b"",
        b"\n\n",
        b"anon",
        b"anon ",
        b"anon x\n",
        b"anon -4096\n",
        b"anon 1 2\n",
        b"anon  12\n",
        b"anon 18446744073709547520\n",
        b"anon 99999999999999999999999999\n",
        b"\xff\xfe anon\0 1\n",
    ];
    for content in garbage {
        assert_eq!(anon(content), None, "{content:?}");
    }
    assert_eq!(anon(b"anon 1\n\nanonymous 7\nnonsense\nfile 2\n"), Some(1));
}

#[test]
fn events_of_all_kernels_are_read_and_a_cut_file_is_not() {
    let old = b"low 0\nhigh 1\nmax 35\noom 2\noom_kill 3\n";
    let new = b"low 0\nhigh 1\nmax 35\noom 2\noom_kill 3\noom_group_kill 9\nsock_throttled 8\n";
    let want = MemEvents {
        high_total: 1,
        max_total: 35,
        oom_total: 2,
        oom_kill_total: 3,
    };
    assert_eq!(parse_events(old), Some(want.clone()));
    assert_eq!(parse_events(new), Some(want));
    assert_eq!(parse_events(b""), None);
    assert_eq!(parse_events(b"high x\n"), None);
    assert_eq!(parse_events(b"some avg10=0.00\n"), None);
    assert_eq!(
        parse_events(b"high 1\nmax 35\n"),
        None,
        "half a file is not four counters"
    );
}
