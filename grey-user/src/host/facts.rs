//! All facts of a machine in one place, with what could not be read.

use std::path::Path;

use serde::Serialize;

use super::{
    CgroupFacts, CgroupFs, Feature, Host, HostError, KernelFacts, MemoryFacts, Virt, features,
    figure_line,
};

/// Reads files for facts and keeps the errors: a file that is there and cannot be read is not an absent one.
#[derive(Debug)]
pub struct Lookup<'a> {
    host: &'a Host,
    errors: Vec<HostError>,
}

impl<'a> Lookup<'a> {
    /// On a machine.
    #[must_use]
    pub fn on(host: &'a Host) -> Self {
        Lookup {
            host,
            errors: Vec::new(),
        }
    }

    /// The machine.
    #[must_use]
    pub fn host(&self) -> &'a Host {
        self.host
    }

    /// What could not be read so far.
    #[must_use]
    pub fn into_errors(self) -> Vec<HostError> {
        self.errors
    }

    pub(super) fn keep<T>(&mut self, result: Result<T, HostError>) -> Option<T> {
        result.map_err(|error| self.errors.push(error)).ok()
    }

    pub(super) fn text(&mut self, path: impl AsRef<Path>) -> Option<String> {
        let text = self.host.text_opt(path);
        self.keep(text).flatten()
    }

    pub(super) fn figure(&mut self, path: impl AsRef<Path>) -> Option<u64> {
        figure_line(self.text(path)?.as_bytes())
    }
}

/// What is known of the machine without any probe.
#[derive(Clone, Debug, Serialize)]
pub struct Facts {
    /// The kernel and our privileges.
    pub kernel: KernelFacts,
    /// The cgroup tree.
    pub cgroup: CgroupFacts,
    /// Whether a cgroup below the root has the memory.* files; absent where there is no such cgroup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_files: Option<bool>,
    /// Whether swap is counted per cgroup (memory.swap.current); absent where no cgroup tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_accounting: Option<bool>,
    /// Memory of the machine.
    pub memory: MemoryFacts,
    /// The virtual machine that this is; absent on real hardware.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virt: Option<Virt>,
    /// What the kernel offers to act with.
    pub features: Vec<Feature>,
    /// Files that are there and could not be read, with the reason.
    pub unreadable: Vec<String>,
}

impl Facts {
    /// Gathers them. Changes nothing.
    #[must_use]
    pub fn gather(host: &Host, fs: &CgroupFs) -> Self {
        let mut look = Lookup::on(host);
        let kernel = KernelFacts::read(&mut look);
        let memory = MemoryFacts::read(&mut look);
        let sample = features::sample_cgroup(host, fs);
        Facts {
            kernel,
            cgroup: fs.facts().clone(),
            memory_files: sample
                .as_ref()
                .map(|dir| dir.join("memory.current").exists()),
            swap_accounting: sample
                .as_ref()
                .map(|dir| dir.join("memory.swap.current").exists()),
            virt: Virt::read(host),
            features: features::detect(host, fs, sample.as_deref()),
            memory,
            unreadable: look.into_errors().iter().map(ToString::to_string).collect(),
        }
    }
}
