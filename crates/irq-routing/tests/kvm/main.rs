//! Routes and eventfds in the host's KVM. The state of a local APIC shows which interrupts arrived;
//! no guest runs.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod foreign;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod hand_over;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod machines;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod translated;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod trials;

fn main() -> std::process::ExitCode {
    doorbell_test_support::kvm::run(&[
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        trials::ALL,
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        machines::ALL,
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        hand_over::ALL,
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        foreign::ALL,
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        translated::ALL,
    ])
}
