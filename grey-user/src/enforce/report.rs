//! `enforce report`: from which size on the host of this virtual machine is told of free memory.

use grey_core::act::{Knob, KnobFile, Value};
use grey_core::event::{ActionPlan, ActionState, PlannedWrite};
use grey_core::units::{Size, format_bytes, parse_size};

use crate::act::session::refused;
use crate::act::{Scene, Target, files, measure};
use crate::cli::Failure;
use crate::host::virt::Virt;

use super::{Act, Actuator, Common, Plan};

pub(crate) const EXAMPLES: &str = "Examples:
  grey-ebpf enforce report 16K --dry-run    which blocks are reported now
  grey-ebpf enforce report 16K              free memory goes back to the host in small blocks too
  grey-ebpf rollback                        as it was

For a guest whose balloon has free-page reporting. The kernel reports blocks of 2M and larger by itself, and after a pageout few
blocks of that size are free. Smaller ones give back more of it; the host takes them piece by piece, out of its huge pages.";

/// 2^10 pages are the largest block that the kernel keeps.
const MOST: u64 = 10;

/// Arguments of `report`.
#[derive(Clone, Debug, clap::Args)]
pub struct ReportArgs {
    /// The smallest block: a power of two from 4K to 4M
    #[arg(value_name = "SIZE", value_parser = block)]
    pub order: u64,
}

/// The order of a block of this size.
pub(crate) fn block(text: &str) -> Result<u64, String> {
    let page = rustix::param::page_size() as u64;
    match parse_size(text).map_err(|error| error.to_string())? {
        Size::Bytes(bytes) if bytes.is_power_of_two() && bytes >= page && bytes <= page << MOST => {
            Ok((bytes / page).trailing_zeros().into())
        }
        _ => Err(format!(
            "a block is a power of two from {} to {}",
            format_bytes(page),
            format_bytes(page << MOST)
        )),
    }
}

/// The action.
pub(crate) struct Report {
    order: u64,
}

impl Report {
    pub(crate) fn new(args: &ReportArgs) -> Self {
        Report { order: args.order }
    }
}

fn told(order: u64) -> String {
    let page = rustix::param::page_size() as u64;
    match page.checked_shl(order as u32).filter(|_| order <= MOST) {
        Some(bytes) => format!("blocks of {} and larger", format_bytes(bytes)),
        None => "nothing yet".to_owned(),
    }
}

impl Actuator for Report {
    fn plan(&mut self, scene: &Scene, common: &Common) -> Result<Plan, Failure> {
        let virt = Virt::read(&scene.host);
        match virt.as_ref().map(Virt::reports_free_pages) {
            None => {
                return Err(Failure::unsupported(
                    "report: this is no virtual machine; there is no host to give memory back to",
                ));
            }
            Some(Some(true)) => {}
            Some(_) => {
                let advice = virt.as_ref().and_then(Virt::advice).unwrap_or_default();
                return Err(Failure::unsupported(format!(
                    "report: this machine's balloon reports no free pages to its host; switch on {advice}"
                )));
            }
        }
        let knob = Knob::machine(KnobFile::ReportingOrder);
        let old = files::read(&scene.host, &scene.cgroups, &knob).map_err(|fault| {
            Failure::unsupported(format!(
                "{knob}: {fault}; the size of reported blocks can be set from Linux 5.14 on"
            ))
        })?;
        // Before a balloon has come it holds -1, which could not be put back.
        let Some(now) = old.as_number() else {
            return Err(refused(format!("{knob} holds {old}, which is no size")));
        };
        Ok(Plan {
            action: ActionPlan {
                id: None,
                kind: "report".to_owned(),
                target: "machine".to_owned(),
                planned_bytes: None,
                reason: common.reason.clone(),
                dry_run: false,
                writes: vec![PlannedWrite {
                    file: knob.to_string(),
                    old: Some(old.to_string()),
                    new: self.order.to_string(),
                    reversible: true,
                }],
                effect: Some(format!(
                    "the host is told of {}, until now of {}",
                    told(self.order),
                    told(now)
                )),
                lease_s: None,
                policy: None,
                expected_harm: None,
            },
            target: None,
            lease: common.lease,
        })
    }

    fn act(&mut self, act: &mut Act<'_>) -> Result<(), Failure> {
        let knob = Knob::machine(KnobFile::ReportingOrder);
        let value = Value::number(self.order);
        act.session.set(act.id, &knob, &value).map(|_| ())
    }

    fn measure(&self, scene: &Scene, _target: Option<&Target>) -> ActionState {
        measure::machine(scene)
    }
}

#[cfg(test)]
mod tests {
    use super::{block, told};

    #[test]
    fn a_block_is_a_power_of_two_that_the_kernel_keeps() {
        for (text, order) in [("4K", 0), ("16K", 2), ("16384", 2), ("2M", 9), ("4M", 10)] {
            assert_eq!(block(text), Ok(order), "{text}");
        }
        for text in ["0", "2K", "3K", "5000", "8M", "max", "-1", "", "16 apples"] {
            assert!(block(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_order_is_told_as_a_size() {
        assert_eq!(told(9), "blocks of 2.0M and larger");
        // What holds as long as no balloon has come is -1.
        assert_eq!(told(u64::MAX), "nothing yet");
        assert_eq!(told(64), "nothing yet");
    }
}
