//! `watch`: sets the sources up, then waits for whatever comes first (a ring, a notification, the tick, a key, a
//! signal) and hands what it means to the view.

pub(crate) mod keep;
pub(crate) mod machine;
pub(crate) mod resident;
mod view;

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use crossterm::event::EventStream;
use futures_util::StreamExt as _;
use grey_core::detect::Detector;
use grey_core::event::{Pressure, PressureLevel};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior};

use crate::alert::{self, AlertArgs, Alerts};
use crate::cli::{self, Exit, Failure, Switch, WatchArgs, WatchCommand};
use crate::host::{self, psi};
use crate::source::{Clock, Notice, Observer, Pace, SUSPECT_TIME};
use crate::ui::Outcome;
use keep::Keeper;
use view::View;

/// PSI triggers at the start, beside the machine's: cgroups asked for by name.
const MOST_TRIGGERS: usize = 64;
/// A tenth of a second stalled within one second.
const TRIGGER_US: (u64, u64) = (100_000, 1_000_000);
/// Ticks of the interval that was asked for between two `health` lines.
pub(crate) const HEALTH_TICKS: u32 = 30;
/// The longest that the interval becomes to keep the budget.
pub(crate) const LONGEST: Duration = Duration::from_secs(10);

/// Runs `watch` to its end.
pub fn run(args: &WatchCommand) -> Result<Exit, Failure> {
    // Nobody would notice that it is not there before it is needed.
    if let Some(name) = args.alert.on_alert.first() {
        alert::program(name).map_err(|why| Failure::usage(format!("--on-alert: {why}")))?;
    }
    let view = View::new(&args.watch)?;
    show(&args.watch, view, Some(&args.alert), args.state.as_deref())
}

/// What runs the command at alerts, if there is to be one.
fn alerts(args: &AlertArgs) -> Result<Option<Alerts>, Failure> {
    if args.on_alert.is_empty() {
        return Ok(None);
    }
    let options = alert::Options {
        command: args.on_alert.clone(),
        on: args.alert_on,
        rate: args.alert_rate,
        timeout: args.alert_timeout,
        output: true,
    };
    let alerts = Alerts::start(options)
        .map_err(|error| Failure::failed(format!("--on-alert: {error}; free some memory")))?;
    Ok(Some(alerts))
}

/// Runs `record`: the same, with nothing to look at.
pub(crate) fn record(args: &WatchArgs) -> Result<Exit, Failure> {
    show(args, View::recording(args)?, None, None)
}

fn show(
    args: &WatchArgs,
    mut view: View,
    alert: Option<&AlertArgs>,
    state: Option<&Path>,
) -> Result<Exit, Failure> {
    let (mut observer, losses) = machine::observer(args)?;
    let mut keeper = match state {
        Some(path) => Some(Keeper::open(path, &mut observer)?),
        None => {
            observer.detect(Detector::new());
            None
        }
    };
    if args.stacks == Switch::On {
        observer.profile_suspects(Some(SUSPECT_TIME));
    }
    // It has a thread, so it comes after the observer, which may need a mount namespace of its own.
    if let Some(alerts) = alert.map(alerts).transpose()? {
        view.run_at_alerts(alerts);
    }
    for event in observer.standing() {
        view.recall(event);
    }
    let mut out = Vec::new();
    let pace = Pace {
        interval: args.interval,
        longest: LONGEST,
        recorder: false,
    };
    observer.keep_budget(args.budget.budget(), pace, Clock::wall(), &mut out);
    // The first look comes at once; it also finds the cgroups that --cgroup names.
    observer.tick(Clock::wall(), &mut out);
    machine::check_filter(args, &observer)?;
    losses.tell();
    view.begin()?;
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start the event loop: {error}")))?
        .block_on(watch(args, &mut observer, out, &mut view, keeper.as_mut()));
    let failed = keeper.and_then(|mut keeper| keeper.finish(&observer));
    // The terminal is given back before anything is waited for or told.
    let alerts = view.close();
    for line in failed
        .into_iter()
        .chain(alerts.into_iter().flat_map(Alerts::finish))
    {
        cli::tell(&line);
    }
    result
}

/// One PSI trigger and what it is on.
struct PressureSource {
    fd: AsyncFd<OwnedFd>,
    path: String,
    pressure: Pressure,
}

async fn watch(
    args: &WatchArgs,
    observer: &mut Observer,
    mut out: Vec<Notice>,
    view: &mut View,
    mut keeper: Option<&mut Keeper>,
) -> Result<Exit, Failure> {
    let wait = |error: io::Error| Failure::failed(format!("cannot wait for events: {error}"));
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
        Some(watches) => Some(waitable(watches.as_fd()).map_err(wait)?),
        None => None,
    };
    let profiles = match observer.bell() {
        Some(bell) => Some(waitable(bell).map_err(wait)?),
        None => None,
    };
    tell_rest(observer, &mut out, view)?;
    resident::give_back();
    observer.health(Clock::wall(), &mut out);
    if !view.show(&mut out)? || args.once {
        view.tick(true)?;
        return view.finish();
    }
    view.tick(false)?;
    let mut pressures = pressure_sources(args, observer);
    let mut ticker = Ticker::new(args.interval);
    let end = args.duration.map(|duration| Instant::now() + duration);
    let mut keys = view.wants_keys().then(EventStream::new);
    let mut health = Instant::now() + HEALTH_TICKS * args.interval;
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = hangup.recv() => break,
            () = sleep_until(end) => break,
            () = readable(rings.as_ref().map(|rings| &rings[0])) => observer.drain(&mut out),
            () = readable(rings.as_ref().map(|rings| &rings[1])) => observer.drain(&mut out),
            () = readable(notifications.as_ref()) => observer.notified(Clock::wall(), &mut out),
            () = readable(profiles.as_ref()) => observer.profiled(&mut out),
            fired = pressure(&mut pressures) => if let Some((path, pressure)) = fired {
                observer.pressure(&path, pressure, Clock::wall(), &mut out);
            },
            () = sleep_until(observer.budget_due().map(Instant::from_std)) => {
                if let Some(line) = observer.budget(Clock::wall(), &mut out) {
                    view.tell(&line);
                }
                ticker.keep(observer.interval());
            }
            () = ticker.tick() => {
                observer.tick(Clock::wall(), &mut out);
                tell_rest(observer, &mut out, view)?;
                if Instant::now() >= health {
                    observer.health(Clock::wall(), &mut out);
                    health = Instant::now() + HEALTH_TICKS * args.interval;
                }
                if let Some(line) = keeper.as_mut().and_then(|keeper| keeper.tick(observer)) {
                    view.tell(&line);
                }
                if !view.show(&mut out)? {
                    return view.finish();
                }
                view.tick(false)?;
            }
            key = next_key(&mut keys) => match key {
                Some(key) => match view.key(key)? {
                    Outcome::Quit => break,
                    Outcome::Continue | Outcome::Redraw => {}
                },
                // The terminal is gone.
                None => break,
            },
        }
        if !view.show(&mut out)? {
            return view.finish();
        }
    }
    observer.drain(&mut out);
    observer.profiles_end(&mut out);
    observer.health(Clock::wall(), &mut out);
    view.show(&mut out)?;
    view.finish()
}

/// The ticks, at an interval that may change.
pub(crate) struct Ticker {
    every: Duration,
    ticks: tokio::time::Interval,
}

impl Ticker {
    pub(crate) fn new(every: Duration) -> Ticker {
        let mut ticks = tokio::time::interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        Ticker { every, ticks }
    }

    /// Ticks at this interval from now on.
    pub(crate) fn keep(&mut self, every: Option<Duration>) {
        if let Some(every) = every.filter(|every| *every != self.every) {
            *self = Ticker::new(every);
        }
    }

    pub(crate) async fn tick(&mut self) {
        self.ticks.tick().await;
    }
}

/// Shows what a tick has to tell part by part. A view that is closed meanwhile says so when it is asked the next time.
fn tell_rest(
    observer: &mut Observer,
    out: &mut Vec<Notice>,
    view: &mut View,
) -> Result<(), Failure> {
    loop {
        view.show(out)?;
        if !observer.more(out) {
            return Ok(());
        }
    }
}

pub(crate) fn waitable(fd: BorrowedFd<'_>) -> io::Result<AsyncFd<OwnedFd>> {
    register(fd.try_clone_to_owned()?, Interest::READABLE)
}

fn register(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd keeps the same open descriptor until the AsyncFd is dropped.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(io::Error::from)
}

/// Waits for a descriptor; for ever where there is none. The caller reads it empty.
pub(crate) async fn readable(fd: Option<&AsyncFd<OwnedFd>>) {
    let Some(fd) = fd else {
        return std::future::pending().await;
    };
    match fd.readable().await {
        // Cleared before the reading: what comes meanwhile makes it ready again.
        Ok(mut guard) => guard.clear_ready(),
        Err(error) => {
            tracing::warn!("descriptor {}: {error}", fd.as_raw_fd());
            std::future::pending::<()>().await;
        }
    }
}

pub(crate) async fn sleep_until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

async fn next_key(keys: &mut Option<EventStream>) -> Option<crossterm::event::Event> {
    match keys {
        Some(keys) => keys.next().await.and_then(Result::ok),
        None => std::future::pending().await,
    }
}

/// Triggers on the machine and on the cgroups that were asked for by name. One that the kernel refuses is no loss of
/// figures, only of promptness.
fn pressure_sources(args: &WatchArgs, observer: &Observer) -> Vec<PressureSource> {
    let (threshold_us, window_us) = TRIGGER_US;
    let level = PressureLevel::Some;
    let mut triggers = Vec::new();
    match psi::machine_trigger(
        &host::Host::live(),
        observer.cgroups(),
        level,
        threshold_us,
        window_us,
    ) {
        Ok(trigger) => triggers.push(("/".to_owned(), trigger)),
        Err(error) => tracing::debug!("{error}"),
    }
    if !args.cgroup.is_empty() {
        for path in observer
            .wanted()
            .filter(|path| *path != "/")
            .take(MOST_TRIGGERS)
        {
            match psi::cgroup_trigger(observer.cgroups(), path, level, threshold_us, window_us) {
                Ok(trigger) => triggers.push((path.to_owned(), trigger)),
                Err(error) => tracing::debug!("{error}"),
            }
        }
    }
    triggers
        .into_iter()
        .filter_map(|(path, trigger)| {
            let pressure = Pressure {
                level,
                threshold_us,
                window_us: trigger.window_us,
                avg10: None,
            };
            match register(trigger.into_fd(), Interest::PRIORITY) {
                Ok(fd) => Some(PressureSource { fd, path, pressure }),
                Err(error) => {
                    tracing::debug!("pressure trigger on {path}: {error}");
                    None
                }
            }
        })
        .collect()
}

/// Waits for the first trigger that fires. One whose cgroup is gone leaves the list.
async fn pressure(sources: &mut Vec<PressureSource>) -> Option<(String, Pressure)> {
    if sources.is_empty() {
        return std::future::pending().await;
    }
    let (at, gone) = {
        let waits = sources.iter().map(|source| {
            Box::pin(async {
                match source.fd.ready(Interest::PRIORITY | Interest::ERROR).await {
                    Ok(mut guard) => {
                        let gone = guard.ready().is_error();
                        guard.clear_ready();
                        gone
                    }
                    Err(_) => true,
                }
            })
        });
        let (gone, at, _) = futures_util::future::select_all(waits).await;
        (at, gone)
    };
    // A trigger that fires has both bits set on some kernels; its file tells whether the cgroup is still there.
    let avg10 = avg10(&sources[at].fd);
    if gone && avg10.is_none() {
        sources.swap_remove(at);
        return None;
    }
    let source = &sources[at];
    Some((
        source.path.clone(),
        Pressure {
            avg10,
            ..source.pressure.clone()
        },
    ))
}

fn avg10(fd: &AsyncFd<OwnedFd>) -> Option<f64> {
    let mut buffer = [0u8; 512];
    let length = rustix::io::pread(fd.get_ref(), &mut buffer[..], 0).ok()?;
    let file = psi::PsiFile::parse(std::str::from_utf8(&buffer[..length]).ok()?)?;
    Some(file.some.avg10)
}
