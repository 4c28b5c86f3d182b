//! What holds for every policy, in one place: protection, floors, cool-downs, budgets, and what was learned.

use std::collections::{BTreeMap, VecDeque};

use super::account::Account;
use super::learn::{Features, Model};
use super::{Decision, Group, Intent, PolicyKind, Rung, Settings, View};
use crate::time::Timestamp;
use crate::units::{format_bytes, format_duration_us};

/// The budget of bytes is an average over this time.
const AVERAGE_US: i64 = 10_000_000;
const MINUTE_US: i64 = 60_000_000;
/// Less is not worth a write.
const LEAST: u64 = 256 << 10;
/// After the first harm; doubled with each in a row.
const COOL_US: i64 = 60_000_000;
const COOL_MOST_US: i64 = 6 * 3_600_000_000;
/// Of what is put off because of what was learned, one in so many is done all the same, small: else it would never be
/// known that times have changed.
const TRY_ONE_IN: u32 = 16;
/// Part of a step that is tried then.
const TRY: f64 = 0.1;

/// Why an intent was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refused {
    /// Figures were lost.
    Lossy,
    /// Nobody may touch it, and why.
    Protected(String),
    /// It would be taken below its floor, or there is nothing to take.
    Floor,
    /// An action on it is under way.
    Busy,
    /// Harm followed the last one.
    CoolingDown,
    /// Of what was taken from it lately too much came back.
    ComesBack,
    /// So many bytes or actions were not granted.
    Budget,
    /// Harm is to be expected.
    Learned,
    /// There is no swap for it.
    NoSwap,
}

impl Refused {
    /// In a word.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Refused::Lossy => "lossy",
            Refused::Protected(_) => "protected",
            Refused::Floor => "floor",
            Refused::Busy => "busy",
            Refused::CoolingDown => "cooling_down",
            Refused::ComesBack => "comes_back",
            Refused::Budget => "budget",
            Refused::Learned => "learned",
            Refused::NoSwap => "no_swap",
        }
    }
}

/// An intent that was held back.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// What was wanted.
    pub intent: Intent,
    /// Why not.
    pub why: Refused,
}

#[derive(Clone, Copy, Debug, Default)]
struct Harmed {
    at: Timestamp,
    count: u32,
    /// The last time it was no harm: somebody wanted what stood still.
    wanted: bool,
}

impl Harmed {
    fn left(self, now: Timestamp) -> Option<i64> {
        let doublings = self.count.saturating_sub(1).min(20);
        let length = (COOL_US << doublings).min(COOL_MOST_US);
        let left = self.at.0 + length - now.0;
        // A clock that was set back far does not lock it out for good.
        (left > 0 && left <= 2 * length).then_some(left)
    }
}

/// What was spent, and what is cooling down.
#[derive(Clone, Debug, Default)]
pub struct Bounds {
    spent: VecDeque<(Timestamp, u64)>,
    actions: VecDeque<Timestamp>,
    harmed: BTreeMap<(String, Rung), Harmed>,
    accounts: BTreeMap<String, Account>,
    put_off: u32,
    decisions: u64,
}

/// What an intent is held against.
pub struct Court<'a> {
    /// The settings.
    pub settings: &'a Settings,
    /// What is known now.
    pub view: &'a View,
    /// Figures were lost.
    pub lossy: bool,
    /// What was learned.
    pub model: &'a Model,
    /// Local time as if it were UTC.
    pub local: Timestamp,
    /// Why a path must not be touched.
    pub protected: &'a dyn Fn(&str) -> Option<String>,
}

impl Bounds {
    /// Makes a decision of an intent, cut to what is allowed, or says why not.
    ///
    /// # Errors
    /// The first bound that leaves nothing of it.
    pub fn admit(
        &mut self,
        court: &Court<'_>,
        policy: PolicyKind,
        intent: Intent,
    ) -> Result<Decision, Held> {
        let now = court.view.now;
        let held = |intent: Intent, why: Refused| Err(Held { intent, why });
        if court.lossy {
            return held(intent, Refused::Lossy);
        }
        if let Some(why) = (court.protected)(&intent.path) {
            return held(intent, Refused::Protected(why));
        }
        let empty = Group::default();
        let group = court
            .view
            .groups
            .iter()
            .find(|group| group.path == intent.path)
            .unwrap_or(&empty);
        if group.busy && !intent.urgent {
            return held(intent, Refused::Busy);
        }
        if self.cools_down(&intent.path, intent.rung, now).is_some() {
            return held(intent, Refused::CoolingDown);
        }
        if intent.rung.takes()
            && self
                .accounts
                .get(&intent.path)
                .is_some_and(Account::is_over)
        {
            return held(intent, Refused::ComesBack);
        }
        let mut bytes = intent.bytes;
        let mut cuts = Vec::new();
        if intent.rung.takes() {
            if intent.rung.needs_swap() && court.view.machine.swap_free == Some(0) {
                return held(intent, Refused::NoSwap);
            }
            cut(&mut bytes, group.gap(), "its floor", &mut cuts);
            if bytes < LEAST {
                return held(intent, Refused::Floor);
            }
            let most = court.settings.budget.action_bytes;
            cut(&mut bytes, most, "one action", &mut cuts);
            let left = self.bytes_left(court.settings, now);
            cut(&mut bytes, left, "the budget", &mut cuts);
            if bytes < LEAST {
                return held(intent, Refused::Budget);
            }
        }
        if self.actions_in_minute(now) >= court.settings.budget.actions_per_min as usize {
            return held(intent, Refused::Budget);
        }
        let containers = court.view.groups.iter().filter(|it| it.container).count();
        let machine = &court.view.machine;
        let look =
            |bytes| Features::of(group, machine, containers, intent.rung, bytes, court.local);
        let expected = court.model.harm(&look(bytes));
        // An emergency is harm already.
        if court.settings.learn && intent.rung.takes() && !intent.urgent {
            let scale = match court.model.scale(&look(bytes)) {
                scale if scale > TRY => scale,
                _ => {
                    self.put_off += 1;
                    if !self.put_off.is_multiple_of(TRY_ONE_IN) {
                        return held(intent, Refused::Learned);
                    }
                    TRY
                }
            };
            // What is tried is worth a write.
            let left = ((bytes as f64 * scale) as u64).max(LEAST);
            cut(&mut bytes, left, "what was learned", &mut cuts);
        }
        if intent.rung.takes() {
            self.spent.push_back((now, bytes));
        }
        self.actions.push_back(now);
        self.decisions += 1;
        let mut reason = intent.reason;
        for cut in cuts {
            reason.push_str("; ");
            reason.push_str(&cut);
        }
        Ok(Decision {
            number: self.decisions,
            at: now,
            policy,
            path: intent.path,
            rung: intent.rung,
            bytes,
            reason,
            urgent: intent.urgent,
            expected_harm: expected,
            features: look(bytes),
        })
    }

    /// Bytes that may still be taken now.
    fn bytes_left(&mut self, settings: &Settings, now: Timestamp) -> u64 {
        // A clock that was set back: what was spent counts as spent now.
        for (at, _) in self.spent.iter_mut().rev().take_while(|(at, _)| *at > now) {
            *at = now;
        }
        while self
            .spent
            .front()
            .is_some_and(|(at, _)| at.0 + AVERAGE_US <= now.0)
        {
            self.spent.pop_front();
        }
        let spent: u64 = self.spent.iter().map(|(_, bytes)| bytes).sum();
        let all = settings.budget.bytes_per_s.saturating_mul(10);
        all.saturating_sub(spent)
    }

    fn actions_in_minute(&mut self, now: Timestamp) -> usize {
        for at in self.actions.iter_mut().rev().take_while(|at| **at > now) {
            *at = now;
        }
        while self
            .actions
            .front()
            .is_some_and(|at| at.0 + MINUTE_US <= now.0)
        {
            self.actions.pop_front();
        }
        self.actions.len()
    }

    /// Harm followed an action: it is not repeated before a growing time.
    pub fn harmed(&mut self, path: &str, rung: Rung, now: Timestamp) {
        self.cool(path, rung, now, false);
    }

    /// What it stopped was wanted: stopping it again has to wait as it does after harm.
    pub fn wanted(&mut self, path: &str, rung: Rung, now: Timestamp) {
        self.cool(path, rung, now, true);
    }

    fn cool(&mut self, path: &str, rung: Rung, now: Timestamp, wanted: bool) {
        let key = (path.to_owned(), rung);
        let harmed = self.harmed.entry(key).or_default();
        harmed.count = harmed.count.saturating_add(1);
        harmed.at = now;
        harmed.wanted = wanted;
    }

    /// An action went well: what was remembered of harm before it counts half.
    pub fn went_well(&mut self, path: &str, rung: Rung) {
        let key = (path.to_owned(), rung);
        if let Some(harmed) = self.harmed.get_mut(&key) {
            harmed.count /= 2;
            if harmed.count == 0 {
                self.harmed.remove(&key);
            }
        }
    }

    /// What is left of a cool-down, µs. Where taking page cache did harm, taking more than that waits as well.
    #[must_use]
    pub fn cools_down(&self, path: &str, rung: Rung, now: Timestamp) -> Option<i64> {
        let gentler = (rung == Rung::Anon).then_some(Rung::File);
        [Some(rung), gentler]
            .into_iter()
            .flatten()
            .filter_map(|rung| self.harmed.get(&(path.to_owned(), rung))?.left(now))
            .max()
    }

    /// The cool-downs, in words.
    pub fn cooling(&self, now: Timestamp) -> impl Iterator<Item = String> {
        self.harmed
            .iter()
            .filter_map(move |((path, rung), harmed)| {
                Some(format!(
                    "{}{} of {path}: {} left after {} in a row {}",
                    rung.kind(),
                    if *rung == Rung::File {
                        " of page cache"
                    } else {
                        ""
                    },
                    format_duration_us(harmed.left(now)? as u64),
                    harmed.count,
                    if harmed.wanted {
                        "were cut short"
                    } else {
                        "did harm"
                    }
                ))
            })
    }

    /// An action on it begins; so many pages have come back to it, and so many do a second without us.
    pub(super) fn opened(&mut self, path: &str, refaults: u64, steady: f64, now: Timestamp) {
        self.accounts
            .entry(path.to_owned())
            .or_insert_with(|| Account::new(refaults, steady, now))
            .steadies(steady);
    }

    /// So much was taken from it.
    pub(super) fn gave(&mut self, path: &str, bytes: u64) {
        if let Some(account) = self.accounts.get_mut(path) {
            account.gave(bytes);
        }
    }

    /// Part of what was taken from a cgroup in the last hours that came back.
    pub(super) fn returned(&self, path: &str) -> f64 {
        self.accounts.get(path).map_or(0.0, Account::returned)
    }

    /// What has come back to each.
    pub(super) fn keep_accounts(&mut self, now: Timestamp, refaults: impl Fn(&str) -> Option<u64>) {
        self.accounts
            .retain(|path, account| account.keep(refaults(path), now));
    }

    /// The cgroup is gone.
    pub fn gone(&mut self, path: &str) {
        self.accounts.remove(path);
        self.harmed.retain(|(at, _), _| at != path);
    }
}

fn cut(bytes: &mut u64, to: u64, by: &str, cuts: &mut Vec<String>) {
    if to < *bytes {
        cuts.push(format!("{} by {by}", format_bytes(to)));
        *bytes = to;
    }
}
