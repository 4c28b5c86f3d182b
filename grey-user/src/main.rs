//! The binary; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    grey_user::cli::run(std::env::args_os())
}
