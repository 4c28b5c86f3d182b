//! How often: so many starts in any window of a length.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use grey_core::units::format_duration_us;

/// So many in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub number: u32,
    /// In what time.
    pub window: Duration,
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = u64::try_from(self.window.as_micros()).unwrap_or(u64::MAX);
        write!(f, "{} in {}", self.number, format_duration_us(us))
    }
}

/// Keeps to a [`Rate`].
#[derive(Debug)]
pub(super) struct Limiter {
    rate: Rate,
    /// When the last ones started, oldest first.
    starts: VecDeque<Instant>,
}

impl Limiter {
    pub(super) fn new(rate: Rate) -> Self {
        Limiter {
            rate,
            starts: VecDeque::new(),
        }
    }

    /// Whether one may start now; if so it is counted.
    pub(super) fn allow(&mut self, now: Instant) -> bool {
        while self
            .starts
            .front()
            .is_some_and(|start| now.saturating_duration_since(*start) >= self.rate.window)
        {
            self.starts.pop_front();
        }
        let room = self.starts.len() < self.rate.number as usize;
        if room {
            self.starts.push_back(now);
        }
        room
    }
}

impl fmt::Display for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rate.fmt(f)
    }
}
