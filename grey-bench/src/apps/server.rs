//! A server that a benchmark talks to: started by us, ready when it answers, and ended by its pid.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::child::ends_with_us;

/// How long one may take to begin, and to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// Ends with this.
#[derive(Debug)]
pub struct Server {
    child: Child,
    end: Signal,
}

impl Server {
    /// Starts it and waits until it is `ready`; `end` is the signal that it takes for an end.
    ///
    /// # Errors
    /// It ends by itself, or does not get ready.
    pub fn start(
        command: &mut Command,
        end: Signal,
        mut ready: impl FnMut() -> bool,
    ) -> Result<Server> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = ends_with_us(command)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| program.clone())?;
        let mut server = Server { child, end };
        let begun = Instant::now();
        while !ready() {
            if let Some(status) = server.child.try_wait()? {
                bail!("{program} ended at once: {status}");
            }
            if begun.elapsed() > PATIENCE {
                bail!("{program} did not answer within {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, self.end);
        }
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
