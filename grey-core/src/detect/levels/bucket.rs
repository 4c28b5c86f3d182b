//! What is kept of one stretch of time.

/// One closed bucket, in 16 bytes. Not-a-number stands for "no sample" and "not known".
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::detect) struct Bucket {
    /// Lowest level, bytes.
    pub(in crate::detect) floor: f32,
    /// Highest level, bytes.
    pub(in crate::detect) peak: f32,
    /// Virtual size, bytes.
    pub(in crate::detect) virt: f32,
    activity: u16,
    processes: u16,
}

const UNKNOWN: u16 = u16::MAX;

pub(in crate::detect) const MISSING: Bucket = Bucket {
    floor: f32::NAN,
    peak: f32::NAN,
    virt: f32::NAN,
    activity: UNKNOWN,
    processes: UNKNOWN,
};

impl Bucket {
    /// `activity` and `processes` are not-a-number where they are not known.
    pub(in crate::detect) fn new(
        floor: f32,
        peak: f32,
        virt: f32,
        activity: f32,
        processes: f32,
    ) -> Bucket {
        Bucket {
            floor,
            peak,
            virt,
            // The upper half of the number: three digits are enough for a rate.
            activity: if activity.is_finite() {
                (activity.to_bits() >> 16) as u16
            } else {
                UNKNOWN
            },
            processes: if processes.is_finite() {
                processes.clamp(0.0, 65_534.0) as u16
            } else {
                UNKNOWN
            },
        }
    }

    /// Page faults a second beyond those that the growth itself takes.
    pub(in crate::detect) fn activity(&self) -> f32 {
        if self.activity == UNKNOWN {
            f32::NAN
        } else {
            f32::from_bits(u32::from(self.activity) << 16)
        }
    }

    /// Processes.
    pub(in crate::detect) fn processes(&self) -> f32 {
        if self.processes == UNKNOWN {
            f32::NAN
        } else {
            f32::from(self.processes)
        }
    }
}
