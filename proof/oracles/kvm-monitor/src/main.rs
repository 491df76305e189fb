//! A VMM on Linux's KVM for arm64. Its guest is a flat image with two vCPUs, a GICv3, an ITS and a
//! PL011, all at the addresses used by QEMU's `virt` machine. It passes a PCI function through with
//! VFIO.
//!
//! ```text
//! kvm-monitor IMAGE [/sys/bus/pci/devices/FUNCTION]
//! ```
//!
//! The guest prints what its operations cost. For each, the VMM adds how many exits KVM counted.
//! The guest ends with `SYSTEM_OFF`.
// Except in `kernel.rs`, because the kernel accesses the memory passed to it there.
#![deny(unsafe_code)]

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod console;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod devicetree;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod failure;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod function;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod kernel;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod layout;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod machine;

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
fn main() -> Result<(), failure::Failure> {
    let mut arguments = std::env::args_os().skip(1);
    let image = arguments.next().ok_or("the first argument must name an image")?;
    let image = std::fs::read(image)?;
    let function = arguments.next().map(std::path::PathBuf::from);
    machine::Machine::new(&image, function.as_deref())?.run()
}

#[cfg(not(all(target_os = "linux", target_arch = "aarch64")))]
fn main() -> std::process::ExitCode {
    eprintln!(
        "KVM for arm64: cargo xtask hypervisor --cost has QEMU emulate a machine that has it"
    );
    std::process::ExitCode::FAILURE
}
