//! One static binary for all end-to-end tests: PID 1 of a test VM, test runner, single test or workload,
//! told apart by its process id and first argument.

mod alert;
mod attribution;
mod budget;
mod crash;
mod degraded;
mod enforcing;
mod exit;
mod growth;
mod guard;
mod harness;
mod init;
mod invocation;
mod journal;
mod loss;
mod native_alert;
mod native_attribution;
mod native_budget;
mod native_cli;
mod native_config;
mod native_daemon;
mod native_degraded;
mod native_diagnose;
mod native_enforce;
mod native_exit;
mod native_growth;
mod native_guard;
mod native_loss;
mod native_profile;
mod native_release;
mod native_replay;
mod native_rollback;
mod native_run;
mod native_schema;
mod native_smoke;
mod native_snapshot;
mod outside;
mod profiling;
mod protocol;
mod runner;
mod swap;
mod verdict;
mod vm_alert;
mod vm_attribution;
mod vm_budget;
mod vm_cli;
mod vm_compact;
mod vm_compare;
mod vm_container;
mod vm_crash;
mod vm_degraded;
mod vm_diagnose;
mod vm_enforce;
mod vm_exit;
mod vm_freeze;
mod vm_govern;
mod vm_growth;
mod vm_guard;
mod vm_guest;
mod vm_ksm;
mod vm_lifecycle;
mod vm_live;
mod vm_loss;
mod vm_oom;
mod vm_pageout;
mod vm_profile;
mod vm_protect;
mod vm_quiet;
mod vm_reclaim;
mod vm_rollback;
mod vm_run;
mod vm_sequences;
mod vm_smoke;
mod vm_snapshot;
mod vm_systemd;
mod vm_verdict;
mod vm_watchdog;
mod workload;

use std::process::ExitCode;

use harness::Trial;

/// Tests that run on the machine itself: they observe only.
fn native_trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    trials.extend(native_smoke::trials());
    trials.extend(native_cli::trials());
    trials.extend(native_config::trials());
    trials.extend(native_schema::trials());
    trials.extend(native_growth::trials());
    trials.extend(native_guard::trials());
    trials.extend(native_degraded::trials());
    trials.extend(native_loss::trials());
    trials.extend(native_budget::trials());
    trials.extend(native_replay::trials());
    trials.extend(native_rollback::trials());
    trials.extend(native_run::trials());
    trials.extend(native_exit::trials());
    trials.extend(native_attribution::trials());
    trials.extend(native_alert::trials());
    trials.extend(native_diagnose::trials());
    trials.extend(native_snapshot::trials());
    trials.extend(native_enforce::trials());
    trials.extend(native_release::trials());
    trials.extend(native_daemon::trials());
    trials.extend(native_profile::trials());
    trials
}

/// Tests that own the kernel they run on: inside a VM only.
fn vm_trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    trials.extend(vm_smoke::trials());
    trials.extend(vm_cli::trials());
    trials.extend(vm_oom::trials());
    trials.extend(vm_growth::trials());
    trials.extend(vm_guard::trials());
    trials.extend(vm_guest::trials());
    trials.extend(vm_degraded::trials());
    trials.extend(vm_budget::trials());
    trials.extend(vm_loss::trials());
    trials.extend(vm_exit::trials());
    trials.extend(vm_attribution::trials());
    trials.extend(vm_lifecycle::trials());
    trials.extend(vm_quiet::trials());
    trials.extend(vm_reclaim::trials());
    trials.extend(vm_alert::trials());
    trials.extend(vm_diagnose::trials());
    trials.extend(vm_snapshot::trials());
    trials.extend(vm_pageout::trials());
    trials.extend(vm_freeze::trials());
    trials.extend(vm_verdict::trials());
    trials.extend(vm_watchdog::trials());
    trials.extend(vm_protect::trials());
    trials.extend(vm_ksm::trials());
    trials.extend(vm_compact::trials());
    trials.extend(vm_rollback::trials());
    trials.extend(vm_run::trials());
    trials.extend(vm_crash::trials());
    trials.extend(vm_sequences::trials());
    trials.extend(vm_enforce::trials());
    trials.extend(vm_systemd::trials());
    trials.extend(vm_govern::trials());
    trials.extend(vm_compare::trials());
    trials.extend(vm_live::trials());
    trials.extend(vm_container::trials());
    trials.extend(vm_profile::trials());
    trials
}

fn main() -> ExitCode {
    if std::process::id() == 1 {
        init::main();
    }
    // Tests that act through the library have guards of this program.
    if let Some(code) = grey_user::act::guard::run_if_called() {
        return code;
    }
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("native") => runner::run("native", native_trials(), args),
        Some("vm") => runner::run("vm", vm_trials(), args),
        Some("one") => runner::run_one(native_trials().into_iter().chain(vm_trials()), args.next()),
        Some("workload") => workload::main(args),
        Some("host-memory") => outside::main(),
        Some("guard-controller") => guard::controller(args),
        _ => {
            eprintln!(
                "usage: grey-tests native|vm [FILTER…] | one TEST | workload NAME [ARG…] | host-memory"
            );
            ExitCode::from(2)
        }
    }
}
