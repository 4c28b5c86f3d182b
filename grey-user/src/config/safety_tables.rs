//! `[safety]` and `[watchdog]`: how far any action may go.

use std::time::Duration;

use grey_core::act::protection::Pattern;
use grey_core::act::watchdog::Thresholds;

use crate::act::safety::Safety;

use super::document::Table;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) fn read(root: &mut Table<'_>, safety: &mut Safety) {
    bounds(root.table("safety"), safety);
    thresholds(root.table("watchdog"), &mut safety.watchdog);
}

fn bounds(mut table: Table<'_>, safety: &mut Safety) {
    let Safety {
        protect,
        critical,
        step,
        cap,
        least_limit,
        write_timeout,
        hang,
        // A table of its own.
        watchdog: _,
        cooldown,
        cooldown_max,
        drop_caches_every,
        state_dir,
    } = safety;
    let ms = Duration::from_millis;
    patterns(
        &mut table,
        (
            "protect",
            "Cgroups that are never touched: paths, globs, unit and container names.",
        ),
        protect,
    );
    patterns(
        &mut table,
        (
            "critical",
            "Services the machine cannot do without: never touched; if one that runs vanishes, everything is taken back.",
        ),
        critical,
    );
    table.size(("step", "Most bytes of one write."), MIB..=GIB, step);
    table.size(("cap", "Most bytes of one request."), MIB..=64 * GIB, cap);
    // The floor itself is not for sale.
    table.size(
        ("least_limit", "The least that a limit may be."),
        64 * MIB..=1024 * GIB,
        least_limit,
    );
    table.duration(
        (
            "write_timeout",
            "How long a write may take before its helper is ended.",
        ),
        ms(100)..=ms(60_000),
        write_timeout,
    );
    table.duration(
        (
            "hang",
            "The guard takes over from a program it has not heard of for this long.",
        ),
        ms(500)..=ms(30_000),
        hang,
    );
    table.duration(
        (
            "cooldown",
            "What did harm is not done again for this long; doubles each time.",
        ),
        ms(1_000)..=DAY,
        cooldown,
    );
    table.duration(
        ("cooldown_max", "The longest cool-down."),
        ms(1_000)..=30 * DAY,
        cooldown_max,
    );
    table.duration(
        (
            "drop_caches_every",
            "The shortest time between two `enforce drop-caches`.",
        ),
        ms(1_000)..=30 * DAY,
        drop_caches_every,
    );
    table.path(
        (
            "state_dir",
            "Where the journal is, and what the daemon keeps.",
        ),
        state_dir,
    );
    if step > cap {
        match table.has("step") {
            true => table.wrong("step", "is more than `cap`; a write is a part of a request"),
            false => table.wrong("cap", "is less than `step`; a write is a part of a request"),
        }
    }
    if cooldown > cooldown_max {
        match table.has("cooldown_max") {
            true => table.wrong("cooldown_max", "is less than `cooldown`, the first one"),
            false => table.wrong("cooldown", "is more than `cooldown_max`, the longest one"),
        }
    }
    table.finish();
}

fn thresholds(mut table: Table<'_>, watchdog: &mut Thresholds) {
    let Thresholds {
        psi_some_pct,
        psi_full_pct,
        min_available,
        refaults_per_s,
        every,
    } = watchdog;
    table.percent(
        (
            "psi_some_pct",
            "Taken back when some task of the target stalled for this part of the last second; never with 100.",
        ),
        psi_some_pct,
    );
    table.percent(
        (
            "psi_full_pct",
            "The same, when all tasks did; never with 100.",
        ),
        psi_full_pct,
    );
    table.size(
        (
            "min_available",
            "Taken back when the machine has less available.",
        ),
        32 * MIB..=1024 * GIB,
        min_available,
    );
    table.count(
        (
            "refaults_per_s",
            "Taken back when this many pages a second come back after our reclaim.",
        ),
        1..=1_000_000_000,
        refaults_per_s,
    );
    table.duration(
        ("every", "How often is looked."),
        Duration::from_millis(50)..=Duration::from_millis(1_000),
        every,
    );
    table.finish();
}

fn patterns(table: &mut Table<'_>, key: (&'static str, &'static str), field: &mut Vec<String>) {
    let told = "a list of strings";
    table.strings(key, told, "web.service", field, |pattern| {
        // Where the tree is mounted changes what it matches, not whether it is one.
        Pattern::new(pattern, "")
            .map(drop)
            .map_err(|error| error.to_string())
    });
}
