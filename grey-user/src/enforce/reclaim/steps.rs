//! memory.reclaim in bounded steps, until the size is taken, nothing more comes, or something trips.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use grey_core::act::Fault;
use grey_core::event::PlannedWrite;
use grey_core::units::format_bytes;

use crate::act::{Target, measure};
use crate::cli::Failure;

use super::super::{Act, time};
use super::Take;
use super::loan::{self, Loan};

/// Steps in a row that free next to nothing before it is enough.
const VAIN: u32 = 2;

/// What was taken.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    /// Bytes.
    pub bytes: u64,
    /// In how many writes.
    pub writes: u32,
    /// To which file.
    pub file: &'static str,
    /// Why it ended before the size was reached, and what was done otherwise than asked.
    pub notes: Vec<String>,
    in_vain: u32,
}

impl Taken {
    pub(super) fn by(file: &'static str) -> Taken {
        Taken {
            bytes: 0,
            writes: 0,
            file,
            notes: Vec::new(),
            in_vain: 0,
        }
    }

    /// In words.
    pub(crate) fn told(&self) -> String {
        format!(
            "{} taken in {} write{} to {}",
            format_bytes(self.bytes),
            self.writes,
            if self.writes == 1 { "" } else { "s" },
            self.file
        )
    }

    /// One more step; whether another makes sense.
    pub(super) fn step(&mut self, act: &Act<'_>, asked: u64, freed: u64, size: u64) -> bool {
        self.bytes += freed;
        self.writes += 1;
        act.tell.progress(&format!(
            "{} of {}",
            format_bytes(self.bytes),
            format_bytes(size)
        ));
        // Next to nothing: pages that were free of their own accord meanwhile make no step worth while.
        self.in_vain = if freed < (asked / 64).max(1) {
            self.in_vain + 1
        } else {
            0
        };
        if self.in_vain == VAIN {
            self.notes
                .push("the kernel found next to nothing more to take".to_owned());
        }
        self.in_vain < VAIN
    }
}

/// One way to say which memory is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// The size alone: vm.swappiness decides.
    Plain,
    /// `swappiness=N`.
    Swappiness(u8),
    /// `swappiness=max`.
    Max,
    /// The size alone, with swap closed for the cgroup meanwhile.
    SwapClosed,
}

/// What is tried in turn: a kernel that does not know a form refuses it with EINVAL and takes nothing.
fn forms(take: Take) -> Vec<Form> {
    match take {
        Take::AsIs => vec![Form::Plain],
        Take::FileOnly => vec![Form::Swappiness(0), Form::SwapClosed],
        Take::AnonOnly => vec![Form::Max, Form::Swappiness(200), Form::Plain],
        Take::Swappiness(number) => vec![Form::Swappiness(number), Form::Plain],
    }
}

impl Form {
    fn line(self, bytes: u64) -> String {
        match self {
            Form::Plain | Form::SwapClosed => bytes.to_string(),
            Form::Swappiness(number) => format!("{bytes} swappiness={number}"),
            Form::Max => format!("{bytes} swappiness=max"),
        }
    }
}

/// What will be written, and what else where the kernel does not take that.
pub(crate) fn writes(
    target: &Target,
    size: u64,
    step: u64,
    take: Take,
) -> (Vec<PlannedWrite>, Option<&'static str>) {
    let forms = forms(take);
    let form = forms.first().copied().unwrap_or(Form::Plain);
    let (times, rest) = (size / step, size % step);
    let mut lines = Vec::new();
    match times {
        0 => {}
        1 => lines.push(form.line(step)),
        _ => lines.push(format!("{} (up to {times} times)", form.line(step))),
    }
    if rest > 0 {
        lines.push(form.line(rest));
    }
    let lines = lines.into_iter().map(|new| PlannedWrite {
        file: format!("{}/memory.reclaim", target.path.trim_end_matches('/')),
        old: None,
        new,
        reversible: false,
    });
    let otherwise = match forms.last() {
        _ if forms.len() == 1 => None,
        Some(Form::SwapClosed) => Some(
            "where the kernel takes no swappiness, memory.swap.max is 0 meanwhile and put back",
        ),
        _ => Some("where the kernel takes no swappiness, vm.swappiness decides"),
    };
    (lines.collect(), otherwise)
}

/// Takes `size` bytes.
///
/// # Errors
/// The kernel refuses it altogether, or guard, watchdog or the user break it off.
pub(crate) fn take(
    act: &mut Act<'_>,
    target: &Target,
    file: &OwnedFd,
    size: u64,
    take: Take,
) -> Result<Taken, Failure> {
    let mut loan = None;
    let done = run(act, target, file, size, take, &mut loan);
    act.tell.clear();
    Loan::end(loan, act, done)
}

fn run(
    act: &mut Act<'_>,
    target: &Target,
    file: &OwnedFd,
    size: u64,
    take: Take,
    loan: &mut Option<Loan>,
) -> Result<Taken, Failure> {
    let scene = Rc::clone(&act.session.scene);
    let page = rustix::param::page_size() as u64;
    let (step, timeout) = (scene.safety.step, scene.safety.write_timeout);
    let mut taken = Taken::by("memory.reclaim");
    let mut forms = forms(take).into_iter();
    let mut form = forms.next().unwrap_or(Form::Plain);
    while taken.bytes < size {
        act.session.poll()?;
        if let Some(loan) = loan {
            loan.renew(act)?;
        }
        let asked = step.min(size - taken.bytes).next_multiple_of(page);
        let line = form.line(asked);
        let file = file
            .try_clone()
            .map_err(|error| Failure::failed(format!("memory.reclaim: {error}")))?;
        let before = measure::held(&scene, target);
        let written = act.session.write(file, line.as_bytes(), timeout);
        let after = measure::held(&scene, target);
        let freed = before
            .zip(after)
            .map_or(0, |(before, after)| before.saturating_sub(after));
        let freed = match written {
            // The kernel has freed at least this, however much the cgroup has taken anew meanwhile.
            Ok(_) => freed.max(asked),
            // EAGAIN: it found less. EINTR: the helper was stopped and went on.
            Err(Fault::Busy | Fault::Interrupted) => freed,
            Err(Fault::Invalid(why)) => {
                let Some(next) = forms.next() else {
                    return Err(Failure::unsupported(format!(
                        "memory.reclaim: the kernel does not take {line:?}: {why}"
                    )));
                };
                let note = fall_back(act, target, form, next, loan)?;
                taken.notes.extend(note);
                form = next;
                continue;
            }
            Err(fault) => {
                // A trip or a request to end breaks the write off: that is the better reason.
                act.session.poll()?;
                taken.step(act, asked, freed, size);
                if !matches!(fault, Fault::TimedOut { stuck: false }) || taken.bytes == 0 {
                    return Err(failed(target, &fault));
                }
                taken
                    .notes
                    .push(format!("a write was ended after {}", time(timeout)));
                break;
            }
        };
        if !taken.step(act, asked, freed, size) {
            break;
        }
    }
    act.session.poll()?;
    Ok(taken)
}

/// Makes the next form possible, and says what it comes to.
fn fall_back(
    act: &mut Act<'_>,
    target: &Target,
    from: Form,
    next: Form,
    loan: &mut Option<Loan>,
) -> Result<Option<String>, Failure> {
    match (from, next) {
        (_, Form::SwapClosed) => {
            let scene = Rc::clone(&act.session.scene);
            let shut = loan::shut(&scene, act, target)?;
            let begun = Loan::begin(act, target, "swap is closed for a file-only reclaim")?;
            // Known before anything is changed, so that it is put back whatever happens.
            shut.close(act, loan.insert(begun))
        }
        (Form::Max, Form::Swappiness(number)) => Ok(Some(format!(
            "this kernel does not take swappiness=max: {number} is used"
        ))),
        _ => Ok(Some(
            "this kernel's memory.reclaim takes no swappiness: vm.swappiness decides".to_owned(),
        )),
    }
}

fn failed(target: &Target, fault: &Fault) -> Failure {
    let path = target.path.trim_end_matches('/');
    let message = format!("{path}/memory.reclaim: {fault}");
    match fault {
        Fault::Denied => Failure::unsupported(format!("{message}; run it as root")),
        Fault::ReadOnly => {
            Failure::unsupported(format!("{message}; do it outside of the container"))
        }
        _ => Failure::failed(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_memory_has_its_line_and_a_kernel_that_does_not_take_it_another() {
        let lines = |take| -> Vec<String> {
            forms(take)
                .into_iter()
                .map(|form| form.line(4096))
                .collect()
        };
        assert_eq!(lines(Take::AsIs), ["4096"]);
        assert_eq!(lines(Take::FileOnly), ["4096 swappiness=0", "4096"]);
        assert_eq!(
            lines(Take::Swappiness(120)),
            ["4096 swappiness=120", "4096"]
        );
        assert_eq!(
            lines(Take::AnonOnly),
            ["4096 swappiness=max", "4096 swappiness=200", "4096"]
        );
    }
}
