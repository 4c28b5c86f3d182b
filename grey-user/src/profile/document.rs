//! A profile as data: what is written as JSON, and what every other form is made of.

use grey_core::time::Timestamp;
use serde::{Deserialize, Serialize};

/// The `schema` of a profile; it only grows.
pub const SCHEMA: &str = "grey-ebpf-profile/1";

/// Page-fault stacks of one process or cgroup over some time. Bytes; stacks by what they kept, the most first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// [`SCHEMA`].
    pub schema: String,
    /// When it began.
    pub ts: Timestamp,
    /// Node name.
    pub host: String,
    /// Path of the cgroup, where it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// The process, where it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// How long it lasted, milliseconds.
    pub duration_ms: u64,
    /// One page in this many was followed at the end. Figures are scaled up.
    pub one_in: u64,
    /// Page faults of the target, counted and not estimated.
    pub faults: u64,
    /// Bytes they asked for; not less than what was left of it.
    pub faulted_bytes: u64,
    /// Bytes of private anonymous memory that were still there at the end, resident or swapped out.
    pub kept_bytes: u64,
    /// Bytes of file and shared pages that were still mapped at the end.
    pub file_bytes: u64,
    /// Whether huge pages were counted one by one; else those left at the end are told by their page frames.
    pub huge_pages_counted: bool,
    /// What found no room.
    pub lost: Lost,
    /// What taking the stacks cost.
    pub cost: Cost,
    /// What a reader must know, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The stacks.
    pub stacks: Vec<Stack>,
}

/// Samples that found no room in a table of the kernel side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Stacks: their memory is counted under an unknown one.
    pub stacks: u64,
    /// Samples that were not counted.
    pub counts: u64,
    /// Pages that were not followed.
    pub pages: u64,
    /// Moves by mremap that were not followed: their pages count as gone.
    pub moves: u64,
}

/// Time spent taking stacks, without what each page fault of the machine pays for the attached programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Stacks taken.
    pub samples: u64,
    /// Microseconds it took.
    pub us: u64,
    /// That, in percent of the time of one CPU.
    pub cpu_pct: f64,
}

/// One way in which a process got memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stack {
    /// Thread group id.
    pub pid: u32,
    /// Command name.
    pub comm: String,
    /// Who is to blame: the innermost function that belongs neither to an allocator nor to a language's runtime.
    pub function: String,
    /// Private anonymous memory that was still there at the end.
    pub kept_bytes: u64,
    /// What page faults asked for.
    pub faulted_bytes: u64,
    /// File and shared pages still mapped at the end.
    pub file_bytes: u64,
    /// Page faults.
    pub faults: u64,
    /// The walk ended at the function that faulted: it is built without frame pointers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub broken: bool,
    /// The innermost frame first; of kernel frames those before the fault itself.
    pub frames: Vec<Frame>,
}

/// One call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Frame {
    /// Demangled; absent where no symbol was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// The file it is in, as the process names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// The file's build id, hexadecimal, where no symbol was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
    /// Offset in the file, or the address where there is no file, where no symbol was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Source file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Inlined into the next frame.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inlined: bool,
    /// Of the kernel.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kernel: bool,
}

impl Frame {
    /// As it is shown: the function, else `FILE+0xOFFSET [build id]`.
    #[must_use]
    pub fn name(&self) -> String {
        match (&self.function, &self.build_id) {
            (None, Some(id)) => format!("{} [{id}]", self.short()),
            _ => self.short(),
        }
    }

    /// The same without the build id.
    #[must_use]
    pub fn short(&self) -> String {
        if let Some(function) = &self.function {
            return function.clone();
        }
        let offset = self.offset.unwrap_or(0);
        match &self.module {
            Some(module) => {
                let file = module.rsplit('/').next().unwrap_or(module);
                format!("{file}+{offset:#x}")
            }
            None => format!("{offset:#x}"),
        }
    }
}
