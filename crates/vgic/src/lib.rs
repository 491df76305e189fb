//! A GICv3 and ITS device model with lock-free injection, for virtual machine monitors (VMMs) and
//! hypervisors.
//!
//! The model has two sides. [`Vgic`] is shared: devices drive lines
//! ([`SetLine`](msi_types::SetLine)) and send messages ([`Vgic::its`], [`Vgic::write_from_device`])
//! from any thread, and the bus forwards the guest's accesses to register frames ([`Vgic::read`],
//! [`Vgic::write`]). A [`Vcpu`] is owned by its vCPU's thread. The vCPU's value handles the guest's
//! accesses to the CPU interface's system registers, and reports whether an interrupt must be
//! signaled and whether the vCPU may sleep. A hypervisor at EL2 converts each `Vcpu` into a
//! [`ListRegisterVcpu`], whose guest acknowledges and ends interrupts in hardware. The VMM must
//! implement two small traits: [`GuestMemory`] and [`Kick`](msi_types::Kick).
//!
//! Making an interrupt pending doesn't take a lock or allocate. If the target vCPU is asleep or in
//! the guest, the injecting thread sends exactly one kick, which may be a system call; otherwise,
//! it doesn't make any system calls. Acknowledging an interrupt doesn't take a lock or allocate.
//!
//! A guest can't make the model panic, block or grow without bound. Guest errors are recorded in
//! [`Vgic::events`]. A [`GuestFault`] names the register, the value and the kind of error. VMMs
//! should print at least the first fault of each kind.
//!
//! [`Vgic::explain`] and [`Vgic::explain_interrupt`] name the obstacles on an interrupt's path
//! while the machine runs. `Debug` formats a summary.
//!
//! | implemented | |
//! |---|---|
//! | distributor | SPIs and extended SPIs, affinity routing only, 1 of N, message-based SPIs |
//! | redistributors | SGIs, PPIs and extended PPIs, LPIs, several regions, direct LPIs |
//! | vCPUs | software CPU interface, or list registers; wake requests for `PSCI_CPU_SUSPEND` |
//! | CPU interface | groups, 4 to 8 priority bits, preemption, both EOI modes, active priorities |
//! | security | one state (`DS` = 1), or the Non-secure view of two (`DS` = 0) |
//! | ITS | see [`its`] |
//! | GICv2m | several frames |
//! | life cycle | system and vCPU reset; pause, save, restore: see [`saved_state`] |
//!
//! # Choices that the architecture leaves
//!
//! - Writes take effect before they return: `RWP`, `UWP` and `SYNCR.Busy` read as zero. The
//!   exceptions are a vCPU with list registers, which must first exit the guest, and a change that
//!   affects more mappings than one access may visit, which vCPUs complete later. A write that sets
//!   `GICR_CTLR.EnableLPIs` or `GITS_CTLR.Enabled` must be repeated until all mappings have been
//!   visited ([`Vgic::write`]), or visits them before it returns ([`Vgic::write_until_done`]).
//! - If interrupts have equal priority, the lowest INTID is signaled first. LPIs with equal
//!   priority are signaled round-robin, so none of them starves.
//! - UNPREDICTABLE accesses are ignored. The three `STATUSR` registers are not implemented.
//! - Writing a special INTID to `ICC_EOIR<n>_EL1` does not drop the running priority, and neither
//!   does writing any INTID while an interrupt of the other group is running. Writing any other
//!   INTID drops the running priority, as with list registers. `ICC_DIR_EL1` is ignored unless
//!   `EOImode` is set.
//! - `ICC_SGI1R_EL1` only sends Group 1 SGIs (KVM also sends Group 0 SGIs). With one security
//!   state, `ICC_ASGI1R_EL1` behaves like `ICC_SGI0R_EL1`. With two security states, `GICR_NSACR`
//!   grants the Non-secure side no access.
//! - `GICD_SETSPI_NSR` for a level-sensitive SPI that `GICD_ISPENDR` has made pending keeps the SPI
//!   pending until `GICD_CLRSPI_NSR` is written, as in Gunyah and bhyve. By the letter of IHI 0069
//!   §12.9, the write has no effect, and the device's interrupt could be lost.
//! - 1-of-N interrupts are distributed round-robin over the participating vCPUs. `GICD_CTLR.E1NWF`
//!   has no effect: a pending 1-of-N interrupt doesn't wake a sleeping redistributor's vCPU.
//!
//! # Firmware's role
//!
//! After a reset, a redistributor sleeps and forwards nothing until `GICR_WAKER.ProcessorSleep` is
//! cleared (IHI 0069, `GICR_WAKER`). With one security state, either firmware or the guest can
//! clear this bit. Linux does. A kernel that relies on firmware to have done so, as TF-A does
//! before it starts the kernel on a CPU, would otherwise receive no interrupts at all. A VMM that
//! implements PSCI itself acts as firmware, and therefore must wake each redistributor before its
//! vCPU starts: [`VgicConfig::awake_redistributors`] makes [`Vgic::reset`] and [`Vcpu::reset`] do
//! so. VMMs whose guests start in their own firmware should leave the option off. In the Non-secure
//! view, redistributors are always awake. Saved states record whether each redistributor is awake.
//!
//! # Deferred work
//!
//! Each access does a bounded amount of work. The vCPUs do the remaining work, and treat it like a
//! pending interrupt: [`Vcpu::inputs`], [`Vcpu::prepare_to_sleep`], [`Vcpu::enter_guest`] and
//! [`ListRegisterVcpu::enter`] each do one piece. While work remains, vCPUs don't sleep, and a vCPU
//! that enters the guest is kicked immediately. When an access leaves work behind, the model also
//! kicks one vCPU that is asleep or in the guest. A VMM that runs vCPUs therefore needs no code for
//! the remaining work. A VMM without vCPUs, or with an idle thread, may call [`Vgic::poll`].
//!
//! # Configuration
//!
//! [`VgicConfig::new`], [`its::ItsConfig::new`] and [`V2mConfig::new`] return complete
//! configurations for a machine, an ITS and a frame. Each field has a setter `with_…`. Later
//! versions may add fields; `new` sets new fields to values that keep the behavior of this version.
//!
//! # Features
//!
//! Register accesses and commands take locks, some of which are held across accesses to guest
//! memory. By default, a thread spins while another thread holds the lock, as is usual at EL2. A
//! VMM that runs as a process of an operating system should enable `std`: waiting threads then
//! sleep instead of spinning away their time slices while the lock holder is preempted or waits for
//! a page. The feature changes nothing else. `serde` makes saved states serializable, and
//! `vm-memory` provides [`VmMemory`].
//!
//! # Example
//!
//! A VMM with one vCPU whose guest has enabled a PPI: the timer fires, and the guest handles it.
//!
//! ```
//! use gic_arch::{IntId, gicd, gicr, icc};
//! use msi_types::{Cpu, Kick, Level, Line, SetLine};
//! use std::sync::Arc;
//! use vgic::{AccessWidth, GuestMemory, MemoryFault, Sleep, Vgic, VgicConfig};
//!
//! struct NoMemory;
//! impl GuestMemory for NoMemory {
//!     fn read(&self, address: u64, _: &mut [u8]) -> Result<(), MemoryFault> {
//!         Err(MemoryFault { address })
//!     }
//!     fn write(&self, address: u64, _: &[u8]) -> Result<(), MemoryFault> {
//!         Err(MemoryFault { address })
//!     }
//! }
//!
//! struct Unpark(std::thread::Thread);
//! impl Kick for Unpark {
//!     fn kick(&self, _: Cpu) {
//!         self.0.unpark();
//!     }
//! }
//!
//! let config = VgicConfig::new(1);
//! let (distributor, redistributor) = (config.distributor, config.redistributors[0].base);
//! let kick = Arc::new(Unpark(std::thread::current()));
//! let (gic, mut vcpus) = Vgic::new(config, Arc::new(NoMemory), kick)?;
//! let mut vcpu = vcpus.remove(0);
//!
//! // Writes by the guest's driver, as the monitor's exit handler forwards them.
//! let timer = IntId::new(27);
//! let write = |address, value| gic.write_until_done(address, AccessWidth::Word, value);
//! write(distributor + u64::from(gicd::CTLR.offset()), 2)?;
//! write(redistributor + u64::from(gicr::WAKER.offset()), 0)?;
//! for array in [gicr::IGROUPR, gicr::ISENABLER] {
//!     let bit = array.locate(timer).unwrap();
//!     write(redistributor + u64::from(bit.register().offset()), bit.mask().into())?;
//! }
//! vcpu.write_sysreg(icc::PMR.encoding(), 0xff)?;
//! vcpu.write_sysreg(icc::IGRPEN1.encoding(), 1)?;
//!
//! // The guest waits; another thread drives the line.
//! if vcpu.prepare_to_sleep() == Sleep::Ready {
//!     let line = Line::Ppi { cpu: vcpu.cpu(), intid: timer.get() };
//!     let gic = Arc::clone(&gic);
//!     std::thread::spawn(move || gic.set_line(line, Level::High));
//!     while !vcpu.irq_pending() {
//!         std::thread::park();
//!     }
//!     vcpu.returned();
//! }
//! assert_eq!(vcpu.read_sysreg(icc::IAR1.encoding())?, 27);
//! vcpu.write_sysreg(icc::EOIR1.encoding(), 27)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

#[cfg(not(target_has_atomic = "64"))]
compile_error!("vgic needs 64-bit atomics, which this target does not have");

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod config;
mod cpu;
mod cpu_interface;
mod explain;
mod frames;
mod inspection;
#[cfg(all(test, shuttle))]
mod interleavings;
mod lifecycle;
mod lpi;
mod monitor;
pub mod saved_state;
mod sync;
mod vgic;
mod wakeup;
mod wired;

pub use config::{
    ConfigError, CpuConfig, MAX_CPUS, RedistributorRegion, SecurityView, V2mConfig, V2mConfigError,
    VgicConfig,
};
pub use cpu::list_registers::{InGuest, ListRegisterVcpu, RefusedVcpu, VirtualInterfaceMismatch};
pub use cpu::listed::{MAX_LIST_REGISTERS, VirtualInterface};
pub use cpu::paused::Paused;
pub use cpu::system_registers::Undefined;
pub use cpu::vcpu::{Inputs, Sleep, Vcpu};
pub use doorbell_fallible::OutOfMemory;
pub use frames::its;
pub use gic_arch;
pub use monitor::events::{EventLog, FaultDetail, FaultReason, GuestFault, RegisterFrame};
#[cfg(feature = "vm-memory")]
pub use monitor::rust_vmm::VmMemory;
pub use monitor::{
    AccessWidth, BadWidth, DirectInjection, DirectTarget, GuestMemory, InListRegister, MemoryFault,
    Progress, Translate,
};
pub use msi_types;
pub use vgic::{Block, DeviceWrite, NotClaimed, ObserverTaken, PhysicalTaken, Region, Vgic};
pub use wired::{LinkError, PhysicalInterrupts};
