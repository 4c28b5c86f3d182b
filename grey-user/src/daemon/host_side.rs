//! What the host of this virtual machine has left, for the governor: the source as it is configured now.

use crate::host::HostPressure;
use crate::host::pressure_source::Options;

/// The source, read as long as this lives.
#[derive(Debug, Default)]
pub(super) struct HostSide {
    options: Option<Options>,
    source: Option<HostPressure>,
    /// The trouble that was told last: the same is not told twice.
    told: Option<String>,
}

impl HostSide {
    /// Asks as the configuration says from now on; a line where that cannot be begun.
    pub(super) fn configure(&mut self, options: Option<Options>) -> Option<String> {
        if options == self.options {
            return None;
        }
        *self = HostSide {
            options: options.clone(),
            ..HostSide::default()
        };
        match HostPressure::start(options?) {
            Ok(source) => {
                self.source = Some(source);
                None
            }
            Err(error) => Some(format!("what the host has left cannot be asked: {error}")),
        }
    }

    /// Percent that is available, and a line for a person where that cannot be had any more.
    pub(super) fn look(&mut self) -> (Option<f64>, Option<String>) {
        let Some(source) = &self.source else {
            return (None, None);
        };
        let pct = source.available_pct();
        let trouble = source.trouble();
        let line = trouble.filter(|why| self.told.as_ref() != Some(why));
        if let Some(why) = &line {
            self.told = Some(why.clone());
        } else if source.is_well() {
            self.told = None;
        }
        (
            pct,
            line.map(|why| format!("what the host has left: {why}")),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::host::fixture::Tree;
    use crate::host::pressure_source::Source;

    fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(value) = look() {
                return value;
            }
            assert!(Instant::now() < end, "not within 20 s");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn a_source_is_changed_with_the_configuration_and_its_trouble_told_once() {
        let tree = Tree::new();
        tree.file("/left", "90%\n");
        let mut side = HostSide::default();
        assert_eq!(side.look(), (None, None));
        let good = Options::of(Source::File(tree.path("/left")));
        assert_eq!(side.configure(Some(good)), None);
        assert_eq!(until(|| side.look().0), 10.0);
        let bad = Options {
            every: Duration::from_secs(1),
            ..Options::of(Source::File(tree.path("/missing")))
        };
        assert_eq!(side.configure(Some(bad)), None);
        let line = until(|| side.look().1);
        assert!(line.contains("/missing"), "{line}");
        // The second failure says the same.
        until(|| (side.source.as_ref()?.readings() >= 2).then_some(()));
        assert_eq!(side.look(), (None, None));
        side.configure(None);
        assert!(side.source.is_none());
    }
}
