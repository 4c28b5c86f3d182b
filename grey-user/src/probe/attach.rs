//! Attaches a probe in the first of its ways that works.

use std::os::fd::{AsFd as _, OwnedFd};

use aya::programs::fentry::FEntryLinkId;
use aya::programs::fexit::FExitLinkId;
use aya::programs::kprobe::KProbeLinkId;
use aya::programs::tp_btf::BtfTracePointLinkId;
use aya::programs::trace_point::TracePointLinkId;
use aya::programs::{BtfTracePoint, FEntry, FExit, Iter, KProbe, TracePoint};
use aya::{Btf, Ebpf};
use grey_common::NO_OFFSET;

use super::check;
use super::facts::Facts;
use super::levels;
use super::load::{FAIL_VAR, Settings, one_line};
use super::plan::{Hook, Probe, SYSCALL_TRACEPOINT, WITHIN_FAULTS, Way};
use crate::doctor::ProbeStatus;

pub(super) fn growth_possible(facts: &Facts) -> Result<(), String> {
    let offsets = &facts.offsets;
    if [offsets.task_mm, offsets.mm_rss, offsets.mm_total_vm].contains(&NO_OFFSET) {
        return Err(facts
            .btf_error
            .clone()
            .unwrap_or_else(|| facts.missing.join("; ")));
    }
    Ok(())
}

/// How a probe is attached, to take it off and put it back.
pub(super) struct Attached {
    pub(super) probe: &'static str,
    pub(super) programs: Vec<(&'static str, Hook)>,
    /// One for each program; none while they are off.
    pub(super) links: Vec<Link>,
    /// What is told of it while it is on; kept while it is off.
    pub(super) before: Option<ProbeStatus>,
}

/// What a program is attached by.
pub(super) enum Link {
    Btf(BtfTracePointLinkId),
    Fentry(FEntryLinkId),
    Fexit(FExitLinkId),
    Kprobe(KProbeLinkId),
    Record(TracePointLinkId),
    /// aya attaches no iterator that wants to be told where to begin.
    Iter(OwnedFd),
}

/// Tries the ways of a probe in order.
pub(super) fn attach_probe(
    ebpf: &mut Ebpf,
    facts: &Facts,
    settings: &Settings,
    vmlinux: Option<&Btf>,
    probe: &Probe,
    before: &[ProbeStatus],
) -> (ProbeStatus, Option<Attached>) {
    let mut reasons: Vec<String> = Vec::new();
    let faults = before
        .iter()
        .any(|status| status.name == "fault_user" && status.attached.is_some());
    for way in &probe.ways {
        let result = allowed(facts, settings, probe, way, faults)
            .and_then(|()| attach_way(ebpf, facts, vmlinux, way));
        match result {
            Ok(links) => {
                let status = ProbeStatus {
                    name: probe.name.to_owned(),
                    family: probe.family.to_owned(),
                    attached: Some(way.label.to_owned()),
                    hook: probe.hook.to_owned(),
                    cost: way.cost.map(str::to_owned),
                    lost: None,
                    reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
                };
                let attached = Attached {
                    probe: probe.name,
                    programs: way.programs.clone(),
                    links,
                    before: None,
                };
                return (status, Some(attached));
            }
            Err(reason) => {
                tracing::debug!(probe = probe.name, way = way.label, %reason, "not attached");
                reasons.push(format!("{}: {reason}", way.label));
            }
        }
    }
    (off(probe, reasons.join("; ")), None)
}

/// A probe that is not attached.
pub(super) fn off(probe: &Probe, reason: String) -> ProbeStatus {
    ProbeStatus {
        name: probe.name.to_owned(),
        family: probe.family.to_owned(),
        attached: None,
        hook: probe.hook.to_owned(),
        cost: None,
        lost: Some(probe.lost.to_owned()),
        reason: Some(reason),
    }
}

/// Whether a way may be tried at all: switched off, made to fail, or without what it stands on.
fn allowed(
    facts: &Facts,
    settings: &Settings,
    probe: &Probe,
    way: &Way,
    faults: bool,
) -> Result<(), String> {
    if settings.must_fail(probe.name, way.label) {
        return Err(format!("made to fail by {FAIL_VAR}"));
    }
    if way.label == SYSCALL_TRACEPOINT && !settings.syscall_tracepoints {
        return Err(
            "every system call of the machine would pay for it (--syscall-tracepoints on)"
                .to_owned(),
        );
    }
    if probe.family == "growth" {
        if settings.growth_bytes == 0 {
            return Err("switched off (--growth 0)".to_owned());
        }
        growth_possible(facts)?;
    }
    if way.label == WITHIN_FAULTS && !faults {
        return Err("fault_user is not attached".to_owned());
    }
    Ok(())
}

/// Loads and attaches all programs of a way; on any error none of them stays.
fn attach_way(
    ebpf: &mut Ebpf,
    facts: &Facts,
    vmlinux: Option<&Btf>,
    way: &Way,
) -> Result<Vec<Link>, String> {
    for (_, hook) in &way.programs {
        check::check(facts, *hook)?;
    }
    let mut links = Vec::new();
    for (n, (program, hook)) in way.programs.iter().enumerate() {
        let link = load(ebpf, vmlinux, program, *hook).and_then(|()| attach(ebpf, program, *hook));
        match link {
            Ok(link) => links.push(link),
            Err(reason) => {
                for (program, hook) in &way.programs[..=n] {
                    unload(ebpf, program, *hook);
                }
                return Err(reason);
            }
        }
    }
    Ok(links)
}

fn load(ebpf: &mut Ebpf, vmlinux: Option<&Btf>, name: &str, hook: Hook) -> Result<(), String> {
    let btf = || vmlinux.ok_or("aya could not read the kernel's BTF");
    let program = ebpf
        .program_mut(name)
        .ok_or_else(|| format!("the object has no program {name}"))?;
    let result = match hook {
        Hook::Btf(tracepoint, _) => {
            let btf = btf()?;
            <&mut BtfTracePoint>::try_from(program)
                .and_then(|program| program.load(tracepoint, btf))
        }
        Hook::Fentry(function) => {
            let btf = btf()?;
            <&mut FEntry>::try_from(program).and_then(|program| program.load(function, btf))
        }
        Hook::Fexit(function) => {
            let btf = btf()?;
            <&mut FExit>::try_from(program).and_then(|program| program.load(function, btf))
        }
        Hook::Kprobe(_) | Hook::Kretprobe(_) => {
            <&mut KProbe>::try_from(program).and_then(|program| program.load())
        }
        Hook::Record(..) => <&mut TracePoint>::try_from(program).and_then(|program| program.load()),
        Hook::Iter(object) => {
            let btf = btf()?;
            <&mut Iter>::try_from(program).and_then(|program| program.load(object, btf))
        }
    };
    result.map_err(|error| format!("program {name}: {}", one_line(&error)))
}

/// Attaches a program that is loaded.
pub(super) fn attach(ebpf: &mut Ebpf, name: &str, hook: Hook) -> Result<Link, String> {
    let program = ebpf
        .program_mut(name)
        .ok_or_else(|| format!("the object has no program {name}"))?;
    let result = match hook {
        Hook::Btf(..) => <&mut BtfTracePoint>::try_from(program)
            .and_then(|program| program.attach())
            .map(Link::Btf),
        Hook::Fentry(_) => <&mut FEntry>::try_from(program)
            .and_then(|program| program.attach())
            .map(Link::Fentry),
        Hook::Fexit(_) => <&mut FExit>::try_from(program)
            .and_then(|program| program.attach())
            .map(Link::Fexit),
        Hook::Kprobe(function) | Hook::Kretprobe(function) => <&mut KProbe>::try_from(program)
            .and_then(|program| program.attach(function, 0))
            .map(Link::Kprobe),
        Hook::Record(category, event) => <&mut TracePoint>::try_from(program)
            .and_then(|program| program.attach(category, event))
            .map(Link::Record),
        Hook::Iter(_) => {
            let program = program.fd().map_err(|error| error.to_string())?;
            return levels::attach(program.as_fd())
                .map(Link::Iter)
                .map_err(|error| format!("program {name}: {error}"));
        }
    };
    result.map_err(|error| format!("program {name}: {}", one_line(&error)))
}

/// Takes an attached program off; it stays loaded.
pub(super) fn detach(ebpf: &mut Ebpf, name: &str, link: Link) -> Result<(), String> {
    let program = ebpf
        .program_mut(name)
        .ok_or_else(|| format!("the object has no program {name}"))?;
    let result = match link {
        Link::Btf(link) => {
            <&mut BtfTracePoint>::try_from(program).and_then(|program| program.detach(link))
        }
        Link::Fentry(link) => {
            <&mut FEntry>::try_from(program).and_then(|program| program.detach(link))
        }
        Link::Fexit(link) => {
            <&mut FExit>::try_from(program).and_then(|program| program.detach(link))
        }
        Link::Kprobe(link) => {
            <&mut KProbe>::try_from(program).and_then(|program| program.detach(link))
        }
        Link::Record(link) => {
            <&mut TracePoint>::try_from(program).and_then(|program| program.detach(link))
        }
        // Its end is its being closed.
        Link::Iter(_) => Ok(()),
    };
    result.map_err(|error| format!("program {name}: {}", one_line(&error)))
}

fn unload(ebpf: &mut Ebpf, name: &str, hook: Hook) {
    let Some(program) = ebpf.program_mut(name) else {
        return;
    };
    // An error here means it was never loaded.
    let _ = match hook {
        Hook::Btf(..) => {
            <&mut BtfTracePoint>::try_from(program).and_then(|program| program.unload())
        }
        Hook::Fentry(_) => <&mut FEntry>::try_from(program).and_then(|program| program.unload()),
        Hook::Fexit(_) => <&mut FExit>::try_from(program).and_then(|program| program.unload()),
        Hook::Kprobe(_) | Hook::Kretprobe(_) => {
            <&mut KProbe>::try_from(program).and_then(|program| program.unload())
        }
        Hook::Record(..) => {
            <&mut TracePoint>::try_from(program).and_then(|program| program.unload())
        }
        Hook::Iter(_) => <&mut Iter>::try_from(program).and_then(|program| program.unload()),
    };
}
