//! `cargo xtask eval`: scores the detector and four baselines on the benchmark.

use std::process::ExitCode;

fn main() -> ExitCode {
    match grey_eval::run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("eval: {error:#}");
            ExitCode::FAILURE
        }
    }
}
