//! Applications that are one process: a compiler, an interpreter that allocates, and stress-ng's memory stressors.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Application, Scene, output};

/// A command that does the same number of operations each time.
struct Repeated {
    command: Command,
    operations: f64,
}

impl Application for Repeated {
    fn burst(&mut self) -> Result<f64> {
        output(&mut self.command)?;
        Ok(self.operations)
    }
}

/// Functions in the file that is compiled.
const FUNCTIONS: usize = 300;

/// A C compiler on a file of some size.
///
/// # Errors
/// The file cannot be written.
pub fn compile(scene: &Scene) -> Result<Box<dyn Application>> {
    fs::write(scene.path("made.c"), source(FUNCTIONS))?;
    let mut command = scene.command("cc")?;
    command.args(["-O1", "-c", "made.c", "-o", "made.o"]);
    Ok(Box::new(Repeated {
        command,
        operations: 1.0,
    }))
}

/// C with loops, branches and a table each, no two functions alike.
fn source(functions: usize) -> String {
    let mut out = String::from("#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n");
    for n in 0..functions {
        let _ = write!(
            out,
            "static int table_{n}[16] = {{ {n}, 2, 3, 5, 7, 11, 13, 17 }};\n\
             int function_{n}(const char *text, int count) {{\n\
             \tint sum = {n};\n\
             \tfor (int i = 0; i < count; i++) {{\n\
             \t\tif (text[i] == 'a' + {n} % 26) sum += table_{n}[i % 16];\n\
             \t\telse if (text[i] > sum % 128) sum ^= (int)strlen(text) * {n};\n\
             \t\telse switch (sum % 4) {{ case 0: sum++; break; case 1: sum *= 3; break; default: sum -= i; }}\n\
             \t}}\n\
             \ttable_{n}[count & 15] = sum;\n\
             \treturn sum;\n}}\n"
        );
    }
    out
}

const PYTHON: &str = "
import sys
for _ in range(int(sys.argv[1])):
    dicts = [{'key': n, 'text': str(n)} for n in range(40000)]
    buffers = [bytes(600 + n % 1900) for n in range(5000)]
    del dicts, buffers
";
const PYTHON_ROUNDS: u32 = 100;

/// Python that makes objects and drops them.
///
/// # Errors
/// The script cannot be written.
pub fn python(scene: &Scene) -> Result<Box<dyn Application>> {
    fs::write(scene.path("rounds.py"), PYTHON)?;
    let mut command = scene.command("python3")?;
    command.args(["rounds.py", &PYTHON_ROUNDS.to_string()]);
    Ok(Box::new(Repeated {
        command,
        operations: PYTHON_ROUNDS.into(),
    }))
}

/// A stressor of stress-ng, which says itself how many operations it did.
struct Stress {
    command: Command,
    stressor: &'static str,
}

impl Application for Stress {
    fn burst(&mut self) -> Result<f64> {
        let told = output(&mut self.command)?;
        bogo_ops(&told, self.stressor)
            .with_context(|| format!("stress-ng told no bogo-ops of {}", self.stressor))
    }
}

/// Writes all of 64 MiB and looks at it again.
///
/// # Errors
/// No cgroup to run in.
pub fn stress_vm(scene: &Scene) -> Result<Box<dyn Application>> {
    let words = &["--vm-bytes", "64M", "--vm-method", "write64"];
    stress(scene, "vm", 3_000, words)
}

/// Allocates, resizes and frees.
///
/// # Errors
/// No cgroup to run in.
pub fn stress_malloc(scene: &Scene) -> Result<Box<dyn Application>> {
    stress(scene, "malloc", 50_000, &[])
}

/// Maps, touches, protects and unmaps.
///
/// # Errors
/// No cgroup to run in.
pub fn stress_mmap(scene: &Scene) -> Result<Box<dyn Application>> {
    stress(scene, "mmap", 20, &["--mmap-bytes", "16M"])
}

/// One process that does `operations` in the same order each time.
fn stress(
    scene: &Scene,
    stressor: &'static str,
    operations: u32,
    more: &[&str],
) -> Result<Box<dyn Application>> {
    let mut command = scene.command("stress-ng")?;
    command
        .args([format!("--{stressor}"), "1".to_owned()])
        .args([format!("--{stressor}-ops"), operations.to_string()])
        .args(more)
        // The time is for when the count is out of reach on a slow machine; both end it.
        .args(["--no-rand-seed", "--metrics-brief", "--timeout", "10s"]);
    Ok(Box::new(Stress { command, stressor }))
}

/// Of a table of stress-ng: `stress-ng: metrc: [PID] vm 12345 2.00 1.98 …`; older ones say `info:`.
fn bogo_ops(told: &str, stressor: &str) -> Option<f64> {
    told.lines().find_map(|line| {
        let mut words = line.split("] ").nth(1)?.split_whitespace();
        let count: f64 = (words.next()? == stressor)
            .then(|| words.next())??
            .parse()
            .ok()?;
        (count > 0.0).then_some(count)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bogo_ops_are_those_of_the_stressor() {
        let told = "stress-ng: info:  [6731] dispatching hogs: 1 vm\n\
                    stress-ng: metrc: [6731] stressor       bogo ops real time  usr time  sys time   bogo ops/s     bogo ops/s\n\
                    stress-ng: metrc: [6731]                           (secs)    (secs)    (secs)   (real time) (usr+sys time)\n\
                    stress-ng: metrc: [6731] vm               176128      2.00      1.90      0.09     88064.00       88506.53\n";
        assert_eq!(bogo_ops(told, "vm"), Some(176_128.0));
        assert_eq!(bogo_ops(told, "malloc"), None);
        assert_eq!(bogo_ops("stress-ng: info: [1] vm 0 0.0", "vm"), None);
    }

    #[test]
    fn a_made_source_has_its_functions() {
        let text = source(3);
        assert!(text.contains("int function_2(const char *text, int count)"));
        assert_eq!(text.matches("return sum;").count(), 3);
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }
}
