//! `[govern]`: who decides, with what figures, and what holds for single cgroups.

use std::ops::RangeInclusive;
use std::time::Duration;

use grey_core::act::protection::Pattern;
use grey_core::govern::{Budget, Emergency, Idle, Override, PolicyKind, Settings};

use crate::host::pressure_source;

use super::document::Table;
use super::host_pressure_table;

mod policies;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
/// Of what is taken at once.
const AMOUNT: RangeInclusive<u64> = MIB..=64 * GIB;
/// Of a floor or a ceiling.
const LEVEL: RangeInclusive<u64> = MIB..=64 * TIB;
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Between two turns.
const INTERVAL: RangeInclusive<Duration> = SECOND..=DAY;

const POLICIES: &str = "observe, conservative, dynamic, aggressive, scheduled, proactive or guest";

/// The settings go into `settings`; what the host has left is asked as the result says.
pub(super) fn read(
    root: &mut Table<'_>,
    settings: &mut Settings,
    mount: &str,
) -> Option<pressure_source::Options> {
    let mut table = root.table("govern");
    policy(
        &mut table,
        (
            "policy",
            "Who decides where no override says otherwise; `observe` does nothing.",
        ),
        &mut settings.policy,
    );
    table.size(
        ("floor", "No cgroup is taken below this."),
        LEVEL,
        &mut settings.floor,
    );
    table.micros(
        (
            "observe",
            "How long an action is looked at before it is judged.",
        ),
        SECOND..=Duration::from_secs(600),
        &mut settings.observe_us,
    );
    table.flag(
        (
            "contain_leaks",
            "Set memory.high, for a time, for a confirmed leak that runs away.",
        ),
        &mut settings.contain_leaks,
    );
    table.flag(
        ("learn", "Make steps smaller by what earlier ones did."),
        &mut settings.learn,
    );
    policies::read(&mut table, settings);
    emergency(table.table("emergency"), &mut settings.emergency);
    budget(table.table("budget"), &mut settings.budget);
    idle(table.table("idle"), &mut settings.idle);
    let host_pressure = host_pressure_table::read(&mut table);
    overrides(&mut table, &mut settings.overrides, mount);
    if settings.policy == PolicyKind::Scheduled && settings.scheduled.at.is_empty() {
        table.wrong(
            "policy",
            "is `scheduled` without a time; write at = [\"02:30\"] under [govern.scheduled]",
        );
    }
    table.finish();
    host_pressure
}

fn policy(table: &mut Table<'_>, key: (&'static str, &'static str), field: &mut PolicyKind) {
    let show = |kind: &PolicyKind| kind.name().to_owned();
    table.text(key, POLICIES, field, show, |text| {
        text.parse().map_err(|why| format!("`{text}` {why}"))
    });
}

fn emergency(mut table: Table<'_>, field: &mut Option<Emergency>) {
    let mut enabled = field.is_some();
    let mut emergency = field.clone().unwrap_or_default();
    let Emergency {
        available_pct,
        bytes,
        interval_us,
    } = &mut emergency;
    table.flag(
        (
            "enabled",
            "Over every policy but `observe`: intervals and observations do not hold.",
        ),
        &mut enabled,
    );
    table.percent(
        (
            "available_pct",
            "When less than this part of the machine is available.",
        ),
        available_pct,
    );
    table.size(("bytes", "Taken in one turn."), AMOUNT, bytes);
    table.micros(
        ("interval", "Between two turns."),
        Duration::from_millis(100)..=Duration::from_secs(60),
        interval_us,
    );
    table.finish();
    *field = enabled.then_some(emergency);
}

fn budget(mut table: Table<'_>, budget: &mut Budget) {
    let Budget {
        bytes_per_s,
        actions_per_min,
        action_bytes,
    } = budget;
    table.size(
        (
            "bytes_per_s",
            "Taken a second at most, averaged over ten seconds, whoever wants it.",
        ),
        64 * KIB..=64 * GIB,
        bytes_per_s,
    );
    let mut actions = u64::from(*actions_per_min);
    table.count(
        ("actions_per_min", "Actions in any minute."),
        1..=6000,
        &mut actions,
    );
    *actions_per_min = actions as u32;
    table.size(
        ("action_bytes", "Most bytes of one action."),
        AMOUNT,
        action_bytes,
    );
    table.finish();
}

fn idle(mut table: Table<'_>, idle: &mut Idle) {
    let Idle {
        after_us,
        cpu_pct,
        faults_per_s,
        thaw_on_demand,
    } = idle;
    table.micros(
        (
            "after",
            "A container is idle when both of the following held for this long.",
        ),
        SECOND..=7 * DAY,
        after_us,
    );
    table.percent(
        ("cpu_pct", "Less CPU time than this, percent of one CPU."),
        cpu_pct,
    );
    table.number(
        ("faults_per_s", "Fewer page faults a second."),
        0.1..=1e6,
        faults_per_s,
    );
    table.flag(
        (
            "thaw_on_demand",
            "What was frozen goes on when a connection, data, a signal or another process waits for it.",
        ),
        thaw_on_demand,
    );
    table.finish();
}

fn overrides(govern: &mut Table<'_>, overrides: &mut Vec<Override>, mount: &str) {
    let tables = govern.tables("override");
    if tables.is_empty() {
        // What could be written.
        one_override(govern.sample("override"), mount);
    }
    for table in tables {
        overrides.extend(one_override(table, mount));
    }
}

fn one_override(mut table: Table<'_>, mount: &str) -> Option<Override> {
    let pattern = |text: &str| Pattern::new(text, mount).map_err(|error| error.to_string());
    let mut matches = None;
    let mut policy_of = None;
    let (mut floor, mut ceiling, mut anon) = (None, None, None);
    let mut freeze = false;
    table.optional(
        "match",
        Pattern::new("batch-*.service", mount).ok()?,
        &mut matches,
        |table, field| {
            let about = "For which cgroups: a path, glob, unit, container or pod name; the first match holds.";
            let show = |pattern: &Pattern| pattern.as_str().to_owned();
            table.text(("match", about), "a pattern", field, show, pattern);
        },
    );
    table.optional(
        "policy",
        PolicyKind::Proactive,
        &mut policy_of,
        |table, field| policy(table, ("policy", "Another policy."), field),
    );
    table.optional("floor", 256 * MIB, &mut floor, |table, field| {
        table.size(("floor", "It is not taken below this."), LEVEL, field);
    });
    table.optional("ceiling", 2 * GIB, &mut ceiling, |table, field| {
        let about = "Above it memory is taken, whatever the machine has.";
        table.size(("ceiling", about), LEVEL, field);
    });
    table.optional("anon", true, &mut anon, |table, field| {
        table.flag(("anon", "Whether anonymous memory may be taken."), field);
    });
    table.flag(
        (
            "freeze",
            "Confirmed: it may be frozen while it is idle, with all that is in it.",
        ),
        &mut freeze,
    );
    if !table.has("match") {
        table.lacks(
            "match",
            "is missing; write match = \"batch-*.service\" in each [[govern.override]]",
        );
    }
    if let (Some(floor), Some(ceiling)) = (floor, ceiling)
        && floor > ceiling
    {
        table.wrong("ceiling", "is less than `floor`");
    }
    table.finish();
    Some(Override {
        matches: matches?,
        policy: policy_of,
        floor,
        ceiling,
        anon,
        freeze,
    })
}
