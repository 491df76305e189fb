//! A host end that injects into local APICs emulated by KVM. The state of the APICs shows which
//! interrupts arrived; no guest runs.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod trials;

fn main() -> std::process::ExitCode {
    doorbell_test_support::kvm::run(&[
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        trials::ALL,
    ])
}
