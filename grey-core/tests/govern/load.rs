//! One cgroup of the model: what it has in memory, what it uses of it, and what it costs to get back what was taken.

/// Bytes in a page.
pub(crate) const PAGE: f64 = 4096.0;
/// Time a task waits for a page of page cache (a disk that reads ahead) and of swap (compressed in memory), µs.
const FILE_US: f64 = 40.0;
const ANON_US: f64 = 15.0;

/// Memory of one kind, bytes. What is hot is used again within seconds, what is cold seldom, what is dead never.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pool {
    pub(crate) hot: f64,
    pub(crate) cold: f64,
    pub(crate) dead: f64,
    /// Taken out of memory.
    pub(crate) out_hot: f64,
    pub(crate) out_cold: f64,
    pub(crate) out_dead: f64,
}

impl Pool {
    pub(crate) fn resident(&self) -> f64 {
        self.hot + self.cold + self.dead
    }

    pub(crate) fn out(&self) -> f64 {
        self.out_hot + self.out_cold + self.out_dead
    }

    /// The kernel takes up to `bytes`: the least recently used, but of what it takes a part `error` is hot.
    fn take(&mut self, bytes: f64, error: f64) -> f64 {
        let bytes = bytes.min(self.resident());
        let still = self.cold + self.dead;
        let wrong = (bytes * error).min(self.hot);
        let right = (bytes - wrong).min(still);
        let hot = bytes - right;
        // What was not used for longest goes first, by and large.
        let dead = (right * 4.0 * self.dead / (4.0 * self.dead + self.cold).max(1.0))
            .max(right - self.cold)
            .clamp(0.0, self.dead);
        self.hot = (self.hot - hot).max(0.0);
        self.out_hot += hot;
        self.dead -= dead;
        self.out_dead += dead;
        self.cold = (self.cold - (right - dead)).max(0.0);
        self.out_cold += right - dead;
        bytes
    }

    /// What is used again comes back; bytes, at most `most`.
    fn touch(&mut self, hot: f64, cold: f64, most: f64) -> f64 {
        let (mut hot, mut cold) = (self.out_hot * hot, self.out_cold * cold);
        let all = hot + cold;
        if all > most {
            hot *= most / all;
            cold *= most / all;
        }
        self.hot += hot;
        self.out_hot -= hot;
        self.cold += cold;
        self.out_cold -= cold;
        hot + cold
    }

    /// So much of the hot set becomes cold, and as much of the cold hot, in memory or not.
    fn drift(&mut self, bytes: f64) {
        let cold = self.cold + self.out_cold;
        let bytes = bytes.min(self.hot).min(cold);
        if bytes <= 0.0 {
            return;
        }
        let out = bytes * self.out_cold / cold;
        self.hot -= bytes;
        self.cold += bytes;
        self.out_cold -= out;
        self.out_hot += out;
        self.cold -= bytes - out;
        self.hot += bytes - out;
    }
}

/// What a cgroup does.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) path: String,
    pub(crate) kind: &'static str,
    pub(crate) file: Pool,
    pub(crate) anon: Pool,
    /// The hot set is gone through once in so many seconds, the cold one in so many.
    pub(crate) hot_s: f64,
    pub(crate) cold_s: f64,
    /// Page cache of files that are read or written once, bytes a second.
    pub(crate) stream: f64,
    /// Anonymous memory that is never used again, bytes a second, and up to where.
    pub(crate) growth: f64,
    pub(crate) growth_most: f64,
    /// Anonymous bytes for a while, every so many seconds, for so many.
    pub(crate) burst: Option<(f64, u64, u64)>,
    /// Part of the hot set that changes in an hour.
    pub(crate) drift: f64,
    /// CPUs when it works.
    pub(crate) cpus: f64,
    /// Part of its work that depends on the time of the day, and the hour at which there is least of it.
    pub(crate) daily: f64,
    pub(crate) least_at: f64,
    /// It works for so many seconds and rests for so many.
    pub(crate) shifts: Option<(u64, u64)>,
    /// Shifts the above against those of other cgroups, seconds.
    pub(crate) phase: u64,
    pub(crate) totals: Totals,
    /// Anonymous memory of the burst now.
    pub(crate) bursting: f64,
    pub(crate) grown: f64,
}

/// Counters.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) some_us: f64,
    pub(crate) full_us: f64,
    pub(crate) refaults: f64,
    pub(crate) majors: f64,
    pub(crate) minors: f64,
    pub(crate) cpu_us: f64,
}

impl Default for Load {
    fn default() -> Self {
        Load {
            path: String::new(),
            kind: "service",
            file: Pool::default(),
            anon: Pool::default(),
            hot_s: 5.0,
            cold_s: 3600.0,
            stream: 0.0,
            growth: 0.0,
            growth_most: 0.0,
            burst: None,
            drift: 0.05,
            cpus: 0.5,
            daily: 0.0,
            least_at: 3.0,
            shifts: None,
            phase: 0,
            totals: Totals::default(),
            bursting: 0.0,
            grown: 0.0,
        }
    }
}

impl Load {
    pub(crate) fn resident(&self) -> f64 {
        self.file.resident() + self.anon.resident()
    }

    /// How much it works at this second since midnight of the first day, 0 to 1.
    pub(crate) fn activity(&self, second: u64) -> f64 {
        let at = second + self.phase;
        let works = self
            .shifts
            .is_none_or(|(work, rest)| at % (work + rest) < work);
        let angle = ((second as f64 / 3600.0 - self.least_at) / 24.0) * std::f64::consts::TAU;
        let day = 1.0 - self.daily * (0.5 + 0.5 * angle.cos());
        if works { day } else { 0.0 }
    }

    /// Part of what the kernel takes that is hot: the longer a set is not gone through, the more of it looks cold.
    fn error(&self) -> f64 {
        (0.01 + self.hot_s / 300.0).min(0.5)
    }

    /// One second of work; `room` bytes of new memory can be had.
    pub(crate) fn work(&mut self, second: u64) {
        let active = self.activity(second);
        if active == 0.0 {
            return;
        }
        let mut new = self.stream * active;
        self.file.dead += new;
        if self.grown < self.growth_most {
            let grows = (self.growth * active).min(self.growth_most - self.grown);
            self.grown += grows;
            self.anon.dead += grows;
            new += grows;
        }
        if let Some((bytes, every, lasts)) = self.burst {
            let at = (second + self.phase) % every;
            let wanted = if at < lasts { bytes } else { 0.0 };
            if wanted > 0.0 {
                // A burst builds up in a few seconds.
                let more = (wanted - self.bursting).min(bytes / 4.0);
                self.anon.hot += more;
                self.bursting += more;
                new += more;
            } else if self.bursting > 0.0 {
                // What it leaves is freed wherever it is.
                let hot = self.anon.hot + self.anon.out_hot;
                let out = self.bursting * self.anon.out_hot / hot;
                self.anon.out_hot -= out;
                self.anon.hot -= self.bursting - out;
                self.bursting = 0.0;
            }
        }
        self.file.drift(self.file.hot * self.drift / 3600.0);
        self.anon.drift(self.anon.hot * self.drift / 3600.0);
        let part = |period: f64| 1.0 - (-active / period).exp();
        let (hot, cold) = (part(self.hot_s), part(self.cold_s));
        // No more can be read in a second than there is time to wait for.
        let file = self.file.touch(hot, cold, 0.9e6 / FILE_US * PAGE) / PAGE;
        let left = 0.95e6 - file * FILE_US;
        let anon = self.anon.touch(hot, cold, left / ANON_US * PAGE) / PAGE;
        self.wait(file * FILE_US + anon * ANON_US, active);
        self.totals.refaults += file + anon;
        self.totals.majors += file / 8.0 + anon;
        self.totals.minors += new / PAGE + file;
    }

    /// It stalls for so long of this second.
    fn wait(&mut self, us: f64, active: f64) {
        self.totals.some_us += us;
        self.totals.full_us += us * 0.6;
        self.totals.cpu_us += self.cpus * active * (1e6 - us);
    }

    /// It stalls because others, or the machine, run short: time that is lost on top.
    pub(crate) fn stall(&mut self, us: f64) {
        self.totals.some_us += us;
        self.totals.full_us += us * 0.6;
        self.totals.cpu_us = (self.totals.cpu_us - us * self.cpus).max(0.0);
    }

    pub(crate) fn take_file(&mut self, bytes: f64) -> f64 {
        let error = self.error();
        let freed = self.file.take(bytes, error);
        // What was read once is not in anybody's way any more.
        self.file.out_dead = 0.0;
        freed
    }

    /// By the kernel's lists: without a mark of the last use it knows less of anonymous memory.
    pub(crate) fn take_anon(&mut self, bytes: f64, room: f64) -> f64 {
        let error = (2.0 * self.error()).min(0.6);
        self.anon.take(bytes.min(room), error)
    }

    /// What was not touched for ten seconds.
    pub(crate) fn take_idle(&mut self, second: u64, bytes: f64, room: f64) -> f64 {
        let touched = if self.activity(second) > 0.0 {
            (10.0 / self.hot_s).min(1.0)
        } else {
            0.0
        };
        let looks = self.anon.hot * (1.0 - touched);
        let idle = looks + self.anon.cold + self.anon.dead;
        let error = if idle > 0.0 { looks / idle } else { 0.0 };
        self.anon.take(bytes.min(room).min(idle), error)
    }

    /// Killed, and started anew.
    pub(crate) fn restart(&mut self) {
        let anon = &mut self.anon;
        let hot = anon.hot + anon.out_hot - self.bursting;
        *anon = Pool {
            hot: hot.max(0.0),
            ..Pool::default()
        };
        self.bursting = 0.0;
        self.grown = 0.0;
    }
}
