//! Brings the lines of one input back into the order of their times, as far as the window reaches.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};

/// Lines that are too late for less than this are late; for longer, the clock was set back.
const LEAST_STEP_US: i64 = 10_000_000;

/// Something with a time, in the order it came.
#[derive(Debug)]
pub(super) struct Timed<T> {
    /// µs since the epoch.
    pub(super) at: i64,
    /// Counts what came in from this input.
    pub(super) arrival: u64,
    pub(super) item: T,
}

/// What became of something that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival<T> {
    /// It waits for its turn.
    Kept,
    /// Later ones have been handed out already, so it is handed back.
    Late(T),
    /// Kept, and time goes on from here: the clock was set back.
    SetBack,
}

/// One input's lines that wait for their turn.
#[derive(Debug)]
pub(super) struct Order<T> {
    window: i64,
    /// In order of time as they came.
    run: VecDeque<Timed<T>>,
    /// Came after later ones.
    strays: BinaryHeap<Timed<T>>,
    /// From before the clock was set back; in order, and before everything else.
    overdue: VecDeque<Timed<T>>,
    newest: Option<i64>,
    /// Where the late ones that came without a break began.
    late_since: Option<i64>,
    arrivals: u64,
    ended: bool,
}

impl<T> Order<T> {
    pub(super) fn new(window_us: i64) -> Self {
        Order {
            window: window_us,
            run: VecDeque::new(),
            strays: BinaryHeap::new(),
            overdue: VecDeque::new(),
            newest: None,
            late_since: None,
            arrivals: 0,
            ended: false,
        }
    }

    pub(super) fn push(&mut self, at: i64, item: T) -> Arrival<T> {
        let mut arrival = Arrival::Kept;
        if self
            .newest
            .is_some_and(|newest| at < newest.saturating_sub(self.window))
        {
            let since = *self.late_since.get_or_insert(at);
            if at.saturating_sub(since) < self.window.max(LEAST_STEP_US) {
                return Arrival::Late(item);
            }
            while let Some(before) = self.pop_waiting(i64::MAX) {
                self.overdue.push_back(before);
            }
            self.newest = None;
            arrival = Arrival::SetBack;
        }
        self.late_since = None;
        self.newest = Some(self.newest.map_or(at, |newest| newest.max(at)));
        let timed = Timed {
            at,
            arrival: self.arrivals,
            item,
        };
        self.arrivals += 1;
        if self.run.back().is_none_or(|last| last.at <= at) {
            self.run.push_back(timed);
        } else {
            self.strays.push(timed);
        }
        arrival
    }

    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// Nothing from before this is to come any more.
    pub(super) fn frontier(&self) -> i64 {
        match self.newest {
            _ if self.ended => i64::MAX,
            Some(newest) => newest.saturating_sub(self.window),
            None => i64::MIN,
        }
    }

    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    pub(super) fn overdue(&mut self) -> Option<Timed<T>> {
        self.overdue.pop_front()
    }

    /// Time of the first one that waits.
    pub(super) fn first(&self) -> Option<i64> {
        match (self.run.front(), self.strays.peek()) {
            (Some(run), Some(stray)) => Some(run.at.min(stray.at)),
            (Some(one), None) | (None, Some(one)) => Some(one.at),
            (None, None) => None,
        }
    }

    /// The first one that waits, if it is from `until` or before.
    pub(super) fn pop_waiting(&mut self, until: i64) -> Option<Timed<T>> {
        let stray = match (self.run.front(), self.strays.peek()) {
            (Some(run), Some(stray)) => (stray.at, stray.arrival) < (run.at, run.arrival),
            (None, Some(_)) => true,
            (Some(_), None) => false,
            (None, None) => return None,
        };
        if stray {
            if self.strays.peek()?.at > until {
                return None;
            }
            self.strays.pop()
        } else {
            if self.run.front()?.at > until {
                return None;
            }
            self.run.pop_front()
        }
    }
}

/// The other way round, so that a heap gives the first one first.
impl<T> Ord for Timed<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.arrival).cmp(&(self.at, self.arrival))
    }
}

impl<T> PartialOrd for Timed<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Timed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Timed<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: i64 = 1_000_000;

    fn drained(order: &mut Order<()>, until: i64) -> Vec<i64> {
        std::iter::from_fn(|| order.pop_waiting(until).map(|timed| timed.at)).collect()
    }

    #[test]
    fn what_is_late_by_less_than_the_window_finds_its_place() {
        let mut order = Order::new(10 * S);
        for at in [5, 1, 9, 3, 11, 2] {
            assert_eq!(order.push(at * S, ()), Arrival::Kept, "{at}");
        }
        assert_eq!(order.frontier(), S);
        assert_eq!(order.push(0, ()), Arrival::Late(()));
        assert_eq!(drained(&mut order, 8 * S), [S, 2 * S, 3 * S, 5 * S]);
        order.end();
        assert_eq!(drained(&mut order, i64::MAX), [9 * S, 11 * S]);
    }

    #[test]
    fn a_clock_set_back_costs_a_window_of_lines_and_not_the_rest() {
        let mut order = Order::new(10 * S);
        for at in 1000..1020 {
            order.push(at * S, ());
        }
        let fates: Vec<Arrival<()>> = (0..15).map(|at| order.push(at * S, ())).collect();
        assert!(fates[..10].iter().all(|fate| *fate == Arrival::Late(())));
        assert_eq!(fates[10], Arrival::SetBack);
        assert!(fates[11..].iter().all(|fate| *fate == Arrival::Kept));
        let overdue: Vec<i64> = std::iter::from_fn(|| order.overdue().map(|t| t.at / S)).collect();
        assert_eq!(overdue, (1000..1020).collect::<Vec<_>>());
        assert_eq!(order.frontier(), 4 * S);
    }

    #[test]
    fn single_late_lines_never_set_the_clock_back() {
        let mut order = Order::new(S);
        for at in 1000..2000 {
            assert_eq!(order.push(at * S, ()), Arrival::Kept);
            assert_eq!(order.push((at - 900) * S, ()), Arrival::Late(()));
        }
    }

    #[test]
    fn no_time_is_too_far_out() {
        let mut order = Order::new(i64::MAX);
        for at in [i64::MAX, i64::MIN, 0, i64::MAX, i64::MIN] {
            order.push(at, ());
        }
        assert!(order.first().is_some());
        let mut order = Order::new(0);
        for at in [i64::MIN, i64::MAX, i64::MIN, 0, i64::MAX] {
            order.push(at, ());
        }
    }

    proptest! {
        #[test]
        fn nothing_leaves_out_of_order_and_nothing_is_lost(
            times in proptest::collection::vec(0_i64..60, 0..200),
            window in 0_i64..20,
        ) {
            let mut order = Order::new(window);
            let (mut out, mut late) = (Vec::new(), 0);
            for at in &times {
                // A step back takes ten seconds of late ones; here all of it is 60 µs.
                late += usize::from(order.push(*at, ()) == Arrival::Late(()));
                let until = order.frontier().saturating_sub(1);
                out.extend(drained(&mut order, until));
            }
            order.end();
            out.extend(drained(&mut order, i64::MAX));
            prop_assert!(out.is_sorted(), "{:?}", out);
            prop_assert_eq!(out.len() + late, times.len());
        }
    }
}
