//! From the kernel's clock to the wall clock.

use grey_core::time::Timestamp;

/// Wall clock of a kernel time stamp (`CLOCK_MONOTONIC`).
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    offset_us: i64,
}

impl Clock {
    /// The offset as it is now; wall clocks are stepped, so it is taken anew for each batch.
    #[must_use]
    pub fn now() -> Clock {
        use rustix::time::{ClockId, clock_gettime};
        let micros = |id| {
            let time = clock_gettime(id);
            time.tv_sec * 1_000_000 + time.tv_nsec / 1000
        };
        Clock {
            offset_us: micros(ClockId::Realtime) - micros(ClockId::Monotonic),
        }
    }

    /// The wall clock at `ktime_ns`.
    #[must_use]
    pub fn at(self, ktime_ns: u64) -> Timestamp {
        Timestamp(self.offset_us.saturating_add_unsigned(ktime_ns / 1000))
    }

    /// The wall clock now.
    #[must_use]
    pub fn wall() -> Timestamp {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        Timestamp(time.tv_sec * 1_000_000 + time.tv_nsec / 1000)
    }
}
