//! OOM kills where no probe tells of them: the counts of memory.events.

use grey_core::event::{Body, Oom};
use grey_core::time::Timestamp;

use super::{Notice, Observer};

impl Observer {
    /// Tells of the kills that nobody told of yet, `count` being oom_kill of the cgroup now. The kernel counts a kill
    /// in every ancestor too, and notifies of each in its own time: a kill is told once, for the lowest cgroup.
    pub(super) fn count_kills(
        &mut self,
        id: u64,
        count: u64,
        now: Timestamp,
        out: &mut Vec<Notice>,
    ) {
        let Some(known) = self.known.get_mut(&id) else {
            return;
        };
        if count <= known.oom_kills.get_or_insert(count) {
            return;
        }
        if self.coverage.oom {
            known.oom_kills = Some(count).into();
            return;
        }
        let children: Vec<u64> = self.tree.children(id).collect();
        for child in children {
            if let Some(count) = self.kill_count(child) {
                self.count_kills(child, count, now, out);
            }
        }
        // What was told for them has been added here.
        let Some(known) = self.known.get(&id) else {
            return;
        };
        let kills = count.saturating_sub(known.oom_kills.get().unwrap_or(count));
        if kills == 0 {
            return;
        }
        let cgroup = known.cgroup.cgroup();
        for at in self.tree.ancestors(id) {
            if let Some(known) = self.known.get_mut(&at)
                && let Some(told) = known.oom_kills.get()
            {
                known.oom_kills = Some(told + kills).into();
            }
        }
        let oom = Oom {
            victim: None,
            trigger: None,
            constraint: None,
            limit_cgroup: None,
            kills,
        };
        self.emit(Body::Oom { oom }, now, Some(cgroup), out);
    }

    /// oom_kill of a cgroup as it is now; `None` where it has no files or is gone.
    pub(super) fn kill_count(&mut self, id: u64) -> Option<u64> {
        let files = self.known.get_mut(&id)?.files.as_mut()?;
        let reading = files.read(&mut self.buf).ok()?;
        Some(reading.events?.oom_kill_total)
    }
}
