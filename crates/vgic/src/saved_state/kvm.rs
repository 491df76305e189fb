//! A saved state as Linux's KVM shows its GICv3 and ITS: device attributes, and tables in guest
//! memory by KVM's ABI revision 0 (`Documentation/virt/kvm/devices/arm-vgic-v3.rst`,
//! `arm-vgic-its.rst`).
//!
//! A [`KvmView`] takes a [`SavedState`], reads and writes attributes of it with KVM's values and
//! error numbers, and gives a [`SavedState`] back. What was taken from a KVM loads into a machine
//! of this library that is [like KVM's](VgicConfig::like_kvm), and the other way round.
//!
//! | to | do |
//! |---|---|
//! | save for KVM | view what [`Frozen::save`](crate::Frozen::save) returned, [`save`](KvmView::save); then copy the memory |
//! | create by KVM's attributes | a [`KvmCreation`], which becomes a [`VgicConfig`] |
//! | restore from KVM | restore the memory, view the state of the fresh machine, [`load`](KvmView::load), [`into_state`](KvmView::into_state), [`Frozen::restore`](crate::Frozen::restore) |
//!
//! # What KVM has no attribute for
//!
//! A state with something that KVM cannot hold is [refused](OutsideKvm). Where redistributors lie,
//! in one region or in several, is not part of a state: whoever makes KVM's GIC gives it the same
//! regions. Nor can a machine become one of another [revision](VgicConfig::at_kvm_revision):
//! `GICD_IIDR` takes its own value alone. Left out, because nothing comes of it: that a
//! redistributor sleeps (`GICR_WAKER`), the levels of edge-triggered inputs, which CPU acknowledged
//! an active SPI, the Group 1 binary point while Group 0's serves both, that software made a
//! level-sensitive interrupt pending while it was active, cached configurations of LPIs, and
//! commands' faults.
//!
//! KVM keeps what is pending with an event. So an LPI that is pending at a redistributor by itself
//! becomes pending of an event that has it: of one that goes to the same CPU, else of any. Where
//! there is none, it is left out: no device can send it. So is what is pending of an event whose
//! collection is unmapped: MAPC leaves that UNPREDICTABLE (IHI 0069, MAPC), and a guest's MAPC
//! cannot prevent a migration. So is a device without events whose translation table is not in
//! memory: KVM would fail to restore it.
//!
//! # How KVM differs from its documentation
//!
//! As of Linux 6.1 and 6.12, and followed here: registers that do not exist read as zero and ignore
//! writes, where a distributor or redistributor is addressed; unknown commands to an ITS succeed;
//! `IDbits` in `ICC_CTLR_EL1` speaks of the host, and is not compared. The one enable in its
//! `GICD_CTLR` is Group 1's, and forwards Group 0 too: what comes from KVM has Group 0 disabled
//! here. What became pending while `GICD_CTLR` had it disabled, KVM forgets to signal: so
//! [`KvmView::save`] has that register come first.
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
//! use vgic::its::ItsConfig;
//! use vgic::saved_state::kvm::KvmView;
//! use vgic::{Vgic, VgicConfig};
//!
//! let config = VgicConfig { its: vec![ItsConfig::like_kvm(0x0808_0000)], ..VgicConfig::like_kvm(2, 96) };
//! let memory = Arc::new(Ram(Mutex::new(vec![0; 1 << 20])));
//! let (gic, mut vcpus) = Vgic::new(config.clone(), memory.clone(), Arc::new(NoKick))?;
//! let mut frozen = gic.freeze(&mut vcpus)?;
//!
//! let registers = KvmView::new(&config, frozen.save()?, &*memory)?.save()?;
//!
//! let mut view = KvmView::new(&config, frozen.save()?, &*memory)?;
//! view.load(&registers)?;
//! frozen.restore(&view.into_state())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod attributes;
mod creation;
mod distributor;
mod interface;
mod interrupts;
mod its;
mod limits;
mod order;
mod pending;
mod redistributor;
mod regions;
mod register;
mod revision;
mod tables;

pub use creation::{KvmCreation, KvmIncomplete};
pub use limits::OutsideKvm;
pub use register::{KvmDevice, KvmError, KvmRegister};

use super::{CpuState, ItsState, RestoreError, SavedState};
use crate::heap::{OutOfMemory, push};
use crate::{GuestMemory, VgicConfig};
use alloc::vec::Vec;
use gic_arch::Affinity;
use gic_arch::kvm::{self, Attribute, Errno, LINE_LEVEL, control, frame};

/// A saved state, seen as KVM's devices.
///
/// Its devices are initialised and their vCPUs do not run, so that of KVM's reasons for `EBUSY`
/// only those remain that lie in the registers themselves.
pub struct KvmView<'a> {
    config: &'a VgicConfig,
    memory: &'a dyn GuestMemory,
    /// Lists every wired interrupt, also those that are as after reset.
    state: SavedState,
}

impl core::fmt::Debug for KvmView<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("KvmView").field("state", &self.state).finish_non_exhaustive()
    }
}

impl<'a> KvmView<'a> {
    /// Views the state of a machine made from `config`, whose guest has this memory. A state is
    /// accepted if such a machine can be restored from it, and KVM can hold it.
    ///
    /// # Errors
    /// [`OutsideKvm`] for a machine or a state that KVM cannot have, and for a damaged state.
    pub fn new(
        config: &'a VgicConfig,
        state: SavedState,
        memory: &'a dyn GuestMemory,
    ) -> Result<Self, OutsideKvm> {
        limits::check_machine(config)?;
        limits::check_state(&state)?;
        config.check_restorable(&state)?;
        let mut state = state;
        pending::hand_over(&mut state).map_err(RestoreError::from)?;
        interrupts::list_all(&mut state, config.spis).map_err(RestoreError::from)?;
        Ok(Self { config, memory, state })
    }

    /// Writes the tables and pending bits to guest memory, and gives every attribute that has to be
    /// restored, in the order of restoring it.
    ///
    /// # Errors
    /// [`KvmError`] if memory or the guest's tables do not allow it; memory may be partly written
    /// then.
    pub fn save(&mut self) -> Result<Vec<KvmRegister>, KvmError> {
        for index in 0..self.config.its.len() {
            self.command(KvmDevice::Its(index), control::ITS_SAVE_TABLES)?;
        }
        if self.config.lpi_id_bits.is_some() {
            self.command(KvmDevice::Gic, control::SAVE_PENDING_TABLES)?;
        }
        let mut saved = Vec::new();
        for (device, attribute) in order::saved(self.config) {
            let value = self
                .get(device, attribute)
                .and_then(|value| Ok(push(&mut saved, KvmRegister { device, attribute, value })?));
            value.map_err(|errno| KvmError { device, attribute, errno })?;
        }
        Ok(saved)
    }

    /// Writes attributes in their order, reading an ITS's tables from guest memory before it is
    /// enabled. Bits that are set by writing ones are first cleared.
    ///
    /// # Errors
    /// [`KvmError`] for the first that cannot be written; the view is to be dropped then. Nothing
    /// but the view, and pending bits in guest memory, was changed.
    pub fn load(&mut self, registers: &[KvmRegister]) -> Result<(), KvmError> {
        for KvmRegister { device, attribute, value } in registers.iter().copied() {
            if order::needs_tables(attribute) {
                self.command(device, control::ITS_RESTORE_TABLES)?;
            }
            if let Some((clear, ones)) = order::cleared_by(attribute) {
                self.set(device, clear, ones).map_err(|errno| KvmError {
                    device,
                    attribute: clear,
                    errno,
                })?;
            }
            self.set(device, attribute, value).map_err(|errno| KvmError {
                device,
                attribute,
                errno,
            })?;
        }
        Ok(())
    }

    fn command(&mut self, device: KvmDevice, command: u64) -> Result<(), KvmError> {
        let attribute = Attribute::Control(command);
        self.set(device, attribute, 0).map_err(|errno| KvmError { device, attribute, errno })
    }

    /// `KVM_SET_DEVICE_ATTR`. Bits of `value` beyond the attribute's width are ignored. Tables are
    /// read or written by [`Attribute::Control`].
    ///
    /// # Errors
    /// As KVM's.
    pub fn set(
        &mut self,
        device: KvmDevice,
        attribute: Attribute,
        value: u64,
    ) -> Result<(), Errno> {
        match device {
            KvmDevice::Gic => self.set_gic(attribute, value),
            KvmDevice::Its(index) => self.set_its(index, attribute, value),
        }
    }

    fn set_gic(&mut self, attribute: Attribute, value: u64) -> Result<(), Errno> {
        let word = low_word(value);
        match attribute {
            Attribute::Address(frame::DISTRIBUTOR | frame::REDISTRIBUTORS) => Err(Errno::Exists),
            Attribute::Address(frame::REDISTRIBUTOR_REGION) => Err(Errno::Invalid),
            Attribute::InterruptCount | Attribute::MaintenanceInterrupt => Err(Errno::Busy),
            Attribute::Control(control::INIT) => Ok(()),
            Attribute::Control(control::SAVE_PENDING_TABLES) => {
                pending::save(&self.state, self.memory)
            }
            Attribute::Distributor { offset } => self.set_distributor(offset, word),
            Attribute::Redistributor { cpu, offset } => self.set_redistributor(cpu, offset, word),
            Attribute::SystemRegister { cpu, register } => {
                let bits = self.config.priority_bits;
                interface::set(&mut self.cpu_mut(cpu)?.interface, bits, register, value)
            }
            Attribute::Levels { cpu, info, first } => {
                self.check_levels(cpu, info, first)?;
                let interrupts = match first {
                    0 => &mut self.cpu_mut(cpu)?.redistributor.interrupts,
                    _ => &mut self.state.distributor.interrupts,
                };
                interrupts::set_levels(interrupts, first, word);
                Ok(())
            }
            Attribute::Address(_) | Attribute::Control(_) | Attribute::Its { .. } => {
                Err(Errno::NoRegister)
            }
        }
    }

    fn set_its(&mut self, index: usize, attribute: Attribute, value: u64) -> Result<(), Errno> {
        let its = self.its_index(index)?;
        match attribute {
            Attribute::Address(frame::ITS) => Err(Errno::Exists),
            Attribute::Address(_) => Err(Errno::NoDevice),
            Attribute::Control(control::ITS_SAVE_TABLES) => {
                tables::save(&self.state.its[its], &self.numbers()?, self.memory)
            }
            Attribute::Control(control::ITS_RESTORE_TABLES) => self.restore_tables(its),
            Attribute::Control(control::ITS_RESET) => {
                its::reset(&mut self.state.its[its]);
                Ok(())
            }
            Attribute::Control(_) => Ok(()),
            Attribute::Its { offset } => {
                let config = &self.config.its[index];
                its::set(&mut self.state.its[its], config, offset, value)
            }
            _ => Err(Errno::NoRegister),
        }
    }

    /// What the tables say, if the machine can have it mapped.
    fn restore_tables(&mut self, its: usize) -> Result<(), Errno> {
        let state = &mut self.state;
        let mut restored = tables::restore(self.config, &state.its[its], &state.cpus, self.memory)?;
        restored.exchange(&mut state.its[its]);
        let possible = self.config.check_restorable(state).map_err(limits::errno);
        let taken = possible.and_then(|()| pending::clear(&restored.consumed, self.memory));
        if taken.is_err() {
            restored.exchange(&mut state.its[its]);
        }
        taken
    }

    /// The saved state. Redistributors are awake, as KVM's always are; and of level-sensitive
    /// interrupts that are active, none is latched: KVM keeps the latch until they are deactivated,
    /// and drops it then.
    pub fn into_state(self) -> SavedState {
        let mut state = self.state;
        interrupts::drop_latches(&mut state);
        interrupts::list_changed(&mut state);
        for cpu in &mut state.cpus {
            cpu.redistributor.waker = 0;
        }
        state
    }

    /// `KVM_HAS_DEVICE_ATTR`.
    ///
    /// # Errors
    /// As KVM's, for what there is not.
    pub fn has(&self, device: KvmDevice, attribute: Attribute) -> Result<(), Errno> {
        match (device, attribute) {
            (KvmDevice::Its(index), _) => {
                self.its_index(index).and_then(|_| attributes::its_has(attribute))
            }
            (_, Attribute::Redistributor { cpu, .. } | Attribute::SystemRegister { cpu, .. }) => {
                self.cpu(cpu)?;
                attributes::gic_has(attribute, self.interrupt_count())
            }
            _ => attributes::gic_has(attribute, self.interrupt_count()),
        }
    }

    /// `KVM_GET_DEVICE_ATTR` of a region of redistributors, by its number: a
    /// [`RedistributorRegion`](gic_arch::kvm::RedistributorRegion). A single one is that of
    /// [`REDISTRIBUTORS`](frame::REDISTRIBUTORS), without a count.
    ///
    /// # Errors
    /// `ENOENT` if there is none.
    pub fn region(&self, index: u8) -> Result<u64, Errno> {
        let region = self.config.redistributors.get(usize::from(index)).ok_or(Errno::NoEntry)?;
        let count = match self.config.redistributors.len() {
            1 => 0,
            _ => u16::try_from(region.count).map_err(|_| Errno::NoEntry)?,
        };
        let coded = kvm::RedistributorRegion::new().with_index(index.into()).with_count(count);
        Ok(coded.with_base(region.base).into_bits())
    }

    /// `KVM_GET_DEVICE_ATTR`. Of several regions of redistributors, this is the first;
    /// [`region`](Self::region) gives any.
    ///
    /// # Errors
    /// As KVM's.
    pub fn get(&self, device: KvmDevice, attribute: Attribute) -> Result<u64, Errno> {
        match device {
            KvmDevice::Gic => self.get_gic(attribute),
            KvmDevice::Its(index) => self.get_its(index, attribute),
        }
    }

    fn get_gic(&self, attribute: Attribute) -> Result<u64, Errno> {
        match attribute {
            Attribute::Address(frame::DISTRIBUTOR) => Ok(self.config.distributor),
            Attribute::Address(frame::REDISTRIBUTORS) => {
                self.config.redistributors.first().map(|region| region.base).ok_or(Errno::NoEntry)
            }
            Attribute::Address(frame::REDISTRIBUTOR_REGION) => self.region(0),
            Attribute::InterruptCount => Ok(self.interrupt_count().into()),
            Attribute::MaintenanceInterrupt => Ok(0),
            Attribute::Distributor { offset } => Ok(self.distributor(offset).into()),
            Attribute::Redistributor { cpu, offset } => {
                Ok(redistributor::get(self.cpu(cpu)?, self.config, offset).into())
            }
            Attribute::SystemRegister { cpu, register } => {
                interface::get(&self.cpu(cpu)?.interface, register)
            }
            Attribute::Levels { cpu, info, first } => {
                self.check_levels(cpu, info, first)?;
                let interrupts = match first {
                    0 => &self.cpu(cpu)?.redistributor.interrupts,
                    _ => &self.state.distributor.interrupts,
                };
                Ok(interrupts::levels(interrupts, first).into())
            }
            Attribute::Address(_) | Attribute::Control(_) | Attribute::Its { .. } => {
                Err(Errno::NoRegister)
            }
        }
    }

    fn get_its(&self, index: usize, attribute: Attribute) -> Result<u64, Errno> {
        let its = &self.state.its[self.its_index(index)?];
        match attribute {
            Attribute::Address(frame::ITS) => Ok(its.base),
            Attribute::Address(_) => Err(Errno::NoDevice),
            Attribute::Its { offset } => its::get(its, offset),
            _ => Err(Errno::NoRegister),
        }
    }

    /// SPIs and private interrupts, rounded up to KVM's steps.
    fn interrupt_count(&self) -> u32 {
        (32 + self.config.spis).next_multiple_of(32)
    }

    fn check_levels(&self, cpu: Affinity, info: u32, first: u16) -> Result<(), Errno> {
        let known = self.cpu(cpu).is_ok() && info == LINE_LEVEL && first.is_multiple_of(32);
        if known { Ok(()) } else { Err(Errno::Invalid) }
    }

    fn cpu(&self, affinity: Affinity) -> Result<&CpuState, Errno> {
        self.state.cpus.iter().find(|cpu| cpu.affinity == affinity).ok_or(Errno::Invalid)
    }

    fn cpu_mut(&mut self, affinity: Affinity) -> Result<&mut CpuState, Errno> {
        self.state.cpus.iter_mut().find(|cpu| cpu.affinity == affinity).ok_or(Errno::Invalid)
    }

    /// Where the state has the ITS that is at this index of the configuration.
    fn its_index(&self, index: usize) -> Result<usize, Errno> {
        let base = self.config.its.get(index).ok_or(Errno::NoDevice)?.base;
        let of = |its: &ItsState| its.base == base;
        self.state.its.iter().position(of).ok_or(Errno::NoDevice)
    }

    /// How tables name redistributors.
    fn numbers(&self) -> Result<tables::Numbers, OutOfMemory> {
        tables::Numbers::of(&self.state.cpus)
    }
}

impl From<OutOfMemory> for Errno {
    fn from(OutOfMemory: OutOfMemory) -> Self {
        Self::NoMemory
    }
}

/// The low half of a value.
const fn low_word(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// The half of a 64-bit register that lies at `offset`, where the register begins at `register`.
const fn half(value: u64, register: u32, offset: u32) -> u32 {
    if offset == register { low_word(value) } else { low_word(value >> 32) }
}

/// The register with that half replaced.
const fn with_half(value: u64, register: u32, offset: u32, word: u32) -> u64 {
    if offset == register {
        value & !0xffff_ffff | word as u64
    } else {
        value & 0xffff_ffff | (word as u64) << 32
    }
}
