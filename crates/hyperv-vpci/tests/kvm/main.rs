//! A host's end that injects into the local APICs of the host's KVM. Their state shows which
//! interrupts arrived; no guest runs.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod trials;

fn main() -> std::process::ExitCode {
    doorbell_test_support::kvm::run(&[
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        trials::ALL,
    ])
}
