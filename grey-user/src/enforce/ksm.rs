//! `enforce ksm`: kernel samepage merging on and off, and whether it pays.

mod figures;
mod off;
mod rates;
mod status;
mod verdict;

use std::time::Duration;

use clap::Subcommand;
use grey_core::act::{Knob, KnobFile, Value};
use grey_core::event::{ActionOutcome, ActionPlan, ActionState, PlannedWrite};
use grey_core::units::format_bytes;

use crate::act::session::refused;
use crate::act::{Scene, Target, files, measure};
use crate::cli::Failure;
use crate::host::{Ksm, MemInfo};

use super::{Act, Actuator, Common, Plan};
use figures::{Knobs, Ksmd, Users};
use rates::{Advisor, Change, Found};
use verdict::{Seen, judge};

pub(crate) const EXAMPLES: &str = "Examples:
  grey-ebpf enforce ksm status            what is merged, what it costs, whether it pays
  grey-ebpf enforce ksm on --lease 60s    try it for a minute and judge
  grey-ebpf enforce ksm on                until `rollback`
  grey-ebpf enforce ksm off               no more scanning; what is merged stays merged

KSM merges only memory that programs offer: madvise(MADV_MERGEABLE), prctl(PR_SET_MEMORY_MERGE),
QEMU -machine mem-merge=on, systemd MemoryKSM=yes.";

pub(crate) const ON: &str = "Pace: by the kernel's advisor (6.8 and later), which is given at most 20 % of a core; with --aggressive
a whole scan in 60 s instead of 200 s and the CPU bound as it is (the kernel's default is 70 %).
Without an advisor: all anonymous memory in 200 s, in batches of 64 to 1250 pages (ksmtuned's bounds)
each 20 ms; rates that differ from the kernel's own (100 pages, 20 ms) are somebody's choice and stay.
With --aggressive 1250 pages or more, and empty pages are merged too (use_zero_pages).

Undoing puts every file back as it was. Pages that were merged by then stay merged.";

/// Arguments of `ksm`.
#[derive(Clone, Debug, clap::Args)]
pub struct KsmArgs {
    /// What to do.
    #[command(subcommand)]
    pub what: What,
}

/// On, off, or only a look.
#[derive(Clone, Debug, Subcommand)]
pub enum What {
    /// Scan for equal pages and merge them
    #[command(after_help = ON)]
    On(OnArgs),
    /// Stop scanning; with --unmerge also give every process its own pages back
    #[command(after_help = off::HELP)]
    Off(OffArgs),
    /// What is merged, what it costs, and whether it pays; changes nothing
    #[command(after_help = status::HELP)]
    Status,
}

/// Arguments of `ksm on`.
#[derive(Clone, Debug, clap::Args)]
pub struct OnArgs {
    /// Scan faster, and merge empty pages too
    #[arg(long)]
    pub aggressive: bool,
    /// Who paces the scan [default: the kernel where it can]
    #[arg(long, value_enum)]
    pub advisor: Option<Advisor>,
}

/// Arguments of `ksm off`.
#[derive(Clone, Debug, clap::Args)]
pub struct OffArgs {
    /// Undo all merging, if there is memory for it
    #[arg(long)]
    pub unmerge: bool,
}

pub(super) use off::Off;
pub(super) use status::run as status;

/// The machine's figures with what KSM saves.
fn machine(scene: &Scene) -> ActionState {
    let mut state = measure::machine(scene);
    let ksm = figures::machine(&scene.host, &mut Vec::new());
    state.ksm_profit = figures::profit(&ksm).map(|(profit, _)| profit);
    state
}

/// One planned write; `knobs` hold the new value from then on, for what is told of the next.
fn written(knobs: &mut Knobs, file: KnobFile, new: &Value, reversible: bool) -> PlannedWrite {
    let old = knobs.insert(file, new.clone());
    PlannedWrite {
        file: Knob::machine(file).to_string(),
        old: old.map(|old| old.to_string()),
        new: new.to_string(),
        reversible,
    }
}

fn plan(common: &Common, writes: Vec<PlannedWrite>, effect: String) -> Plan {
    Plan {
        action: ActionPlan {
            id: None,
            kind: "ksm".to_owned(),
            target: "machine".to_owned(),
            planned_bytes: None,
            reason: common.reason.clone(),
            dry_run: false,
            writes,
            effect: Some(effect),
            lease_s: None,
            policy: None,
            expected_harm: None,
        },
        target: None,
        lease: common.lease,
    }
}

/// One write to `run` that is not taken back.
fn write_run(act: &mut Act<'_>, value: &Value, within: Duration) -> Result<(), Failure> {
    let knob = Knob::machine(KnobFile::KsmRun);
    let scene = &act.session.scene;
    let file = files::open(
        &scene.host,
        &scene.cgroups,
        &knob,
        rustix::fs::OFlags::WRONLY,
    );
    let result = file.and_then(|file| act.session.write(file, value.as_str().as_bytes(), within));
    act.session.poll()?;
    match result {
        Ok(_) => Ok(()),
        Err(fault) => Err(Failure::failed(format!("{knob}: {fault}"))),
    }
}

/// `ksm on`.
pub(super) struct On<'a> {
    args: &'a OnArgs,
    changes: Vec<Change>,
    /// `run` is 2 and has to be 0 first.
    leave_unmerged: bool,
    /// ksmd's time and the counts when it was turned on.
    began: Option<(Option<Ksmd>, Ksm)>,
}

impl<'a> On<'a> {
    pub(super) fn new(args: &'a OnArgs) -> Self {
        On {
            args,
            changes: Vec::new(),
            leave_unmerged: false,
            began: None,
        }
    }
}

impl Actuator for On<'_> {
    fn plan(&mut self, scene: &Scene, common: &Common) -> Result<Plan, Failure> {
        let mut knobs = figures::knobs(scene)?;
        let run = knobs.get(&KnobFile::KsmRun).and_then(Value::as_number);
        self.leave_unmerged = run == Some(2);
        if self.leave_unmerged && !common.force {
            return Err(refused(
                "/sys/kernel/mm/ksm/run is 2 (off, everything unmerged): undoing would have to write 2 again, which unmerges all at once and may take more memory than there is; write 0 there first, or --force, which leaves 0 there",
            ));
        }
        let page = rustix::param::page_size() as u64;
        let anon = MemInfo::read(&scene.host).ok().and_then(|info| info.anon);
        let found = Found {
            knobs: &knobs,
            anon_pages: anon.map(|bytes| bytes / page),
        };
        self.changes =
            rates::on(&found, self.args.advisor, self.args.aggressive).map_err(|why| {
                Failure::unsupported(format!(
                    "--advisor scan-time: {why}; leave it out to scan at fixed rates"
                ))
            })?;
        let mut writes = Vec::new();
        if self.leave_unmerged {
            writes.push(written(
                &mut knobs,
                KnobFile::KsmRun,
                &Value::number(0),
                false,
            ));
        }
        for change in &self.changes {
            writes.push(written(&mut knobs, change.file, &change.new, true));
        }
        let offered = figures::tracked(&figures::machine(&scene.host, &mut Vec::new()));
        let mut effect = if writes.is_empty() {
            "KSM is on and paced so already: nothing is written".to_owned()
        } else {
            "equal pages of the memory that programs offer are merged; the scan takes CPU time"
                .to_owned()
        };
        if let Some(pages) = offered.filter(|pages| *pages > 0) {
            effect.push_str(&format!(
                "; {} are known to KSM",
                format_bytes(pages.saturating_mul(page))
            ));
        }
        if self.changes.iter().any(|change| change.leaves.is_some()) {
            effect.push_str("; the advisor then sets pages_to_scan itself, and what it holds now is noted first");
        }
        Ok(plan(common, writes, effect))
    }

    fn act(&mut self, act: &mut Act<'_>) -> Result<(), Failure> {
        if self.leave_unmerged {
            write_run(
                act,
                &Value::number(0),
                act.session.scene.safety.write_timeout,
            )?;
        }
        let host = act.session.scene.host.clone();
        self.began = Some((Ksmd::read(&host), figures::machine(&host, &mut Vec::new())));
        for change in &self.changes {
            let knob = Knob::machine(change.file);
            act.session
                .set_before(act.id, &knob, &change.new, change.leaves.as_ref())?;
        }
        if self.changes.is_empty() {
            act.notes.push("KSM was on and paced so already".to_owned());
        }
        act.notes.push("`grey-ebpf enforce ksm status` tells whether it pays, once all offered memory was scanned twice".to_owned());
        Ok(())
    }

    fn measure(&self, scene: &Scene, _target: Option<&Target>) -> ActionState {
        machine(scene)
    }

    fn settle(&mut self, scene: &Scene, outcome: &mut ActionOutcome) {
        let ksm = figures::machine(&scene.host, &mut Vec::new());
        let (ksmd, began) = self.began.take().unwrap_or_default();
        let cpu_pct = ksmd.and_then(|before| before.again(&scene.host)?.percent_since(&before));
        let verdict = judge(&Seen {
            ksm: &ksm,
            users: &Users::read(&scene.host),
            cpu_pct,
            scans: ksm
                .full_scans
                .zip(began.full_scans)
                .map(|(now, then)| now.saturating_sub(then)),
            seen_on: true,
            skipping: ksm.pages_skipped > began.pages_skipped,
        });
        outcome.notes.clear();
        outcome.notes.push(format!("verdict: {}", verdict.text));
        outcome.notes.extend(verdict.next);
        if figures::saved(&ksm) > Some(0) {
            outcome.notes.push(
                "what was merged stays so until it is written to, or until `grey-ebpf enforce ksm off --unmerge`"
                    .to_owned(),
            );
        }
        if let Some(after) = &mut outcome.after {
            after.ksm_profit = figures::profit(&ksm).map(|(profit, _)| profit);
        }
    }
}
