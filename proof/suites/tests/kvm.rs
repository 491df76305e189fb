//! Compares the model with Linux's KVM for arm64, nested in QEMU.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use doorbell_harness::qemu::Version;
use doorbell_harness::suite::{self, Case};
use doorbell_suites::fetched::PREPARATION;
use doorbell_suites::kvm;

fn main() -> ExitCode {
    let plans = suite::is_long().then_some(kvm::LONG_PLANS);
    let case = |version| {
        let name = format!("KVM of {version:?}'s kernel");
        Case::new(name, PREPARATION + kvm::limit(plans), move || kvm::judge(version, plans))
    };
    suite::main(Version::ALL.map(case).into())
}
