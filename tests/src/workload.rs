//! A workload process: does one step for each line on stdin and answers `done …` or `failed …`.
//! Between the line and the answer it maps, unmaps and touches nothing but what the step says: no heap use.

use std::fmt::Write as _;
use std::process::ExitCode;

use rustix::io::Errno;

mod calls;
mod events;
mod hot;
mod layout;
mod memory;
mod steps;

/// A fixed buffer for a line in or out.
pub(crate) struct Line {
    bytes: [u8; 512],
    length: usize,
}

impl Line {
    const fn new() -> Self {
        Self {
            bytes: [0; 512],
            length: 0,
        }
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or("?")
    }
}

impl std::fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.length + text.len();
        self.bytes
            .get_mut(self.length..end)
            .ok_or(std::fmt::Error)?
            .copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

/// `workload`: steps from stdin. `workload STEP…`: one step, its answer, the end.
pub(crate) fn main(args: impl Iterator<Item = String>) -> ExitCode {
    // A huge page would make one fault out of 512.
    // SAFETY: the call sets a flag of this process and takes no pointers.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    let args: Vec<String> = args.collect();
    let mut state = memory::Mappings::new();
    if !args.is_empty() {
        return if answer(&mut state, &args.join(" ")) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    say("ready");
    while let Some(line) = read_line() {
        answer(&mut state, line.text());
    }
    ExitCode::SUCCESS
}

fn answer(state: &mut memory::Mappings, step: &str) -> bool {
    let mut detail = Line::new();
    let mut reply = Line::new();
    let result = steps::perform(state, step, &mut detail);
    // The reply is bounded by the buffer; a longer detail is cut off.
    let _ = match result {
        Ok(()) => write!(reply, "done {}", detail.text()),
        Err(errno) => write!(reply, "failed {errno}"),
    };
    say(reply.text());
    result.is_ok()
}

/// One line from stdin, byte by byte: steps are few, and nothing must be read ahead of an `exec`.
fn read_line() -> Option<Line> {
    let mut line = Line::new();
    loop {
        let mut byte = [0];
        match rustix::io::read(rustix::stdio::stdin(), &mut byte) {
            Ok(0) => return None,
            Ok(_) if byte[0] == b'\n' => return Some(line),
            Ok(_) => {
                *line.bytes.get_mut(line.length)? = byte[0];
                line.length += 1;
            }
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

fn say(text: &str) {
    let mut line = Line::new();
    let _ = writeln!(line, "{text}");
    // A closed pipe means the test is gone, and the death signal is on its way.
    let _ = rustix::io::write(rustix::stdio::stdout(), line.text().as_bytes());
}
