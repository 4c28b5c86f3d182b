use super::super::compare::compare;
use super::super::compare::tests::{MIB, cgroup_entry, process_entry, snapshot};
use super::super::document::Snapshot;
use super::*;

fn two() -> (Snapshot, Snapshot) {
    let with = |path: &str, id, current: u64, swap: u64| {
        let mut entry = cgroup_entry(path, id, current * MIB);
        entry.mem.swap = Some(swap * MIB);
        entry
    };
    let mut worse = process_entry(300, 9, "java", 900 * MIB);
    worse.pss = None;
    let mut before = snapshot(
        vec![
            with("/", 1, 0, 0),
            with("/system.slice", 2, 900, 0),
            with("/system.slice/nginx.service", 3, 400, 0),
            with("/system.slice/cron.service", 4, 8, 0),
            with("/gone.scope", 5, 64, 0),
            with("/quiet", 6, 10, 0),
        ],
        vec![
            process_entry(100, 1, "nginx", 320 * MIB),
            process_entry(101, 1, "worker", 200 * MIB),
            process_entry(200, 2, "cron", 8 * MIB),
            worse.clone(),
        ],
    );
    before.machine.memory.swap_total = Some(2048 * MIB);
    before.machine.memory.swap_free = Some(2048 * MIB);
    let mut nginx = with("/system.slice/nginx.service", 3, 120, 32);
    nginx.events = Some(crate::host::FullEvents {
        oom_kill: Some(1),
        ..Default::default()
    });
    before.cgroups[2].events = Some(crate::host::FullEvents {
        oom_kill: Some(0),
        ..Default::default()
    });
    worse.rss = Some(1400 * MIB);
    let mut after = snapshot(
        vec![
            with("/", 1, 0, 0),
            with("/system.slice", 2, 620, 32),
            nginx,
            with("/system.slice/cron.service", 44, 12, 0),
            with(
                "/machine.slice/a-cgroup-with-a-name-that-is-much-too-long-for-its-column.scope",
                7,
                5,
                0,
            ),
            with("/quiet", 6, 10, 0),
        ],
        vec![
            process_entry(100, 1, "nginx", 90 * MIB),
            process_entry(101, 8, "other", 3 * MIB),
            process_entry(200, 2, "a\u{1b}[31mb", 8 * MIB),
            worse,
        ],
    );
    after.ts.0 += 70_000_000;
    after.machine.memory.available = Some(4446 * MIB);
    after.machine.memory.free = Some(1374 * MIB);
    after.machine.memory.swap_total = Some(2048 * MIB);
    after.machine.memory.swap_free = Some(2016 * MIB);
    (before, after)
}

fn drawn(top: usize, terminal: bool, color: bool) -> String {
    let (before, after) = two();
    text(&compare(&before, &after), top, Look { terminal, color })
}

#[test]
fn a_pipe_gets_plain_lines_with_signs() {
    let plain = drawn(15, false, false);
    assert!(
        !plain.contains('\u{1b}') && !plain.contains('▼') && !plain.contains('█'),
        "{plain}"
    );
    insta::assert_snapshot!(plain);
}

#[test]
fn a_terminal_gets_arrows_and_bars() {
    insta::assert_snapshot!(drawn(2, true, false));
}

#[test]
fn colours_are_green_for_less_and_yellow_for_more_and_the_other_way_for_free_memory() {
    let colored = drawn(15, true, true);
    for line in [
        "\u{1b}[32m▼ 350M\u{1b}[0m",
        "\u{1b}[32m▲ 350M\u{1b}[0m",
        "\u{1b}[33m▲ 500M\u{1b}[0m",
    ] {
        assert!(colored.contains(line), "{line:?} in {colored}");
    }
}

#[test]
fn a_snapshot_compared_with_itself_says_that_nothing_changed() {
    let (before, _) = two();
    let look = Look {
        terminal: false,
        color: false,
    };
    let text = text(&compare(&before, &before), 15, look);
    assert!(
        text.contains("Memory in use did not change: 4.0G."),
        "{text}"
    );
    assert!(text.contains("Nothing changed in 5 cgroups."), "{text}");
    assert!(text.contains("Nothing changed in 4 processes."), "{text}");
}

#[test]
fn snapshots_without_anything_are_drawn_too() {
    let look = Look {
        terminal: true,
        color: true,
    };
    let text = text(
        &compare(&Snapshot::default(), &Snapshot::default()),
        15,
        look,
    );
    assert!(
        text.starts_with("before  1970-01-01T00:00:00.000Z"),
        "{text}"
    );
}
