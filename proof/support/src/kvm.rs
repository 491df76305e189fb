//! Runs trials on a real KVM. On a host without KVM, each trial is skipped, and the reason is
//! reported.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod local_apic;
mod outcome;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use local_apic::{enable, take_arrived};
pub use outcome::{Failure, Outcome, same};

use libtest_mimic::{Arguments, Completion, Failed};
use std::process::ExitCode;

/// The name and the function of a trial.
pub type Trial = (&'static str, fn() -> Outcome);

/// Runs the trials; serves as the `main` function of a test program. If `lists` is empty, because
/// the trials need Linux on x86-64, reports one skipped trial.
pub fn run(lists: &[&'static [Trial]]) -> ExitCode {
    const NONE: &[Trial] = &[("messages_reach_kvm", || Ok(()))];
    let trials = if lists.is_empty() { &[NONE] } else { lists };
    let trials = trials.iter().copied().flatten().map(|(name, run)| {
        libtest_mimic::Trial::ignorable_test(*name, || match absent() {
            Some(reason) => Ok(Completion::ignored_with(reason)),
            None => run()
                .map(|()| Completion::Completed)
                .map_err(|error| Failed::from(error.to_string())),
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

/// Returns the reason why a virtual machine cannot be created, or `None` if it can.
pub fn absent() -> Option<String> {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    return local_apic::absent();
    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    return Some("KVM's local APICs need Linux on x86-64".into());
}
