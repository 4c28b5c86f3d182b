//! `rollback` and the journal where nothing can be changed: no knob is written to here.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use grey_core::act::{Close, Fault, Ledger, Phase, Record, decode_all};
use grey_user::act::journal::Journal;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;

use crate::harness::{Outcome, Trial, grey_ebpf, wait_until};
use crate::invocation::{Invocation, Scratch};
use crate::journal::{Shelf, begin, intent, this_boot};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "native_rollback_without_a_journal_does_nothing_and_makes_nothing",
            nothing,
        ),
        Trial::new(
            "native_rollback_bad_arguments_are_one_line_and_code_2",
            bad_arguments,
        ),
        Trial::new(
            "native_rollback_a_journal_that_cannot_be_used_is_one_line_and_code_3_or_4",
            unusable,
        ),
        Trial::new(
            "native_rollback_reads_what_is_left_of_a_damaged_journal",
            damaged,
        ),
        Trial::new(
            "native_rollback_closes_what_is_from_before_the_last_boot",
            other_boot,
        ),
        Trial::new("native_rollback_list_says_what_became_of_each_file", list),
        Trial::new("native_rollback_leaves_a_vanished_cgroup_alone", vanished),
        Trial::new("native_rollback_two_at_once_close_each_change", two_at_once),
        Trial::new(
            "native_rollback_killed_at_any_time_is_finished_by_the_next",
            killed,
        ),
        Trial::new(
            "native_rollback_a_file_size_limit_is_an_error_of_the_append",
            size_limit,
        ),
    ]
}

fn nothing() -> Result<Outcome> {
    let scratch = Scratch::new("nothing")?;
    let state = scratch.argument("none")?;
    for (args, says) in [
        (&[][..], "nothing to undo: there is no journal in"),
        (&["--unfinished"], "nothing to undo"),
        (&["--force"], "nothing to undo"),
        (&["--list"], "no actions"),
        (&["--json"], ""),
        (&["--list", "--json"], ""),
    ] {
        let ended = rollback(&state, args)?;
        ensure!(
            ended.code == Some(0)
                && ended.stderr.is_empty()
                && ended.stdout.contains(says)
                && ended.stdout.is_empty() == says.is_empty(),
            "{args:?}: {ended:?}"
        );
        ensure!(!scratch.join("none").exists(), "{args:?} made the folder");
    }
    Ok(Outcome::Passed)
}

fn rollback(state: &str, args: &[&str]) -> Result<crate::invocation::Ended> {
    let mut all = vec!["rollback", "--state-dir", state];
    all.extend(args);
    Invocation::new().run(&all)
}

fn bad_arguments() -> Result<Outcome> {
    let shelf = Shelf::new("bad", &[begin(1), intent(1, 0)])?;
    for (args, says) in [
        (&["--id", "x"][..], &["--id", "x"][..]),
        (&["--id", "-1"], &["-1"]),
        (&["--id", "99999999999999999999"], &["--id"]),
        (&["--id", "1", "--unfinished"], &["--id", "--unfinished"]),
        (&["--list", "--force"], &["--list", "--force"]),
        (&["--id", "7"], &["--id 7", "no such action", "--list"]),
        (&["--list", "--id", "7"], &["--id 7", "no such action"]),
        (&["extra"], &["extra"]),
        (&["--config", "/none.toml"], &["/none.toml"]),
    ] {
        rollback(shelf.state(), args)?
            .is_one_line(2, says)
            .with_context(|| format!("rollback {}", args.join(" ")))?;
    }
    let nowhere = Scratch::new("bad-nowhere")?;
    rollback(&nowhere.argument("none")?, &["--id", "1"])?.is_one_line(2, &["no such action"])?;
    ensure!(shelf.records()?.len() == 2, "something was written");
    Ok(Outcome::Passed)
}

fn unusable() -> Result<Outcome> {
    let scratch = Scratch::new("unusable")?;
    let state = scratch.join("state");
    let argument = scratch.argument("state")?;
    let each = |code: i32, says: &[&str]| -> Result<()> {
        for args in [&[][..], &["--list"], &["--id", "1"], &["--json"]] {
            rollback(&argument, args)?
                .is_one_line(code, says)
                .with_context(|| format!("{args:?}"))?;
        }
        Ok(())
    };
    let journal = state.join("journal");
    let journal = journal.to_str().context("a path that is no text")?;

    fs::write(&state, "a file")?;
    each(4, &[&argument, "is no folder", "--state-dir"])?;
    fs::remove_file(&state)?;
    symlink(scratch.join("elsewhere"), &state)?;
    each(4, &[&argument, "is a link"])?;
    fs::remove_file(&state)?;
    fs::create_dir(&state)?;
    fs::set_permissions(&state, fs::Permissions::from_mode(0o777))?;
    each(4, &[&argument, "others may write to it", "chmod"])?;
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700))?;
    fs::create_dir(journal)?;
    each(4, &[journal, "no regular file"])?;
    fs::remove_dir(journal)?;
    symlink("/etc/passwd", journal)?;
    each(4, &[journal, "is a link"])?;
    fs::remove_file(journal)?;
    fs::File::create(journal)?.set_len(65 << 20)?;
    each(4, &[journal, "larger than 64M"])?;
    fs::remove_file(journal)?;

    if rustix::process::geteuid().is_root() {
        let program = scratch.program()?;
        for args in [
            &["rollback", "--state-dir", &argument][..],
            &["rollback", "--list", "--state-dir", &argument],
        ] {
            Invocation::new()
                .program(&program)
                .nobody()
                .run(args)?
                .is_one_line(3, &[&argument, "permission denied", "root"])?;
        }
    }
    Ok(Outcome::Passed)
}

fn damaged() -> Result<Outcome> {
    let shelf = Shelf::new("damaged", &[begin(1), intent(1, 0)])?;
    let whole = shelf.bytes()?;
    let mut bytes = b"\xff\0 what somebody's editor left\n".to_vec();
    bytes.extend(&whole);
    bytes.extend(&whole[..whole.len() / 3]);
    shelf.write(&bytes)?;
    for args in [&["--list"][..], &[]] {
        let ended = rollback(shelf.state(), args)?;
        ensure!(
            ended.code == Some(0)
                && ended.stderr.lines().count() == 1
                && ended.stderr.contains("2 lines are damaged")
                && ended.stdout.contains("gone"),
            "{args:?}: {ended:?}"
        );
    }
    // Its own records begin lines of their own.
    let ledger = shelf.ledger()?;
    ensure!(
        ledger
            .actions()
            .all(|action| !action.is_open() && action.phase == Phase::Ended),
        "{ledger:?}"
    );
    Ok(Outcome::Passed)
}

fn other_boot() -> Result<Outcome> {
    let mut first = begin(1);
    if let Record::Begin { boot, .. } = &mut first {
        "8d2e4f40-9d4b-4bb1-a2a7-1e5b2f0c3c11".clone_into(boot);
    }
    let shelf = Shelf::new("boot", &[first, intent(1, 0), Record::Kept { id: 1 }])?;
    let listed = shelf.list()?;
    ensure!(listed[0]["state"] == "over", "{listed:?}");
    let ended = rollback(shelf.state(), &[])?;
    ensure!(
        ended.code == Some(0) && ended.stdout.contains("is from before the last boot"),
        "{ended:?}"
    );
    let closed = Record::Closed {
        id: 1,
        step: 0,
        how: Close::OtherBoot,
    };
    ensure!(shelf.records()?.contains(&closed), "{:?}", shelf.records()?);
    let again = rollback(shelf.state(), &[])?;
    ensure!(
        again.code == Some(0) && again.stdout.contains("nothing to undo"),
        "{again:?}"
    );
    Ok(Outcome::Passed)
}

fn list() -> Result<Outcome> {
    let mut records = vec![begin(1), intent(1, 0), Record::Kept { id: 1 }];
    records.extend([begin(2), intent(2, 0), intent(2, 1)]);
    records.extend([
        begin(3),
        intent(3, 0),
        Record::Closed {
            id: 3,
            step: 0,
            how: Close::Restored,
        },
        Record::Ended { id: 3 },
    ]);
    let shelf = Shelf::new("list", &records)?;
    let before = shelf.bytes()?;
    let rows = shelf.list()?;
    let states: Vec<&str> = rows
        .iter()
        .filter_map(|row| row["state"].as_str())
        .collect();
    ensure!(states == ["undone", "broken_off", "kept"], "{states:?}");
    let file = &rows[2]["files"][0];
    ensure!(
        file["old"] == "max"
            && file["new"] == "1048576"
            && file["open"] == true
            && file.get("now").is_none()
            && file["error"].as_str() == Some("it is gone"),
        "{file}"
    );
    ensure!(rows[0]["files"][0]["closed"] == "restored", "{}", rows[0]);
    ensure!(
        rows[2]["boot_id"] == this_boot()?.as_str() && rows[2]["kind"] == "limit",
        "{}",
        rows[2]
    );
    let one = rollback(shelf.state(), &["--list", "--json", "--id", "2"])?;
    let one: Value = serde_json::from_str(&one.stdout)?;
    ensure!(one["id"] == 2 && one["files"][1]["old"] == "max", "{one}");
    let text = rollback(shelf.state(), &["--list"])?;
    for word in [
        "ID",
        "WHEN",
        "kept",
        "broken off",
        "undone",
        "limit /grey-none-2",
        "max -> 2097152",
    ] {
        ensure!(
            text.stdout.contains(word),
            "no {word:?} in\n{}",
            text.stdout
        );
    }
    ensure!(shelf.bytes()? == before, "--list wrote to the journal");
    ensure!(
        !shelf.scratch.join("state/controller.lock").exists(),
        "--list made a lock"
    );
    Ok(Outcome::Passed)
}

fn vanished() -> Result<Outcome> {
    let shelf = Shelf::new(
        "vanished",
        &[
            begin(1),
            intent(1, 0),
            Record::Kept { id: 1 },
            begin(2),
            intent(2, 0),
        ],
    )?;
    // What was broken off first, and what was kept only where that is asked for.
    let ended = rollback(shelf.state(), &["--unfinished", "--json"])?;
    let event: Value = serde_json::from_str(&ended.stdout)?;
    ensure!(
        ended.code == Some(0)
            && event["type"] == "rollback"
            && event["rollback"]["id"] == 2
            && event["cgroup"]["path"] == "/grey-none-2"
            && event["rollback"]["restored"] == serde_json::json!([])
            && event["rollback"]["skipped"][0]["why"] == "is gone with its cgroup",
        "{ended:?}"
    );
    ensure!(
        shelf
            .ledger()?
            .get(1)
            .is_some_and(|action| action.is_open())
    );
    let ended = rollback(shelf.state(), &["--id", "1"])?;
    ensure!(
        ended.code == Some(0) && ended.stdout.contains("left alone: is gone with its cgroup"),
        "{ended:?}"
    );
    let again = rollback(shelf.state(), &["--id", "1"])?;
    ensure!(
        again.code == Some(0) && again.stdout.contains("nothing to undo"),
        "{again:?}"
    );
    Ok(Outcome::Passed)
}

/// Actions that are kept, on cgroups that do not exist.
fn many(count: u64) -> Vec<Record> {
    (1..=count)
        .flat_map(|id| [begin(id), intent(id, 0), Record::Kept { id }])
        .collect()
}

fn start(shelf: &Shelf) -> Result<std::process::Child> {
    Command::new(grey_ebpf())
        .args(["rollback", "--state-dir", shelf.state()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .context("start a rollback")
}

fn two_at_once() -> Result<Outcome> {
    let shelf = Shelf::new("two", &many(60))?;
    let mut both = [start(&shelf)?, start(&shelf)?];
    for child in &mut both {
        let status = wait_until("the end of a rollback", Duration::from_secs(30), || {
            child.try_wait().context("wait")
        })?;
        ensure!(status.success(), "{status}");
    }
    let (records, damage) = decode_all(&shelf.bytes()?);
    ensure!(damage.lines == 0 && !damage.torn, "{damage:?}");
    let closed = records
        .iter()
        .filter(|record| matches!(record, Record::Closed { .. }))
        .count();
    // Each sees what the other has closed: nothing is closed twice.
    ensure!(closed == 60, "{closed} of 60 changes closed");
    let ledger = Ledger::of(records);
    ensure!(
        ledger.actions().all(|action| action.phase == Phase::Ended),
        "{ledger:?}"
    );
    Ok(Outcome::Passed)
}

/// SIGKILL after more and more time.
fn killed() -> Result<Outcome> {
    let shelf = Shelf::new("killed", &many(200))?;
    let mut rounds = 0;
    let mut wait = Duration::ZERO;
    let end = Instant::now() + Duration::from_secs(30);
    while shelf.ledger()?.actions().any(|action| action.is_open()) {
        ensure!(Instant::now() < end, "not done after {rounds} rounds");
        let mut child = start(&shelf)?;
        let start = Instant::now();
        while start.elapsed() < wait && child.try_wait()?.is_none() {
            std::hint::spin_loop();
        }
        child.kill()?;
        child.wait()?;
        rounds += 1;
        wait += Duration::from_millis(4);
    }
    let (_, damage) = decode_all(&shelf.bytes()?);
    ensure!(damage.lines == 0 && !damage.torn, "{damage:?}");
    ensure!(rounds > 3, "only {rounds} rounds: none was killed half-way");
    println!("{rounds} rounds");
    let last = rollback(shelf.state(), &[])?;
    ensure!(last.code == Some(0), "{last:?}");
    ensure!(
        shelf
            .list()?
            .iter()
            .all(|row| row["state"] == "over" || row["state"] == "undone"),
        "an action that is not over"
    );
    Ok(Outcome::Passed)
}

/// A limit on file sizes stands in for a full disk: write(2) takes a part, or nothing.
fn size_limit() -> Result<Outcome> {
    let shelf = Shelf::new("limit", &[begin(1)])?;
    let before = shelf.bytes()?.len() as u64;
    let dir = shelf.scratch.join("state");
    let old = getrlimit(Resource::Fsize);
    let limit = |bytes: Option<u64>| {
        setrlimit(
            Resource::Fsize,
            Rlimit {
                current: bytes.or(old.current),
                maximum: old.maximum,
            },
        )
    };
    let length = grey_core::act::encode(&intent(1, 0)).len() as u64;
    let mut part = 0;
    let mut good = 1;
    for room in 0..length {
        let (mut journal, ..) = Journal::open(&dir)?;
        let from = shelf.bytes()?.len() as u64;
        limit(Some(from + room))?;
        let failed = journal.append(&intent(1, 0));
        limit(None)?;
        ensure!(
            matches!(&failed, Err(Fault::Other(why)) if why.contains("too large"))
                || matches!(failed, Err(Fault::Full)),
            "with room for {room} of {length} bytes: {failed:?}"
        );
        part += u64::from(shelf.bytes()?.len() as u64 > from);
        // The next record is whole whatever the failed one has left.
        journal.append(&Record::Next { id: room + 10 })?;
        good += 1;
        let records = shelf.records()?;
        ensure!(
            records
                .iter()
                .filter(|record| !matches!(record, Record::Intent { .. }))
                .count()
                == good,
            "{} records of {good} after room for {room}",
            records.len()
        );
    }
    ensure!(
        part + 1 >= length,
        "only {part} of {length} writes were cut short"
    );
    ensure!(before > 0);
    // A record that lacks nothing but its line break is whole; all others are not there.
    let intents = shelf.records()?.len() - good;
    ensure!(intents == 1, "{intents} of the failed records are whole");
    Ok(Outcome::Passed)
}
