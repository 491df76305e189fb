//! A host's end that rings the local APICs of real KVM: they show what has arrived. No guest runs.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod trials;

fn main() -> std::process::ExitCode {
    doorbell_test_support::kvm::run(&[
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        trials::ALL,
    ])
}
