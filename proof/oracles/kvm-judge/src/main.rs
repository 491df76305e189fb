//! The judge. Prints a fact for each case, followed by their counts (`doorbell-facts`). If it runs
//! as the machine's first process, it then powers the machine off.
#![forbid(unsafe_code)]

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod cases;

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
fn main() {
    cases::run();
    if std::process::id() == 1 {
        // A failure can't be reported any more.
        let _ = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "aarch64")))]
fn main() -> std::process::ExitCode {
    eprintln!("the judge is KVM for arm64: cargo xtask kvm has QEMU emulate a machine that has it");
    std::process::ExitCode::FAILURE
}
