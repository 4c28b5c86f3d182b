//! Probes that are taken off for a while and put back. Their programs stay loaded and their maps keep what was counted.

use std::time::Duration;

use aya::Ebpf;

use super::attach::{Attached, attach, detach};
use super::load::Kernel;
use super::plan;
use crate::doctor::ProbeStatus;

/// Probes that are switched together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// mmap and its like.
    Calls,
    /// Page faults, and growth, which is seen at them.
    Faults,
}

impl Family {
    fn of(family: &str) -> Option<Family> {
        match family {
            "vm" => Some(Family::Calls),
            "fault" | "growth" => Some(Family::Faults),
            _ => None,
        }
    }
}

/// Run time of the programs since they were loaded, as far as the kernel measured it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunTimes {
    /// Of [`Family::Calls`].
    pub calls: Duration,
    /// Of [`Family::Faults`].
    pub faults: Duration,
    /// Of all others.
    pub other: Duration,
}

impl Kernel {
    /// Whether any probe of this family is attached.
    #[must_use]
    pub fn has_any(&self, family: Family) -> bool {
        self.probes
            .iter()
            .any(|probe| probe.attached.is_some() && Family::of(&probe.family) == Some(family))
    }

    /// Run time by family.
    #[must_use]
    pub fn run_times(&self) -> RunTimes {
        let mut times = RunTimes::default();
        for attached in &self.attached {
            let family = self
                .probes
                .iter()
                .find(|probe| probe.name == attached.probe)
                .and_then(|probe| Family::of(&probe.family));
            let sum = match family {
                Some(Family::Calls) => &mut times.calls,
                Some(Family::Faults) => &mut times.faults,
                None => &mut times.other,
            };
            for (program, _) in &attached.programs {
                let info = self
                    .ebpf
                    .program(program)
                    .and_then(|program| program.info().ok());
                *sum += info.map_or(Duration::ZERO, |info| info.run_time());
            }
        }
        times
    }

    /// Takes the attached probes of a family off; `reason` is told with them.
    ///
    /// # Errors
    /// The first program that could not be taken off. Its probe stays as it is.
    pub fn switch_off(&mut self, family: Family, reason: &str) -> Result<(), String> {
        let table = plan::probes();
        let mut result = Ok(());
        for status in &mut self.probes {
            let Some(attached) = self.attached.iter_mut().find(|attached| {
                attached.probe == status.name
                    && attached.before.is_none()
                    && Family::of(&status.family) == Some(family)
            }) else {
                continue;
            };
            if let Err(error) = take_off(&mut self.ebpf, attached) {
                result = result.and(Err(error));
                continue;
            }
            let lost = table.iter().find(|probe| probe.name == attached.probe);
            let off = ProbeStatus {
                attached: None,
                cost: None,
                lost: lost.map(|probe| probe.lost.to_owned()),
                reason: Some(reason.to_owned()),
                ..status.clone()
            };
            attached.before = Some(std::mem::replace(status, off));
        }
        result
    }

    /// Puts back what [`Kernel::switch_off`] took off: all of it, or nothing.
    ///
    /// # Errors
    /// The first program that could not be attached again; its probe says so.
    pub fn switch_on(&mut self, family: Family) -> Result<(), String> {
        for status in &mut self.probes {
            let Some(attached) = self.attached.iter_mut().find(|attached| {
                attached.probe == status.name
                    && attached.before.is_some()
                    && Family::of(&status.family) == Some(family)
            }) else {
                continue;
            };
            match put_back(&mut self.ebpf, attached) {
                Ok(()) => {
                    if let Some(before) = attached.before.take() {
                        *status = before;
                    }
                }
                Err(error) => {
                    let reason = format!("could not be attached again: {error}");
                    self.switch_off(family, &reason)?;
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

fn take_off(ebpf: &mut Ebpf, attached: &mut Attached) -> Result<(), String> {
    // In the order of attaching: what sees the begin goes before what sees the end.
    let links = attached.links.drain(..);
    links
        .zip(&attached.programs)
        .map(|(link, (program, _))| detach(ebpf, program, link))
        .fold(Ok(()), Result::and)
}

fn put_back(ebpf: &mut Ebpf, attached: &mut Attached) -> Result<(), String> {
    for (program, hook) in &attached.programs {
        match attach(ebpf, program, *hook) {
            Ok(link) => attached.links.push(link),
            Err(error) => {
                take_off(ebpf, attached)?;
                return Err(error);
            }
        }
    }
    Ok(())
}
