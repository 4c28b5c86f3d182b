//! `run` beside `env`: what the command sees of its start, and what its parent sees of its end, are the same.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::harness::{Outcome, TempCgroup, Trial, cgroup_root, grey_ebpf, wait_until};
use crate::invocation::{Invocation, Scratch};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new("native_run_ends_as_its_command_ends", ends_as_its_command),
        Trial::new("native_run_starts_a_command_as_env_does", starts_as_env),
        Trial::new("native_run_can_be_stopped_and_go_on", stops_and_goes_on),
        Trial::new("native_run_on_a_terminal_is_the_commands", on_a_terminal),
        Trial::new(
            "native_run_makes_a_cgroup_and_leaves_none",
            makes_and_leaves,
        ),
        Trial::new(
            "native_run_without_rights_says_what_gives_them",
            without_rights,
        ),
    ]
}

const SOON: Duration = Duration::from_secs(10);

/// The two that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Env,
    Run,
}

const BOTH: [By; 2] = [By::Env, By::Run];

/// `WORDS` started by one of them.
fn command(by: By, words: &[&str]) -> Command {
    let mut command = match by {
        By::Env => Command::new("env"),
        By::Run => {
            let mut run = Command::new(grey_ebpf());
            run.args(["run", "--"]);
            run
        }
    };
    command.args(words);
    command
}

fn status(by: By, words: &[&str]) -> Result<ExitStatus> {
    command(by, words)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .with_context(|| format!("{by:?} {words:?}"))
}

fn ends_as_its_command() -> Result<Outcome> {
    let scratch = Scratch::new("run")?;
    // A script without a first line, which a shell runs; one that nobody may run; one whose interpreter is missing.
    let file = |name: &str, content: &str, mode: u32| -> Result<String> {
        fs::write(scratch.join(name), content)?;
        fs::set_permissions(scratch.join(name), fs::Permissions::from_mode(mode))?;
        scratch.argument(name)
    };
    let plain = file("plain", "exit 9\n", 0o755)?;
    let closed = file("closed", "#!/bin/sh\n", 0o644)?;
    let lost = file("lost", "#!/nowhere/sh\n", 0o755)?;
    for words in [
        &["true"][..],
        &["sh", "-c", "exit 7"],
        &["sh", "-c", "kill -TERM $$"],
        &["sh", "-c", "kill -KILL $$"],
        &["sh", "-c", "kill -SEGV $$"],
        &[plain.as_str()],
        &[closed.as_str()],
        &[lost.as_str()],
        &["no-such-command"],
        &["/nowhere/no-such-command"],
        &["/"],
    ] {
        let [env, run] = [status(By::Env, words)?, status(By::Run, words)?];
        ensure!(
            (env.code(), env.signal()) == (run.code(), run.signal()),
            "{words:?}: {env} by env, {run} by run"
        );
    }
    let told = Invocation::new().run(&["run", "--no-cgroup", "no-such-command"])?;
    ensure!(
        told.code == Some(127)
            && told.stderr == "grey-ebpf: no-such-command: is not in any folder of PATH\n",
        "{told:?}"
    );
    Ok(Outcome::Passed)
}

/// What a command can tell of how it was started: by itself, and by the shell with what it starts. The shell blocks signals for moments.
const ASK: [&[&str]; 2] = [
    &["grep", "-E", "^Sig(Blk|Ign|Cgt)", "/proc/self/status"],
    &[
        "sh",
        "-c",
        "ls /proc/$$/fd; wc -w < /proc/$$/task/$$/children; echo $PPID; pwd; umask; ulimit -a; env | sort | grep -v ^_=",
    ],
];

fn starts_as_env() -> Result<Outcome> {
    // Also with signals that somebody before ignored or blocked, and without a stdin.
    for (ignored, blocked, no_stdin) in [
        (false, false, false),
        (true, false, false),
        (false, true, false),
        (false, false, true),
    ] {
        let ask = |by: By, words: &[&str]| -> Result<String> {
            let mut command = command(by, words);
            command.stdin(Stdio::null());
            // SAFETY: between fork and exec only system calls are made.
            unsafe {
                command.pre_exec(move || {
                    if ignored {
                        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
                        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
                    }
                    if blocked {
                        let mut set: libc::sigset_t = std::mem::zeroed();
                        libc::sigemptyset(&raw mut set);
                        libc::sigaddset(&raw mut set, libc::SIGUSR1);
                        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
                    }
                    if no_stdin {
                        libc::close(0);
                    }
                    Ok(())
                });
            }
            Ok(String::from_utf8(command.output()?.stdout)?)
        };
        let told = |by: By| -> Result<String> { Ok(ask(by, ASK[0])? + &ask(by, ASK[1])?) };
        let [env, run] = [told(By::Env)?, told(By::Run)?];
        ensure!(env.contains("SigIgn"), "{env}");
        if no_stdin {
            // Rust's runtime opens /dev/null where a standard descriptor is missing.
            ensure!(run.lines().any(|line| line == "1"), "{run}");
            continue;
        }
        ensure!(
            env == run,
            "ignored {ignored}, blocked {blocked}\nby env:\n{env}\nby run:\n{run}"
        );
    }
    Ok(Outcome::Passed)
}

fn pid_of(child: &Child) -> Result<Pid> {
    Pid::from_raw(i32::try_from(child.id())?).context("a pid")
}

fn stops_and_goes_on() -> Result<Outcome> {
    for by in BOTH {
        let mut child = command(by, &["sh", "-c", "kill -STOP $$; read word; exit $word"])
            .stdin(Stdio::piped())
            .spawn()?;
        let pid = pid_of(&child)?;
        wait_until("a stop", SOON, || {
            let seen = waitpid(Some(pid), WaitOptions::UNTRACED | WaitOptions::NOHANG)?;
            Ok(seen.filter(|(_, status)| status.stopped()).map(drop))
        })?;
        kill_process(pid, Signal::CONT)?;
        child.stdin.take().context("no stdin")?.write_all(b"5\n")?;
        let status = child.wait()?;
        ensure!(status.code() == Some(5), "{by:?}: {status}");
    }
    Ok(Outcome::Passed)
}

/// A pseudo terminal with a command on it, which leads a session.
fn terminal(by: By, words: &[&str]) -> Result<(fs::File, Child)> {
    let (mut ours, mut theirs) = (-1, -1);
    // SAFETY: both are written by the call, and nothing else is passed.
    let made = unsafe {
        libc::openpty(
            &raw mut ours,
            &raw mut theirs,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
    ensure!(made == 0, "openpty: {}", std::io::Error::last_os_error());
    // SAFETY: these were opened above, and belong to nobody else.
    let (ours, theirs) = unsafe { (fs::File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) };
    let mut command = command(by, words);
    command
        .stdin(theirs.try_clone()?)
        .stdout(theirs.try_clone()?)
        .stderr(theirs);
    // SAFETY: between fork and exec only system calls are made.
    unsafe {
        command.pre_exec(|| {
            libc::setsid();
            libc::ioctl(0, libc::TIOCSCTTY, 0);
            Ok(())
        });
    }
    Ok((ours, command.spawn()?))
}

fn on_a_terminal() -> Result<Outcome> {
    for by in BOTH {
        // Typed text is answered; Ctrl-C is the command's to handle, and the terminal says that it is one.
        let script = "trap 'echo caught' INT; test -t 0 && echo terminal; read word; echo \"got $word\"; read word; exit 3";
        let (mut screen, mut child) = terminal(by, &["sh", "-c", script])?;
        let mut shown = BufReader::new(screen.try_clone()?);
        let mut expect = |text: &str| -> Result<()> {
            let mut line = String::new();
            while !line.contains(text) {
                line.clear();
                let read = shown.read_line(&mut line).unwrap_or(0);
                ensure!(read > 0, "{by:?}: the terminal ended before {text}");
            }
            Ok(())
        };
        expect("terminal")?;
        screen.write_all(b"hello\n")?;
        expect("got hello")?;
        // A shell that is on its way into read(2) would see a signal only when that is over.
        wait_until("a shell that waits for input", SOON, || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", child.id()))?;
            Ok(stat.contains(") S ").then_some(()))
        })?;
        screen.write_all(b"\x03")?;
        expect("caught")?;
        screen.write_all(b"more\n")?;
        let status = child.wait()?;
        ensure!(status.code() == Some(3), "{by:?}: {status}");
        // Nobody keeps the terminal open.
        let mut rest = Vec::new();
        let _ = shown.read_to_end(&mut rest);
    }
    Ok(Outcome::Passed)
}

/// A command that tells its cgroup and waits for the end of its stdin.
struct Waiting {
    child: Child,
    cgroup: PathBuf,
}

impl Waiting {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let out = child.stdout.take().context("no stdout")?;
        BufReader::new(out).read_line(&mut line)?;
        let path = line.trim().strip_prefix("0::/").context(line.clone())?;
        Ok(Waiting {
            cgroup: cgroup_root()?.join(path),
            child,
        })
    }

    fn end(mut self) -> Result<PathBuf> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        ensure!(status.success(), "{status}");
        Ok(self.cgroup)
    }
}

const TELL: [&str; 3] = ["sh", "-c", "grep ^0:: /proc/self/cgroup; cat > /dev/null"];

fn gone(directory: &Path) -> Result<()> {
    wait_until("the cgroup's end", SOON, || {
        Ok((!directory.exists()).then_some(()))
    })
}

fn makes_and_leaves() -> Result<Outcome> {
    let waiting = Waiting::start(command(By::Run, &TELL))?;
    let pid = waiting.child.id();
    let name = waiting
        .cgroup
        .file_name()
        .context("no name")?
        .to_string_lossy()
        .into_owned();
    ensure!(name == format!("grey-run-{pid}-sh.scope"), "{name}");
    let directory = waiting.cgroup.clone();
    ensure!(directory.is_dir(), "{} is not there", directory.display());
    // One that the command makes inside goes with it, and what outlives the command keeps it.
    fs::create_dir(directory.join("inner"))?;
    let mut child = Command::new("sleep").arg("1000").spawn()?;
    fs::write(directory.join("cgroup.procs"), child.id().to_string())?;
    waiting.end()?;
    std::thread::sleep(Duration::from_millis(300));
    ensure!(directory.is_dir(), "it went before its last process");
    child.kill()?;
    child.wait()?;
    gone(&directory)?;

    // What a tidier that was ended has left is swept by the next one; what is in use stays.
    let root = directory.parent().context("no parent")?;
    let (stale, fresh) = (
        root.join(format!("grey-run-{pid}-stale.scope")),
        root.join(format!("grey-run-{}-fresh.scope", std::process::id())),
    );
    fs::create_dir(&stale)?;
    fs::create_dir(&fresh)?;
    let ended = status(By::Run, &["true"])?;
    let left = (stale.exists(), fresh.exists());
    fs::remove_dir(&fresh)?;
    let _ = fs::remove_dir(&stale);
    ensure!(ended.success() && left == (false, true), "{left:?}");

    let mut stays = Command::new(grey_ebpf());
    stays.args(["run", "--no-cgroup", "--"]).args(TELL);
    let stayed = Waiting::start(stays)?.end()?;
    let env = Waiting::start(command(By::Env, &TELL))?.end()?;
    ensure!(stayed == env, "{} {}", stayed.display(), env.display());
    Ok(Outcome::Passed)
}

const NOBODY: u32 = 65_534;

fn without_rights() -> Result<Outcome> {
    if !rustix::process::geteuid().is_root() {
        return Outcome::skipped("becoming somebody without rights takes root");
    }
    let told = Invocation::new().nobody().run(&["run", "--", "true"])?;
    ensure!(
        told.code == Some(3) && told.stderr.contains("systemd-run --user --scope"),
        "{told:?}"
    );
    let without = Invocation::new()
        .nobody()
        .run(&["run", "--no-cgroup", "--", "true"])?;
    ensure!(without.code == Some(0), "{without:?}");

    // A part of the tree that is his own, as a session of systemd gives it to its user.
    let slice = TempCgroup::new("delegated")?;
    let session = slice.child("session")?;
    for (cgroup, files) in [
        (&slice, &["", "cgroup.procs", "cgroup.subtree_control"][..]),
        (&session, &["", "cgroup.procs"]),
    ] {
        for file in files {
            let path = cgroup.directory().join(file);
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY))?;
        }
    }
    let mut command = command(By::Run, &TELL);
    let procs = fs::File::options()
        .write(true)
        .open(session.directory().join("cgroup.procs"))?;
    // SAFETY: between fork and exec only system calls are made.
    unsafe {
        command.pre_exec(move || {
            rustix::io::write(&procs, b"0")?;
            libc::setgroups(0, std::ptr::null());
            libc::setgid(NOBODY);
            libc::setuid(NOBODY);
            Ok(())
        });
    }
    let waiting = Waiting::start(command)?;
    ensure!(
        waiting.cgroup.parent() == Some(slice.directory()),
        "{}",
        waiting.cgroup.display()
    );
    let directory = waiting.end()?;
    gone(&directory)?;
    Ok(Outcome::Passed)
}
