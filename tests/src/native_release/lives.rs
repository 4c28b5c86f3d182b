//! What programs do with themselves: fork, exec, change their user, give up threads, close every descriptor.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use grey_user::act::agent::{AgentError, Question};

use crate::harness::{Outcome, Trial};

use super::guest::{Bench, Guest, absent, ask, library, status};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "native_release_a_forked_child_has_an_agent_of_its_own",
            fork,
        ),
        Trial::new(
            "native_release_a_child_of_threads_has_none_and_lives",
            fork_of_threads,
        ),
        Trial::new("native_release_an_executed_program_has_an_agent", exec),
        Trial::new(
            "native_release_no_thread_keeps_the_rights_of_root",
            identity,
        ),
        Trial::new(
            "native_release_a_process_may_enter_a_user_namespace",
            namespace,
        ),
        Trial::new(
            "native_release_a_process_ends_with_its_last_thread",
            last_thread,
        ),
        Trial::new(
            "native_release_a_process_is_reached_in_its_namespaces",
            namespaces,
        ),
        Trial::new(
            "native_release_descriptors_are_the_programs_own",
            descriptors,
        ),
        Trial::new("native_release_one_thread_is_trimmed_only_at_rest", at_rest),
        Trial::new("native_release_a_signal_handler_is_no_rest", handler),
        Trial::new("native_release_the_process_keeps_its_name", names),
        Trial::new("native_release_a_setuid_program_is_left_alone", setuid),
        Trial::new(
            "native_release_a_thousand_short_programs_cost_little",
            short,
        ),
    ]
}

const SHORTLY: Question = Question::Stat {
    wait: Duration::from_millis(300),
};

fn life(bench: &Bench, name: &str) -> Result<Option<Guest>> {
    let Some(command) = bench.c("lives", &[name])? else {
        return Ok(None);
    };
    Guest::begin(command, &[&library()?]).map(Some)
}

/// What a life said before it was ready.
fn said(guest: &mut Guest, prefix: &str) -> Result<String> {
    let lines = guest.ready()?;
    lines
        .iter()
        .find_map(|line| line.strip_prefix(prefix))
        .map(str::to_owned)
        .with_context(|| format!("no {prefix:?} in {lines:?}"))
}

fn fork() -> Result<Outcome> {
    let bench = Bench::new("release-fork")?;
    let Some(mut guest) = life(&bench, "fork")? else {
        return absent("cc");
    };
    let child: u32 = said(&mut guest, "child ")?.parse()?;
    ensure!(child != guest.pid());
    ensure!(!ask(child, SHORTLY)?.busy, "the child's is not at rest");
    ensure!(!guest.ask(SHORTLY)?.busy, "the parent's is not at rest");
    let (said, status) = guest.finish()?;
    ensure!(status.success() && said == ["7"], "{status}: {said:?}");
    Ok(Outcome::Passed)
}

fn fork_of_threads() -> Result<Outcome> {
    let bench = Bench::new("release-threads")?;
    let Some(mut guest) = life(&bench, "fork-of-threads")? else {
        return absent("cc");
    };
    let child: u32 = said(&mut guest, "child ")?.parse()?;
    ensure!(status(child, "Threads:")? == 1, "the child has a thread");
    ensure!(matches!(ask(child, SHORTLY), Err(AgentError::Nobody)));
    guest.ask(SHORTLY)?;
    let (said, status) = guest.finish()?;
    ensure!(status.success() && said == ["7"], "{status}: {said:?}");
    Ok(Outcome::Passed)
}

fn exec() -> Result<Outcome> {
    let bench = Bench::new("release-exec")?;
    let Some(mut guest) = life(&bench, "exec")? else {
        return absent("cc");
    };
    guest.ready()?;
    ensure!(!guest.ask(SHORTLY)?.busy);
    let (_, status) = guest.finish()?;
    ensure!(status.success(), "{status}");
    Ok(Outcome::Passed)
}

fn identity() -> Result<Outcome> {
    if !rustix::process::geteuid().is_root() {
        return Outcome::skipped("only root can give up being root");
    }
    let bench = Bench::new("release-identity")?;
    let Some(mut guest) = life(&bench, "identity")? else {
        return absent("cc");
    };
    guest.ready()?;
    ensure!(!guest.ask(SHORTLY)?.busy);
    let mut threads = 0;
    for task in fs::read_dir(format!("/proc/{}/task", guest.pid()))? {
        let text = fs::read_to_string(task?.path().join("status"))?;
        for name in ["Uid:", "Gid:"] {
            let ids = text.lines().find_map(|line| line.strip_prefix(name));
            let ids: Vec<&str> = ids.unwrap_or_default().split_whitespace().collect();
            ensure!(ids == ["65534"; 4], "{name} {ids:?}");
        }
        let caps = text.lines().find_map(|line| line.strip_prefix("CapPrm:"));
        ensure!(caps.map(str::trim) == Some("0000000000000000"), "{caps:?}");
        threads += 1;
    }
    ensure!(threads == 2, "{threads} threads");
    let (_, status) = guest.finish()?;
    ensure!(status.success(), "{status}");
    Ok(Outcome::Passed)
}

fn namespace() -> Result<Outcome> {
    let bench = Bench::new("release-namespace")?;
    let Some(plain) = bench.c("lives", &["namespace"])? else {
        return absent("cc");
    };
    let mut plain = Guest::begin(plain, &[])?;
    let without = plain.ready()?;
    let Some(mut guest) = life(&bench, "namespace")? else {
        return absent("cc");
    };
    let with = guest.ready()?;
    ensure!(with == without, "{without:?}, with the agent {with:?}");
    Ok(Outcome::Passed)
}

fn namespaces() -> Result<Outcome> {
    let bench = Bench::new("release-namespaces")?;
    if bench.c("lives", &[])?.is_none() {
        return absent("cc");
    }
    let apart = ["--net", "--pid", "--fork", "--mount-proc", "--kill-child"];
    // util-linux's, which every Debian has.
    let mut can = Command::new("unshare");
    can.args(apart).arg("true").stderr(Stdio::null());
    if !can.status().is_ok_and(|status| status.success()) {
        return Outcome::skipped("namespaces cannot be made here");
    }
    let mut command = Command::new("unshare");
    command
        .args(apart)
        .arg(bench.scratch.join("lives"))
        .arg("rests");
    let guest = Guest::start(command)?;
    let pid = guest.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let child = children.trim();
    // It is pid 1 where it lives, and listens there.
    let inside = fs::read_to_string(format!("/proc/{child}/status"))?;
    ensure!(
        inside.contains(&format!("NSpid:\t{child}\t1\n")),
        "{inside}"
    );
    let desk = crate::enforcing::Desk::new("release-namespaces-desk", "")?;
    let done = desk.enforce(&["trim", child])?;
    ensure!(
        done.code() == Some(0) && done.stdout.contains("by glibc"),
        "{done:?}"
    );
    Ok(Outcome::Passed)
}

fn last_thread() -> Result<Outcome> {
    let bench = Bench::new("release-last")?;
    let Some(guest) = life(&bench, "last-thread")? else {
        return absent("cc");
    };
    let (_, status) = guest.finish().context("the agent's thread kept it alive")?;
    ensure!(status.success(), "{status}");
    Ok(Outcome::Passed)
}

fn descriptors() -> Result<Outcome> {
    let bench = Bench::new("release-descriptors")?;
    let Some(plain) = bench.c("lives", &["descriptors"])? else {
        return absent("cc");
    };
    let without = said(&mut Guest::begin(plain, &[])?, "first ")?;
    let Some(mut guest) = life(&bench, "descriptors")? else {
        return absent("cc");
    };
    let with = said(&mut guest, "first ")?;
    ensure!(with == without, "the program gets {with} and not {without}");
    // It has closed all that it could.
    guest.ask(SHORTLY)?;
    Ok(Outcome::Passed)
}

fn at_rest() -> Result<Outcome> {
    let bench = Bench::new("release-rest")?;
    let Some(mut works) = life(&bench, "works")? else {
        return absent("cc");
    };
    works.ready()?;
    let answer = works.ask(SHORTLY)?;
    ensure!(answer.busy && answer.heap_free.is_none(), "{answer:?}");
    // However often it is asked: a trim beside its unlocked allocator would be the end of it.
    for _ in 0..500 {
        let wait = Duration::ZERO;
        works.ask(Question::Trim {
            collector: false,
            wait,
        })?;
    }
    // From outside the same is one line.
    let desk = crate::enforcing::Desk::new("release-rest-desk", "")?;
    let told = desk.enforce(&["trim", &works.pid().to_string(), "--wait", "200ms"])?;
    ensure!(
        told.code() == Some(1) && told.stderr.contains("come to rest"),
        "{told:?}"
    );
    let (_, status) = works.finish()?;
    ensure!(status.success(), "{status}");

    // Asleep it has left the program what it was; asked, it makes the allocator's locks real.
    let Some(mut rests) = life(&bench, "rests")? else {
        return absent("cc");
    };
    rests.ready()?;
    let (before, _) = rests.finish()?;
    let Some(mut rests) = life(&bench, "rests")? else {
        return absent("cc");
    };
    rests.ready()?;
    let answer = rests.ask(SHORTLY)?;
    ensure!(!answer.busy && answer.heap_free.is_some(), "{answer:?}");
    let (after, _) = rests.finish()?;
    ensure!(after == ["threads"], "{after:?}");
    ensure!(
        before == ["alone"] || cfg!(not(target_arch = "x86_64")),
        "{before:?}"
    );
    Ok(Outcome::Passed)
}

fn handler() -> Result<Outcome> {
    let bench = Bench::new("release-handler")?;
    let Some(mut guest) = life(&bench, "handler")? else {
        return absent("cc");
    };
    guest.ready()?;
    // It waits in read(), in a handler that may have interrupted anything.
    let answer = guest.ask(SHORTLY)?;
    ensure!(answer.busy, "{answer:?}");
    let (said, status) = guest.finish()?;
    ensure!(status.success() && said == ["over"], "{status}: {said:?}");
    Ok(Outcome::Passed)
}

fn names() -> Result<Outcome> {
    let bench = Bench::new("release-names")?;
    let Some(mut guest) = life(&bench, "rests")? else {
        return absent("cc");
    };
    guest.ready()?;
    guest.ask(SHORTLY)?;
    let comm = fs::read_to_string(format!("/proc/{}/comm", guest.pid()))?;
    ensure!(comm == "lives\n", "{comm:?}");
    Ok(Outcome::Passed)
}

fn setuid() -> Result<Outcome> {
    use std::os::unix::fs::PermissionsExt as _;
    if !rustix::process::geteuid().is_root() {
        return Outcome::skipped("only root can make a program of another user's");
    }
    let bench = Bench::new("release-setuid")?;
    if bench.c("lives", &[])?.is_none() {
        return absent("cc");
    }
    let program = bench.scratch.join("lives");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755))?;
    // setpriv is in util-linux, which every Debian has.
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&program)
        .arg("rests");
    let mut guest = Guest::begin(command, &[&library()?])?;
    guest.ready()?;
    if status(guest.pid(), "Uid:")? != 65534
        || !fs::read_to_string(format!("/proc/{}/status", guest.pid()))?.contains("Uid:\t65534\t0")
    {
        return Outcome::skipped("setuid programs do not work on this file system");
    }
    ensure!(status(guest.pid(), "Threads:")? == 1, "it has a thread");
    Ok(Outcome::Passed)
}

/// CPU time of all ended children.
fn spent() -> Result<Duration> {
    // SAFETY: all zeros are a rusage, which the call fills in.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        ensure!(libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) == 0);
        usage
    };
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
    };
    Ok(time(usage.ru_utime) + time(usage.ru_stime))
}

/// CPU time of so many starts.
fn starts(program: &Path, library: Option<&Path>, count: u32) -> Result<Duration> {
    let before = spent()?;
    for _ in 0..count {
        let mut command = Command::new(program);
        command.arg("empty").stdin(Stdio::null());
        if let Some(library) = library {
            command.env("LD_PRELOAD", library);
        }
        let status = command.status()?;
        ensure!(status.success(), "{status}");
    }
    Ok(spent()?.saturating_sub(before))
}

fn short() -> Result<Outcome> {
    let bench = Bench::new("release-short")?;
    if bench.c("lives", &[])?.is_none() {
        return absent("cc");
    }
    let program = bench.scratch.join("lives");
    let library = library()?;
    let (mut plain, mut with) = (Duration::ZERO, Duration::ZERO);
    // By turns, so that what else the machine does falls on both.
    for _ in 0..20 {
        plain += starts(&program, None, 10)?;
        with += starts(&program, Some(&library), 50)?;
    }
    let (plain, with) = (plain / 200, with / 1000);
    println!("{plain:?} CPU time a start, with the agent {with:?}");
    // Well under a millisecond more on a quiet machine. A busy one shows this much only where something is wrong.
    ensure!(
        with < plain + Duration::from_millis(3),
        "{plain:?}, with the agent {with:?}"
    );
    Ok(Outcome::Passed)
}
