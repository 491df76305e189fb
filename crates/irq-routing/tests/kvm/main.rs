//! Routes and eventfds in real KVM: its local APIC shows what has arrived. No guest runs.
//!
//! Where there is no KVM, every trial is skipped and says why.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod machines;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod trials;

use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;

fn main() -> ExitCode {
    libtest_mimic::run(&Arguments::from_args(), all()).exit_code()
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn all() -> Vec<Trial> {
    trials::all()
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn all() -> Vec<Trial> {
    let skip =
        || Ok(libtest_mimic::Completion::ignored_with("KVM's local APICs need Linux on x86-64"));
    vec![Trial::ignorable_test("routes_reach_kvm", skip)]
}
