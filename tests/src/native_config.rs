//! `check-config` as a person meets it, and what other commands do with a broken configuration.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::harness::{Outcome, Trial};
use crate::invocation::{Invocation, Scratch};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "native_config_check_tells_of_everything_that_is_wrong",
            everything,
        ),
        Trial::new("native_config_print_is_a_configuration", printed),
        Trial::new(
            "native_config_that_is_broken_does_not_keep_from_rolling_back",
            rollback,
        ),
    ]
}

fn file(scratch: &Scratch, name: &str, text: &str) -> Result<String> {
    let path = scratch.join(name);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    }
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    scratch.argument(name)
}

fn everything() -> Result<Outcome> {
    let scratch = Scratch::new("config")?;
    let first = file(
        &scratch,
        "config.toml",
        "[govern]\npolicy = \"turbo\"\n[safety]\nleast_limit = \"1M\"\n",
    )?;
    let part = file(&scratch, "conf.d/10-x.toml", "[govern.guest]\nsteps = 3\n")?;
    let wanted = [
        format!("grey-ebpf: {first}:2: govern.policy: `turbo` is no policy; known are observe, "),
        format!("grey-ebpf: {first}:4: safety.least_limit: 1.0M is out of bounds; write 64M to "),
        format!("grey-ebpf: {part}:2: govern.guest.steps: is not known; known are "),
    ];
    let ended = Invocation::new().run(&["check-config", &first])?;
    let lines: Vec<&str> = ended.stderr.lines().collect();
    ensure!(
        ended.code == Some(2)
            && ended.stdout.is_empty()
            && lines.len() == wanted.len()
            && lines
                .iter()
                .zip(&wanted)
                .all(|(line, wanted)| line.starts_with(wanted)),
        "{ended:?}"
    );
    // Others tell of the first, and do nothing.
    Invocation::new()
        .run(&["enforce", "reclaim", "/x", "1M", "--config", &first])?
        .is_one_line(2, &[":2: govern.policy: ", "and 2 more", "check-config"])?;
    let json = Invocation::new().run(&["check-config", "--json", &first])?;
    ensure!(json.code == Some(2) && json.stderr.is_empty(), "{json:?}");
    let document: Value = serde_json::from_str(&json.stdout)?;
    ensure!(
        document["errors"].as_array().map(Vec::len) == Some(3)
            && document["errors"][2]["file"] == part.as_str()
            && document["errors"][2]["line"] == 2
            && document["errors"][2]["key"] == "govern.guest.steps",
        "{document:#}"
    );
    Invocation::new()
        .run(&["check-config", "/none.toml"])?
        .is_one_line(2, &["/none.toml", "no such file"])?;
    fs::set_permissions(
        scratch.join("conf.d/10-x.toml"),
        fs::Permissions::from_mode(0o666),
    )?;
    Invocation::new()
        .run(&["check-config", &first])?
        .is_one_line(4, &[&part, "everybody can write to it", "chmod 644"])?;
    Ok(Outcome::Passed)
}

fn printed() -> Result<Outcome> {
    let scratch = Scratch::new("print")?;
    let first = file(
        &scratch,
        "config.toml",
        "[govern]\npolicy = \"guest\"\n[govern.guest]\nstep = \"8M\"\n[[govern.override]]\nmatch = \"a\"\nfreeze = true\n",
    )?;
    let print = |path: &str| -> Result<String> {
        let ended = Invocation::new().run(&["check-config", "--print", path])?;
        ensure!(
            ended.code == Some(0) && ended.stderr.is_empty(),
            "{ended:?}"
        );
        Ok(ended.stdout)
    };
    let once = print(&first)?;
    ensure!(
        once.contains(&format!("# set by {first}:4\nstep = \"8M\"\n")),
        "{once}"
    );
    let again = file(&scratch, "again.toml", &once)?;
    let keys = |text: &str| -> Vec<String> {
        let kept = text.lines().filter(|line| !line.starts_with("# set by "));
        kept.map(str::to_owned).collect()
    };
    ensure!(keys(&print(&again)?) == keys(&once), "not the same again");
    let told = Invocation::new().run(&["check-config", &first])?;
    ensure!(
        told.code == Some(0) && told.stdout == format!("{first}: 4 keys set, policy guest\n"),
        "{told:?}"
    );
    Ok(Outcome::Passed)
}

fn rollback() -> Result<Outcome> {
    let scratch = Scratch::new("lenient")?;
    let state = scratch.argument("state")?;
    // Its folder is read although another key is wrong.
    let broken = format!("[safety]\nstate_dir = \"{state}\"\nstep = 3\n");
    let config = file(&scratch, "config.toml", &broken)?;
    let ended = Invocation::new().run(&["rollback", "--config", &config])?;
    ensure!(
        ended.code == Some(0)
            && ended.stderr.contains(":3: safety.step: ")
            && ended.stdout.contains(&state),
        "{ended:?}"
    );
    let config = file(&scratch, "no.toml", "[safety\n")?;
    Invocation::new()
        .run(&["rollback", "--config", &config])?
        .is_one_line(2, &["no.toml:1: ", "--state-dir"])?;
    let ended = Invocation::new().run(&["rollback", "--config", &config, "--state-dir", &state])?;
    ensure!(
        ended.code == Some(0) && ended.stdout.contains(&state),
        "{ended:?}"
    );
    Ok(Outcome::Passed)
}
