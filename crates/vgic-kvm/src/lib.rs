//! Conversion of saved [`vgic`] states to the format of Linux's KVM, which consists of the device
//! attributes of its GICv3 and ITS and of tables in guest memory. The tables follow ITS ABI
//! revision 0 (`Documentation/virt/kvm/devices/arm-vgic-v3.rst`, `arm-vgic-its.rst`).
//!
//! A [`KvmView`] wraps a [`SavedState`](vgic::saved_state::SavedState), gives access to its
//! attributes with KVM's values and error numbers, and returns a `SavedState`. A state from KVM
//! loads into a machine made from a [`kvm_config`], and a state from that machine loads into KVM.
//! [`abi`] defines the numbers of attributes and the layouts of table entries.
//!
//! | task | calls |
//! |---|---|
//! | ask whether a machine can move to KVM | [`check_machine`] with its configuration, before anything is stopped |
//! | save for KVM | create a view of [`Vgic::save`](vgic::Vgic::save)'s result, [`save`](KvmView::save), [`left_out`](KvmView::left_out); then copy guest memory |
//! | restore from KVM | restore guest memory, create a view of the fresh machine's state, [`load`](KvmView::load), [`left_out`](KvmView::left_out), [`into_state`](KvmView::into_state), [`Vgic::restore`](vgic::Vgic::restore) |
//! | ask whether KVM will accept a saved state | [`KvmSnapshot::rehearse`](snapshot::KvmSnapshot::rehearse) |
//! | save and restore KVM's own controller | [`KvmSnapshot::take`](snapshot::KvmSnapshot::take), [`rehearse`](snapshot::KvmSnapshot::rehearse), [`restore`](snapshot::KvmSnapshot::restore) |
//!
//! A [`KvmExplainer`] explains why an interrupt does not arrive from KVM's controller.
//!
//! # Differences between the model and KVM
//!
//! A state that KVM can't represent is [refused](OutsideKvm). Redistributor regions aren't part of
//! a state, so KVM's GIC must be created with the same regions. The [revision](at_revision) of a
//! machine cannot change, because `GICD_IIDR` accepts only its current value.
//!
//! KVM doesn't have an attribute for the following state, and guests don't depend on it:
//!
//! - the sleep state of a redistributor (`GICR_WAKER`);
//! - the levels of edge-triggered inputs: if one was high, the next high level is another edge;
//! - the CPU that acknowledged an active SPI, unless it is the SPI's target or the only CPU whose
//!   active priorities contain the SPI's;
//! - the Group 1 binary point while both groups use the binary point of Group 0;
//! - a pending latch that software set on a level-sensitive interrupt while it was active;
//! - cached configurations of LPIs;
//! - faults of commands.
//!
//! KVM keeps a pending LPI with its event. If an LPI is pending at a redistributor without an
//! event, we assign it to an event that maps it, preferably one with the same target CPU. If there
//! is no such event, we drop the LPI, because no device can send it. The pending state of an event
//! is also dropped if its collection is unmapped, because the architecture makes that state
//! UNPREDICTABLE (IHI 0069, MAPC).
//!
//! While LPIs are disabled, a save sets bits of the guest's pending table but never clears any,
//! because the table then contains the LPIs that were pending when the guest disabled them. KVM
//! also clears bits in this case, but it keeps a copy of the pending state. KVM has a single
//! `GICR_PROPBASER`, so redistributors without enabled LPIs receive the value of the other
//! redistributors.
//!
//! Tables that are not in guest memory must not prevent a migration between models, whereas KVM's
//! save fails with `EFAULT`. A save leaves out the following contents if it cannot write them:
//!
//! - a pending bit beyond the pending table, or at a redistributor whose `GICR_PENDBASER` was never
//!   written;
//! - a device whose entry or translation table is outside guest memory;
//! - a collection beyond its table, all collections after the first failed write, and the events
//!   that use these collections, because neither the model nor KVM restores an event whose
//!   collection is not in the table.
//!
//! A load into the model treats tables that it cannot read as empty, except for translation tables,
//! for which it fails with `EFAULT`. KVM also fails for each other byte that it reads, which
//! includes the configuration and the pending bit of each mapped LPI. If the destination is KVM,
//! call [`rehearse`](snapshot::KvmSnapshot::rehearse), or load into a view that is [as strict as
//! KVM](KvmView::as_strict_as_kvm).
//!
//! A guest can also let its tables overlap each other, its command queue or its LPI configuration
//! table. What one of them contains is then lost. A save therefore reads back what it has written,
//! and counts each difference, and each ITS whose tables a restore would refuse. KVM's own save
//! reports neither.
//!
//! This crate cannot distinguish such tables from errors of the VMM, which may, for example,
//! restore a machine before it has registered the guest's RAM. The save or restore then succeeds,
//! although it transfers few or no table contents. A VMM should therefore log [`KvmView::left_out`]
//! after each save and load, and should abort the migration if contents were left out although the
//! tables are in RAM. [`LeftOut::first_fault`] returns the address of the first failed access.
//!
//! # Differences between KVM and its documentation
//!
//! This crate follows the behavior of Linux 6.1 and 6.12:
//!
//! - Registers of a distributor or redistributor that do not exist read as zero and ignore writes.
//!   A load counts the bits that it drops in this way, including those of SPIs.
//! - Unknown ITS control commands succeed.
//! - `IDbits` in `ICC_CTLR_EL1` describes the host, so KVM does not compare the field with the
//!   guest's value.
//! - KVM's `GICD_CTLR` has only the Group 1 enable, which also enables the forwarding of Group 0. A
//!   state loaded from KVM has Group 0 disabled.
//! - KVM doesn't signal an interrupt that became pending while `GICD_CTLR` had its group disabled,
//!   so [`KvmView::save`] returns that register first.
//!
//! # Features
//!
//! `serde` and `std` enable the [`vgic`] features with the same names; `serde` also makes a
//! [`KvmSnapshot`](snapshot::KvmSnapshot) serializable.
//!
//! # Example
//!
//! The example converts a machine to KVM's format and back. `registers` and guest memory contain
//! what a save by KVM would produce.
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
//! use vgic::{Vcpu, Vgic, VgicConfig};
//! use vgic_kvm::{KvmView, kvm_config, kvm_its_config};
//!
//! let config = kvm_config(2, 96).with_its(vec![kvm_its_config(0x0808_0000)]);
//! let memory = Arc::new(Ram(Mutex::new(vec![0; 1 << 20])));
//! let (gic, mut vcpus) = Vgic::new(config.clone(), memory.clone(), Arc::new(NoKick))?;
//! let _paused: Vec<_> = vcpus.iter_mut().map(Vcpu::pause).collect();
//!
//! let mut view = KvmView::new(&config, gic.save()?, &*memory)?;
//! let registers = view.save()?;
//! assert!(view.left_out().is_empty(), "{}", view.left_out());
//!
//! let mut view = KvmView::new(&config, gic.save()?, &*memory)?;
//! view.load(&registers)?;
//! assert!(view.left_out().is_empty(), "{}", view.left_out());
//! gic.restore(&view.into_state())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod abi;
mod active;
mod attributes;
mod check;
mod config;
mod distributor;
mod explain;
mod interface;
mod interrupts;
mod its;
mod left_out;
mod limits;
mod order;
mod pending;
mod redistributor;
mod register;
mod rehearsal;
pub mod snapshot;
mod tables;
mod view;
mod word;

pub use config::{at_revision, kvm_config, kvm_its_config};
pub use explain::{KvmExplainer, NotExamined};
pub use gic_arch;
pub use left_out::LeftOut;
pub use limits::{OutsideKvm, check_machine};
pub use msi_types;
pub use register::{EntryFault, KvmDevice, KvmError, KvmRegister, RefusedEntry};
pub use vgic;
pub use view::KvmView;
