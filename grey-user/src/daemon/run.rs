//! The loop.

mod asked;
mod processes;

use std::collections::VecDeque;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use clap::Parser as _;
use grey_core::act::protection::Shields;
use grey_core::budget::Step;
use grey_core::event::Body;
use grey_core::govern::{Governor, PolicyKind};
use grey_core::time::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;

use crate::act::{Scene, session};
use crate::cli::{self, Exit, Failure, WatchArgs};
use crate::config::{self, Config};
use crate::host::Host;
use crate::source::{Clock, Notice, Observer};
use crate::watch::keep::Keeper;
use crate::watch::{HEALTH_TICKS, Ticker, machine, readable, resident, sleep_until, waitable};

use self::processes::top_processes;
use super::DaemonArgs;
use super::actor::{self, Order, Role, Task, Told};
use super::host_side::HostSide;
use super::incident::Recorder;
use super::learned::Learned;
use super::lines::Lines;
use super::notify::Notify;
use super::status::{Asked, Socket};

/// The longest that the interval becomes to keep the budget where something may be done: it must be seen in time.
const LONGEST_ACTING: Duration = Duration::from_secs(2);
/// How long the actor may take to put everything right at the end.
const LAST: Duration = Duration::from_secs(10);
/// Between two looks at which cgroups are protected.
const SHIELDS: Duration = Duration::from_secs(5);
/// Notes that `status` shows.
const NOTES: usize = 20;

/// `watch` with its defaults.
#[derive(clap::Parser)]
struct Usual {
    #[command(flatten)]
    watch: WatchArgs,
}

/// Runs `daemon` to its end.
///
/// # Errors
/// Bad usage or configuration (2), the machine cannot (3).
pub fn run(args: &DaemonArgs) -> Result<Exit, Failure> {
    let config = config::load(args.place.config.as_deref())?;
    let scene = Scene::find(&args.place)?;
    let watch = WatchArgs {
        interval: args.interval,
        cpu: true,
        ..Usual::parse_from(["daemon"]).watch
    };
    let (mut observer, losses) = machine::observer(&watch)?;
    std::fs::create_dir_all(&scene.state_dir).map_err(|error| {
        Failure::unsupported(format!(
            "{}: {error}; run it as root, or name a folder of your own with --state-dir",
            scene.state_dir.display()
        ))
    })?;
    let mut keeper = Keeper::open(&scene.state_dir.join("detector"), &mut observer)?;
    let (learned, model, trouble) = Learned::open(&scene.state_dir);
    losses.tell();
    let lines = Lines::new(
        args.samples,
        args.record.as_deref(),
        observer.host_name(),
        observer.boot_id(),
    )?;
    let (orders, taken) = channel();
    let (tell, told) = unbounded_channel();
    let role = Role {
        place: args.place.clone(),
        shadow: args.shadow,
    };
    let actor = std::thread::Builder::new()
        .name("actor".to_owned())
        .spawn(move || actor::run(&role, &taken, &tell))
        .map_err(|error| Failure::failed(format!("cannot start a thread: {error}")))?;
    let mut governor = Governor::new(config.govern.clone(), model);
    governor.set_utc_offset(utc_offset());
    for event in observer.standing() {
        governor.observe(event);
    }
    let mut daemon = Daemon {
        recorder: Recorder::new(&scene.state_dir),
        host: Host::live(),
        args,
        config,
        scene,
        governor,
        learned,
        lines,
        orders: Some(orders),
        since: Clock::wall(),
        reload_failed: None,
        incidents: 0,
        notes: VecDeque::new(),
        open: true,
        shields: Shields::survey([], None, &[], &[]),
        shielded: None,
        notify: Notify::default(),
        host_side: HostSide::default(),
    };
    match Notify::from_env() {
        Ok(notify) => daemon.notify = notify,
        Err(error) => daemon.note(format!(
            "$NOTIFY_SOCKET: {error}; the service manager is not told"
        )),
    }
    if let Some(trouble) = trouble {
        daemon.note(trouble);
    }
    daemon.ask_host();
    daemon.report_free();
    observer.profile_suspects(daemon.config.profile.time());
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start the event loop: {error}")))?
        .block_on(daemon.follow(&mut observer, &mut keeper, told));
    if let Some(line) = keeper.finish(&observer) {
        cli::tell(&line);
    }
    if let Some(line) = daemon.learned.keep(daemon.governor.model()) {
        cli::tell(&line);
    }
    daemon.lines.finish();
    // Everything that it held has been taken back by now, or its guard does so.
    if actor.is_finished() && actor.join().is_err() {
        return Err(Failure::failed("the acting thread failed; see above"));
    }
    result
}

struct Daemon<'a> {
    args: &'a DaemonArgs,
    host: Host,
    config: Config,
    scene: Scene,
    governor: Governor,
    learned: Learned,
    recorder: Recorder,
    lines: Lines,
    /// Closed to ask the actor for its end.
    orders: Option<Sender<Order>>,
    since: Timestamp,
    reload_failed: Option<String>,
    incidents: u64,
    notes: VecDeque<(Timestamp, String)>,
    /// Somebody reads our lines.
    open: bool,
    /// What is protected among the cgroups there are, and when that was found out.
    shields: Shields,
    shielded: Option<Instant>,
    notify: Notify,
    host_side: HostSide,
}

impl Daemon<'_> {
    async fn follow(
        &mut self,
        observer: &mut Observer,
        keeper: &mut Keeper,
        mut told: UnboundedReceiver<Told>,
    ) -> Result<Exit, Failure> {
        let wait =
            |error: std::io::Error| Failure::failed(format!("cannot wait for events: {error}"));
        let mut interrupt = signal(SignalKind::interrupt()).map_err(wait)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(wait)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(wait)?;
        let rings = match observer.rings() {
            Some([rare, growth]) => Some([
                waitable(rare).map_err(wait)?,
                waitable(growth).map_err(wait)?,
            ]),
            None => None,
        };
        let notifications = match observer.watches() {
            Some(watches) => {
                use std::os::fd::AsFd as _;
                Some(waitable(watches.as_fd()).map_err(wait)?)
            }
            None => None,
        };
        let profiles = match observer.bell() {
            Some(bell) => Some(waitable(bell).map_err(wait)?),
            None => None,
        };
        let (_socket, mut questions) = match Socket::listen(&self.scene.state_dir) {
            Ok((socket, questions)) => (Some(socket), Some(questions)),
            Err(error) => {
                let at = self.scene.state_dir.join("daemon.sock");
                self.note(format!("{}: {error}; `status` has no answer", at.display()));
                (None, None)
            }
        };
        let mut out = Vec::new();
        observer.keep_budget(self.config.budget, self.pace(), Clock::wall(), &mut out);
        observer.tick(Clock::wall(), &mut out);
        self.take_rest(observer, &mut out)?;
        resident::give_back();
        observer.health(Clock::wall(), &mut out);
        self.take(&mut out)?;
        let interval = self.args.interval;
        let mut ticker = Ticker::new(interval);
        let mut health = Instant::now() + HEALTH_TICKS * interval;
        let end = self.args.duration.map(|duration| Instant::now() + duration);
        let mut alive = self.notify.every().map(tokio::time::interval);
        self.notify.ready(&self.policy());
        while self.open {
            tokio::select! {
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
                _ = hangup.recv() => {
                    self.reload();
                    observer.profile_suspects(self.config.profile.time());
                    observer.keep_budget(self.config.budget, self.pace(), Clock::wall(), &mut out);
                    ticker.keep(observer.interval());
                }
                () = sleep_until(end) => break,
                () = due(&mut alive) => self.notify.alive(),
                () = readable(rings.as_ref().map(|rings| &rings[0])) => observer.drain(&mut out),
                () = readable(rings.as_ref().map(|rings| &rings[1])) => observer.drain(&mut out),
                () = readable(notifications.as_ref()) => observer.notified(Clock::wall(), &mut out),
                () = readable(profiles.as_ref()) => observer.profiled(&mut out),
                Some(told) = told.recv() => self.heard(told)?,
                Some(asked) = asked(&mut questions) => self.answer(asked, observer),
                () = sleep_until(observer.budget_due().map(Instant::from_std)) => {
                    if let Some(line) = observer.budget(Clock::wall(), &mut out) {
                        self.note(line);
                    }
                    ticker.keep(observer.interval());
                    self.recorder.go_back_less(observer.spares(Step::Recorder));
                }
                () = ticker.tick() => {
                    observer.tick(Clock::wall(), &mut out);
                    self.take_rest(observer, &mut out)?;
                    if Instant::now() >= health {
                        observer.health(Clock::wall(), &mut out);
                        self.governor.set_utc_offset(utc_offset());
                        health = Instant::now() + HEALTH_TICKS * interval;
                    }
                    self.take(&mut out)?;
                    let (left, trouble) = self.host_side.look();
                    self.governor.set_host_available(left);
                    self.decide(observer);
                    let learned = self.learned.tick(self.governor.model());
                    let lines = [keeper.tick(observer), learned, trouble];
                    for line in lines.into_iter().flatten() {
                        self.note(line);
                    }
                }
            }
            self.take(&mut out)?;
            self.open &= self.lines.flush()?;
        }
        self.notify.stopping();
        // What is under way is broken off and all that is held is taken back.
        session::ask_to_stop();
        self.orders = None;
        let last = Instant::now() + LAST;
        loop {
            tokio::select! {
                told = told.recv() => match told {
                    Some(told) => self.heard(told)?,
                    None => break,
                },
                () = sleep_until(Some(last)) => {
                    cli::tell("an action is held up in the kernel; its guard takes it back");
                    break;
                }
            }
        }
        observer.drain(&mut out);
        observer.profiles_end(&mut out);
        observer.health(Clock::wall(), &mut out);
        self.take(&mut out)?;
        self.lines.flush()?;
        Ok(Exit::Done)
    }

    /// What a tick has to tell, part by part.
    fn take_rest(&mut self, observer: &mut Observer, out: &mut Vec<Notice>) -> Result<(), Failure> {
        loop {
            self.take(out)?;
            if !observer.more(out) {
                return Ok(());
            }
        }
    }

    /// Events: to the governor, the flight recorder and the stream.
    fn take(&mut self, out: &mut Vec<Notice>) -> Result<(), Failure> {
        for notice in out.drain(..) {
            match notice {
                Notice::Event(mut event) => {
                    self.governor.observe(&event);
                    self.record(&event);
                    self.open &= self.lines.write(&mut event)?;
                }
                Notice::Gone(path) => {
                    self.governor.gone(&path);
                    self.recorder.gone(&path, Clock::wall());
                }
            }
        }
        Ok(())
    }

    fn record(&mut self, event: &grey_core::event::Event) {
        let (host, cgroups) = (&self.host, &self.scene.cgroups);
        let top = |path: &str, most: usize| top_processes(host, cgroups, path, most);
        match self.recorder.observe(event, &top) {
            None => {}
            Some(Ok(path)) => {
                self.incidents += 1;
                self.note(format!("incident: {}", path.display()));
            }
            Some(Err(error)) => self.note(format!("an incident could not be kept: {error}")),
        }
    }

    fn decide(&mut self, observer: &Observer) {
        let now = Clock::wall();
        if self.governor.settings().policy == PolicyKind::Observe
            && self.governor.settings().overrides.is_empty()
        {
            return;
        }
        if self.shielded.is_none_or(|at| at.elapsed() >= SHIELDS) {
            self.shielded = Some(Instant::now());
            let paths = observer.identities().map(|it| it.path().to_owned());
            let paths: Vec<String> = paths.collect();
            self.shields = self.scene.protection.shields(&paths);
        }
        let shields = &self.shields;
        // The last word is the actor's, who looks at the cgroup itself; this spares it the trouble. The machine as a
        // whole is no cgroup.
        let protected = |path: &str| match path {
            "/" => None,
            path => shields.refuses(path).map(|refusal| refusal.to_string()),
        };
        let view = self.governor.view(now);
        let decisions = self.governor.decide(now, &protected);
        let settings = self.governor.settings();
        let observe = Duration::from_micros(u64::try_from(settings.observe_us).unwrap_or(0));
        let thaw_on_demand = settings.idle.thaw_on_demand;
        for decision in decisions {
            let cpus = view
                .groups
                .iter()
                .find(|group| group.path == decision.path)
                .and_then(|group| group.since.cpus());
            let number = decision.number;
            let order = Order::Do(Box::new(Task {
                decision,
                observe,
                cpus,
                thaw_on_demand,
            }));
            let sent = self
                .orders
                .as_ref()
                .is_some_and(|orders| orders.send(order).is_ok());
            if !sent {
                self.governor.not_done(number);
            }
        }
    }

    fn heard(&mut self, told: Told) -> Result<(), Failure> {
        let now = Clock::wall();
        match told {
            Told::Event(cgroup, body) => {
                let mut event = self.lines.event(now, cgroup, body);
                self.record(&event);
                self.open &= self.lines.write(&mut event)?;
                if matches!(event.body, Body::Rollback { .. }) {
                    self.lines.flush()?;
                }
            }
            Told::Done(number, outcome) => self.governor.outcome(number, outcome, now),
            Told::NotDone(number, why) => {
                self.governor.not_done(number);
                if !why.is_empty() {
                    tracing::debug!("decision {number} was not carried out: {why}");
                    self.remember(format!("not done: {why}"));
                }
            }
            Told::Note(text) => self.note(text),
        }
        Ok(())
    }

    /// Tells a person, now and in `status`.
    fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        cli::tell(&text);
        self.remember(text);
    }

    fn remember(&mut self, text: String) {
        if self.notes.back().is_some_and(|(_, last)| *last == text) {
            self.notes.pop_back();
        }
        self.notes.push_back((Clock::wall(), text));
        if self.notes.len() > NOTES {
            self.notes.pop_front();
        }
    }
}

async fn due(interval: &mut Option<tokio::time::Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}

async fn asked(questions: &mut Option<tokio::sync::mpsc::Receiver<Asked>>) -> Option<Asked> {
    match questions {
        Some(questions) => questions.recv().await,
        None => std::future::pending().await,
    }
}

/// Seconds by which local time is ahead of UTC now.
fn utc_offset() -> i32 {
    // SAFETY: both structures are plain data, and localtime_r writes to ours alone.
    unsafe {
        let now = libc::time(std::ptr::null_mut());
        let mut local: libc::tm = std::mem::zeroed();
        if libc::localtime_r(&raw const now, &raw mut local).is_null() {
            return 0;
        }
        i32::try_from(local.tm_gmtoff).unwrap_or(0)
    }
}
