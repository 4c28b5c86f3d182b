//! Power loss: a real journal cut at every byte, the limits as they can be at that moment.

use super::*;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "vm_rollback_puts_back_from_every_cut_of_a_kept_actions_journal",
            kept,
        )
        .with_deadline(Duration::from_secs(120))
        .shown_on(&["6.1", "6.12"]),
        Trial::new(
            "vm_rollback_puts_back_from_every_cut_of_a_broken_off_actions_journal",
            broken_off,
        )
        .with_deadline(Duration::from_secs(120))
        .shown_on(&["6.1", "6.12"]),
    ]
}

fn kept() -> Result<Outcome> {
    let bench = Bench::new("cut-kept")?;
    bench.keep()?;
    let whole = bench.shelf.bytes()?;
    every_cut(&bench, &whole, 16)?;

    // What was kept is not unfinished.
    bench.shelf.write(&whole)?;
    bench.set(NEW)?;
    done(&bench.rollback(&["--unfinished"])?, &["nothing to undo"])?;
    bench.holds(NEW)?;
    // Without the last record it was not yet kept.
    bench.shelf.write(&whole[..whole.len() - 2])?;
    let ended = bench.rollback(&["--unfinished"])?;
    ensure!(ended.code == Some(0), "{ended:?}");
    bench.as_before()?;
    Ok(Outcome::Passed)
}

fn broken_off() -> Result<Outcome> {
    let bench = Bench::new("cut-broken")?;
    let command = Observer::start(&[
        "enforce",
        "limit",
        bench.cgroup.path(),
        "--high",
        "128M",
        "--lease",
        "60s",
        "--state-dir",
        bench.shelf.state(),
    ])?;
    let one = [NEW[0], PRIOR[1].1];
    wait_until("the limit", SOON, || {
        Ok(bench.holds(one).is_ok().then_some(()))
    })?;
    let guard = guard_of(command.pid())?.context("no guard runs")?;
    // Stopped first: it must not notice the command's end.
    send(guard, Signal::STOP)?;
    command.signal(Signal::KILL)?;
    send(guard, Signal::KILL)?;
    wait_until("the guard's end", SOON, || Ok((!runs(guard)).then_some(())))?;
    drop(command);
    bench.holds(one)?;
    ensure!(bench.state_of(1)? == "broken_off");
    every_cut(&bench, &bench.shelf.bytes()?, 8)?;
    Ok(Outcome::Passed)
}

/// Whatever is on disk: a limit holds what it held before wherever its record was whole, and is not touched where it
/// was not. What others may have written beside it is tried at every record's end and at every `nth` byte.
fn every_cut(bench: &Bench, whole: &[u8], nth: usize) -> Result<()> {
    let (records, damage) = decode_all(whole);
    ensure!(damage.lines == 0 && !damage.torn, "{damage:?}");
    let other = ["536870912", "805306368"];
    let prior = PRIOR.map(|(_, value)| value);
    let (mut by_binary, mut states) = (0, 0);
    for at in 0..=whole.len() {
        let cut = &whole[..at];
        let intents = decode_all(cut)
            .0
            .iter()
            .filter(|record| matches!(record, Record::Intent { .. }))
            .count();
        let file = |step: usize, whole: &'static str, not: &'static str| {
            if step < intents { whole } else { not }
        };
        // Written, as far as it may have been by then; the rest is as it was, or as others have made it.
        let end = matches!(cut.last(), None | Some(b'\n')) || whole.get(at) == Some(&b'\n');
        let all = end || at % nth == 0;
        for rest in [prior, other].into_iter().take(if all { 2 } else { 1 }) {
            bench.shelf.write(cut)?;
            bench.set([file(0, NEW[0], rest[0]), file(1, NEW[1], rest[1])])?;
            // A process for each would take minutes.
            if end {
                let ended = bench.rollback(&[])?;
                ensure!(ended.code == Some(0), "cut at {at}: {ended:?}");
                by_binary += 1;
            } else {
                by_library(bench).with_context(|| format!("cut at {at}"))?;
            }
            bench
                .holds([file(0, prior[0], rest[0]), file(1, prior[1], rest[1])])
                .with_context(|| format!("cut at {at}, {intents} changes were noted"))?;
            states += 1;
        }
        // Noted but not yet written, or written by others since: not touched.
        for now in [prior, other].into_iter().filter(|_| all) {
            bench.shelf.write(cut)?;
            bench.set(now)?;
            by_library(bench).with_context(|| format!("cut at {at}"))?;
            bench
                .holds(now)
                .with_context(|| format!("cut at {at}, nothing was written"))?;
            states += 1;
        }
    }
    println!(
        "{} cuts of {} records, {states} states; {by_binary} by the program, the others by the library",
        whole.len() + 1,
        records.len()
    );
    Ok(())
}

fn by_library(bench: &Bench) -> Result<()> {
    let args = RollbackArgs {
        list: false,
        id: None,
        force: false,
        unfinished: false,
        json: true,
        state_dir: Some(bench.shelf.scratch.join("state")),
        config: None,
    };
    match rollback::run(&args) {
        Ok(Exit::Done) => Ok(()),
        Ok(exit) => anyhow::bail!("ended with {exit:?}"),
        Err(failure) => anyhow::bail!(failure.message),
    }
}
