//! What the leak detector costs, as `cargo xtask eval --cost` measures it.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::compare::Bench;

/// The table.
///
/// # Errors
/// The evaluation is not beside this program, or fails.
pub fn table(_: &Bench) -> Result<String> {
    let program = std::env::current_exe()?.with_file_name("grey-eval");
    let output = Command::new(&program)
        .args(["--cost", "--json"])
        .output()
        .with_context(|| program.display().to_string())?;
    let cost: Value = serde_json::from_slice(&output.stdout).with_context(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        format!("{}: {}", program.display(), said.trim())
    })?;
    text(&cost)
}

fn text(cost: &Value) -> Result<String> {
    let count = |name: &str| cost[name].as_u64().with_context(|| name.to_owned());
    let rows = [
        (
            "samples a second, all figures",
            "per_second",
            1e6,
            " million",
        ),
        (
            "samples a second, anonymous memory alone",
            "least_per_second",
            1e6,
            " million",
        ),
        (
            "lines of `replay` a second",
            "lines_per_second",
            1e6,
            " million",
        ),
        ("heap a tracked series, bytes", "bytes", 1.0, ""),
    ];
    let mut out = format!(
        "## Detector\n\n\
         `cargo xtask eval --cost`: {} samples of {} series in {} cgroups, processor time of one core, median of five rounds with the extremes.\n\n\
         | | |\n|---|---|\n",
        count("samples")?,
        count("series")?,
        count("cgroups")?
    );
    for (what, name, unit, word) in rows {
        let figures: Vec<f64> = cost[name]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_f64)
            .map(|figure| figure / unit)
            .collect();
        ensure!(figures.len() == 3, "{name} has no three figures");
        let digits = if unit > 1.0 { 2 } else { 0 };
        out.push_str(&format!(
            "| {what} | {:.digits$}{word} [{:.digits$}, {:.digits$}] |\n",
            figures[0], figures[1], figures[2]
        ));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_evaluations_figures_become_rows() {
        let mut cost: Value = serde_json::from_str(
            r#"{"series":246,"cgroups":98,"samples":468603,"per_second":[3820000.0,3620000.0,3860000.0],
            "least_per_second":[4990000.0,4850000.0,5020000.0],"lines_per_second":[3.0e6,2.9e6,3.1e6],"line_bytes":109.0,
            "bytes":[4009.0,4009.0,4009.0]}"#,
        )
        .unwrap();
        let table = text(&cost).unwrap();
        assert!(table.contains("| samples a second, all figures | 3.82 million [3.62, 3.86] |"));
        assert!(table.contains("bytes | 4009 [4009, 4009] |"));
        cost["bytes"] = Value::Null;
        assert!(text(&cost).is_err());
    }
}
