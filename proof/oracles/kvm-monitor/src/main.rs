//! A VMM on Linux's KVM for arm64. Its guest is a flat image with two vCPUs, a GICv3, an ITS and a
//! PL011, all at the addresses used by QEMU's `virt` machine. The VMM passes a PCI function through
//! to the guest by means of VFIO.
//!
//! ```text
//! kvm-monitor IMAGE [/sys/bus/pci/devices/FUNCTION]
//! ```
//!
//! The guest prints the cost of its operations. For each operation, the VMM adds the number of
//! exits that KVM counted. The guest ends by calling `SYSTEM_OFF`.
// Only `kernel.rs` uses `unsafe`, because the kernel accesses the memory that is passed to it
// there.
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
