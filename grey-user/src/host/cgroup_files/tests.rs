use super::*;
use crate::host::Host;
use crate::host::fixture::{OwnCgroup, Tree};

const AT: &str = "/sys/fs/cgroup/a";

fn machine() -> Tree {
    let tree = Tree::new();
    tree.file(
        "/proc/self/mountinfo",
        "31 23 0:29 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
    )
    .file(&format!("{AT}/cgroup.procs"), "");
    tree
}

fn full() -> Tree {
    let tree = machine();
    tree.file(&format!("{AT}/memory.current"), "3358720\n")
        .file(&format!("{AT}/memory.stat"), include_str!("../testdata/memory.stat-7.2"))
        .file(&format!("{AT}/memory.events"), "low 0\nhigh 0\nmax 71\noom 2\noom_kill 1\n")
        .file(
            &format!("{AT}/memory.pressure"),
            "some avg10=0.12 avg60=0.00 avg300=0.00 total=13027\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=12000\n",
        )
        .file(&format!("{AT}/memory.swap.current"), "4096\n")
        .file(&format!("{AT}/memory.max"), "max\n")
        .file(&format!("{AT}/memory.high"), "16777216\n");
    tree
}

fn open(tree: &Tree) -> (CgroupFs, CgroupFiles) {
    let fs = CgroupFs::discover(&tree.host());
    let id = fs
        .walk()
        .unwrap()
        .cgroups
        .iter()
        .find(|entry| entry.path == "/a")
        .unwrap()
        .id;
    let files = CgroupFiles::open(&fs, id, "/a").unwrap().unwrap();
    (fs, files)
}

#[test]
fn all_files_fill_all_figures() {
    let tree = full();
    let (_, mut files) = open(&tree);
    let mut buf = Vec::new();
    let reading = files.read(&mut buf).unwrap();
    assert_eq!(reading.mem.max, Limit::Unknown, "limits were not read yet");
    assert_eq!(
        files.read_limits(&mut buf).unwrap(),
        Limits {
            max: Limit::None,
            high: Limit::Bytes(16 << 20),
            errors: 0
        }
    );
    let reading = files.read(&mut buf).unwrap();
    let want = Reading {
        mem: Mem {
            current: Some(3_358_720),
            anon: Some(49_152),
            file: Some(3_002_368),
            shmem: Some(3_002_368),
            kernel: Some(69_632),
            slab: Some(12_256),
            pagetables: Some(53_248),
            sock: Some(0),
            swap: Some(4096),
            max: Limit::None,
            high: Limit::Bytes(16 << 20),
            inactive_file: Some(0),
            ..Mem::default()
        },
        psi: Some(Psi {
            some_us_total: 13_027,
            full_us_total: Some(12_000),
        }),
        events: Some(MemEvents {
            high_total: 0,
            max_total: 71,
            oom_total: 2,
            oom_kill_total: 1,
        }),
        pgfault: Some(77),
        pgmajfault: Some(0),
        refault: Some(0),
        pgscan: Some(0),
        pgsteal: Some(0),
        pgsteal_proactive: Some(0),
        errors: 0,
    };
    assert_eq!(reading, want);
}

#[test]
fn a_reading_follows_the_files_without_opening_them_again() {
    let tree = full();
    let (_, mut files) = open(&tree);
    let mut buf = Vec::new();
    files.read(&mut buf).unwrap();
    // Shorter than before: nothing of the old content may be left in the buffer.
    tree.file(&format!("{AT}/memory.current"), "7\n");
    assert_eq!(files.read(&mut buf).unwrap().mem.current, Some(7));
    files.release();
    assert_eq!(files.read(&mut buf).unwrap().mem.current, Some(7));
}

#[test]
fn without_the_controller_figures_are_absent_and_no_errors() {
    let tree = machine();
    let (_, mut files) = open(&tree);
    let mut buf = Vec::new();
    assert_eq!(files.read(&mut buf), Ok(Reading::default()));
    assert_eq!(files.read_limits(&mut buf), Ok(Limits::default()));
}

#[test]
fn a_controller_that_is_switched_on_later_is_noticed() {
    let tree = machine();
    let (_, mut files) = open(&tree);
    let mut buf = Vec::new();
    files.read(&mut buf).unwrap();
    tree.file(&format!("{AT}/memory.current"), "5\n");
    let seen = (0..=RETRY).find(|_| files.read(&mut buf).unwrap().mem.current == Some(5));
    assert_eq!(
        seen,
        Some(RETRY),
        "absent files are looked for now and then"
    );
}

#[test]
fn content_that_is_not_understood_is_absent_counted_and_named() {
    let tree = full();
    tree.file(&format!("{AT}/memory.current"), "garbage\n")
        .file(&format!("{AT}/memory.stat"), "");
    let (_, mut files) = open(&tree);
    let reading = files.read(&mut Vec::new()).unwrap();
    assert_eq!(
        (reading.mem.current, reading.mem.anon, reading.errors),
        (None, None, 2)
    );
    assert_eq!(
        files.last_error().unwrap().to_string(),
        "/a/memory.stat: the content is not understood"
    );
}

#[test]
fn a_file_larger_than_the_buffer_is_read_to_its_end() {
    let tree = full();
    let padding = "nothing_of_ours 1\n".repeat(1000);
    tree.file(&format!("{AT}/memory.stat"), &format!("{padding}anon 42\n"));
    let (_, mut files) = open(&tree);
    assert_eq!(files.read(&mut Vec::new()).unwrap().mem.anon, Some(42));
}

#[test]
fn a_removed_cgroup_is_gone_also_when_another_takes_its_path() {
    let tree = full();
    let (fs, mut files) = open(&tree);
    let mut buf = Vec::new();
    files.read(&mut buf).unwrap();
    // Renamed away first, so that the new directory cannot get the inode number of the old one.
    std::fs::rename(tree.path(AT), tree.path("/old")).unwrap();
    tree.file(&format!("{AT}/memory.current"), "1\n")
        .file(&format!("{AT}/cgroup.procs"), "");
    assert!(CgroupFiles::open(&fs, files.id(), "/a").unwrap().is_none());
    std::fs::remove_dir_all(tree.path("/old")).unwrap();
    files.release();
    assert_eq!(files.read(&mut buf), Err(Gone));
    assert_eq!(files.read_limits(&mut buf), Err(Gone));
    assert!(CgroupFiles::open(&fs, files.id(), "/b").unwrap().is_none());
}

#[test]
fn a_real_cgroup_is_gone_once_it_is_removed() {
    let fs = CgroupFs::discover(&Host::live());
    let Some(own) = OwnCgroup::make(&fs, "files") else {
        return;
    };
    let id = rustix::fs::stat(fs.reach(own.path())).unwrap().st_ino;
    let mut files = CgroupFiles::open(&fs, id, own.path()).unwrap().unwrap();
    let mut buf = Vec::new();
    let reading = files.read(&mut buf).unwrap();
    assert_eq!(reading.errors, 0, "{:?}", files.last_error());
    assert_eq!(reading.mem.current.is_some(), fs.has_memory());
    drop(own);
    assert_eq!(files.read(&mut buf), Err(Gone));
    assert!(!files.is_alive());
}

#[test]
fn processes_are_those_of_the_moment_however_many_they_are() {
    let fs = CgroupFs::discover(&Host::live());
    let Some(own) = OwnCgroup::make(&fs, "pids") else {
        return;
    };
    let id = rustix::fs::stat(fs.reach(own.path())).unwrap().st_ino;
    let mut files = CgroupFiles::open(&fs, id, own.path()).unwrap().unwrap();
    let mut buf = Vec::new();
    assert_eq!(files.pids(&mut buf), Some(Vec::new()));
    // More than go into a page, which is what the kernel gives at once.
    let mut children: Vec<_> = (0..1000)
        .map(|_| {
            std::process::Command::new("sleep")
                .arg("600")
                .spawn()
                .unwrap()
        })
        .collect();
    let procs = fs.reach(own.path()).join("cgroup.procs");
    let moved: Vec<_> = children
        .iter()
        .map(|child| std::fs::write(&procs, child.id().to_string()))
        .collect();
    let many = files.pids(&mut buf);
    let mut pids: Vec<u32> = children.iter().map(std::process::Child::id).collect();
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let none = files.pids(&mut buf);
    for written in moved {
        written.unwrap();
    }
    let mut many = many.unwrap();
    many.sort_unstable();
    pids.sort_unstable();
    assert_eq!(many, pids);
    assert_eq!(none, Some(Vec::new()));
    drop(own);
    assert_eq!(files.pids(&mut buf), None);
}
