//! Linux's KVM, nested in QEMU: as the judge of the model, and below Alioth, another project's
//! monitor.

#![forbid(unsafe_code)]

mod alioth;

use std::process::ExitCode;

use doorbell_harness::qemu::Version;
use doorbell_harness::suite::{self, Case};
use doorbell_suites::fetched::PREPARATION;
use doorbell_suites::kvm;

use self::alioth::Host;

fn main() -> ExitCode {
    let mut cases: Vec<_> = if suite::is_long() {
        Version::ALL.iter().map(|&version| judge(version, Some(kvm::LONG_PLANS))).collect()
    } else {
        vec![judge(Version::Backports, None)]
    };
    cases.extend(alioth::cases(if suite::is_long() { Host::X86 } else { Host::Arm64 }));
    suite::main(cases)
}

/// Returns a case that compares the model with the KVM of a kernel.
fn judge(version: Version, plans: Option<u32>) -> Case {
    let name = format!("KVM of {version:?}'s kernel");
    Case::new(name, PREPARATION + kvm::limit(plans), move || kvm::judge(version, plans))
}
