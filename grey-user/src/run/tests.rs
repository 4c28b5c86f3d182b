use std::ffi::{OsStr, OsString};

use clap::Parser as _;

use super::command::{Environment, find};
use super::*;
use crate::cli::{Cli, Command};

fn parsed(words: &[&str]) -> Result<RunArgs, clap::Error> {
    let words = ["grey-ebpf", "run"].iter().chain(words);
    Ok(match Cli::try_parse_from(words)?.command {
        Command::Run(args) => args,
        other => panic!("{other:?}"),
    })
}

#[test]
fn what_follows_the_command_is_its_own() {
    let args = parsed(&["--release", "prog", "--ksm", "--", "-x"]).unwrap();
    assert!(args.release && !args.ksm);
    assert_eq!(
        args.command,
        ["prog", "--ksm", "--", "-x"].map(OsString::from)
    );
    let args = parsed(&["--ksm", "--", "prog", "--high", "1G"]).unwrap();
    assert!(args.ksm && args.high.is_none());
    assert_eq!(args.command, ["prog", "--high", "1G"].map(OsString::from));
}

#[test]
fn bad_arguments_are_refused() {
    for bad in [
        &[][..],
        &["--release"],
        &["--high", "x", "prog"],
        &["--high", "-1", "prog"],
        &["--trim-interval", "1s", "prog"],
        &["--trim-threshold", "1M", "prog"],
        &["--release", "--trim-threshold", "50%", "prog"],
        &["--no-cgroup", "--max", "1G", "prog"],
        &["--bogus", "prog"],
    ] {
        assert!(parsed(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_command_is_found_as_execvp_finds_it() {
    let code = |name: &str, path: &str| {
        find(OsStr::new(name), Some(OsStr::new(path))).map_err(|not_run| not_run.code)
    };
    assert_eq!(code("sh", "/nowhere:/bin").unwrap(), OsStr::new("/bin/sh"));
    assert_eq!(code("/bin/sh", "").unwrap(), OsStr::new("/bin/sh"));
    assert_eq!(code("sh", "/nowhere"), Err(127));
    assert_eq!(code("", "/bin"), Err(127));
    assert_eq!(code("/nowhere/sh", "/bin"), Err(127));
    assert_eq!(code("/bin/sh/x", "/bin"), Err(127));
    // A folder, and a file that nobody may run.
    assert_eq!(code("/bin", ""), Err(126));
    assert_eq!(code("/proc/self/status", ""), Err(126));
}

#[test]
fn an_agent_is_loaded_behind_what_is_preloaded_and_only_once() {
    let value = |before: &[(&str, &str)]| {
        let mut environment = Environment::of(before);
        environment.preload(std::path::Path::new("/opt/agent.so"));
        environment.preload(std::path::Path::new("/opt/agent.so"));
        let changed: Vec<_> = environment
            .changed()
            .map(|(_, value)| value.to_string_lossy().into_owned())
            .collect();
        changed.join(",")
    };
    assert_eq!(value(&[]), "/opt/agent.so");
    assert_eq!(value(&[("LD_PRELOAD", "")]), "/opt/agent.so");
    assert_eq!(
        value(&[("A", "b"), ("LD_PRELOAD", "/lib/libjemalloc.so.2")]),
        "/lib/libjemalloc.so.2:/opt/agent.so"
    );
    assert_eq!(value(&[("LD_PRELOAD", "/opt/agent.so /lib/x.so")]), "");
}

#[test]
fn the_name_of_a_cgroup_needs_no_quoting() {
    for (command, name) in [
        ("/usr/bin/python3.11", "python3.11"),
        ("a b/../c\u{e9}\n", "c__"),
        ("..", "command"),
        ("/", "command"),
    ] {
        assert_eq!(plain_name(OsStr::new(command)), name, "{command:?}");
    }
    assert_eq!(plain_name(OsStr::new(&"x".repeat(300))).len(), 64);
}
