//! The service under a real systemd (Debian 12's): it starts, reloads, stops, crashes and hangs, and what it had in
//! force is taken back each time.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Outcome, Trial, cgroup_root, wait_until};
use crate::swap::Swap;
use crate::vm_guest;

mod machine;

use machine::Machine;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "vm_systemd_service_starts_reloads_and_leaves_nothing_behind_however_it_ends",
            service,
        )
        .with_deadline(Duration::from_secs(240)),
    ]
}

const UNIT: &str = include_str!("../../deploy/systemd/grey-ebpf.service");
/// The same, in a time that a test has.
const SOONER: &str = "[Service]\nWatchdogSec=4\nRestartSec=3\n";
const CONFIG: &str = "etc/grey-ebpf/config.toml";
const SOON: Duration = Duration::from_secs(60);
/// A guard's promise is 2 s; systemd has to start a program, which takes a second where it is emulated.
const TAKEN_BACK: Duration = Duration::from_secs(10);

fn service() -> Result<Outcome> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    if !release.starts_with("6.12") {
        return Outcome::skipped(
            "shown on 6.12 alone, since it is about systemd and takes a minute",
        );
    }
    if !Path::new(machine::SYSTEMD).exists() {
        return Outcome::skipped("the guest's disk has no systemd");
    }
    let good = config("conservative");
    let by_hand = by_hand()?;
    let machine = Machine::boot(&[
        ("etc/systemd/system/grey-ebpf.service", UNIT),
        ("etc/systemd/system/by-hand.service", &by_hand),
        ("etc/systemd/system/sleeper.service", SLEEPER),
        ("etc/systemd/system/grey-ebpf.service.d/sooner.conf", SOONER),
        (CONFIG, &good),
    ])?;
    let service = Service { machine: &machine };
    service.is_sound()?;
    every_knob(&machine)?;

    machine.systemctl(&["start", "grey-ebpf"])?;
    let first = service.runs("policy conservative")?;
    service.is_protected()?;
    service.holds()?;
    service.reloads(&good, first)?;
    ensure!(service.frozen()?, "a reload let it go");
    service.guard_and_daemon_die(first)?;
    let second = service.comes_back(first)?;

    service.hangs(second)?;
    let third = service.comes_back(second)?;

    service.holds()?;
    machine.systemctl(&["stop", "grey-ebpf"])?;
    ensure!(!service.frozen()?, "after the stop it is still frozen");
    service.has(&[("ActiveState", "inactive"), ("Result", "success")])?;
    ensure!(outer(third).is_err(), "the daemon still runs");
    Ok(Outcome::Passed)
}

/// The sleeper stands still whenever the daemon runs: the operator said that it may.
fn config(policy: &str) -> String {
    format!(
        "[govern]\npolicy = \"{policy}\"\n\n[govern.idle]\nafter = \"1s\"\ncpu_pct = 50\nfaults_per_s = 1000\n\n\
         [[govern.override]]\nmatch = \"sleeper.service\"\nfreeze = true\n"
    )
}

/// Something that may be acted on.
const SLEEPER: &str = "[Service]\nExecStart=/bin/sleep 1000\n";
/// What is done by hand, with no more rights than the service has: knobs outside of the cgroup tree, and another's
/// memory.
const BY_HAND: [&str; 4] = [
    "enforce drop-caches",
    "enforce compact",
    "enforce ksm on --lease 100ms",
    "enforce pageout sleeper.service --all",
];
/// The same in a guest whose host can be told of free memory.
const REPORT: &str = "enforce report 16K --lease 100ms";

/// The unit with these commands in place of the daemon.
fn by_hand() -> Result<String> {
    let mut commands = String::new();
    let report = vm_guest::lacks()?.is_none().then_some(REPORT);
    for command in BY_HAND.into_iter().chain(report) {
        commands.push_str(&format!("ExecStart=/usr/bin/grey-ebpf {command}\n"));
    }
    let mut unit = String::new();
    for line in UNIT.lines() {
        let kept = match line.split_once('=') {
            Some(("Type", _)) => "Type=oneshot",
            Some(("ExecStart", _)) => commands.trim_end(),
            Some(("ExecReload" | "ExecStopPost" | "WatchdogSec" | "Restart", _)) => continue,
            _ => line,
        };
        unit.push_str(kept);
        unit.push('\n');
    }
    ensure!(
        unit.contains("Type=oneshot") && unit.contains(BY_HAND[1]),
        "{unit}"
    );
    Ok(unit)
}

/// The sandbox leaves each knob within reach.
fn every_knob(machine: &Machine) -> Result<()> {
    let _swap = Swap::on(64 << 20)?;
    machine.systemctl(&["start", "sleeper"])?;
    machine.systemctl(&["start", "by-hand"])
}

/// The unit in its machine.
struct Service<'a> {
    machine: &'a Machine,
}

impl Service<'_> {
    /// What systemd itself says of the unit.
    fn is_sound(&self) -> Result<()> {
        let unit = "/etc/systemd/system/grey-ebpf.service";
        let verified = self
            .machine
            .run(&["/bin/systemd-analyze", "--man=no", "verify", unit])?;
        ensure!(
            verified.success && !verified.text.contains("grey-ebpf"),
            "systemd-analyze verify: {}",
            verified.text
        );
        Ok(())
    }

    /// It has told that it is up, and what it goes by; the process.
    fn runs(&self, status: &str) -> Result<u32> {
        self.has(&[("ActiveState", "active"), ("SubState", "running")])?;
        let told = self.machine.property("StatusText")?;
        ensure!(told == status, "it says of itself {told:?}, not {status:?}");
        let log = self.machine.log();
        ensure!(
            !log.contains("grey-ebpf doctor"),
            "something is lost: {log}"
        );
        self.pid()
    }

    fn has(&self, wanted: &[(&str, &str)]) -> Result<()> {
        for (key, value) in wanted {
            let found = self.machine.property(key)?;
            ensure!(
                found == *value,
                "{key} is {found}, not {value}\n{}",
                self.machine.log()
            );
        }
        Ok(())
    }

    fn pid(&self) -> Result<u32> {
        Ok(self.machine.property("MainPID")?.parse()?)
    }

    /// The kernel keeps its memory, and it is no victim.
    fn is_protected(&self) -> Result<()> {
        let min = fs::read_to_string(home()?.join("memory.min"))?;
        ensure!(min.trim() == (32 << 20).to_string(), "memory.min is {min}");
        let of = outer(self.pid()?)?;
        let adj = fs::read_to_string(format!("/proc/{of}/oom_score_adj"))?;
        ensure!(adj.trim() == "-900", "oom_score_adj is {adj}");
        Ok(())
    }

    fn reloads(&self, good: &str, pid: u32) -> Result<()> {
        let turbo = good.replace("conservative", "turbo");
        self.machine.write(CONFIG, &turbo)?;
        let refused = self
            .machine
            .run(&["/bin/systemctl", "reload", "grey-ebpf"])?;
        ensure!(!refused.success, "a broken file was taken");
        let log = self.machine.log();
        ensure!(
            log.contains("config.toml:2: govern.policy: `turbo` is no policy"),
            "the log does not say what is wrong: {log}"
        );
        // Without the check before it, the daemon itself says so and goes on as before.
        signal(pid, Signal::HUP)?;
        wait_until("the status to tell of the broken file", SOON, || {
            let told = self.machine.property("StatusText")?;
            Ok(
                (told.starts_with("policy conservative; the configuration on disk is wrong: ")
                    && told.contains("config.toml:2: govern.policy: "))
                .then_some(()),
            )
        })?;
        self.machine
            .write(CONFIG, &good.replace("conservative", "dynamic"))?;
        self.machine.systemctl(&["reload", "grey-ebpf"])?;
        wait_until("the new policy", SOON, || {
            Ok((self.machine.property("StatusText")? == "policy dynamic").then_some(()))
        })?;
        let now = self.runs("policy dynamic")?;
        ensure!(now == pid, "{pid} was to reload, and {now} runs");
        Ok(())
    }

    fn frozen(&self) -> Result<bool> {
        let file = cgroup_root()?.join("system.slice/sleeper.service/cgroup.freeze");
        Ok(fs::read_to_string(file)?.trim() == "1")
    }

    fn holds(&self) -> Result<()> {
        wait_until("the sleeper to stand still", SOON, || {
            Ok(self.frozen()?.then_some(()))
        })
        .with_context(|| self.machine.log())
    }

    /// Nobody of ours is left: `ExecStopPost` takes back, before there is a new daemon.
    fn guard_and_daemon_die(&self, pid: u32) -> Result<()> {
        let guards = fs::read_to_string(cgroup_root()?.join("grey-ebpf-guard/cgroup.procs"))
            .context("the guard's cgroup")?;
        let guards: Vec<u32> = guards
            .lines()
            .map(|line| Ok(line.parse()?))
            .collect::<Result<_>>()?;
        ensure!(!guards.is_empty(), "there is no guard");
        for (sent, to) in [(Signal::STOP, &guards[..]), (Signal::KILL, &[outer(pid)?])] {
            to.iter().try_for_each(|pid| send(*pid, sent))?;
        }
        guards.iter().try_for_each(|pid| send(*pid, Signal::KILL))?;
        wait_until("the sleeper to go on", TAKEN_BACK, || {
            Ok((!self.frozen()?).then_some(()))
        })
        .with_context(|| self.machine.log())?;
        let running = fs::read_to_string(home()?.join("cgroup.procs")).unwrap_or_default();
        let daemon = running.lines().find(|pid| {
            fs::read_to_string(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.contains("daemon"))
        });
        ensure!(daemon.is_none(), "a new daemon took it back");
        Ok(())
    }

    /// systemd hears nothing, and ends it.
    fn hangs(&self, pid: u32) -> Result<()> {
        signal(pid, Signal::STOP)?;
        wait_until("systemd to miss it", SOON, || {
            Ok((self.machine.property("Result")? == "watchdog").then_some(()))
        })
        .with_context(|| self.machine.log())
    }

    /// Started again by systemd; the new process.
    fn comes_back(&self, before: u32) -> Result<u32> {
        wait_until("a new daemon", SOON, || {
            let up = self.machine.property("ActiveState")? == "active";
            Ok(Some(self.pid()?).filter(|pid| up && *pid != before && *pid != 0))
        })
        .with_context(|| self.machine.log())
    }
}

/// The service's cgroup.
fn home() -> Result<PathBuf> {
    Ok(cgroup_root()?.join("grey-ebpf.service"))
}

/// The process as it is called here, of one as it is called in the machine.
fn outer(inner: u32) -> Result<u32> {
    let own = |pid: &&str| {
        fs::read_to_string(format!("/proc/{pid}/status"))
            .unwrap_or_default()
            .lines()
            .find_map(|line| line.strip_prefix("NSpid:")?.split_whitespace().last())
            == Some(&inner.to_string())
    };
    let all = fs::read_to_string(home()?.join("cgroup.procs"))?;
    let found = all.lines().find(own);
    Ok(found
        .with_context(|| format!("{inner} is not in the service"))?
        .parse()?)
}

fn signal(inner: u32, signal: Signal) -> Result<()> {
    send(outer(inner)?, signal)
}

fn send(pid: u32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(pid.try_into()?).context("no process")?;
    kill_process(pid, signal).context("send a signal")
}
