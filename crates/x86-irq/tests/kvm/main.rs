//! Tests this crate's messages with KVM's local APICs. A guest of about a hundred bytes counts the
//! arrivals.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod bench;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod guest;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod machine;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod trials;

fn main() -> std::process::ExitCode {
    doorbell_test_support::kvm::run(&[
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        trials::ALL,
    ])
}
