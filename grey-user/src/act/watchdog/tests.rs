use grey_core::act::{Harm, Record};

use super::*;
use crate::act::protect::Protection;
use crate::cli::Exit;
use crate::host::CgroupFs;
use crate::host::fixture::Tree;

const NOW: u64 = 1_800_000_000_000;

fn ledger(records: impl IntoIterator<Item = Record>) -> Ledger {
    Ledger::of(records)
}

fn harm(count: u32, at: u64) -> Record {
    Record::Harm(Harm {
        kind: "limit".to_owned(),
        target: "/a".to_owned(),
        at,
        count,
        why: "oom_kill: the OOM killer ran in /a".to_owned(),
    })
}

fn last(kind: &str, target: &str, at: u64) -> Record {
    Record::Last {
        kind: kind.to_owned(),
        target: target.to_owned(),
        at,
    }
}

fn told(ledger: &Ledger, kind: &str, target: &str) -> Option<String> {
    not_yet(ledger, &Safety::default(), kind, target, NOW)
}

#[test]
fn after_harm_the_same_action_on_the_same_target_has_to_wait() {
    let ledger = ledger([harm(2, NOW - 30_000)]);
    assert_eq!(
        told(&ledger, "limit", "/a").as_deref(),
        Some(
            "limit /a: cools down for 2m00s after harm (2 in a row; the last: oom_kill: the OOM killer ran in /a); \
             allowed again in 1m30s (2027-01-15T08:01:30.000Z)"
        )
    );
    assert_eq!(told(&ledger, "limit", "/b"), None);
    assert_eq!(told(&ledger, "reclaim", "/a"), None);
    assert_eq!(
        told(&self::ledger([harm(1, NOW - 60_000)]), "limit", "/a"),
        None
    );
    assert_eq!(told(&self::ledger([harm(0, NOW)]), "limit", "/a"), None);
}

#[test]
fn caches_are_dropped_once_in_a_while_and_any_other_action_as_often_as_one_likes() {
    let dropped = ledger([
        last("drop_caches", "machine", NOW - 10_000),
        last("drop_caches", "/a", NOW),
        last("limit", "/a", NOW),
    ]);
    let text = told(&dropped, "drop_caches", "machine").unwrap();
    assert!(
        text.contains("at most once in 1m00s; allowed again in 50.0s"),
        "{text}"
    );
    assert_eq!(told(&dropped, "drop_caches", "/a"), None);
    assert_eq!(told(&dropped, "limit", "/a"), None);
}

#[test]
fn a_refusal_is_exit_4_and_force_goes_through() {
    let ledger = ledger([harm(1, now_ms())]);
    let check = |force| cooled_down(&ledger, &Safety::default(), "limit", "/a", force);
    let failure = check(false).unwrap_err();
    assert_eq!(failure.exit, Exit::Refused);
    assert!(
        failure.message.ends_with("--force does it now"),
        "{}",
        failure.message
    );
    assert!(check(true).is_ok());
}

fn scene(tree: &Tree, critical: &str) -> Scene {
    let host = tree.host();
    let cgroups = CgroupFs::discover(&host);
    let safety = Safety {
        critical: vec![critical.to_owned()],
        ..Safety::default()
    };
    Scene {
        protection: Protection::new(&host, &cgroups, &safety, &[]).unwrap(),
        state_dir: "/".into(),
        host,
        cgroups,
        safety,
    }
}

fn tree() -> Tree {
    let tree = Tree::new();
    tree.file(
        "/proc/self/mountinfo",
        "31 23 0:29 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
    );
    tree.file(
        "/proc/meminfo",
        "MemTotal: 100 kB\nMemAvailable:   4194304 kB\n",
    );
    tree.file("/proc/vmstat", "workingset_refault_file 5\noom_kill 2\n");
    for dir in ["a", "a/b"] {
        let file = |name: &str, text: &str| {
            tree.file(&format!("/sys/fs/cgroup/{dir}/{name}"), text);
        };
        file(
            "memory.events",
            "low 0\nhigh 0\nmax 0\noom 9\noom_kill 3\noom_group_kill 8\n",
        );
        file("memory.events.local", "max 0\noom 1\noom_kill 7\n");
        file(
            "memory.stat",
            "anon 1\nworkingset_refault_anon 40\nworkingset_refault_file 2\n",
        );
        file("memory.pressure", PRESSURE);
    }
    tree.file(
        "/sys/fs/cgroup/ssh.service/cgroup.events",
        "populated 1\nfrozen 0\n",
    );
    tree
}

const PRESSURE: &str = "some avg10=0.00 avg60=0.00 avg300=0.00 total=700\n\
    full avg10=0.00 avg60=0.00 avg300=0.00 total=600\n";

fn target(scene: &Scene) -> Target {
    scene
        .target("/a/b", crate::act::scene::Touch::Change)
        .unwrap()
}

#[test]
fn a_cgroup_is_watched_by_its_files_and_those_above_it() {
    use grey_core::act::watchdog::{Kills, Service};
    let tree = tree();
    let scene = scene(&tree, "ssh");
    let mut eyes = Eyes::open(&scene, Some(&target(&scene)));
    assert_eq!(eyes.off(), []);
    let subject = eyes.subject();
    assert_eq!(subject.kills, ["/a/b", "/a"]);
    assert_eq!(subject.services, ["/ssh.service"]);
    let reading = eyes.read();
    let kills = |at_limit| Some(Kills { total: 3, at_limit });
    assert_eq!(reading.kills, [kills(None), kills(Some(1))]);
    let psi = reading.psi.unwrap();
    assert_eq!((psi.some_us_total, psi.full_us_total), (700, Some(600)));
    assert_eq!(reading.available, Some(4 << 30));
    assert_eq!(reading.refaults, Some(42));
    assert_eq!(reading.services, [Some(Service::Runs)]);
    tree.file(
        "/sys/fs/cgroup/ssh.service/cgroup.events",
        "populated 0\nfrozen 0\n",
    );
    assert_eq!(eyes.read().services, [Some(Service::Empty)]);
}

#[test]
fn rules_whose_file_is_not_there_rest_and_are_told() {
    let tree = tree();
    for file in ["/proc/meminfo", "/sys/fs/cgroup/a/memory.events.local"] {
        tree.without(file);
    }
    for file in ["memory.events", "memory.pressure", "memory.stat"] {
        tree.without(&format!("/sys/fs/cgroup/a/b/{file}"));
    }
    tree.without("/sys/fs/cgroup/ssh.service/cgroup.events");
    let scene = scene(&tree, "ssh");
    let mut watchdog = Watchdog::new(&scene, Some(&target(&scene)));
    let off: Vec<String> = watchdog.off().iter().map(ToString::to_string).collect();
    assert_eq!(
        off,
        [
            "oom_kill: /a/b/memory.events: is not there",
            "pressure: /a/b/memory.pressure: is not there",
            "refaults: /a/b/memory.stat: is not there",
            "oom_kill: /a/memory.events.local: is not there",
            "available: /proc/meminfo: is not there",
            "critical_service: /ssh.service/cgroup.events: is not there",
        ]
    );
    let always = Thresholds {
        every: Duration::ZERO,
        ..Thresholds::default()
    };
    assert_eq!(watchdog.look(&always), None);
}

#[test]
fn the_machine_is_watched_by_its_own_files() {
    let tree = tree();
    let scene = scene(&tree, "none");
    let mut eyes = Eyes::open(&scene, None);
    assert_eq!(
        eyes.off()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["pressure: /proc/pressure/memory: is not there"]
    );
    let reading = eyes.read();
    assert_eq!(reading.kills[0].unwrap().total, 2);
    assert_eq!(reading.refaults, None, "other cgroups' own reclaim");
    let root = scene
        .target("/", crate::act::scene::Touch::Reclaim)
        .unwrap();
    assert_eq!(Eyes::open(&scene, Some(&root)).read().refaults, Some(5));
}

#[test]
fn it_looks_no_more_often_than_it_is_told_to() {
    let tree = tree();
    let scene = scene(&tree, "ssh");
    let mut watchdog = Watchdog::new(&scene, Some(&target(&scene)));
    let thresholds = |every| Thresholds {
        every,
        ..Thresholds::default()
    };
    tree.file("/sys/fs/cgroup/a/b/memory.events", "oom_kill 4\n");
    assert_eq!(watchdog.look(&thresholds(Duration::from_secs(3600))), None);
    let trip = watchdog.look(&thresholds(Duration::ZERO)).unwrap();
    assert_eq!(trip.cause, "oom_kill");
}
