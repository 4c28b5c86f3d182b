//! The actions that are broken off, each with a scene of its own: what it changes, what that held before, and what it
//! holds when the action was left alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use grey_core::act::{Ledger, Phase, decode_all};

use crate::harness::{TempCgroup, Workload, run};
use crate::invocation::Scratch;
use crate::swap::Swap;
use crate::vm_guest;

const KSM: &str = "/sys/kernel/mm/ksm";
const REPORTING: &str = "/sys/module/page_reporting/parameters";
const M: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(30);
/// What a cgroup of a scene has before the action, none of it what the kernel begins with.
const LIMITS: [(&str, u64); 3] = [
    ("memory.high", 200 * M),
    ("memory.max", 300 * M),
    ("memory.swap.max", 7 * M),
];

/// An action that can be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// `limit` of three files, for 100 ms.
    LimitLeased,
    /// The same, until it is undone.
    LimitKept,
    /// `freeze` for 100 ms.
    Freeze,
    /// `reclaim` where knobs are changed for its time: memory.high on kernels without memory.reclaim, else
    /// memory.swap.max on those that cannot be told to leave anonymous memory alone.
    Reclaim,
    /// `ksm on` for 100 ms, with the kernel's advisor where there is one.
    KsmLeased,
    /// `ksm on --aggressive`, until it is undone.
    KsmKept,
    /// `ksm off`, until it is undone.
    KsmOff,
    /// `report` of small blocks for 100 ms.
    ReportLeased,
    /// The same, until it is undone.
    ReportKept,
}

impl Action {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Action::LimitLeased => "limit --lease",
            Action::LimitKept => "limit",
            Action::Freeze => "freeze --lease",
            Action::Reclaim => "reclaim",
            Action::KsmLeased => "ksm on --lease",
            Action::KsmKept => "ksm on --aggressive",
            Action::KsmOff => "ksm off",
            Action::ReportLeased => "report --lease",
            Action::ReportKept => "report",
        }
    }

    /// Whether it is among those that are looked at: all, or with GREY_ONLY=NAME those with that in their name.
    pub(crate) fn is_asked_for(self) -> bool {
        std::env::var("GREY_ONLY").map_or(true, |only| self.name().contains(&only))
    }

    /// Whether its end leaves it in force.
    pub(crate) const fn kept(self) -> bool {
        matches!(
            self,
            Action::LimitKept | Action::KsmKept | Action::KsmOff | Action::ReportKept
        )
    }

    const fn of_ksm(self) -> bool {
        matches!(self, Action::KsmLeased | Action::KsmKept | Action::KsmOff)
    }

    const fn of_reporting(self) -> bool {
        matches!(self, Action::ReportLeased | Action::ReportKept)
    }

    /// How many scenes of it there may be at once: the knobs of KSM and of page reporting are the machine's.
    pub(crate) const fn at_once(self, most: usize) -> usize {
        match self {
            Action::LimitLeased | Action::LimitKept | Action::Freeze => most,
            _ => 1,
        }
    }

    /// Why this kernel has nothing to break off.
    pub(crate) fn lacks(self) -> Result<Option<&'static str>> {
        let cgroup = TempCgroup::new("probe")?;
        Ok(match self {
            Action::Reclaim if cgroup.has("memory.reclaim") && takes_swappiness(&cgroup) => {
                Some("it can be told to take page cache alone, no knob is changed")
            }
            action if action.of_ksm() && !Path::new(KSM).join("run").exists() => Some("no KSM"),
            action if action.of_reporting() && !Path::new(REPORTING).exists() => {
                Some("no page reporting that can be set")
            }
            action if action.of_reporting() => vm_guest::lacks()?,
            _ => None,
        })
    }
}

/// Whether `memory.reclaim` takes more than a size.
fn takes_swappiness(cgroup: &TempCgroup) -> bool {
    let written = cgroup.write("memory.reclaim", "0 swappiness=0");
    written.is_ok()
}

/// One place to act in.
pub(crate) struct Scene {
    pub(crate) action: Action,
    /// The knobs and what they hold before.
    knobs: Vec<(PathBuf, String)>,
    /// What they hold when the action is complete, if it is kept.
    after: Vec<String>,
    args: Vec<String>,
    serial: AtomicU32,
    cached: Option<String>,
    workload: Option<std::cell::RefCell<Workload>>,
    _swap: Option<Swap>,
    _cgroup: Option<TempCgroup>,
    machine: Option<Aside>,
    scratch: Scratch,
}

/// What was set aside of the machine's settings.
struct Aside(Vec<(PathBuf, String)>);

impl Drop for Aside {
    fn drop(&mut self) {
        for (path, value) in &self.0 {
            let _ = fs::write(path, value);
        }
    }
}

fn value(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let text = text.trim();
    let chosen = text
        .split_once('[')
        .and_then(|(_, rest)| Some(rest.split_once(']')?.0));
    Ok(chosen.unwrap_or(text).to_owned())
}

impl Scene {
    pub(crate) fn new(action: Action, label: &str) -> Result<Scene> {
        let scratch = Scratch::new(&format!("crash-{label}"))?;
        let mut scene = Scene {
            action,
            knobs: Vec::new(),
            after: Vec::new(),
            args: Vec::new(),
            serial: AtomicU32::new(0),
            cached: None,
            workload: None,
            _swap: None,
            _cgroup: None,
            machine: None,
            scratch,
        };
        if action.of_ksm() {
            scene.set_ksm()?;
        } else if action.of_reporting() {
            scene.set_reporting()?;
        } else {
            scene.set_cgroup(label)?;
        }
        scene.complete()?;
        Ok(scene)
    }

    fn set_ksm(&mut self) -> Result<()> {
        let run = if self.action == Action::KsmOff {
            "1"
        } else {
            "0"
        };
        // The advisor's rates can only be set while it is off, and it is.
        let wanted = [
            ("run", run),
            ("pages_to_scan", "123"),
            ("sleep_millisecs", "17"),
            ("smart_scan", "0"),
            ("use_zero_pages", "0"),
            ("advisor_mode", "none"),
            ("advisor_max_cpu", "33"),
            ("advisor_target_scan_time", "111"),
            ("advisor_min_pages_to_scan", "400"),
            ("advisor_max_pages_to_scan", "20000"),
        ];
        self.set_aside(KSM, &wanted)?;
        let words = match self.action {
            Action::KsmLeased => "enforce ksm on --lease 100ms",
            Action::KsmKept => "enforce ksm on --aggressive",
            _ => "enforce ksm off",
        };
        self.args = words.split(' ').map(str::to_owned).collect();
        Ok(())
    }

    fn set_reporting(&mut self) -> Result<()> {
        // Neither what the kernel begins with nor what the action sets.
        self.set_aside(REPORTING, &[("page_reporting_order", "7")])?;
        let words = match self.action {
            Action::ReportLeased => "enforce report 16K --lease 100ms",
            _ => "enforce report 16K",
        };
        self.args = words.split(' ').map(str::to_owned).collect();
        Ok(())
    }

    /// Gives knobs of the machine values of our own until the scene ends.
    fn set_aside(&mut self, folder: &str, wanted: &[(&str, &str)]) -> Result<()> {
        // What is set so far goes back if one of the next cannot be set.
        let aside = &mut self.machine.insert(Aside(Vec::new())).0;
        for (name, wanted) in wanted {
            let path = Path::new(folder).join(name);
            if !path.exists() {
                continue;
            }
            aside.push((path.clone(), value(&path)?));
            fs::write(&path, wanted).with_context(|| format!("set {name}"))?;
            self.knobs.push((path, (*wanted).to_owned()));
        }
        Ok(())
    }

    fn set_cgroup(&mut self, label: &str) -> Result<()> {
        let cgroup = TempCgroup::new(label)?;
        let knob = |file: &str| cgroup.directory().join(file);
        let mut args = vec!["enforce"];
        match self.action {
            Action::LimitLeased | Action::LimitKept => {
                args.extend(["limit", cgroup.path(), "--high", "96M", "--max", "128M"]);
                args.extend(["--swap-max", "1M"]);
                for (file, bytes) in LIMITS {
                    cgroup.write(file, bytes)?;
                    self.knobs.push((knob(file), bytes.to_string()));
                }
                if self.action == Action::LimitLeased {
                    args.extend(["--lease", "100ms"]);
                }
            }
            Action::Freeze => {
                args.extend(["freeze", cgroup.path(), "--yes", "--lease", "100ms"]);
                self.workload = Some(Workload::start(&cgroup)?.into());
                self.knobs.push((knob("cgroup.freeze"), "0".to_owned()));
            }
            _ => {
                args.extend(["reclaim", cgroup.path(), "2M", "--file-only"]);
                self._swap = Some(Swap::on(64 * M)?);
                for (file, bytes) in LIMITS {
                    cgroup.write(file, bytes)?;
                    self.knobs.push((knob(file), bytes.to_string()));
                }
                self.workload = Some(Workload::start(&cgroup)?.into());
            }
        }
        self.args = args.into_iter().map(str::to_owned).collect();
        self._cgroup = Some(cgroup);
        Ok(())
    }

    /// Page cache for a `reclaim` to take: this file is read before each.
    pub(crate) fn reads(&mut self, file: String) {
        self.cached = Some(file);
    }

    /// Once without any trouble: what a kept action leaves in force.
    fn complete(&mut self) -> Result<()> {
        if self.action.kept() {
            let args = self.fresh()?;
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let done = run(&args, SOON)?;
            ensure!(done.code() == Some(0), "{args:?}: {done:?}");
            self.after = self.now()?;
            ensure!(self.after != self.prior(), "{args:?} changes nothing");
            self.rollback()?;
        }
        self.is_prior("at first")
    }

    /// Arguments for a run with a journal of its own.
    pub(crate) fn fresh(&self) -> Result<Vec<String>> {
        let before = self.state_dir()?;
        let _ = fs::remove_dir_all(before);
        self.serial.fetch_add(1, Ordering::Relaxed);
        if let (Some(workload), Some(file)) = (&self.workload, &self.cached) {
            workload.borrow_mut().step(&format!("read {file}"))?;
        }
        let mut args = self.args.clone();
        args.extend(["--state-dir".to_owned(), self.state_dir()?]);
        Ok(args)
    }

    /// The folder of this run's journal.
    pub(crate) fn state_dir(&self) -> Result<String> {
        let serial = self.serial.load(Ordering::Relaxed);
        self.scratch.argument(&format!("state-{serial}"))
    }

    pub(crate) fn prior(&self) -> Vec<String> {
        self.knobs.iter().map(|(_, value)| value.clone()).collect()
    }

    pub(crate) fn now(&self) -> Result<Vec<String>> {
        self.knobs.iter().map(|(path, _)| value(path)).collect()
    }

    pub(crate) fn is_back(&self) -> Result<bool> {
        for (path, prior) in &self.knobs {
            if value(path)? != *prior {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(crate) fn is_prior(&self, when: &str) -> Result<()> {
        let (now, prior) = (self.now()?, self.prior());
        ensure!(
            now == prior,
            "{when}: {now:?} instead of {prior:?}; {}",
            self.journal()?
        );
        if let Some(workload) = self.workload.as_ref().filter(|_| self.cached.is_none()) {
            // It runs.
            workload.borrow_mut().step("work 1")?;
        }
        Ok(())
    }

    /// Whether all of a kept action is in force, and the journal says so.
    pub(crate) fn is_complete(&self) -> Result<bool> {
        if !self.action.kept() || self.now()? != self.after {
            return Ok(false);
        }
        let ledger = self.ledger()?;
        let kept = ledger.actions().all(|action| action.phase == Phase::Kept);
        Ok(kept && ledger.actions().count() == 1)
    }

    /// What the journal comes to. Whatever was broken off, it is whole.
    pub(crate) fn ledger(&self) -> Result<Ledger> {
        let bytes = match fs::read(Path::new(&self.state_dir()?).join("journal")) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        let (records, damage) = decode_all(&bytes);
        ensure!(
            damage.lines == 0 && !damage.torn,
            "{damage:?}: {}",
            self.journal()?
        );
        Ok(Ledger::of(records))
    }

    pub(crate) fn journal(&self) -> Result<String> {
        let path = Path::new(&self.state_dir()?).join("journal");
        Ok(format!(
            "the journal: {}",
            fs::read_to_string(path).unwrap_or_else(|error| error.to_string())
        ))
    }

    /// `rollback` by itself, after which everything is as before.
    pub(crate) fn rollback(&self) -> Result<()> {
        let state = self.state_dir()?;
        let done = run(&["rollback", "--state-dir", &state], SOON)?;
        ensure!(
            done.code() == Some(0) && done.stderr.is_empty(),
            "rollback: {done:?}; {}",
            self.journal()?
        );
        self.is_prior(&format!("after {done:?}"))
    }
}
