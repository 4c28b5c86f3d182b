//! The rules that turn a trend into how far the evidence has come. Each number says where it comes from.

use super::stats::normal_cdf;
use super::trend::{STEADY, Trend};
use crate::event::{Cause, State};

const MIB: f64 = 1_048_576.0;

/// Growth below this is not worth a word, where there is room for much more.
const LEAST_GROWTH: f64 = 32.0 * MIB;
/// Below this the floors go up and down more than they rise.
const LEAST_TAU: f64 = 0.5;
/// One-sided 0.1 %; Sen's 95 % interval of the slope is then above zero.
const LEAST_Z: f64 = 3.09;
/// Longer than memory rises in a day's course (from the first person awake to the last one).
const DAY_RISE_S: f64 = 14.0 * 3600.0;
/// A spike of some seconds is none yet; what hits its limit within two minutes is confirmed within half a minute.
const AT_ONCE_S: f64 = 23.0;
/// A climb from the first moment that would hit its limit within this time is told without waiting for more.
const NEAR_S: f64 = 200.0;
const BIRTH: f64 = 0.18;
/// Where there is more time, a spike may take this long.
const SPIKE_S: f64 = 65.0;
/// Share of the time to its limit that a climb from a settled level must have lasted.
const SETTLED: f64 = 0.081;
/// The same for one that climbs since it is watched, in a straight line and into newly mapped memory.
const YOUNG: f64 = 0.09;
/// The same for one that is even, but no straight line.
const YOUNG_UNEVEN: f64 = 0.25;
/// A climb is a straight line if its slowest quarter has this share of its slope.
const STRAIGHT: f64 = 0.9;
/// Jobs and stores that climb evenly are done when they have taken this share of the room, as a rule.
const DONE: f64 = 0.122;
/// The same for one that stays within what was mapped before: a heap, full or being collected.
const MAPPED_BEFORE: f64 = 0.4;
/// What is retained in a heap lifts it evenly. Where its second half rises faster than this, or a quarter hardly rises,
/// the floors have caught the teeth of a heap whose threshold moves.
const MAPPED_FASTER: f64 = 1.4;
const MAPPED_SLOWEST: f64 = 0.6;
/// Files are written to tmpfs and walked within less than this.
const SETTLES_S: f64 = 1800.0;
/// Longer than a collector waits, so that an even climb of this length is not its first tooth.
const LONG_TOOTH_S: f64 = 3.3 * 3600.0;
/// A climb whose later part is slower than this share of its mean slows down.
const EVEN: f64 = 0.88;
/// Where nothing is known of the time before, a climb must be as even as this.
const ALL_EVEN: f64 = 0.96;
/// A single step that makes up more than this of the growth is no climb.
const LARGEST_STEP: f64 = 0.3;
/// The same where the past is unknown and the climb rested in between: workers that start, and later more of them.
const LARGEST_START: f64 = 0.2;
const RESTED: f64 = 3.0;
/// Floors that a verdict rests on.
const LEAST_FLOORS: usize = 10;
/// A climb that sways less than this from a straight line does not begin and end gently, as a day's does.
const SWAY: f64 = 0.03;
/// The same where the level before is not known, as long as the climb has not taken more of the room than that.
const YOUNG_SWAY: f64 = 0.02;
/// The steepest part of a day's rise is as straight for this long.
const STEEP_S: f64 = 3600.0;
const KINK_UNTIL: f64 = 0.175;
/// Buckets that show it.
const KINK_BUCKETS: usize = 10;
/// A store without its data.
const EMPTY: f64 = 96.0 * MIB;
/// A job before it collects what it works on, and what it may take beyond [`SETTLED`] of the room until it gives it back.
const IDLE: f64 = 256.0 * MIB;
const COLLECTS: f64 = 0.018;
/// A trend that shows less than this part of its climb is a moment of it: its rate says nothing of a day's course.
const MOMENT: f64 = 0.22;
/// A climb that has taken nearly all of the room is no day's course, if none of its quarters rests.
const NEARLY_ALL: f64 = 0.8;
const RESTLESS: f64 = 0.5;
/// Part of a growth that must lie above everything seen before it.
const NEW_GROUND: f64 = 0.5;
/// Room that is assumed below an unknown limit.
const UNKNOWN_ROOM: f64 = 1024.0 * MIB;

/// What a trend is held against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Around {
    /// Bytes left below the nearest limit.
    pub(super) room: Option<f64>,
    /// When the series began, µs.
    pub(super) first: i64,
    /// Where the climb really begins, which may be before what the trend looks at: time (µs) and level.
    pub(super) origin: (i64, f64),
    /// Seconds before that in which the level kept still.
    pub(super) still: f64,
    /// Highest level before the growth began; unknown where floors see through teeth and never reach their peaks.
    pub(super) peak_before: Option<f64>,
    /// Anonymous memory, the program's own.
    pub(super) own: bool,
    /// Whether a settled level says anything: files on tmpfs and what the kernel remembers of files come at any time.
    pub(super) settles: bool,
    /// Part of the growth that the cgroup's children account for.
    pub(super) children: f64,
    /// Growth of the virtual size since the climb began.
    pub(super) virt: Option<f64>,
    /// Processes when the climb began, and now.
    pub(super) processes: Option<(u64, u64)>,
    /// Levels a day ago were flat: nothing comes and goes with the hours here.
    pub(super) flat_day: bool,
}

impl Around {
    /// Whether a climb of this many bytes stays within address space that was there before.
    fn mapped_before(&self, climb: f64) -> bool {
        self.own && self.virt.is_some_and(|virt| virt < 0.3 * climb)
    }
}

/// How far the evidence has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Assessment {
    pub(super) state: State,
    pub(super) cause: Cause,
    pub(super) confidence: f64,
    /// Seconds that this growth has to last for a verdict of `confirmed`.
    pub(super) needed: f64,
    /// Share of the room that the growth has taken.
    pub(super) taken: f64,
    /// Growth of the virtual size since the climb began.
    pub(super) virt: Option<f64>,
    /// Judgements of one level in a row that must agree before it is confirmed.
    pub(super) in_a_row: u8,
}

/// Bytes of growth that matter with this much room at the begin.
pub(super) fn least_growth(room: Option<f64>) -> f64 {
    match room {
        Some(room) => (room / 10.0).clamp(4.0 * MIB, LEAST_GROWTH),
        None => LEAST_GROWTH,
    }
}

/// Whether a trend is worth looking closer at.
pub(super) fn is_growth(trend: &Trend, least: f64) -> bool {
    trend.growth() >= least / 2.0 && trend.slope.tau >= LEAST_TAU
}

/// Judges a trend.
pub(super) fn assess(trend: &Trend, around: &Around) -> Assessment {
    let growth = trend.growth();
    let rate = trend.slope.median.max(1e-9);
    // The climb may have begun before the floors that are looked at here.
    let (mut origin, mut base) = around.origin;
    let even = (trend.to - base) / ((trend.end - origin).max(1) as f64 / 1e6);
    let slowing = trend.slowing || rate < EVEN * even;
    let climb_seen = (trend.to - base).max(growth);
    let all_even = rate >= ALL_EVEN * even
        && trend.second_half >= ALL_EVEN
        // All of the climb is in view.
        && trend.from - base < 0.1 * climb_seen;
    if rate < EVEN * even {
        // It was faster before: what this segment shows by itself counts.
        (origin, base) = (trend.onset, trend.from);
    }
    let climb = (trend.to - base).max(growth);
    let seconds = (trend.end - origin).max(trend.end - trend.onset) as f64 / 1e6;
    // Room when it began.
    let room = around.room.map_or_else(
        || UNKNOWN_ROOM.max(2.0 * base),
        |room| room.max(0.0) + climb,
    );
    // A hundredth of the level is nothing to wake anybody for.
    let least = least_growth(Some(room)).max(0.01 * base);
    let taken = (climb / room).clamp(0.0, 1.0);
    let whole = room / rate;
    let Share { share, past } = share(trend, around, whole, slowing, all_even);
    // A level that began to climb at once and evenly: a day begins and ends more gently than that.
    let straight = match past {
        Past::Settled => trend.course.sway.abs() < SWAY,
        Past::Young => {
            trend.course.sway.abs() < YOUNG_SWAY && taken < KINK_UNTIL && seconds >= STEEP_S
        }
        _ => false,
    };
    let kink = straight
        && trend.buckets >= KINK_BUCKETS
        && trend.from - base < 0.15 * climb
        && (0.85..1.15).contains(&trend.second_half);
    let calm = if trend.growth() < MOMENT * climb_seen.max(climb) {
        even.min(rate)
    } else {
        rate
    };
    let nearly_all = taken >= NEARLY_ALL && trend.course.slowest >= RESTLESS;
    let daily = daily(trend, around, calm, room) && !nearly_all && !kink;
    // The share of the room that a climb takes is the share of its time, if it is even.
    // A collector may wait for longer than a day rises.
    let long = if around.mapped_before(climb) && taken < MAPPED_BEFORE {
        0.0
    } else {
        seconds / DAY_RISE_S
    };
    let lasted = if daily {
        long
    } else {
        (taken / share).max(long)
    }
    .min(seconds / at_once(whole, past));
    let needed = if lasted > 0.0 {
        seconds / lasted
    } else {
        whole
    };
    let mut out = Assessment {
        state: State::Normal,
        cause: Cause::Unknown,
        confidence: 0.0,
        needed,
        taken,
        virt: around.virt,
        in_a_row: match past {
            Past::Young | Past::Birth if around.still >= 0.3 * seconds || taken >= 0.4 => 1,
            Past::Young if straight && trend.course.slowest >= 0.95 => 1,
            Past::Young | Past::Birth if share < YOUNG_UNEVEN => 2,
            Past::Young => 4,
            _ => 1,
        },
    };
    // Highs it has reached before are its own coming and going.
    let territory = match around.peak_before {
        Some(peak) => ((trend.to - peak) / growth).clamp(0.0, 1.0),
        _ => 1.0,
    };
    let new_ground = territory >= NEW_GROUND;
    let by_processes = processes_explain(trend, around);
    let by_load = trend.load.unwrap_or(0.0);
    let significant = trend.slope.z >= LEAST_Z && trend.slope.tau >= 0.6;
    // What has slowed down once is likely to do so again.
    let steady = trend.second_half
        / if slowing || share >= 0.3 || whole <= 130.0 {
            EVEN
        } else {
            STEADY
        };
    let steps = if whole < 3600.0 { 6.5 } else { 4.5 };
    let largest_step = if past == Past::Unknown && trend.second_half > RESTED {
        LARGEST_START
    } else {
        LARGEST_STEP
    };
    let smooth =
        trend.largest_step <= largest_step && trend.floors >= LEAST_FLOORS && trend.spread >= steps;
    out.confidence = [
        lasted.min(1.0),
        (growth / least).min(1.0),
        steady.min(1.0),
        (territory / NEW_GROUND).min(1.0),
        if smooth { 1.0 } else { 0.5 },
        normal_cdf(trend.slope.z),
    ]
    .into_iter()
    .product::<f64>()
    .clamp(0.0, 1.0);
    if around.children >= 0.6 || growth < least / 2.0 || !new_ground || trend.slope.tau < LEAST_TAU
    {
        return out;
    }
    if by_processes >= 0.6 || by_load >= 0.65 {
        if lasted >= 0.3 && growth >= least {
            out.state = State::Growing;
            out.cause = Cause::Load;
        }
        out.confidence *= 1.0 - by_processes.max(by_load);
        return out;
    }
    if significant && smooth && growth >= least && steady >= 1.0 && lasted >= 1.0 {
        out.state = State::Confirmed;
        out.cause = Cause::Leak;
    } else if significant && smooth && growth >= least / 2.0 && steady >= 1.0 // From the first moment on, every program climbs for a while: it is told when it is sure, and not before.
        && lasted >= if past == Past::Birth { 1.0 } else { 0.85 }
    {
        out.state = State::Suspect;
        out.cause = Cause::Leak;
    } else if lasted >= 0.25 && growth >= least {
        out.state = State::Growing;
        out.cause = if trend.slowing || trend.second_half < 0.65 {
            Cause::Warmup
        } else {
            Cause::Unknown
        };
    }
    out
}

/// What is known of the time before a climb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Past {
    /// The level kept still.
    Settled,
    /// It climbs since it is watched, evenly.
    Young,
    /// The same from next to nothing, with no time to lose.
    Birth,
    /// It stays within address space that was mapped before.
    Mapped,
    /// Nothing that would help.
    Unknown,
}

/// The share of its room that a climb must have taken, and why.
struct Share {
    share: f64,
    past: Past,
}

/// The share of its room that a climb must have taken: evidence scales with what is at stake, and more of it is needed
/// where what is not a leak looks the same.
fn share(trend: &Trend, around: &Around, whole: f64, slowing: bool, all_even: bool) -> Share {
    let (origin, base) = around.origin;
    let climb = (trend.end - origin) as f64 / 1e6;
    // How long the level must have been settled before, to count as settled: half of what the climb has to last.
    let young = around.still
        < (SETTLED / 2.0 * whole)
            .clamp(8.0, 0.5 * DAY_RISE_S)
            .max(0.5 * climb.min(SETTLED * whole))
            .max(0.3 * climb);
    let before = (origin - around.first) as f64 / 1e6;
    // Memory that has grown since the very begin and made up most of what there is: a start, or a leak from the first
    // moment. Where the limit is far away time will tell; where it is near, there is none to lose.
    // A collected heap fills space that it has mapped before; what has to be mapped anew has no such bound.
    let mapped = around.virt.map(|virt| virt >= 0.7 * (trend.to - base));
    let small = base < if mapped == Some(true) { 0.5 } else { 0.15 } * trend.to;
    let birth = young
        && before <= (0.15 * climb).max(3.0)
        && small
        && mapped != Some(false)
        && trend.second_half >= 0.9;
    let mapped = mapped == Some(true) && climb >= 60.0;
    // Next to nothing that becomes twice as large may be an empty store that is being filled, to a cap below an eighth
    // of the room as a rule.
    // A fast one is well under way in the first floor that is seen of it.
    let empty = around.peak_before.map_or(base, |peak| base.min(peak));
    let times = ((trend.to / empty.max(1.0) - 1.6) / 0.8).clamp(0.0, 1.0);
    let filling = if around.own && empty < EMPTY {
        0.052 * times
    } else if around.own && empty < IDLE {
        COLLECTS * times
    } else {
        0.0
    };
    let (share, past) = if birth && !slowing && around.own && whole <= NEAR_S {
        (BIRTH, Past::Birth)
    } else if slowing
        || (!around.settles && climb < SETTLES_S)
        || (young && !(all_even && (climb >= LONG_TOOTH_S || mapped) && trend.to >= 1.05 * base))
    {
        // Nothing is known of how it was before: the first tooth of a saw-tooth, a cache that fills, a warm-up.
        (0.8, Past::Unknown)
    } else if around.mapped_before(trend.to - base) {
        let even = trend.second_half <= MAPPED_FASTER && trend.course.slowest >= MAPPED_SLOWEST;
        (if even { MAPPED_BEFORE } else { 0.8 }, Past::Mapped)
    } else if young && climb < LONG_TOOTH_S && trend.course.slowest < STRAIGHT {
        // The begin of a warm-up is even for a while.
        (YOUNG_UNEVEN, Past::Young)
    } else if young {
        ((YOUNG + filling).min(DONE), Past::Young)
    } else {
        // A settled level that began to climb. Minutes from its limit it may still be a job that loads its data.
        let near = ((1200.0 - whole) / 900.0).clamp(0.0, 1.0);
        ((SETTLED + filling + 0.06 * near).min(DONE), Past::Settled)
    };
    Share { share, past }
}

/// Seconds that any climb must have lasted.
fn at_once(whole: f64, past: Past) -> f64 {
    if whole <= 130.0 || (past == Past::Birth && whole <= NEAR_S) {
        AT_ONCE_S
    } else {
        SPIKE_S
    }
}

/// Whether this may be the rise of a day's course: an even one is never steeper than 2π/24 h of the level at its middle,
/// office hours begin two or three times as fast. It does not
/// matter to a climb that reaches its limit before the course could turn.
fn daily(trend: &Trend, around: &Around, rate: f64, room: f64) -> bool {
    let hourly = rate * 3600.0 / trend.to.max(1.0);
    let whole = room / rate.max(1e-9);
    hourly < 0.6 && whole > 1.5 * 3600.0 && !trend.steady_load && !around.flat_day
}

/// Part of the growth that more processes of the same size account for.
fn processes_explain(trend: &Trend, around: &Around) -> f64 {
    let share = |begin: u64, end: u64, from: f64| {
        if begin == 0 || end <= begin {
            return 0.0;
        }
        let expected = from / begin as f64 * (end - begin) as f64;
        (expected / (trend.to - from).max(1.0)).clamp(0.0, 1.0)
    };
    let here = trend
        .processes
        .map_or(0.0, |[begin, end]| share(begin, end, trend.from));
    let climb = around
        .processes
        .map_or(0.0, |(begin, end)| share(begin, end, around.origin.1));
    here.max(climb).max(trend.by_processes)
}
