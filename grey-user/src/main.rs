//! The binary; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A guard is this binary again, and is to be small: nothing else runs before.
    if let Some(code) = grey_user::act::guard::run_if_called() {
        return code;
    }
    if let Some(ended) = grey_user::enforce::helper(std::env::args_os()) {
        return ended;
    }
    grey_user::cli::run(std::env::args_os())
}
