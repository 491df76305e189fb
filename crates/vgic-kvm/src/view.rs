//! A view of a saved state, for reading and writing attributes.

use crate::abi::{self, Attribute, Errno, LINE_LEVEL, control, frame};
use crate::check::{Expected, waiting_commands};
use crate::left_out::{LeftOut, TableMemory, add};
use crate::limits::OutsideKvm;
use crate::register::{KvmAttributes, KvmDevice, KvmError, KvmRegister, RefusedEntry};
use crate::rehearsal::Rehearsal;
use crate::tables::Written;
use crate::tables::scan::Budget;
use crate::word::low_word;
use crate::{
    active, attributes, distributor, interface, interrupts, its, limits, order, pending,
    redistributor, tables,
};
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use doorbell_fallible::try_push;
use gic_arch::Affinity;
use gic_arch::gits::{self, Ctlr};
use vgic::saved_state::{CpuState, ItsState, SavedState};
use vgic::{GuestMemory, VgicConfig};

/// Size of an ITS command in words of 64 bits.
const COMMAND_WORDS: usize = 4;

/// A saved state, presented as KVM's devices.
///
/// The view behaves like devices that are initialized and whose vCPUs aren't running. An access
/// therefore fails with `EBUSY` only if the value of a register prevents it.
///
/// The [crate's example](crate#example) converts a state to KVM's format and back.
pub struct KvmView<'a> {
    config: &'a VgicConfig,
    memory: &'a dyn GuestMemory,
    /// State being viewed, which lists every wired interrupt, including interrupts in their reset
    /// state.
    state: SavedState,
    left_out: LeftOut,
    refused: Option<RefusedEntry>,
    rehearsal: Option<Rehearsal>,
    /// Memory contents required by the save commands of the current series. A write of another
    /// attribute ends the series.
    expected: Option<Expected>,
    /// Differences found in this series, which the field `left_out` does not contain.
    differences: LeftOut,
}

msi_types::debug_by!(KvmView<'_> as "KvmView", |it| {state: it.state});

impl<'a> KvmView<'a> {
    /// Creates a view of a machine's state. It must be possible to restore the state into a machine
    /// made from `config` and to represent it in KVM. `memory` is the guest's memory.
    ///
    /// # Errors
    /// [`OutsideKvm`] if KVM can't represent the machine or the state, or if the state is damaged.
    pub fn new(
        config: &'a VgicConfig,
        state: SavedState,
        memory: &'a dyn GuestMemory,
    ) -> Result<Self, OutsideKvm> {
        limits::check_machine(config)?;
        limits::check_state(&state)?;
        config.check_restorable(&state)?;
        let mut state = state;
        redistributor::share_propbaser(&mut state.cpus);
        pending::hand_over(&mut state)?;
        interrupts::list_all(&mut state, config.spis)?;
        let [left_out, differences] = Default::default();
        let (refused, rehearsal, expected) = (None, None, None);
        Ok(Self { config, memory, state, left_out, refused, rehearsal, expected, differences })
    }

    /// Makes the view as strict as KVM. A restore of tables then reads what KVM reads, and returns
    /// KVM's error if that is not in memory, whereas a load into the model should succeed. Enabling
    /// an ITS counts each waiting command that can't be read, because KVM skips it.
    ///
    /// The view still refuses what the model can't have: LPIs beyond 16 bits (`EINVAL`), and tables
    /// that exceed the limits of the configuration or of a restore (`ENOMEM`).
    #[must_use]
    pub fn as_strict_as_kvm(self) -> Self {
        Self { rehearsal: Some(Rehearsal::default()), ..self }
    }

    /// Returns the numbers of the pages that a view [as strict as KVM](Self::as_strict_as_kvm) has
    /// read.
    pub(super) fn into_pages(self) -> Vec<u64> {
        self.rehearsal.map(Rehearsal::into_pages).unwrap_or_default()
    }

    /// Writes the tables and pending bits to guest memory, and returns every attribute to restore,
    /// in the order in which they must be restored.
    ///
    /// # Errors
    /// [`KvmError`] if the heap is exhausted; guest memory may then be partly written. A save
    /// succeeds even if some tables can't be written, or if a load would refuse them, so the caller
    /// should check what the save [left out](Self::left_out).
    pub fn save(&mut self) -> Result<Vec<KvmRegister>, KvmError> {
        self.write_tables(0..self.config.its.len(), true).map_err(|errno| {
            let attribute = Attribute::Control(control::SAVE_PENDING_TABLES);
            KvmError::new(KvmDevice::Gic, attribute, errno)
        })?;
        let mut saved = Vec::new();
        for (device, attribute) in order::saved(self.config, self.config.its.len()) {
            let value = self.get(device, attribute).and_then(|value| {
                Ok(try_push(&mut saved, KvmRegister { device, attribute, value })?)
            });
            value.map_err(|errno| KvmError::new(device, attribute, errno))?;
        }
        Ok(saved)
    }

    /// Writes attributes in the given order, and reads an ITS's tables from guest memory before
    /// enabling the ITS. Clears all enable and active bits before it sets bits. Tables that can't
    /// be read are treated as empty, so the caller should check what was [left
    /// out](Self::left_out).
    ///
    /// # Errors
    /// [`KvmError`] for the first attribute that cannot be written. The caller must then drop the
    /// view. Pending bits in guest memory may have changed.
    pub fn load(&mut self, registers: &[KvmRegister]) -> Result<(), KvmError> {
        for register in registers.iter().copied() {
            let written = order::restore(self, register);
            written.map_err(|error| KvmError { entry: self.refused, ..error })?;
            self.count_dropped(register.device, register.attribute, register.value);
        }
        let empty = self.state.its.iter().filter(|its| its::has_lost_mappings(its)).count();
        add(&mut self.left_out.empty_its, empty);
        Ok(())
    }

    /// Counts the bits of an attribute that don't read back, because the machine doesn't have them.
    fn count_dropped(&mut self, device: KvmDevice, attribute: Attribute, value: u64) {
        let kept = self.get(device, attribute).unwrap_or(value);
        let dropped = value & !kept & !order::described_by(attribute);
        add(&mut self.left_out.attribute_bits, dropped.count_ones() as usize);
    }

    /// Writes an attribute, as `KVM_SET_DEVICE_ATTR` does. Bits of `value` beyond the attribute's
    /// width are ignored. [`Attribute::Control`] saves or restores tables. Like
    /// [`save`](Self::save), a command that saves reads back what it and the save commands before
    /// it have written, and [`left_out`](Self::left_out) contains the differences.
    ///
    /// # Errors
    /// The error number that KVM returns.
    pub fn set(
        &mut self,
        device: KvmDevice,
        attribute: Attribute,
        value: u64,
    ) -> Result<(), Errno> {
        match (device, attribute) {
            (KvmDevice::Gic, Attribute::Control(control::SAVE_PENDING_TABLES)) => {
                return self.write_tables(None, true);
            }
            (KvmDevice::Its(index), Attribute::Control(control::ITS_SAVE_TABLES)) => {
                return self.write_tables(Some(index), false);
            }
            _ => {}
        }
        // The tables in memory are those of an earlier state.
        self.left_out = self.left_out();
        (self.expected, self.differences) = Default::default();
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
            Attribute::Distributor { offset } => {
                distributor::set(&mut self.state.distributor, offset, word)
            }
            Attribute::Redistributor { cpu, offset } => {
                let index = self.cpu_index(cpu)?;
                redistributor::set(&mut self.state.cpus, index, self.config, offset, word)
            }
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
            Attribute::Control(control::ITS_RESTORE_TABLES) => self.restore_tables(its),
            Attribute::Control(control::ITS_RESET) => {
                its::reset(&mut self.state.its[its]);
                Ok(())
            }
            Attribute::Control(_) => Ok(()),
            Attribute::Its { offset } => {
                let config = &self.config.its[index];
                its::set(&mut self.state.its[its], config, offset, value)?;
                if offset == u64::from(gits::CTLR.offset()) {
                    self.rehearse_commands(its);
                }
                Ok(())
            }
            _ => Err(Errno::NoRegister),
        }
    }

    /// Writes the tables of the ITSes with these indices, and pending bits. Reads back everything
    /// that was saved since another attribute was written, and counts the differences. Also counts
    /// the active SPIs whose CPUs the attributes don't contain.
    fn write_tables(
        &mut self,
        its: impl IntoIterator<Item = usize>,
        pending_bits: bool,
    ) -> Result<(), Errno> {
        let mut expected = match self.expected.take() {
            Some(expected) => expected,
            None => Expected::before_save(&self.state, self.memory)?,
        };
        for index in its {
            let its = self.its_index(index)?;
            let tables = self.save_tables(its)?;
            expected.tables.retain(|(other, _)| *other != its);
            try_push(&mut expected.tables, (its, tables))?;
        }
        if pending_bits {
            pending::save(&self.state, &mut TableMemory::new(self.memory, &mut self.left_out))?;
            expected.bits = pending::expected(&self.state, self.memory, false)?;
        }
        self.differences = expected.differences(self.config, &self.state, self.memory)?;
        let misplaced = active::misplaced(&self.state.distributor.interrupts, &self.state.cpus);
        add(&mut self.differences.active_spis, misplaced);
        self.expected = Some(expected);
        Ok(())
    }

    /// Writes an ITS's tables.
    fn save_tables(&mut self, its: usize) -> Result<Written, Errno> {
        let numbers = self.numbers()?;
        let mut memory = TableMemory::new(self.memory, &mut self.left_out);
        tables::save(&self.state.its[its], &numbers, &mut memory)
    }

    /// Reads the mappings from the tables, and keeps them if they are valid for the machine.
    fn restore_tables(&mut self, its: usize) -> Result<(), Errno> {
        let state = &mut self.state;
        let (left_out, rehearsal) = (&mut self.left_out, self.rehearsal.as_mut());
        let memory = &mut TableMemory { memory: self.memory, left_out, rehearsal };
        let mut budget = Budget::new(self.config.its_devices, self.config.its_events);
        let refused = &mut self.refused;
        *refused = None;
        let mut restored =
            tables::restore(&state.its[its], &state.cpus, memory, &mut budget, refused)?;
        restored.exchange(&mut state.its[its]);
        let possible = self.config.check_restorable(state).map_err(|error| {
            *refused = Some(RefusedEntry::State(error));
            limits::errno(error.into())
        });
        if possible.is_err() {
            restored.exchange(&mut state.its[its]);
        } else {
            pending::clear(&restored.consumed, memory);
        }
        possible
    }

    /// Reads the commands that KVM executes when it enables an ITS. KVM skips a command that it
    /// can't read.
    fn rehearse_commands(&mut self, its: usize) {
        let its = &self.state.its[its];
        if self.rehearsal.is_some() && Ctlr::from(its.ctlr).enabled() {
            let (left_out, rehearsal) = (&mut self.left_out, self.rehearsal.as_mut());
            let mut memory = TableMemory { memory: self.memory, left_out, rehearsal };
            for command in waiting_commands(its).step_by(COMMAND_WORDS) {
                let _ = memory.read_u64(command);
            }
        }
    }

    /// Returns the counts of table contents that the saves and restores of this view have left out
    /// so far, including failed saves and restores.
    ///
    /// A VMM should log the counts after [`save`](Self::save) and [`load`](Self::load) unless it is
    /// [empty](LeftOut::is_empty), and should abort the migration if it knows that the tables are
    /// in the guest's RAM. In that case, the VMM's own accesses to guest memory have failed, and
    /// the guest would lose LPIs.
    #[must_use]
    pub const fn left_out(&self) -> LeftOut {
        let LeftOut { refused, changed, active_spis, .. } = self.differences;
        LeftOut {
            refused: self.left_out.refused.saturating_add(refused),
            changed: self.left_out.changed.saturating_add(changed),
            active_spis: self.left_out.active_spis.saturating_add(active_spis),
            ..self.left_out
        }
    }

    /// Returns the table entry that the last restore of an ITS's tables refused; `None` if the
    /// restore succeeded or failed for another reason.
    #[must_use]
    pub const fn refused_entry(&self) -> Option<RefusedEntry> {
        self.refused
    }

    /// Returns the saved state. An active SPI is active at its target, or at the only other CPU
    /// whose active priorities tell that it runs there. All redistributors are awake, because KVM
    /// does not model their sleep state. The pending latches of active level-sensitive interrupts
    /// are clear, because KVM drops them when the guest deactivates the interrupt.
    pub fn into_state(self) -> SavedState {
        let mut state = self.state;
        interrupts::drop_latches(&mut state);
        active::place(&mut state.distributor.interrupts, &state.cpus);
        interrupts::list_changed(&mut state);
        for cpu in &mut state.cpus {
            cpu.redistributor.waker = 0;
        }
        state
    }

    /// Checks that an attribute exists, as `KVM_HAS_DEVICE_ATTR` does.
    ///
    /// # Errors
    /// The error number that KVM returns for an attribute that does not exist.
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

    /// Returns the redistributor region with this number, as `KVM_GET_DEVICE_ATTR` does: a
    /// [`RedistributorRegion`](abi::RedistributorRegion). If there is only one region, the value
    /// has the format of [`REDISTRIBUTORS`](frame::REDISTRIBUTORS), without a count.
    ///
    /// # Errors
    /// `ENOENT` if the region does not exist.
    pub fn region(&self, index: u8) -> Result<u64, Errno> {
        let region = self.config.redistributors.get(usize::from(index)).ok_or(Errno::NoEntry)?;
        let count = match self.config.redistributors.len() {
            1 => 0,
            _ => u16::try_from(region.count).map_err(|_| Errno::NoEntry)?,
        };
        let coded = abi::RedistributorRegion::new().with_index(index.into()).with_count(count);
        Ok(coded.with_base(region.base).into_bits())
    }

    /// Reads an attribute, as `KVM_GET_DEVICE_ATTR` does. If several redistributor regions exist,
    /// only the first is returned; use [`region`](Self::region) for the other regions.
    ///
    /// # Errors
    /// The error number that KVM returns.
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
            Attribute::Distributor { offset } => {
                Ok(distributor::get(&self.state.distributor, offset).into())
            }
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

    /// Returns the number of SPIs and private interrupts, rounded up to a multiple of 32, as in
    /// KVM.
    fn interrupt_count(&self) -> u32 {
        (32 + self.config.spis).next_multiple_of(32)
    }

    fn check_levels(&self, cpu: Affinity, info: u32, first: u16) -> Result<(), Errno> {
        let known = self.cpu(cpu).is_ok() && info == LINE_LEVEL && first.is_multiple_of(32);
        if known { Ok(()) } else { Err(Errno::Invalid) }
    }

    fn cpu_index(&self, affinity: Affinity) -> Result<usize, Errno> {
        self.state.cpus.iter().position(|cpu| cpu.affinity == affinity).ok_or(Errno::Invalid)
    }

    fn cpu(&self, affinity: Affinity) -> Result<&CpuState, Errno> {
        Ok(&self.state.cpus[self.cpu_index(affinity)?])
    }

    fn cpu_mut(&mut self, affinity: Affinity) -> Result<&mut CpuState, Errno> {
        let index = self.cpu_index(affinity)?;
        Ok(&mut self.state.cpus[index])
    }

    /// Converts an ITS's index in the configuration to its index in the state.
    fn its_index(&self, index: usize) -> Result<usize, Errno> {
        let base = self.config.its.get(index).ok_or(Errno::NoDevice)?.base;
        let of = |its: &ItsState| its.base == base;
        self.state.its.iter().position(of).ok_or(Errno::NoDevice)
    }

    /// Returns the numbers that identify redistributors in tables.
    fn numbers(&self) -> Result<tables::Numbers, TryReserveError> {
        tables::Numbers::of(&self.state.cpus)
    }
}

impl KvmAttributes for KvmView<'_> {
    fn get(&mut self, device: KvmDevice, attribute: Attribute) -> Result<u64, Errno> {
        KvmView::get(self, device, attribute)
    }

    fn set(&mut self, device: KvmDevice, attribute: Attribute, value: u64) -> Result<(), Errno> {
        KvmView::set(self, device, attribute, value)
    }
}
