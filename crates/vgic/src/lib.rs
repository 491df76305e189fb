//! A GICv3 and ITS device model with lock-free injection, for virtual machine monitors and
//! hypervisors.
//!
//! The model has two kinds of halves. [`Vgic`] is shared. From any thread, devices drive lines
//! ([`SetLine`](msi_types::SetLine)) and send messages ([`Vgic::its`],
//! [`Vgic::write_from_device`]). The bus forwards the guest's accesses to register frames
//! ([`Vgic::read`], [`Vgic::write`]). A [`Vcpu`] is owned by its vCPU's thread. It answers the
//! guest's accesses to the CPU interface's system registers, and says whether the vCPU is
//! interrupted or may sleep. A hypervisor at EL2 makes a [`ListRegisterVcpu`] of it, whose guest
//! acknowledges and ends interrupts in hardware. What the model needs of its monitor is two small
//! traits: [`GuestMemory`] and [`Kick`](msi_types::Kick).
//!
//! Making an interrupt pending takes no lock, allocates nothing, and makes no system call unless
//! the vCPU is asleep or in the guest. Then there is exactly one kick. Acknowledging one takes no
//! lock and allocates nothing either.
//!
//! A guest cannot make the model panic, wait or grow without bound. Its mistakes are recorded in
//! [`Vgic::events`]: a [`GuestFault`] names the register, the value and, in words, what is wrong
//! with it. Monitors should print at least the first fault of each kind.
//!
//! | implemented | |
//! |---|---|
//! | distributor | SPIs and extended SPIs, affinity routing only, 1 of N, message-based SPIs |
//! | redistributors | SGIs, PPIs and extended PPIs, LPIs, several regions, direct LPIs |
//! | vCPUs | software CPU interface, or list registers; wake requests for `PSCI_CPU_SUSPEND` |
//! | CPU interface | groups, 4 to 8 priority bits, preemption, both EOI modes, active priorities |
//! | security | one state (`DS` = 1), or the Non-secure view of two (`DS` = 0) |
//! | ITS | see [`its`] |
//! | GICv2m | several frames, with the boards' ways of naming SPIs |
//! | life cycle | system and vCPU reset; freeze, save, restore: see [`saved_state`] |
//!
//! # Choices that the architecture leaves
//!
//! - Writes take effect before they return: `RWP`, `UWP` and `SYNCR.Busy` read as zero. Exceptions
//!   are a vCPU with list registers that has yet to exit, and more mappings than one access may go
//!   through. Then vCPUs take the rest further. Setting `GICR_CTLR.EnableLPIs` or
//!   `GITS_CTLR.Enabled` goes through all that is mapped before it returns, or is repeated until it
//!   has ([`Vgic::begin_write`]).
//! - Of equal priorities, the lowest INTID goes first; LPIs among themselves take turns, and none
//!   starves.
//! - Accesses that the architecture calls UNPREDICTABLE are ignored. The three
//!   `STATUSR` are not implemented.
//! - A special INTID in `ICC_EOIR<n>_EL1` drops no priority, nor does any where the other group
//!   runs; any other INTID does, as in list registers. `ICC_DIR_EL1` without `EOImode` is ignored.
//! - `ICC_SGI1R_EL1` sends SGIs of Group 1 only (KVM's also those of Group 0). With one security
//!   state, `ICC_ASGI1R_EL1` does what `ICC_SGI0R_EL1` does. Of two, `GICR_NSACR` permits the
//!   Non-secure side nothing.
//! - A 1-of-N interrupt goes to the next vCPU that takes part, and none is woken for it by
//!   `GICD_CTLR.E1NWF`.
//!
//! # Firmware's part
//!
//! After a reset, a redistributor sleeps and forwards nothing until `GICR_WAKER.ProcessorSleep` is
//! cleared (IHI 0069, `GICR_WAKER`). With one security state both firmware and the guest can clear
//! it. Linux does, but a kernel that expects firmware to have done so, as TF-A does before it
//! enters the kernel on a CPU, receives no interrupts at all. A monitor that implements PSCI itself
//! acts as firmware, and therefore must wake each redistributor before its vCPU starts:
//! [`VgicConfig::awake_redistributors`] makes [`Vgic::reset`] and [`Vcpu::reset`] do so. Monitors
//! whose guests start in their own firmware should leave the option off. In the Non-secure view
//! redistributors are always awake. Saved states contain whether each redistributor is awake.
//!
//! # What is left over
//!
//! An access does a bounded piece of what the guest asked for. The rest is a vCPU's work, as if an
//! interrupt were there: [`Vcpu::inputs`], [`Vcpu::prepare_to_sleep`], [`Vcpu::enter_guest`] and
//! [`ListRegisterVcpu::enter`] do a piece each. While more is left, a vCPU does not sleep, and one
//! that enters the guest is kicked at once. If others sleep or run, one of them is kicked. So a
//! monitor that runs vCPUs need do nothing for it. One without vCPUs, or with an idle thread, calls
//! [`Vgic::poll`].
//!
//! # Configuration
//!
//! [`VgicConfig::new`], [`its::ItsConfig::new`] and [`V2mConfig::new`] give complete machines,
//! ITSes and frames; each field has a setter `with_…`. Later versions may add fields: their values
//! from `new` keep the behaviour of this version.
//!
//! # Features
//!
//! Registers and commands take locks, and some hold one while they access guest memory. Without
//! features, a thread that finds a lock taken spins, as at EL2. A monitor that is a process of an
//! operating system chooses `std`, and its threads then sleep. So a holder that was preempted or
//! waits for a page costs no other vCPU its time slice. Nothing else changes. `serde` makes saved
//! states serialise, `vm-memory` provides [`VmMemory`].
//!
//! # Example
//!
//! A monitor with one vCPU, whose guest has enabled a PPI: the timer fires, and the guest handles
//! it.
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
//! // The guest's driver writes these, as the monitor's exit handler passes it on.
//! let timer = IntId::new(27);
//! let write = |address, value| gic.write(address, AccessWidth::Word, value);
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
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod config;
mod cpu;
mod frames;
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
    V2mNaming, VgicConfig,
};
pub use cpu::list_registers::{InGuest, ListRegisterVcpu, VirtualInterfaceMismatch};
pub use cpu::listed::{MAX_LIST_REGISTERS, VirtualInterface};
pub use cpu::system_registers::Undefined;
pub use cpu::vcpu::{Inputs, Sleep, Vcpu};
pub use doorbell_fallible::OutOfMemory;
pub use frames::its;
pub use gic_arch;
pub use lifecycle::freeze::Frozen;
pub use monitor::access::{AccessWidth, BadWidth};
pub use monitor::events::{EventLog, FaultDetail, FaultReason, GuestFault, RegisterFrame};
pub use monitor::memory::{GuestMemory, MemoryFault};
pub use monitor::progress::Progress;
#[cfg(feature = "vm-memory")]
pub use monitor::rust_vmm::VmMemory;
pub use msi_types;
pub use vgic::doorbells::DeviceWrite;
pub use vgic::{Block, NotClaimed, ObserverTaken, PhysicalTaken, Region, Vgic};
pub use wired::{LinkError, PhysicalInterrupts};
