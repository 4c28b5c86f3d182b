//! What the events say, kept by cgroup until a policy wants to see it.

mod known;
mod totals;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use self::known::{Available, Kind, Known, Rare};
use self::totals::{Mark, Totals, micros};
use super::view::{Group, Growth, Last, Machine, PAGE, Since, View};
use super::{PolicyKind, Settings};
use crate::event::{Body, Cause, Event, Memory, Sample, State, Verdict};
use crate::time::Timestamp;
use crate::units::Figure;

/// A sample of the machine that is older says nothing of it any more.
const STALE_US: i64 = 120_000_000;
/// What comes back is averaged over so many seconds.
const AVERAGE_S: f64 = 300.0;

/// The latest figures of all cgroups.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    // Boxed: a map's node has eleven places, and they are not all taken.
    known: BTreeMap<Box<str>, Box<Known>>,
    machine: Available,
    /// Since when next to nothing is faulted in.
    quiet_since: Option<Timestamp>,
    /// The instant of the last samples that said that something was lost, until later ones say nothing of it.
    lossy: Option<Timestamp>,
}

impl Figures {
    /// Takes an event in. Any that says nothing of memory is passed over.
    pub fn observe(&mut self, event: &Event, settings: &Settings) {
        let Some(cgroup) = &event.cgroup else { return };
        match &event.body {
            Body::Sample(sample) => {
                if event.lossy {
                    self.lossy = Some(event.ts);
                } else if self.lossy != Some(event.ts) {
                    self.lossy = None;
                }
                self.sample(&cgroup.path, &cgroup.kind, sample, event.ts, settings);
            }
            Body::Verdict { verdict } if verdict.process.is_none() => {
                self.verdict(&cgroup.path, verdict);
            }
            _ => {}
        }
    }

    fn sample(
        &mut self,
        path: &str,
        kind: &str,
        sample: &Sample,
        at: Timestamp,
        settings: &Settings,
    ) {
        let now = Totals::of(sample, at);
        if path == "/" {
            self.machine = Available {
                total: sample.mem.total,
                available: sample.mem.available,
                swap_free: sample.mem.swap_free,
            };
        }
        let Some(known) = self.known.get_mut(path) else {
            let known = Known::new(Kind::of(kind), sample, now);
            if path == "/" {
                self.quiet_since = Some(at);
            }
            self.known.insert(path.into(), Box::new(known));
            return;
        };
        let since = now.since(&known.now, at);
        // A clock that was set back: what was idle is so from now on.
        known.idle_since = known.idle_since.min(at);
        if path == "/" {
            self.quiet_since = self.quiet_since.map(|since| since.min(at));
        }
        if since.us > 0 {
            if let Some(pages) = since.refaults {
                let seconds = since.us as f64 / 1e6;
                let rate = pages as f64 / seconds;
                let steady = known.steady.get_or_insert(rate);
                *steady += (rate - *steady) * (1.0 - (-seconds / AVERAGE_S).exp());
            }
            if !is_idle(&since, settings) {
                known.idle_since = at;
            }
            let bytes = since.faults_per_s().map(|faults| faults * PAGE as f64);
            if path == "/"
                && bytes.is_none_or(|bytes| bytes > settings.guest.fault_bytes_per_s as f64)
            {
                self.quiet_since = Some(at);
            }
        }
        known.take(sample, now);
    }

    fn verdict(&mut self, path: &str, verdict: &Verdict) {
        let Some(known) = self.known.get_mut(path) else {
            return;
        };
        let leaks = verdict.state == State::Confirmed
            && verdict.cause == Cause::Leak
            && verdict.memory == Memory::Anon;
        let leak = leaks.then(|| Growth {
            rate_bps: verdict.rate_bps.unwrap_or(0.0),
            ttl_s: verdict.ttl_s,
        });
        let keeps = verdict.state == State::Suspect && verdict.cause == Cause::Retention;
        let retained = verdict.trim_bytes.filter(|_| keeps);
        let anon = verdict.memory == Memory::Anon;
        if leak.is_none() && retained.is_none() && known.rare.is_none() {
            return;
        }
        let rare = known.rare.get_or_insert_default();
        rare.leak = leak;
        if anon {
            rare.retained = retained.into();
        }
    }

    /// Its release agents are asked: what they do not give back now they do not give back the next moment either.
    pub(super) fn trimmed(&mut self, path: &str) {
        if let Some(rare) = self.rare(path) {
            rare.retained = Figure::default();
        }
    }

    fn rare(&mut self, path: &str) -> Option<&mut Rare> {
        self.known.get_mut(path)?.rare.as_deref_mut()
    }

    /// The cgroup does not exist any more.
    pub fn gone(&mut self, path: &str) {
        self.known.remove(path);
    }

    /// Whether figures were lost of late: nothing is decided on such.
    #[must_use]
    pub fn lossy(&self) -> bool {
        self.lossy.is_some()
    }

    /// A reclaim of this cgroup begins or has ended; what comes back is counted from the beginning on.
    pub(super) fn reclaimed(&mut self, path: &str, last: Last) {
        if let Some(known) = self.known.get_mut(path) {
            let steady = known.steady(known.now.at);
            let rare = known.rare.get_or_insert_default();
            rare.before = rare.reclaimed.replace((Last { steady, ..last }, known.now));
        }
    }

    /// Pages that come back to it a second without anything being taken.
    pub(super) fn steady(&self, path: &str, now: Timestamp) -> f64 {
        self.known.get(path).map_or(0.0, |known| known.steady(now))
    }

    /// The reclaim that was begun last was not done.
    pub(super) fn not_reclaimed(&mut self, path: &str) {
        if let Some(rare) = self.rare(path) {
            rare.reclaimed = rare.before.take();
        }
    }

    /// What came of a reclaim that was begun; what has come back since its beginning still counts.
    pub(super) fn settled(&mut self, path: &str, last: Last) {
        let Some(known) = self.known.get_mut(path) else {
            return;
        };
        let rare = known.rare.get_or_insert_default();
        if !last.file_only {
            rare.anon_futile = last.futile().then_some(known.now.at);
        }
        if let Some((kept, _)) = &mut rare.reclaimed {
            let steady = kept.steady;
            *kept = Last { steady, ..last };
        }
    }

    /// Pages that came back to it so far.
    pub(super) fn refaults(&self, path: &str) -> Option<u64> {
        self.known.get(path)?.now.refaults.get()
    }

    /// How many reclaims in a row did no harm.
    pub(super) fn good(&self, path: &str) -> u32 {
        let rare = self.known.get(path).and_then(|known| known.rare.as_deref());
        rare.and_then(|rare| rare.reclaimed.as_ref())
            .map_or(0, |(last, _)| last.good)
    }

    /// Harm came of the last reclaim, later than it was looked at.
    pub(super) fn harmed(&mut self, path: &str) {
        if let Some((last, _)) = self.rare(path).and_then(|rare| rare.reclaimed.as_mut()) {
            last.good = 0;
        }
    }

    /// It stands still.
    pub(super) fn stands_still(&mut self, path: &str) {
        if let Some(known) = self.known.get_mut(path) {
            known.frozen = true;
        }
    }

    /// It goes on, and shows anew whether it is idle.
    pub(super) fn goes_on(&mut self, path: &str, now: Timestamp) {
        if let Some(known) = self.known.get_mut(path) {
            known.frozen = false;
            known.idle_since = now;
        }
    }

    /// Its turn is over: what comes next counts for the next one.
    pub(super) fn mark(&mut self, path: &str, now: Timestamp) {
        if let Some(known) = self.known.get_mut(path) {
            known.mark = Mark::new(now);
        }
    }

    /// What is known at this instant. `busy` are the cgroups with an action under way.
    #[must_use]
    pub fn view(&self, now: Timestamp, settings: &Settings, busy: impl Fn(&str) -> bool) -> View {
        let machine = self.machine(now);
        let mut groups: Vec<Group> = Vec::new();
        let mut taken: BTreeSet<&str> = BTreeSet::new();
        for (path, known) in &self.known {
            // Nobody acts on the guard.
            if !known.takes_part()
                || **path == *crate::act::protection::GUARD
                || above(path).any(|path| taken.contains(path))
            {
                continue;
            }
            // What has containers below (a pod, a runtime's own cgroup) is looked at by them, where they are seen.
            if known.kind != Kind::Container && self.has_containers(path) {
                continue;
            }
            if let Some(mut group) = self.group(path, known, now, &machine, settings) {
                group.busy = busy(path);
                groups.push(group);
                taken.insert(path);
            }
        }
        View {
            now,
            machine,
            groups,
        }
    }

    fn has_containers(&self, path: &str) -> bool {
        let below = format!("{path}/");
        self.known
            .range::<str, _>((Bound::Included(below.as_str()), Bound::Unbounded))
            .take_while(|(path, _)| path.starts_with(&below))
            .any(|(_, known)| known.kind == Kind::Container)
    }

    fn machine(&self, now: Timestamp) -> Machine {
        let Some(root) = self.known.get("/") else {
            return Machine::default();
        };
        if now.0 - root.now.at.0 > STALE_US {
            return Machine::default();
        }
        let Available {
            total,
            available,
            swap_free,
        } = self.machine;
        Machine {
            total,
            available,
            file: root.mem.file.get(),
            swap_free,
            since: root.since_mark(now),
            quiet_us: self.quiet_since.map_or(0, |since| micros(now.0 - since.0)),
            scattered: 0,
            host_available_pct: None,
        }
    }

    fn group(
        &self,
        path: &str,
        known: &Known,
        now: Timestamp,
        machine: &Machine,
        settings: &Settings,
    ) -> Option<Group> {
        let (mem, rare) = (&known.mem, known.rare.as_deref());
        let over = settings.for_cgroup(path);
        let policy = settings.policy_for(path);
        let cache = mem.file.get()?.saturating_sub(mem.shmem.or_zero());
        let anon = over.and_then(|over| over.anon).unwrap_or(true);
        let swappable = if anon {
            machine.swap_free.unwrap_or(0).min(mem.anon.or_zero())
        } else {
            0
        };
        Some(Group {
            path: path.to_owned(),
            policy,
            container: matches!(known.kind, Kind::Container | Kind::Pod),
            current: mem.current.get()?,
            cache,
            cold_cache: mem
                .inactive_file
                .get()
                .map_or(cache, |cold| cold.min(cache)),
            swappable,
            floor: settings.floor_for(path),
            ceiling: over.and_then(|over| over.ceiling),
            limited: known.limited,
            since: known.since_mark(now),
            idle_us: micros(now.0 - known.idle_since.0),
            may_freeze: over.is_some_and(|over| over.freeze),
            frozen: known.frozen,
            last: rare
                .and_then(|rare| rare.reclaimed.as_ref())
                .map(|(last, then)| {
                    let since = known.now.since(then, now);
                    let expected = last.steady * since.us as f64 / 1e6;
                    Last {
                        refaults: since.refaults.unwrap_or(0).saturating_sub(expected as u64),
                        ago_us: since.us,
                        ..*last
                    }
                }),
            returned: 0.0,
            cache_cools: false,
            anon_futile_us: rare
                .and_then(|rare| rare.anon_futile)
                .map(|at| micros(now.0 - at.0)),
            retained: rare.map_or(0, |rare| rare.retained.or_zero()),
            leak: rare.and_then(|rare| rare.leak),
            busy: false,
        })
    }

    /// Who decides for this cgroup; nobody where it is not known.
    #[must_use]
    pub fn policy(&self, path: &str, settings: &Settings) -> PolicyKind {
        match self.known.get(path) {
            Some(_) => settings.policy_for(path),
            None => PolicyKind::Observe,
        }
    }
}

/// The paths above this one, nearest first, without the root's.
fn above(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(path.rsplit_once('/').map(|(above, _)| above), |path| {
        path.rsplit_once('/').map(|(above, _)| above)
    })
}

/// Hardly any CPU time, hardly any faults. What is not known does not speak for it.
fn is_idle(since: &Since, settings: &Settings) -> bool {
    let idle = &settings.idle;
    let cpu = since.cpus().map(|cpus| cpus * 100.0 < idle.cpu_pct);
    let faults = since
        .faults_per_s()
        .map(|faults| faults < idle.faults_per_s);
    match (cpu, faults) {
        (Some(cpu), faults) => cpu && faults.unwrap_or(true),
        (None, Some(faults)) => faults,
        (None, None) => false,
    }
}
