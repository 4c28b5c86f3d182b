//! The release agent in a process, from outside: where its library is, how it is spoken to, what it answers.

pub mod answer;
pub mod client;
pub mod expect;
pub mod library;

pub use answer::Answer;
pub use client::{AgentError, Question, ask};
pub use library::agent_library;

/// What a line of the protocol begins with.
pub const VERSION: &str = "grey-release/1";

/// Whether the agent is loaded into a process with these mappings (/proc/PID/maps).
#[must_use]
pub fn is_loaded(maps: &str) -> bool {
    // Only files have a slash; a name of the file's beginning is enough for one that was renamed (`(deleted)`).
    maps.lines().any(|line| {
        line.split_once('/')
            .and_then(|(_, path)| path.rsplit('/').next())
            .is_some_and(|file| file.starts_with("libgrey_release"))
    })
}

#[cfg(test)]
mod tests {
    use super::is_loaded;

    #[test]
    fn the_agent_is_told_from_the_mapped_files() {
        let maps = |file: &str| format!("7f00-7f01 r-xp 00000000 08:01 12   {file}\n");
        assert!(is_loaded(&maps("/usr/lib/grey-ebpf/libgrey_release.so")));
        assert!(is_loaded(&maps("/opt/libgrey_release.so (deleted)")));
        assert!(!is_loaded(&maps("/srv/libgrey_release.so/app")));
        assert!(!is_loaded(
            "7f00-7f01 rw-p 00000000 00:00 0   [anon:libgrey_release]\n"
        ));
        assert!(!is_loaded(""));
    }
}
