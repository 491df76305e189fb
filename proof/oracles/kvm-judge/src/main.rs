//! Runs the judge, which prints a fact for each case, followed by the cases' counts
//! (`doorbell-facts`). If the judge runs as the first process of its machine, it then powers the
//! machine off.
#![forbid(unsafe_code)]

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod cases;

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
fn main() {
    cases::run();
    if std::process::id() == 1 {
        // A failure to power off can't be reported any more.
        let _ = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "aarch64")))]
fn main() -> std::process::ExitCode {
    eprintln!("the judge is KVM for arm64: cargo xtask kvm has QEMU emulate a machine that has it");
    std::process::ExitCode::FAILURE
}
