//! Saved states of [`vgic`] in the format of Linux's KVM: the device attributes of its GICv3 and
//! ITS, and their tables in guest memory. The tables have ITS ABI revision 0
//! (`Documentation/virt/kvm/devices/arm-vgic-v3.rst`, `arm-vgic-its.rst`).
//!
//! A [`KvmView`] takes a [`SavedState`](vgic::saved_state::SavedState), reads and writes its
//! attributes with KVM's values and error numbers, and returns a `SavedState`. A state from KVM
//! loads into a machine made from a [`kvm_config`], and a state of such a machine loads into KVM.
//! [`abi`] has the numbers of attributes and the layouts of table entries.
//!
//! | task | calls |
//! |---|---|
//! | save for KVM | view the result of [`Frozen::save`](vgic::Frozen::save), [`save`](KvmView::save), [`left_out`](KvmView::left_out); then copy the memory |
//! | restore from KVM | restore the memory, view the state of the fresh machine, [`load`](KvmView::load), [`left_out`](KvmView::left_out), [`into_state`](KvmView::into_state), [`Frozen::restore`](vgic::Frozen::restore) |
//!
//! # Differences between the model and KVM
//!
//! A state that KVM cannot hold is [refused](OutsideKvm). The placement of redistributors, in one
//! region or in several, is not part of a state: KVM's GIC must be created with the same regions.
//! A machine cannot change its [revision](at_revision): `GICD_IIDR` accepts its own value alone.
//!
//! KVM has no attribute for the following, and a guest does not depend on it:
//!
//! - the sleep state of a redistributor (`GICR_WAKER`);
//! - the levels of edge-triggered inputs;
//! - the CPU that acknowledged an active SPI;
//! - the Group 1 binary point while Group 0's serves both;
//! - a pending latch that software set on a level-sensitive interrupt while it was active;
//! - cached configurations of LPIs;
//! - faults of commands.
//!
//! KVM keeps a pending LPI with its event. An LPI that is pending at a redistributor without an
//! event is assigned to an event that maps it. It goes to one with the same target CPU, else to
//! any. It is dropped if no event maps it, because no device can send it. Pending state of an event
//! is also dropped if its collection is unmapped. MAPC leaves that UNPREDICTABLE (IHI 0069, MAPC).
//!
//! While LPIs are disabled, a save sets bits of the guest's pending table but never clears any,
//! because the table then holds the LPIs that were pending when the guest disabled them. KVM also
//! clears these bits, but has kept a copy. KVM has a single `GICR_PROPBASER`: redistributors
//! without enabled LPIs receive that of the others.
//!
//! Tables that are not in guest memory must not prevent a migration between models, whereas
//! KVM's save fails with `EFAULT`. A save leaves out everything that it cannot write:
//!
//! - a pending bit beyond its table, or of a redistributor whose table was never set;
//! - a device whose entry or translation table is elsewhere;
//! - a collection beyond its table, or from the first write on that fails, and the events that use
//!   it, because neither the model nor KVM restores an event whose collection is not in the table.
//!
//! A restore treats tables that it cannot read as empty, except for translation tables: for these
//! it fails with `EFAULT`. Whether KVM restores a machine whose valid `GITS_BASER<n>` points
//! outside of memory is for KVM to decide: the versions below are expected to refuse it with an
//! error.
//!
//! Faulty accesses of the monitor itself look the same, for example if it restores a machine before
//! it registered the guest's RAM. They make a save or restore succeed with little or nothing in it.
//! So a monitor should log [`KvmView::left_out`] after each save and load. It should abort the
//! migration if something was left out although the tables are in RAM, where
//! [`LeftOut::first_fault`] helps.
//!
//! # Differences between KVM and its documentation
//!
//! This crate follows Linux 6.1 and 6.12:
//!
//! - Registers of a distributor or redistributor that do not exist read as zero and ignore writes.
//! - Unknown commands to an ITS succeed.
//! - `IDbits` in `ICC_CTLR_EL1` describes the host, and is not compared.
//! - The one enable in KVM's `GICD_CTLR` is Group 1's, and forwards Group 0 too. A state from KVM
//!   has Group 0 disabled here.
//! - KVM does not signal an interrupt that became pending while `GICD_CTLR` had it disabled. So
//!   [`KvmView::save`] puts that register first.
//!
//! # Features
//!
//! `serde` and `std` enable the features of [`vgic`] with these names.
//!
//! # Example
//!
//! A machine goes to KVM's format and back: `registers` and the guest's memory are what KVM's own
//! save would be.
//!
//! ```
//! # use msi_types::{Cpu, Kick};
//! # use std::sync::{Arc, Mutex};
//! # use vgic::{GuestMemory, MemoryFault};
//! # struct Ram(Mutex<Vec<u8>>);
//! # impl GuestMemory for Ram {
//! #     fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryFault> {
//! #         let ram = self.0.lock().unwrap();
//! #         let part = ram.get(address as usize..address as usize + bytes.len());
//! #         bytes.copy_from_slice(part.ok_or(MemoryFault { address })?);
//! #         Ok(())
//! #     }
//! #     fn write(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
//! #         let mut ram = self.0.lock().unwrap();
//! #         let part = ram.get_mut(address as usize..address as usize + bytes.len());
//! #         part.ok_or(MemoryFault { address })?.copy_from_slice(bytes);
//! #         Ok(())
//! #     }
//! # }
//! # struct NoKick;
//! # impl Kick for NoKick {
//! #     fn kick(&self, _: Cpu) {}
//! # }
//! use vgic::{Vgic, VgicConfig};
//! use vgic_kvm::{KvmView, kvm_config, kvm_its_config};
//!
//! let config = kvm_config(2, 96).with_its(vec![kvm_its_config(0x0808_0000)]);
//! let memory = Arc::new(Ram(Mutex::new(vec![0; 1 << 20])));
//! let (gic, mut vcpus) = Vgic::new(config.clone(), memory.clone(), Arc::new(NoKick))?;
//! let mut frozen = gic.freeze(&mut vcpus)?;
//!
//! let mut view = KvmView::new(&config, frozen.save()?, &*memory)?;
//! let registers = view.save()?;
//! assert!(view.left_out().is_empty(), "{}", view.left_out());
//!
//! let mut view = KvmView::new(&config, frozen.save()?, &*memory)?;
//! view.load(&registers)?;
//! assert!(view.left_out().is_empty(), "{}", view.left_out());
//! frozen.restore(&view.into_state())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod abi;
mod attributes;
mod config;
mod distributor;
mod interface;
mod interrupts;
mod its;
mod left_out;
mod limits;
mod order;
mod pending;
mod redistributor;
mod register;
mod revision;
mod tables;
mod view;
mod word;

pub use config::{kvm_config, kvm_its_config};
pub use gic_arch;
pub use left_out::LeftOut;
pub use limits::OutsideKvm;
pub use msi_types;
pub use register::{KvmDevice, KvmError, KvmRegister};
pub use revision::at_revision;
pub use vgic;
pub use view::KvmView;
