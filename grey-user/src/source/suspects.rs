//! Whose stacks grow while a cgroup is suspect: a profile of some seconds, taken by a thread of its own, whose first stacks
//! go into the verdict that confirms it. Nothing is loaded while nobody is suspect.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use grey_core::detect::Finding;
use grey_core::event::{GrowingStack, Memory, State};
use rustix::event::{EventfdFlags, eventfd};

use super::{Notice, Observer};
use crate::host::{CgroupFs, Host};
use crate::probe::{Settings, StackRoom};
use crate::profile::{Options, TICK, Taking, Target};
use crate::watch::resident::give_back;

/// How long a suspect is profiled unless the configuration says otherwise.
pub(crate) const USUAL: Duration = Duration::from_secs(10);
/// How long a verdict may wait for a profile that is being ended for it.
const HOLD: Duration = Duration::from_secs(2);
/// What grows and will be at its limit within this is as good as suspect, seconds.
const SOON_FULL_S: f64 = 600.0;
/// Before the same cgroup is profiled again.
const AGAIN: Duration = Duration::from_secs(600);
/// Suspects that wait for their turn, and profiles that are kept.
const MOST_WAITING: usize = 8;
const MOST_KEPT: usize = 64;
/// Stacks of a verdict, and frames of each.
const STACKS: usize = 5;
const FRAMES: usize = 24;
/// Time spent taking stacks, as a share of one CPU.
const BUDGET: f64 = 0.01;
/// 2 MB of stacks, half a megabyte of counts, 2 MB of pages.
const ROOM: StackRoom = StackRoom {
    stacks: 2048,
    counts: 4096,
    pages: 16_384,
};

/// Profiles being taken, waited for and kept.
#[derive(Default)]
pub(super) struct Suspects {
    /// How long each is profiled; `None` where that is switched off.
    time: Option<Duration>,
    /// Rings when a profile is done.
    bell: Option<Arc<OwnedFd>>,
    running: Option<Running>,
    waiting: VecDeque<String>,
    done: HashMap<String, Done>,
    held: Vec<(Instant, Finding)>,
    /// Nobody is profiled for now.
    paused: bool,
}

struct Running {
    path: String,
    stop: Arc<AtomicBool>,
    result: Receiver<Vec<GrowingStack>>,
}

struct Done {
    at: Instant,
    stacks: Vec<GrowingStack>,
}

/// Nobody waits for what it would find any more.
impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Suspects {
    /// Whether suspects are profiled, or would be but for the budget.
    pub(super) fn profiles(&self) -> bool {
        self.time.is_some() && self.bell.is_some()
    }

    /// Profiles nobody until [`Suspects::go_on`], and gives back what profiles hold.
    pub(super) fn pause(&mut self) {
        self.paused = true;
        self.running = None;
        self.waiting = VecDeque::new();
        self.done = HashMap::new();
        give_back();
    }

    /// Profiles again.
    pub(super) fn go_on(&mut self) {
        self.paused = false;
    }

    /// Profiles this cgroup now or as soon as it can.
    fn begin(&mut self, path: &str) {
        let known = self
            .done
            .get(path)
            .is_some_and(|done| done.at.elapsed() < AGAIN);
        let under_way = self
            .running
            .as_ref()
            .is_some_and(|running| running.path == path);
        if !self.paused && !known && !under_way && self.waiting.len() < MOST_WAITING {
            self.waiting.retain(|waits| waits != path);
            self.waiting.push_back(path.to_owned());
        }
        self.next();
    }

    /// Starts the next one, if none is under way.
    fn next(&mut self) {
        let (None, Some(time), Some(bell)) = (&self.running, self.time, &self.bell) else {
            return;
        };
        let Some(path) = self.waiting.pop_front() else {
            return;
        };
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, result) = channel();
        let ring = Ring(Arc::clone(bell));
        let (of, until) = (path.clone(), Arc::clone(&stop));
        let started = std::thread::Builder::new()
            .name("profile".to_owned())
            .spawn(move || {
                // Rings last, and also where the work breaks off.
                let _ring = ring;
                let stacks = take(&of, time, &until);
                let _ = sender.send(stacks);
            });
        match started {
            Ok(_) => self.running = Some(Running { path, stop, result }),
            Err(error) => tracing::warn!("no profile of {path}: {error}"),
        }
    }

    /// Takes over what is done.
    fn collect(&mut self) {
        let Some(running) = &self.running else { return };
        let stacks = match running.result.try_recv() {
            Ok(stacks) => stacks,
            Err(TryRecvError::Disconnected) => Vec::new(),
            Err(TryRecvError::Empty) => return,
        };
        if self.done.len() >= MOST_KEPT
            && let Some(oldest) = self.done.iter().min_by_key(|(_, done)| done.at)
        {
            let oldest = oldest.0.clone();
            self.done.remove(&oldest);
        }
        let done = Done {
            at: Instant::now(),
            stacks,
        };
        self.done.insert(running.path.clone(), done);
        self.running = None;
        self.next();
    }

    /// Ends the profile of this cgroup early, if one is under way.
    fn hurry(&self, path: &str) -> bool {
        match &self.running {
            Some(running) if running.path == path => {
                running.stop.store(true, Ordering::Relaxed);
                true
            }
            _ => false,
        }
    }
}

impl Observer {
    /// Profiles each cgroup that becomes suspect for so long; `None` switches it off.
    pub fn profile_suspects(&mut self, time: Option<Duration>) {
        // Nobody could load the programs where not even the kernel side of `watch` was.
        if self.kernel.is_none() || !self.host.is_live() {
            return;
        }
        if self.suspects.bell.is_none() {
            match eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK) {
                Ok(bell) => self.suspects.bell = Some(Arc::new(bell)),
                Err(error) => tracing::warn!("suspects are not profiled: {error}"),
            }
        }
        self.suspects.time = time;
        if time.is_none() {
            self.suspects.running = None;
            self.suspects.waiting.clear();
        }
    }

    /// Readable when a profile is done; [`Observer::profiled`] is called for then.
    #[must_use]
    pub fn bell(&self) -> Option<BorrowedFd<'_>> {
        self.suspects.bell.as_ref().map(|bell| bell.as_fd())
    }

    /// Tells the verdicts that waited for a profile that is done, or have waited long enough.
    pub fn profiled(&mut self, out: &mut Vec<Notice>) {
        if let Some(bell) = &self.suspects.bell {
            // Empty or not, it does not ring any more.
            let _ = rustix::io::read(bell, &mut [0; 8]);
        }
        self.suspects.collect();
        let held = std::mem::take(&mut self.suspects.held);
        for (since, finding) in held {
            if since.elapsed() < HOLD && self.suspects.hurry(&finding.cgroup.path) {
                self.suspects.held.push((since, finding));
            } else {
                self.tell_with_stacks(finding, out);
            }
        }
    }

    /// Tells the verdicts that wait, as they are: nothing comes after.
    pub fn profiles_end(&mut self, out: &mut Vec<Notice>) {
        self.suspects.collect();
        for (_, finding) in std::mem::take(&mut self.suspects.held) {
            self.tell_with_stacks(finding, out);
        }
        self.suspects.running = None;
    }

    /// What a finding means for profiles. Returns it if it is to be told now.
    pub(super) fn suspect(&mut self, finding: Finding, out: &mut Vec<Notice>) -> Option<Finding> {
        let path = finding.cgroup.path.as_str();
        // What was said before comes first.
        let held = std::mem::take(&mut self.suspects.held);
        let (same, other): (Vec<_>, Vec<_>) = held
            .into_iter()
            .partition(|(_, held)| held.cgroup.path == path);
        self.suspects.held = other;
        for (_, earlier) in same {
            self.tell_with_stacks(earlier, out);
        }
        if finding.verdict.memory != Memory::Anon || finding.verdict.process.is_some() {
            return Some(finding);
        }
        match finding.verdict.state {
            State::Suspect => self.suspects.begin(path),
            State::Confirmed => {
                self.suspects.collect();
                if self.suspects.hurry(path) {
                    self.suspects.held.push((Instant::now(), finding));
                    return None;
                }
            }
            State::Normal | State::Recovered => {
                self.suspects.waiting.retain(|waits| waits != path);
                self.suspects.done.remove(path);
            }
            // What is at its limit in minutes is confirmed without having been suspect.
            State::Growing if finding.verdict.ttl_s.is_some_and(|ttl| ttl <= SOON_FULL_S) => {
                self.suspects.begin(path);
            }
            State::Growing => {}
        }
        Some(finding)
    }

    /// The stacks for a verdict about this cgroup.
    pub(super) fn stacks_of(&self, finding: &Finding) -> Vec<GrowingStack> {
        let verdict = &finding.verdict;
        if verdict.state != State::Confirmed
            || verdict.memory != Memory::Anon
            || verdict.process.is_some()
        {
            return Vec::new();
        }
        self.suspects
            .done
            .get(&finding.cgroup.path)
            .map(|done| done.stacks.clone())
            .unwrap_or_default()
    }
}

/// Rings when it goes.
struct Ring(Arc<OwnedFd>);

impl Drop for Ring {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

/// The first stacks of a profile; none where it cannot be taken.
fn take(path: &str, time: Duration, stop: &AtomicBool) -> Vec<GrowingStack> {
    let host = Host::live();
    let fs = CgroupFs::discover(&host);
    let options = Options {
        budget: BUDGET,
        room: ROOM,
        // The debug information of a large program takes more memory than one under suspicion leaves.
        symbols_only: true,
    };
    let settings = Settings::default().with_fail_switch();
    let target = Target::Cgroup(path.to_owned());
    let mut taking = match Taking::start(host, fs, target, options, &settings) {
        Ok(taking) => taking,
        Err(error) => {
            tracing::warn!("no profile of {path}: {error}");
            return Vec::new();
        }
    };
    while taking.elapsed() < time && !stop.load(Ordering::Relaxed) {
        std::thread::sleep(TICK);
        taking.tick();
        if !taking.lives() {
            break;
        }
    }
    let profile = taking.finish();
    let stacks = profile
        .stacks
        .iter()
        .filter(|stack| stack.kept_bytes > 0)
        .take(STACKS)
        .map(|stack| GrowingStack {
            pid: stack.pid,
            comm: stack.comm.clone(),
            function: stack.function.clone(),
            kept_bytes: stack.kept_bytes,
            faulted_bytes: stack.faulted_bytes,
            frames: stack
                .frames
                .iter()
                .take(FRAMES)
                .map(crate::profile::Frame::name)
                .collect(),
        })
        .collect();
    drop(profile);
    give_back();
    stacks
}
