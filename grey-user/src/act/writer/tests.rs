use std::fs;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use grey_core::act::Fault;
use rustix::process::{Pid, Signal, kill_process};

use super::{Wait, write};
use crate::act::fork::tests::Hanging;

const SOON: Duration = Duration::from_secs(10);

fn on() -> Wait {
    Wait::On
}

fn temp(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("grey-writer-{}-{name}", std::process::id()))
}

/// A write to its second end blocks until somebody reads from its first.
fn full_pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while rustix::io::write(&writer, &[0; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    (reader, writer)
}

/// Processes forked by this thread that still exist, zombies too.
fn children() -> Vec<Pid> {
    let thread = rustix::thread::gettid();
    let path = format!("/proc/self/task/{thread}/children");
    let text = fs::read_to_string(path).unwrap();
    let pids = text.split_whitespace().map(|pid| pid.parse().unwrap());
    pids.filter_map(Pid::from_raw).collect()
}

#[test]
fn the_bytes_arrive_in_one_write_and_nobody_is_left() {
    let path = temp("plain");
    let file = fs::File::create(&path).unwrap();
    assert_eq!(write(file.into(), b"104857600", SOON, &mut on), Ok(9));
    assert_eq!(fs::read(&path).unwrap(), b"104857600");
    fs::remove_file(&path).unwrap();
    assert_eq!(children(), []);
}

#[test]
fn errors_of_the_kernel_come_back() {
    let path = temp("readonly");
    fs::write(&path, "0").unwrap();
    let file = fs::File::open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let failed = write(file.into(), b"1", SOON, &mut on).unwrap_err();
    assert!(
        matches!(&failed, Fault::Other(text) if text.contains("Bad file")),
        "{failed:?}"
    );
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    assert_eq!(write(full.into(), b"1", SOON, &mut on), Err(Fault::Full));
}

#[test]
fn a_write_that_blocks_is_ended_after_its_time_and_the_caller_has_its_turns() {
    let (_reader, writer) = full_pipe();
    let (mut turns, mut longest, mut last) = (0, Duration::ZERO, Instant::now());
    let start = last;
    let ended = write(writer, &[1; 4096], Duration::from_millis(400), &mut || {
        turns += 1;
        longest = longest.max(last.elapsed());
        last = Instant::now();
        Wait::On
    });
    assert_eq!(ended, Err(Fault::TimedOut { stuck: false }));
    let took = start.elapsed();
    assert!(
        took >= Duration::from_millis(400) && took < SOON,
        "{took:?}"
    );
    assert!(turns >= 4, "{turns} turns");
    assert!(
        longest <= Duration::from_millis(300),
        "{longest:?} without a turn"
    );
    assert_eq!(children(), []);
}

#[test]
fn a_write_that_blocks_is_ended_when_the_caller_says_so() {
    let (_reader, writer) = full_pipe();
    let start = Instant::now();
    let ended = write(writer, &[1; 4096], SOON, &mut || Wait::Stop);
    assert_eq!(ended, Err(Fault::TimedOut { stuck: false }));
    assert!(start.elapsed() < SOON / 2, "{:?}", start.elapsed());
}

#[test]
fn a_stopped_helper_does_not_hang_the_caller() {
    let (_reader, writer) = full_pipe();
    let mut stopped = Vec::new();
    let start = Instant::now();
    let ended = write(writer, &[1; 4096], Duration::from_millis(300), &mut || {
        if stopped.is_empty() {
            stopped = children();
            for pid in &stopped {
                kill_process(*pid, Signal::STOP).unwrap();
            }
        }
        Wait::On
    });
    assert_eq!(stopped.len(), 1);
    assert_eq!(ended, Err(Fault::TimedOut { stuck: false }));
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    assert_eq!(children(), []);
}

#[test]
fn a_killed_helper_is_worth_another_try() {
    let (_reader, writer) = full_pipe();
    let ended = write(writer, &[1; 4096], SOON, &mut || {
        for pid in children() {
            kill_process(pid, Signal::KILL).unwrap();
        }
        Wait::On
    });
    assert_eq!(ended, Err(Fault::Interrupted));
}

#[test]
fn a_helper_has_no_descriptors_but_its_own() {
    // A pipe whose writing end a helper would inherit: its end is seen only when all of them are closed.
    let (reader, held) = rustix::pipe::pipe().unwrap();
    let (_full, writer) = full_pipe();
    let mut held = Some(held);
    let mut ended_early = false;
    let _ = write(writer, &[1; 4096], Duration::from_millis(400), &mut || {
        if held.take().is_none() && !ended_early {
            let mut fds = [rustix::event::PollFd::from_borrowed_fd(
                reader.as_fd(),
                rustix::event::PollFlags::IN,
            )];
            let now = super::fork::timespec(Duration::ZERO);
            ended_early = rustix::event::poll(&mut fds, Some(&now)).unwrap() == 1;
        }
        Wait::On
    });
    assert!(ended_early, "the helper keeps a descriptor open");
    let mut rest = Vec::new();
    fs::File::from(reader).read_to_end(&mut rest).unwrap();
}

#[test]
fn a_helper_that_cannot_be_ended_is_given_up_and_reaped_when_it_can() {
    let Some(mut hanging) = Hanging::new("0") else {
        eprintln!("skipped: userfaultfd(2) is not allowed");
        return;
    };
    let file = hanging.file.try_clone().unwrap();
    let start = Instant::now();
    let mut turns = 0;
    let ended = write(file, b"1", Duration::from_millis(200), &mut || {
        turns += 1;
        Wait::On
    });
    let took = start.elapsed();
    assert_eq!(ended, Err(Fault::TimedOut { stuck: true }));
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(turns >= 4, "{turns} turns in {took:?}");
    assert!(super::stuck());
    assert_eq!(children().len(), 1);
    hanging.let_go();
    let end = Instant::now() + SOON;
    while super::stuck() {
        assert!(Instant::now() < end, "it still hangs");
    }
    assert_eq!(children(), []);
}
