//! Messages of this crate against real local APICs: those of KVM. A guest of a hundred bytes counts
//! what arrives.
//!
//! Without KVM, every trial is skipped and prints the reason.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod bench;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod guest;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod machine;
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
    vec![Trial::ignorable_test("messages_reach_kvm", skip)]
}
