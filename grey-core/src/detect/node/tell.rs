//! What a node says: a change of one of its series, its address space, and its end, as verdicts.

use super::{Kind, Node, Room};
use crate::detect::series::Change;
use crate::detect::{Finding, words};
use crate::event::{Cause, Evidence, Memory, State, Verdict};
use crate::time::Timestamp;

impl Node {
    /// What there is to say of address space.
    pub(in crate::detect) fn reservation(&mut self, ts: i64) -> Option<Finding> {
        let (state, bytes) = self.rare.as_deref_mut()?.rise.due.take()?;
        let resident = self.anon.last;
        let verdict = Verdict {
            state,
            cause: Cause::Reservation,
            memory: Memory::Virtual,
            process: self.subject().cloned(),
            rate_bps: None,
            rate_ci95: None,
            confidence: 0.9,
            growth_bytes: (state == State::Growing).then_some(bytes as u64),
            since: None,
            limit_bytes: None,
            limit_cgroup: None,
            ttl_s: None,
            ttl_ci95_s: None,
            trim_bytes: None,
            evidence: Evidence {
                reason: format!(
                    "{} of address space reserved, {} of anonymous memory in use",
                    crate::units::format_bytes(bytes as u64),
                    crate::units::format_bytes(resident as u64)
                ),
                level_bytes: self.virt.get(),
                ..Evidence::default()
            },
            stacks: Vec::new(),
            advice: words::advice(Memory::Virtual, state, Cause::Reservation, "it", None),
        };
        Some(Finding {
            ts: Timestamp(ts),
            cgroup: self.cgroup.cgroup(),
            verdict,
        })
    }

    fn who(&self) -> String {
        match &self.kind {
            Kind::Process(subject) => format!("{} ({})", subject.comm, subject.pid),
            Kind::Cgroup => self
                .growers()
                .iter()
                .max_by_key(|(grower, _)| grower.bytes)
                .map_or_else(
                    || self.cgroup.name().to_owned(),
                    |(grower, _)| format!("{} ({})", grower.comm, grower.pid),
                ),
        }
    }

    /// The verdict that a change amounts to.
    pub(in crate::detect) fn verdict(
        &self,
        memory: Memory,
        level: f64,
        change: &Change,
        limit: Option<(&Room, &str)>,
    ) -> Verdict {
        let open = change.state != State::Normal && change.state != State::Recovered;
        let trend = change.trend.as_ref().filter(|_| open);
        let rate = trend.map(|trend| trend.slope);
        let whole = |seconds: f64| seconds.min(1e12);
        // What the kernel can take back at will does not run into a limit.
        let limit = limit.filter(|_| trend.is_some() && memory != Memory::File);
        let ttl = |rate: f64| {
            limit
                .filter(|_| rate > 0.0)
                .map(|(limit, _)| whole(limit.room / rate))
        };
        let ttl_s = rate.and_then(|rate| ttl(rate.median));
        let (from, since) = match (&change.ended, trend, change.held) {
            (Some(ended), ..) => (Some(ended.episode.base), Some(ended.episode.start)),
            (None, Some(trend), _) => (Some(trend.from), Some(trend.onset)),
            (None, None, Some(held)) => (Some(held.from), Some(held.onset)),
            _ => (None, None),
        };
        let growth = from.map(|from| (level - from).max(0.0) as u64);
        let said = change.said.as_ref().filter(|_| open);
        let evidence = Evidence {
            reason: words::reason(memory, change),
            base_bytes: from.map(|from| from as u64),
            level_bytes: Some(level as u64),
            peak_before_bytes: change.peak_before.map(|peak| peak as u64),
            window_s: trend.map(|trend| trend.seconds()),
            needed_s: said.map(|said| whole(said.needed)),
            bucket_s: trend.map(|trend| crate::detect::levels::LEVELS[trend.level].0 as f64 / 1e6),
            floors: trend.map(|trend| trend.floors as u32),
            z: trend.map(|trend| trend.slope.z),
            tau: trend.map(|trend| trend.slope.tau),
            second_half: trend.map(|trend| trend.second_half),
            largest_step: trend.map(|trend| trend.largest_step),
            room_taken: said.filter(|_| limit.is_some()).map(|said| said.taken),
            virtual_growth_bytes: said.and_then(|said| said.virt).map(|virt| virt as i64),
            processes: trend.and_then(|trend| trend.processes),
            grower: (open && memory == Memory::Anon)
                .then(|| {
                    self.growers()
                        .iter()
                        .filter(|(_, at)| since.is_some_and(|since| *at >= since - self.shift))
                        .max_by_key(|(grower, _)| grower.bytes)
                        .map(|(grower, _)| grower.clone())
                })
                .flatten(),
        };
        Verdict {
            state: change.state,
            cause: change.cause,
            memory,
            process: self.subject().cloned(),
            rate_bps: rate.map(|rate| rate.median),
            rate_ci95: rate.map(|rate| [rate.low, rate.high]),
            confidence: match (change.said.as_ref(), &change.ended) {
                (Some(said), None) => said.confidence,
                (_, Some(_)) => 0.8,
                (None, None) => 0.5,
            },
            growth_bytes: growth,
            since: since.map(|since| Timestamp(since - self.shift)),
            limit_bytes: limit.map(|(limit, _)| limit.limit),
            limit_cgroup: limit.map(|(_, whose)| whose.to_owned()),
            ttl_s,
            ttl_ci95_s: rate.and_then(|rate| {
                Some([
                    ttl(rate.high.max(rate.median))?,
                    ttl(rate.low).unwrap_or(1e12),
                ])
            }),
            // There is no process in here that could be asked.
            trim_bytes: None,
            evidence,
            stacks: Vec::new(),
            advice: words::advice(memory, change.state, change.cause, &self.who(), ttl_s),
        }
    }

    /// Closes what is open because the cgroup or process is gone or another one.
    pub(in crate::detect) fn close(&mut self, ts: i64, why: &str) -> Vec<Finding> {
        let mut out = Vec::new();
        for series in std::iter::once(&self.anon).chain(&self.others) {
            let Some(active) = &series.active else {
                continue;
            };
            if !matches!(
                active.state,
                State::Growing | State::Suspect | State::Confirmed
            ) {
                continue;
            }
            let state = match active.state {
                State::Growing => State::Normal,
                _ => State::Recovered,
            };
            out.push(Finding {
                ts: Timestamp(ts),
                cgroup: self.cgroup.cgroup(),
                verdict: Verdict {
                    state,
                    cause: active.cause,
                    memory: series.memory,
                    process: self.subject().cloned(),
                    rate_bps: None,
                    rate_ci95: None,
                    confidence: 1.0,
                    growth_bytes: None,
                    since: None,
                    limit_bytes: None,
                    limit_cgroup: None,
                    ttl_s: None,
                    ttl_ci95_s: None,
                    trim_bytes: None,
                    evidence: Evidence {
                        reason: why.to_owned(),
                        ..Evidence::default()
                    },
                    stacks: Vec::new(),
                    advice: words::advice(series.memory, state, active.cause, &self.who(), None),
                },
            });
        }
        out
    }
}
