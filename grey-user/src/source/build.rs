//! One cgroup's counters and files become a `sample`.

use grey_common::CgroupCounters;
use grey_core::event::{Body, Cpu, Faults, Limit, Mem, MemSource, Reclaim, Sample, Vm};
use grey_core::time::Timestamp;

use super::{Coverage, Known, Notice, OPEN_CGROUPS, Observer, figure};
use crate::host::Reading;

impl Observer {
    /// Reads a cgroup's files and tells what they and the counters say.
    pub(super) fn sample(&mut self, id: u64, now: Timestamp, out: &mut Vec<Notice>) {
        let reading = match self.reading(id) {
            Some(Ok(reading)) => Some(reading),
            // Removed; the record or the next walk cleans up.
            Some(Err(())) => return,
            None => None,
        };
        let many = self.known.len() > OPEN_CGROUPS;
        let Some(known) = self.known.get_mut(&id) else {
            return;
        };
        known.sampled = now;
        if !known.wanted {
            // For the detector's eyes only.
            if let (Some(judge), Some(reading)) = (&mut self.judge, reading) {
                let sample = Sample {
                    mem: reading.mem,
                    ..Sample::default()
                };
                judge.sample(&known.cgroup.cgroup(), &sample, now);
                self.tell_findings(out);
            }
            return;
        }
        let totals = self.tree.totals(id).copied().unwrap_or_default();
        let coverage = known.gap.take().map_or(self.coverage, |gap| *gap);
        let probed = self.kernel.is_some();
        let cpu = match &mut known.files {
            Some(files) if self.options.cpu => files.read_cpu(&mut self.buf),
            _ => None,
        };
        if !known.active
            && many
            && let Some(files) = &mut known.files
        {
            files.release();
        }
        let current = reading.as_ref().and_then(|reading| reading.mem.current);
        known.level = (current.into(), cpu.into());
        let cpu = cpu.map(|usage_us_total| Cpu { usage_us_total });
        let major = reading.as_ref().and_then(|reading| reading.pgmajfault);
        let (mem, mem_source) = match &reading {
            Some(reading) if known.cgroup.path() == "/" => {
                (reading.mem.clone(), Some(MemSource::Machine))
            }
            Some(reading) => (reading.mem.clone(), Some(MemSource::Files)),
            None if known.processes_known && !self.fs.has_memory() => (
                Mem {
                    anon: Some(figure(known.all.anon)),
                    swap: Some(figure(known.all.swap)),
                    ..Mem::default()
                },
                Some(MemSource::Processes),
            ),
            None => (Mem::default(), None),
        };
        let sample = Sample {
            faults: faults(&totals, coverage, known, major).filter(|_| probed || major.is_some()),
            vm: vm(&totals, coverage, known),
            reclaim: reclaim(
                &totals,
                coverage,
                known,
                reading.as_ref().and_then(|reading| reading.refault),
            ),
            psi: reading.as_ref().and_then(|reading| reading.psi.clone()),
            events: reading.as_ref().and_then(|reading| reading.events.clone()),
            cpu,
            processes: known.processes_known.then_some(figure(known.all.count)),
            mem,
            mem_source,
        };
        let cgroup = known.cgroup.cgroup();
        if let Some(events) = &sample.events {
            self.count_kills(id, events.oom_kill_total, now, out);
        }
        self.emit(Body::Sample(Box::new(sample)), now, Some(cgroup), out);
    }

    /// `None`: there are no files to read. `Some(Err)`: the cgroup is gone.
    fn reading(&mut self, id: u64) -> Option<Result<Reading, ()>> {
        let slow = self.options.slow_ticks.max(1);
        let known = self.known.get_mut(&id)?;
        if known.cgroup.path() == "/" {
            let reading = match &mut known.files {
                Some(files) => Reading::of_root(&self.host, files, &mut self.buf),
                None => Reading::of_machine(&self.host),
            };
            return match reading {
                Ok(reading) => Some(Ok(reading)),
                Err(error) => {
                    self.read_errors += 1;
                    tracing::debug!("{error}");
                    None
                }
            };
        }
        let files = known.files.as_mut()?;
        // Limits change seldom: on the first reading and then at the slow pace.
        if known
            .limits_at
            .get()
            .is_none_or(|at| self.tick >= at + slow)
        {
            known.limits_at = Some(self.tick).into();
            match files.read_limits(&mut self.buf) {
                Ok(limits) => known.limited = limits.max.bytes().is_some(),
                Err(_) => return Some(Err(())),
            }
        }
        if !known.wanted && !known.limited {
            let mem = Mem {
                max: Limit::None,
                ..Mem::default()
            };
            return Some(Ok(Reading {
                mem,
                ..Reading::default()
            }));
        }
        match files.read(&mut self.buf) {
            Ok(reading) => {
                if reading.errors > 0 {
                    self.read_errors += u64::from(reading.errors);
                    if let Some(error) = files.last_error() {
                        tracing::debug!("{error}");
                    }
                }
                Some(Ok(reading))
            }
            Err(_) => Some(Err(())),
        }
    }
}

fn faults(
    totals: &CgroupCounters,
    coverage: Coverage,
    known: &mut Known,
    major: Option<u64>,
) -> Option<Faults> {
    let counted = coverage.fault_user && coverage.fault_kernel;
    // Major faults that came while none were counted are not taken off those that were.
    if let (false, Some(base), Some(seen), Some(major)) = (
        counted,
        known.major_base.get(),
        known.major_seen.get(),
        major,
    ) {
        known.major_base = Some(base + major.saturating_sub(seen)).into();
    }
    known.major_seen = major.or(known.major_seen.get()).into();
    let user = totals.fault_user_read + totals.fault_user_write + totals.fault_user_exec;
    let minor = counted.then(|| {
        let all = user + totals.fault_kernel;
        let major = major.map_or(0, |major| {
            major.saturating_sub(known.major_base.get_or_insert(major))
        });
        // The two are read one after the other, so the difference may step back by what came in between.
        known.minor_shown = known.minor_shown.max(all.saturating_sub(major));
        known.minor_shown
    });
    let faults = Faults {
        minor_total: minor,
        major_total: major,
        user_read_total: coverage.fault_user.then_some(totals.fault_user_read),
        user_write_total: coverage.fault_user.then_some(totals.fault_user_write),
        user_exec_total: coverage.fault_user.then_some(totals.fault_user_exec),
        kernel_total: coverage.fault_kernel.then_some(totals.fault_kernel),
    };
    (faults != Faults::default()).then_some(faults)
}

fn vm(totals: &CgroupCounters, coverage: Coverage, known: &Known) -> Option<Vm> {
    let moves = coverage.mremap && coverage.brk;
    let vm = Vm {
        mapped_total: (coverage.mmap && moves)
            .then_some(totals.mmap_bytes + totals.mremap_grown_bytes + totals.brk_grown_bytes),
        unmapped_total: (coverage.munmap && moves)
            .then_some(totals.munmap_bytes + totals.mremap_shrunk_bytes + totals.brk_shrunk_bytes),
        released_total: coverage.madvise.then_some(totals.madvise_bytes),
        map_calls_total: (coverage.mmap && moves)
            .then_some(totals.mmap_calls + totals.mremap_calls + totals.brk_calls),
        unmap_calls_total: coverage.munmap.then_some(totals.munmap_calls),
        release_calls_total: coverage.madvise.then_some(totals.madvise_calls),
        r#virtual: known.processes_known.then_some(figure(known.all.virt)),
    };
    (vm != Vm::default()).then_some(vm)
}

fn reclaim(
    totals: &CgroupCounters,
    coverage: Coverage,
    known: &Known,
    refault: Option<u64>,
) -> Option<Reclaim> {
    let both = coverage.direct && coverage.memcg;
    let any = coverage.direct || coverage.memcg;
    let reclaim = Reclaim {
        stall_us_total: both.then_some((totals.direct_ns + totals.memcg_ns) / 1000),
        pages_total: both.then_some(totals.direct_pages + totals.memcg_pages),
        direct_us_total: coverage.direct.then_some(totals.direct_ns / 1000),
        memcg_us_total: coverage.memcg.then_some(totals.memcg_ns / 1000),
        kswapd_us_total: (coverage.kswapd && known.cgroup.path() == "/")
            .then_some(totals.kswapd_ns / 1000),
        own_pages_total: any.then_some(totals.own_pages),
        own_us_total: any.then_some(totals.own_ns / 1000),
        refault_total: refault,
    };
    (reclaim != Reclaim::default()).then_some(reclaim)
}
