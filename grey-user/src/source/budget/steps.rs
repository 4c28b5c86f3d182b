//! The steps themselves: what each of them switches off and on, and how that is said.

use std::sync::Arc;

use grey_core::budget::{Change, Step};

use crate::probe::Family;
use crate::source::{Coverage, Observer};

impl Observer {
    /// Carries a change out and says what it means.
    pub(super) fn change(&mut self, change: Change) -> String {
        let (step, result) = match change {
            Change::Down(step) => (step, self.give_up(step)),
            Change::Up(step) => (step, self.give_back(step)),
        };
        if let Err(error) = result {
            if let Some(keeping) = &mut self.budget {
                keeping.ladder.failed(change);
            }
            return format!("{step} could not be switched: {error}");
        }
        let every = self.interval().unwrap_or_default();
        match change {
            Change::Down(Step::Stacks) => "suspects are not profiled".to_owned(),
            Change::Up(Step::Stacks) => "suspects are profiled again".to_owned(),
            Change::Down(Step::Interval) | Change::Up(Step::Interval) => {
                format!("figures are read every {} s", every.as_secs_f64())
            }
            Change::Down(Step::Calls) => "mmap and its like are not counted".to_owned(),
            Change::Up(Step::Calls) => "mmap and its like are counted again".to_owned(),
            Change::Down(Step::Faults) => {
                "page faults are not counted, growth is not told at once".to_owned()
            }
            Change::Up(Step::Faults) => {
                "page faults are counted again, growth is told at once".to_owned()
            }
            Change::Down(Step::Recorder) => "incidents go back one minute only".to_owned(),
            Change::Up(Step::Recorder) => "incidents go back five minutes again".to_owned(),
        }
    }

    fn give_up(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Stacks => {
                self.suspects.pause();
                Ok(())
            }
            Step::Calls => self.switch_off(Family::Calls),
            Step::Faults => self.switch_off(Family::Faults),
            // Whoever ticks and whoever records asks for it.
            Step::Interval | Step::Recorder => Ok(()),
        }
    }

    pub(super) fn give_back(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Stacks => {
                self.suspects.go_on();
                Ok(())
            }
            Step::Calls => self.switch_on(Family::Calls),
            Step::Faults => self.switch_on(Family::Faults),
            Step::Interval | Step::Recorder => Ok(()),
        }
    }

    fn switch_off(&mut self, family: Family) -> Result<(), String> {
        let Some(kernel) = &mut self.kernel else {
            return Ok(());
        };
        let result = kernel.switch_off(family, "off to keep the budget of CPU time");
        self.probes_changed();
        result
    }

    fn switch_on(&mut self, family: Family) -> Result<(), String> {
        let Some(kernel) = &mut self.kernel else {
            return Ok(());
        };
        let result = kernel.switch_on(family);
        let before = Arc::new(self.coverage);
        self.probes_changed();
        for known in self.known.values_mut() {
            known.gap.get_or_insert_with(|| Arc::clone(&before));
        }
        result
    }

    fn probes_changed(&mut self) {
        if let Some(kernel) = &self.kernel {
            self.probes.clone_from(&kernel.probes);
        }
        self.coverage = Coverage::of(self.kernel.as_ref());
    }
}
