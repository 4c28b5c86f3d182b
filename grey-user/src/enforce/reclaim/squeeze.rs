//! Reclaim where the kernel has no memory.reclaim: memory.high is lowered under what is in use, which reclaims in the
//! write itself, and is put back.

use std::rc::Rc;

use grey_core::act::engine::MAX_STEPS;
use grey_core::act::{KnobFile, Value};
use grey_core::event::PlannedWrite;
use grey_core::units::format_bytes;

use crate::act::session::refused;
use crate::act::{Scene, Target, files, measure};
use crate::cli::Failure;

use super::super::Act;
use super::loan::{self, Loan};
use super::steps::Taken;
use super::{Room, Take, knob};

/// Changes of memory.high in one action; memory.swap.max may be one more.
const MOST: u32 = MAX_STEPS - 2;

/// What will be written: the first value, from which it goes on.
pub(super) fn writes(scene: &Scene, target: &Target, size: u64, room: &Room) -> Vec<PlannedWrite> {
    let page = rustix::param::page_size() as u64;
    let high = knob(target, KnobFile::MemoryHigh);
    let old = files::read(&scene.host, &scene.cgroups, &high).ok();
    let used = room.used.unwrap_or(0);
    let step = scene.safety.step.min(size);
    let first = Value::limit(Some(used.saturating_sub(step)), page);
    let last = Value::limit(Some(used.saturating_sub(size)), page);
    let new = if first == last {
        first.to_string()
    } else {
        format!(
            "{first}, in steps of {} down to {last}",
            format_bytes(scene.safety.step)
        )
    };
    vec![PlannedWrite {
        file: high.to_string(),
        old: old.map(String::from),
        new,
        reversible: true,
    }]
}

/// Takes `size` bytes, which can be had.
///
/// # Errors
/// A write fails or is held up, or guard, watchdog or the user break it off.
pub(super) fn take(
    act: &mut Act<'_>,
    target: &Target,
    size: u64,
    take: Take,
) -> Result<Taken, Failure> {
    let loan = Loan::begin(
        act,
        target,
        "memory.high is lowered to reclaim, for the kernel has no memory.reclaim",
    )?;
    let done = run(act, target, size, take, &loan);
    act.tell.clear();
    Loan::end(Some(loan), act, done)
}

fn run(
    act: &mut Act<'_>,
    target: &Target,
    size: u64,
    take: Take,
    loan: &Loan,
) -> Result<Taken, Failure> {
    let scene = Rc::clone(&act.session.scene);
    let page = rustix::param::page_size() as u64;
    let high = knob(target, KnobFile::MemoryHigh);
    let mut taken = Taken::by("memory.high, which is put back (this kernel has no memory.reclaim)");
    match take {
        Take::FileOnly => {
            let shut = loan::shut(&scene, act, target)?;
            taken.notes.extend(shut.close(act, loan)?);
        }
        Take::AnonOnly | Take::Swappiness(_) => taken
            .notes
            .push("memory.high takes no swappiness: vm.swappiness decides".to_owned()),
        Take::AsIs => {}
    }
    let held = || {
        measure::held(&scene, target)
            .ok_or_else(|| Failure::failed(format!("{}: the cgroup is gone", target.path)))
    };
    let mut before = held()?;
    // What is to be kept is never asked for, however the cgroup grows or shrinks meanwhile.
    let floor = before.saturating_sub(size);
    while taken.bytes < size {
        act.session.poll()?;
        if taken.writes == MOST {
            taken.notes.push(format!(
                "memory.high is lowered at most {MOST} times in one run; run it again for more"
            ));
            break;
        }
        let asked = scene.safety.step.min(size - taken.bytes);
        let goal = before.saturating_sub(asked).max(floor) / page * page;
        let in_force = act.session.get(&high).ok().and_then(|now| now.as_number());
        if let Some(now) = in_force.filter(|now| taken.writes == 0 && *now <= goal) {
            return Err(refused(format!(
                "{high}: it is {} already, {} are in use: the kernel reclaims by itself, and no more can be asked for",
                format_bytes(now),
                format_bytes(before)
            )));
        }
        loan.set(act, &high, &Value::limit(Some(goal), page))?;
        let after = held()?;
        let go_on = taken.step(act, asked, before.saturating_sub(after), size);
        before = after;
        if !go_on {
            break;
        }
    }
    act.session.poll()?;
    Ok(taken)
}
