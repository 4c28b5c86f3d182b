//! The guard as a process: this binary again under another name, made small and hard to end.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::process::ExitCode;
use std::time::Duration;

use grey_core::act::{KnobFile, Text};
use rustix::fs::{FileType, MemfdFlags, Mode, OFlags};
use rustix::mm::MlockAllFlags;
use rustix::net::SendFlags;

use super::held::{Held, Which};
use super::home;
use super::note::Journal;
use super::serve::{self, Serve};
use super::wire::{Arm, Ask, Reply};
use crate::act::fork;

/// Its first argument and its name in `ps`: as long as a name may be.
pub(super) const NAME: &str = "grey-ebpf-guard";
/// How long it awaits the controller's first packet.
const HELLO: Duration = Duration::from_secs(10);

/// Whether this process is to be a guard, by its first argument.
pub(super) fn is_called() -> bool {
    std::env::args_os().next().as_deref() == Some(OsStr::from_bytes(NAME.as_bytes()))
}

/// Runs as the guard of the controller at the other end of descriptor 0.
pub(super) fn main() -> ExitCode {
    // SAFETY: descriptor 0 is open (the runtime sees to it) and nobody else uses it.
    let socket = unsafe { OwnedFd::from_raw_fd(0) };
    let is_socket = rustix::fs::fstat(&socket)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket);
    if !is_socket {
        eprintln!("{NAME}: is started by grey-ebpf when it acts, not by hand");
        return ExitCode::from(2);
    }
    settle_in();
    if !fork::readable(&socket, HELLO) {
        return ExitCode::FAILURE;
    }
    let Ok(packet) = serve::receive(&socket) else {
        return ExitCode::FAILURE;
    };
    let Some((seq, Ask::Hello { hang_ms, journal })) = Ask::decode(&packet.bytes[..packet.len])
    else {
        return ExitCode::FAILURE;
    };
    let [Some(controller), Some(dir), root] = packet.files else {
        return ExitCode::FAILURE;
    };
    let mut serve = Box::new(Serve {
        socket,
        controller: Some(controller),
        journal: Some(Journal { dir, name: journal }),
        hang: hang_ms,
        held: Held::new(),
        revoked: false,
    });
    rehearse(&mut serve.held);
    let flags = SendFlags::NOSIGNAL;
    if rustix::net::send(&serve.socket, &Reply::Done.encode(seq), flags).is_err() {
        return ExitCode::FAILURE;
    }
    // From here on nothing is allocated.
    serve.run();
    if let Some(root) = root {
        home::leave(root.as_fd());
    }
    ExitCode::SUCCESS
}

/// Everything here is best effort: a guard that cannot be locked into memory is better than none.
fn settle_in() {
    fork::close_from_to(3, i64::from(u32::MAX));
    // The terminal's and the session's end are not its own; SIGKILL is.
    let ignored = [
        libc::SIGINT,
        libc::SIGTERM,
        libc::SIGHUP,
        libc::SIGPIPE,
        libc::SIGQUIT,
        libc::SIGTSTP,
    ];
    for signal in ignored {
        // SAFETY: sets a disposition; there is no handler.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    // SAFETY: as above. Its children are awaited.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    let _ = rustix::thread::set_name(c"grey-ebpf-guard");
    // It sleeps nearly always, and when it does not, it is in a hurry.
    let _ = rustix::process::setpriority_process(None, -20);
    let adj = rustix::fs::open(
        "/proc/self/oom_score_adj",
        OFlags::WRONLY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    if let Ok(adj) = adj {
        let _ = rustix::io::write(&adj, b"-1000");
    }
    let lock = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    let _ = rustix::mm::mlockall(lock);
}

/// Undoes a change of a file of its own, so that every page it needs is in memory, and locked, before it counts.
pub(super) fn rehearse(held: &mut Held) {
    let Ok(file) = rustix::fs::memfd_create("rehearsal", MemfdFlags::CLOEXEC) else {
        return;
    };
    let (Some(old), Some(new)) = (Text::new(b"0"), Text::new(b"1")) else {
        return;
    };
    let _ = rustix::io::pwrite(&file, b"1", 0);
    let arm = Arm {
        id: 0,
        step: 0,
        file: KnobFile::MemoryHigh,
        old,
        new,
        leaves: None,
    };
    held.arm(&arm, file);
    held.undo(Which::All);
    std::hint::black_box(super::note::Line::closed(
        0,
        0,
        grey_core::act::Close::Restored,
        false,
    ));
    held.release(0, None);
}
