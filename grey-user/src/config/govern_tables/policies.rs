//! A table for each policy.

use std::time::Duration;

use grey_core::govern::{Aggressive, Conservative, Dynamic, Guest, Proactive, Scheduled, Settings};

use grey_core::units::format_bytes;

use crate::enforce::report;

use super::super::document::Table;
use super::{AMOUNT, GIB, HOUR, INTERVAL, KIB, MIB, SECOND};

/// Between two turns, in many places.
const BETWEEN: (&str, &str) = ("interval", "Between two turns.");
const AT_ONCE: (&str, &str) = ("bytes", "Most bytes of one turn.");

pub(super) fn read(table: &mut Table<'_>, settings: &mut Settings) {
    conservative(table.table("conservative"), &mut settings.conservative);
    dynamic(table.table("dynamic"), &mut settings.dynamic);
    aggressive(table.table("aggressive"), &mut settings.aggressive);
    scheduled(table.table("scheduled"), &mut settings.scheduled);
    proactive(table.table("proactive"), &mut settings.proactive);
    guest(table.table("guest"), &mut settings.guest);
}

fn conservative(mut table: Table<'_>, policy: &mut Conservative) {
    let Conservative {
        available_pct,
        psi_some_pct,
        bytes,
        interval_us,
    } = policy;
    table.percent(
        (
            "available_pct",
            "Acts when less than this part of the machine is available.",
        ),
        available_pct,
    );
    table.percent(
        (
            "psi_some_pct",
            "Or when tasks of the machine stall on memory for this part of the time.",
        ),
        psi_some_pct,
    );
    table.size(AT_ONCE, AMOUNT, bytes);
    table.micros(BETWEEN, INTERVAL, interval_us);
    table.finish();
}

fn dynamic(mut table: Table<'_>, policy: &mut Dynamic) {
    let Dynamic {
        available_pct,
        interval_us,
    } = policy;
    table.percent(
        (
            "available_pct",
            "Keeps this part of the machine's memory available.",
        ),
        available_pct,
    );
    table.micros(BETWEEN, INTERVAL, interval_us);
    table.finish();
}

fn aggressive(mut table: Table<'_>, policy: &mut Aggressive) {
    let Aggressive {
        used_pct,
        bytes,
        interval_us,
    } = policy;
    table.percent(
        (
            "used_pct",
            "Acts when more than this part of the machine is not available.",
        ),
        used_pct,
    );
    table.size(AT_ONCE, AMOUNT, bytes);
    table.micros(BETWEEN, INTERVAL, interval_us);
    table.finish();
}

fn scheduled(mut table: Table<'_>, policy: &mut Scheduled) {
    let Scheduled {
        at,
        take_pct,
        file_only,
        compact,
    } = policy;
    // What 0 stands for.
    if *take_pct == 0.0 {
        *take_pct = 50.0;
    }
    table.list(
        ("at", "When, in local time."),
        "a list of times: \"02:30\", \"Mon..Fri 22:00\", or five fields of cron",
        "02:30",
        at,
    );
    table.percent(
        (
            "take_pct",
            "Takes this part of what can be had from each cgroup.",
        ),
        take_pct,
    );
    table.flag(("file_only", "Page cache alone."), file_only);
    table.flag(("compact", "Move free pages together afterwards."), compact);
    table.finish();
}

fn proactive(mut table: Table<'_>, policy: &mut Proactive) {
    let Proactive {
        interval_us,
        psi_some_pct,
        step_pct,
        step,
        refault_pct,
        anon,
    } = policy;
    table.micros(
        ("interval", "Between two steps of one cgroup."),
        SECOND..=HOUR,
        interval_us,
    );
    table.percent(
        (
            "psi_some_pct",
            "Nothing more is taken when its tasks stall on memory for this part of the time.",
        ),
        psi_some_pct,
    );
    table.percent(
        (
            "step_pct",
            "The most of one step, as a part of what lies over the floor.",
        ),
        step_pct,
    );
    table.size(("step", "The most of one step."), MIB..=GIB, step);
    table.percent(
        (
            "refault_pct",
            "Steps become smaller when more than this part of what was taken comes back.",
        ),
        refault_pct,
    );
    table.flag(
        (
            "anon",
            "Anonymous memory too, once page cache gives no more, where there is swap.",
        ),
        anon,
    );
    table.finish();
}

fn guest(mut table: Table<'_>, policy: &mut Guest) {
    let Guest {
        fault_bytes_per_s,
        idle_us,
        interval_us,
        step,
        refault_pct,
        anon,
        compact,
        report_block,
        host_available_pct,
    } = policy;
    table.size(
        (
            "fault_bytes_per_s",
            "The machine is idle when less than this is faulted in a second.",
        ),
        64 * KIB..=64 * GIB,
        fault_bytes_per_s,
    );
    table.micros(("idle", "For so long."), SECOND..=HOUR, idle_us);
    table.micros(BETWEEN, Duration::from_millis(500)..=HOUR, interval_us);
    table.size(("step", "The most of one turn."), MIB..=GIB, step);
    table.percent(
        (
            "refault_pct",
            "Rests for a while when more than this part of what was taken comes back.",
        ),
        refault_pct,
    );
    table.flag(
        ("anon", "Cold anonymous memory too, where there is swap."),
        anon,
    );
    table.flag(
        (
            "compact",
            "Move free pages together once there is nothing more to take.",
        ),
        compact,
    );
    table.text(
        (
            "report_block",
            "The host is told of free memory in blocks of this size and larger; `off` leaves that to the kernel (2M).",
        ),
        "a size from 4K to 4M, or `off`",
        report_block,
        |block| block.map_or("off".to_owned(), format_bytes),
        |text| match text {
            "off" => Ok(None),
            text => report::block(text).map(|order| Some(4096 << order)),
        },
    );
    table.percent(
        (
            "host_available_pct",
            "Takes more, and sooner, when the host has less than this part of its memory available.",
        ),
        host_available_pct,
    );
    table.finish();
}
