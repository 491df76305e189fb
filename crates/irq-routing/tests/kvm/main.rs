//! Routes and eventfds in real KVM: its local APIC shows what has arrived. No guest runs.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod batches;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod machines;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod trials;

fn main() -> std::process::ExitCode {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    let trials = &[trials::ALL, machines::ALL, batches::ALL];
    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    let trials: &[&[_]] = &[];
    doorbell_test_kvm::run(trials)
}
