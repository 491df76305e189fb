//! Compares the model with Linux's KVM for arm64, nested in QEMU.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use doorbell_harness::qemu::Version;
use doorbell_harness::suite::{self, Case};
use doorbell_suites::fetched::PREPARATION;
use doorbell_suites::kvm;

fn main() -> ExitCode {
    let newest = &[Version::Backports];
    let (plans, versions) = if suite::is_long() {
        (Some(kvm::LONG_PLANS), &Version::ALL[..])
    } else {
        (None, &newest[..])
    };
    let case = |version| {
        let name = format!("KVM of {version:?}'s kernel");
        Case::new(name, PREPARATION + kvm::limit(plans), move || kvm::judge(version, plans))
    };
    suite::main(versions.iter().copied().map(case).collect())
}
