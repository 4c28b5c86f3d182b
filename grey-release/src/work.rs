//! Doing what is asked for: the collector, then the allocator, and the figures before and after.

use core::fmt::Write as _;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::allocator::{self, Allocator, Figures};
use crate::collector::{self, Collected};
use crate::protocol::VERSION;
use crate::text::{Line, number, words};
use crate::{quiet, sys};

/// An answer.
pub(crate) type Answer = Line<1024>;

/// Held while the allocator is at work for us, and by a thread that forks: a child never begins amid that.
static BUSY: AtomicBool = AtomicBool::new(false);

/// Between two looks at whether it can go on, microseconds.
const LOOK_US: u64 = 500;

pub(crate) fn lock() {
    while BUSY.swap(true, Ordering::SeqCst) {
        sys::sleep_us(50);
    }
}

pub(crate) fn unlock() {
    BUSY.store(false, Ordering::SeqCst);
}

/// Calls into the allocator as soon as that is safe; `None` where it was not until then.
pub(crate) fn with_allocator<T>(until_ns: u64, call: impl FnOnce() -> T) -> Option<T> {
    loop {
        lock();
        if quiet::allocator_is_locked() {
            let done = call();
            unlock();
            return Some(done);
        }
        unlock();
        if sys::now_ns() >= until_ns {
            return None;
        }
        collector::ask_for_safe_point();
        sys::sleep_us(LOOK_US);
    }
}

/// Resident bytes of the process.
pub(crate) fn resident() -> Option<u64> {
    let mut buf = [0; 128];
    let text = sys::read_file(b"/proc/self/statm\0", &mut buf)?;
    let pages = number(words(text).nth(1)?)?;
    // Both architectures' kernels of Debian have pages of 4 KiB; the auxiliary vector knows better.
    let page = crate::symbols::getauxval().map_or(4096, |getauxval| {
        // SAFETY: takes a number: AT_PAGESZ.
        unsafe { getauxval(6) }
    });
    pages.checked_mul(page as u64)
}

/// What the allocator holds free, and nothing else is done. Who does not want to wait does not change anything either: a
/// program that goes without locks goes on so, and is `busy`.
pub(crate) fn stat(wait_ms: u64) -> Answer {
    let begin = sys::now_ns();
    let mut answer = Answer::new();
    let rss = resident();
    let allocator = allocator::of_the_program();
    let figures = match allocator {
        None => Some(None),
        Some(_) if wait_ms == 0 && quiet::is_quiet() => None,
        Some(allocator) => with_allocator(until(begin, wait_ms), || {
            Some(allocator::figures(allocator))
        }),
    };
    head(&mut answer, figures.is_some(), allocator);
    tell(&mut answer, figures.flatten());
    answer.figure(
        "collector",
        if collector::is_there() {
            "cpython"
        } else {
            "none"
        },
    );
    answer.known("rss_before", rss);
    tail(answer, begin)
}

/// Gives back.
pub(crate) fn trim(with_collector: bool, wait_ms: u64) -> Answer {
    let begin = sys::now_ns();
    let before = resident();
    let mut answer = Answer::new();
    let collected = (with_collector && collector::is_there()).then(|| {
        // The interpreter's locks are as real as the allocator's from here on; where it answers is outside both.
        quiet::make_loud(false);
        let collected = collector::run(until(begin, wait_ms));
        (collected, resident())
    });
    let allocator = allocator::of_the_program();
    // The collector has had its time; the allocator has its own.
    let until = until(sys::now_ns(), wait_ms);
    let figures = match allocator {
        None => Some(None),
        Some(allocator) => with_allocator(until, || {
            let figures = allocator::figures(allocator);
            allocator::trim(allocator);
            Some(figures)
        }),
    };
    head(&mut answer, figures.is_some(), allocator);
    tell(&mut answer, figures.flatten());
    match collected {
        Some((collected, rss)) => {
            answer.figure("collector", "cpython");
            answer.figure(
                "collector_state",
                match collected {
                    Collected::Done(_) => "done",
                    Collected::Off => "off",
                    Collected::Later => "later",
                    Collected::Full => "full",
                },
            );
            if let Collected::Done(objects) = collected {
                answer.figure("collected", objects);
            }
            answer.known("rss_collected", rss);
        }
        None if collector::is_there() => answer.figure("collector", "cpython"),
        None => answer.figure("collector", "none"),
    }
    answer.known("rss_before", before);
    answer.known("rss_after", resident());
    tail(answer, begin)
}

fn until(begin_ns: u64, wait_ms: u64) -> u64 {
    begin_ns.saturating_add(wait_ms.saturating_mul(1_000_000))
}

fn head(answer: &mut Answer, done: bool, allocator: Option<Allocator>) {
    // It is empty, and has room for this.
    let _ = write!(answer, "{VERSION} {}", if done { "done" } else { "busy" });
    answer.figure("pid", sys::pid());
    answer.figure("allocator", allocator.map_or("unknown", Allocator::name));
}

fn tell(answer: &mut Answer, figures: Option<Figures>) {
    let figures = figures.unwrap_or_default();
    answer.known("heap_used", figures.used);
    answer.known("heap_free", figures.free);
    answer.known("heap_mapped", figures.mapped);
}

fn tail(mut answer: Answer, begin: u64) -> Answer {
    answer.figure("took_us", sys::now_ns().saturating_sub(begin) / 1000);
    // There is room: the figures are far from filling the line.
    let _ = answer.write_str("\n");
    answer
}
