//! The bounds of acting, with their values where nothing is configured; `config` reads them.

use std::path::PathBuf;
use std::time::Duration;

pub use grey_core::act::watchdog::Thresholds;

/// Where the journal is.
pub const STATE_DIR: &str = "/var/lib/grey-ebpf";

/// The bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Safety {
    /// Cgroups that are never touched: paths, globs, unit and container names.
    pub protect: Vec<String>,
    /// Services the machine cannot do without: never touched, and if one of those that run vanishes, everything is
    /// taken back.
    pub critical: Vec<String>,
    /// Most bytes of one write.
    pub step: u64,
    /// Most bytes of one request.
    pub cap: u64,
    /// The least a limit may be.
    pub least_limit: u64,
    /// How long a write may take before its helper is ended.
    pub write_timeout: Duration,
    /// The guard takes a controller for hung that it has not heard of for this long.
    pub hang: Duration,
    /// The watchdog's thresholds.
    pub watchdog: Thresholds,
    /// First cool-down after harm; doubles each time.
    pub cooldown: Duration,
    /// Longest cool-down.
    pub cooldown_max: Duration,
    /// Shortest time between two `drop-caches`.
    pub drop_caches_every: Duration,
    /// Where the journal is.
    pub state_dir: PathBuf,
}

impl Default for Safety {
    fn default() -> Self {
        Safety {
            protect: Vec::new(),
            critical: [
                "init.scope",
                "systemd-journald.service",
                "systemd-logind.service",
                "systemd-udevd.service",
                "dbus.service",
                "dbus-broker.service",
                "ssh.service",
                "sshd.service",
                "grey-ebpf.service",
            ]
            .map(str::to_owned)
            .to_vec(),
            step: 32 << 20,
            cap: 64 << 30,
            least_limit: 64 << 20,
            write_timeout: Duration::from_secs(10),
            hang: Duration::from_millis(1200),
            watchdog: Thresholds::default(),
            cooldown: Duration::from_secs(60),
            cooldown_max: Duration::from_secs(24 * 3600),
            drop_caches_every: Duration::from_secs(60),
            state_dir: PathBuf::from(STATE_DIR),
        }
    }
}
