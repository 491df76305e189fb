//! A VMM that restores a machine through KVM's device attributes without validating its input.
//!
//! Rejected input must not affect the machine or the guest's memory, and writes must stay within
//! the tables that the guest has designated.

mod input;

use std::ops::Range;
use std::sync::Arc;

use doorbell_test_support::guest;
use gic_arch::gicr::{Pendbaser, Propbaser};
use gic_arch::gits::{Baser, Cbaser, PageSize};
use gic_arch::its::Level1Entry;
use gic_arch::{gicr, gits};
use vgic::saved_state::SavedState;
use vgic::{GuestMemory, VgicConfig};
use vgic_kvm::abi::{Attribute, Errno, control};
use vgic_kvm::{KvmDevice, KvmView};

pub use self::input::{Access, Act, KvmShape};
use crate::damage::Damage;
use crate::memory::{Memory, layout, pending_bits};

/// Maximum number of memory reads in one access, which reads each table entry separately, plus a
/// few bytes per entry.
const MOST_READS: u64 = 1 << 26;
const ENTRY: u64 = 8;

/// The VMM and its machine.
pub struct Monitor {
    config: VgicConfig,
    memory: Arc<Memory>,
    machine: guest::Machine<Memory>,
    /// The state restored through attributes so far.
    state: SavedState,
    /// The attributes that a save lists.
    saved: Vec<(KvmDevice, Attribute)>,
    commands_left: u8,
}

impl Monitor {
    /// Maximum number of actions that are performed.
    pub const MOST_ACTS: usize = 64;

    /// Creates a machine in its reset state.
    pub fn new(shape: KvmShape) -> Self {
        let config = shape.config();
        let memory = Arc::new(Memory::default());
        let mut machine = guest::Machine::over(config.clone(), memory.clone());
        let mut view = KvmView::new(&config, machine.save(), &*memory)
            .expect("the configuration is supported by KVM");
        let saved = view.save().expect("a machine after reset can be saved");
        let saved = saved.iter().map(|one| (one.device, one.attribute)).collect();
        let state = view.into_state();
        Self { config, memory, machine, state, saved, commands_left: 4 }
    }

    /// Performs an act.
    pub fn take(&mut self, act: Act) {
        match act {
            Act::Boot => self.boot(),
            Act::Word { place, index, word } => {
                let address = place.address() + ENTRY * u64::from(index);
                self.memory.guest_writes(address, [word.bits()]);
            }
            Act::Access(Access::Set(named, value)) => {
                if let Some((device, attribute)) = named.decode(&self.saved) {
                    _ = self.set(device, attribute, value.bits());
                }
            }
            Act::Access(Access::Get(named)) => self.read_only(|view, saved| {
                _ = named.decode(saved).map(|(device, attribute)| view.get(device, attribute));
            }),
            Act::Access(Access::Has(named)) => self.read_only(|view, saved| {
                _ = named.decode(saved).map(|(device, attribute)| view.has(device, attribute));
            }),
            Act::Access(Access::Region(index)) => self.read_only(|view, _| _ = view.region(index)),
            Act::Damage(damage) => self.damage(damage),
            Act::Save => self.save(),
            Act::Restore => self.restore(),
        }
    }

    /// Assigns the usual address to every table, and enables LPIs.
    fn boot(&mut self) {
        for (number, cpu) in (0..).zip(self.config.cpus.clone()) {
            let table =
                Propbaser::new().with_id_bits_minus_one(15).with_address(layout::CONFIGURATION);
            let pending = Pendbaser::new().with_address(layout::pending(number));
            let halves = |offset: u32, value: u64| [(offset, value), (offset + 4, value >> 32)];
            let tables = [
                halves(gicr::PROPBASER.offset(), table.into_bits()),
                halves(gicr::PENDBASER.offset(), pending.into_bits()),
            ];
            for (offset, value) in tables.concat().into_iter().chain([(gicr::CTLR.offset(), 1)]) {
                _ = self.set(
                    KvmDevice::Gic,
                    Attribute::Redistributor { cpu: cpu.affinity, offset },
                    value,
                );
            }
        }
        let register = Baser::new().with_page_size(PageSize::Size64K).with_valid(true);
        let queue = Cbaser::new().with_valid(true).with_address(layout::QUEUE);
        for (its, apart) in (0..self.config.its.len()).zip((0..).step_by(0x4_0000)) {
            let table = |which| register.with_address(layout::table(which) + apart);
            for (offset, value) in [
                (gits::CBASER.offset(), queue.into_bits()),
                (gits::BASER.info("").offset, table(0).into_bits()),
                (gits::BASER.info("").offset + 8, table(1).into_bits()),
            ] {
                _ = self.set(KvmDevice::Its(its), Attribute::Its { offset: offset.into() }, value);
            }
        }
    }

    fn set(&mut self, device: KvmDevice, attribute: Attribute, value: u64) -> Result<(), Errno> {
        let tables = matches!(attribute, Attribute::Control(_));
        if tables && self.commands_left == 0 {
            return Ok(());
        }
        self.commands_left -= u8::from(tables);
        self.memory.allow(self.tables());
        let (reads, writes) = (self.memory.reads(), self.memory.writes());
        let mut view = view(&self.config, &self.state, &self.memory);
        let outcome = view.set(device, attribute, value);
        let after = view.into_state();
        assert!(
            self.memory.reads() - reads <= MOST_READS,
            "{attribute:x?} exceeds the limit of reads"
        );
        match outcome {
            Ok(()) => self.state = after,
            Err(errno) => {
                assert_eq!(after, self.state, "{attribute:x?}: {errno}");
                // A failed save may have written some of the tables.
                let saves = matches!(
                    attribute,
                    Attribute::Control(control::ITS_SAVE_TABLES | control::SAVE_PENDING_TABLES)
                );
                assert!(saves || self.memory.writes() == writes, "{attribute:x?}: {errno}");
            }
        }
        outcome
    }

    /// Runs `read`, and checks that it changes neither the state nor memory.
    fn read_only(&mut self, read: impl FnOnce(&KvmView<'_>, &[(KvmDevice, Attribute)])) {
        self.memory.allow([]);
        let view = view(&self.config, &self.state, &self.memory);
        read(&view, &self.saved);
        assert_eq!(view.into_state(), self.state);
    }

    /// Damages the state. The damaged state must either be rejected or be a valid state of the
    /// machine.
    fn damage(&mut self, damage: Damage) {
        let Some(damaged) = damage.to(&self.state) else { return };
        if let Ok(view) = KvmView::new(&self.config, damaged, &*self.memory) {
            self.state = view.into_state();
        }
    }

    /// Saves everything, and restores it into a fresh machine. If tables overlap, their contents
    /// may be lost.
    fn save(&mut self) {
        let Some(left) = self.commands_left.checked_sub(2) else { return };
        self.commands_left = left;
        self.memory.allow(self.tables());
        let Ok(registers) = view(&self.config, &self.state, &self.memory).save() else { return };
        let fresh = self.machine.successor().save();
        let mut view = view(&self.config, &fresh, &self.memory);
        if view.load(&registers).is_ok() {
            self.state = view.into_state();
        }
    }

    /// Restores the current state into the machine, whatever its origin, and lets the guest
    /// continue.
    pub fn restore(&mut self) {
        self.memory.allow(self.tables());
        self.machine.restore(&self.state);
        for cpu in (0..self.machine.vcpus.len()).flat_map(|cpu| [cpu; 16]) {
            self.machine.handle(cpu);
        }
    }

    /// Returns the ranges of the guest's tables that may be written.
    fn tables(&self) -> Vec<Range<u64>> {
        let mut tables = Vec::new();
        for its in &self.state.its {
            let [devices, collections, ..] = its.baser.map(Baser::from_bits);
            if collections.valid() {
                tables.push(collections.address()..collections.address() + collections.bytes());
            }
            if devices.valid() {
                tables.extend(self.device_table(devices));
            }
            let events = |event_bits: u8| ENTRY << event_bits;
            tables.extend(
                its.devices.iter().map(|device| device.itt..device.itt + events(device.event_bits)),
            );
        }
        let pendbasers =
            self.state.cpus.iter().map(|cpu| Pendbaser::from(cpu.redistributor.pendbaser));
        tables.extend(pendbasers.map(|pendbaser| pending_bits(pendbaser.address())));
        tables
    }

    /// Returns the ranges of a device table that 16-bit DeviceIDs reach; with two levels, only the
    /// second level is written.
    fn device_table(&self, table: Baser) -> Vec<Range<u64>> {
        if !table.indirect() {
            return core::iter::once(table.address()..table.address() + table.bytes()).collect();
        }
        let bytes = table.page_size().bytes();
        let pages = (ENTRY << 16) / bytes;
        let entries = (0..pages).map(|index| self.memory.read_u64(table.address() + ENTRY * index));
        let entries = entries
            .filter_map(Result::ok)
            .map(Level1Entry::from_bits)
            .filter(|entry| entry.valid());
        entries.map(|entry| entry.address() & !(bytes - 1)).map(|page| page..page + bytes).collect()
    }
}

fn view<'a>(config: &'a VgicConfig, state: &SavedState, memory: &'a Arc<Memory>) -> KvmView<'a> {
    KvmView::new(config, state.clone(), &**memory).expect("a view's state can be viewed again")
}

#[cfg(test)]
mod tests {
    use super::*;
    use input::{Device, Named, TableAddress, Value, Word};

    #[test]
    fn input_can_restore_a_pending_event() {
        let mut monitor = Monitor::new(KvmShape { cpus: 1, its: 2, ..KvmShape::default() });
        let word = |place, word| Act::Word { place, index: 0, word };
        let (group, low) = (4, control::ITS_RESTORE_TABLES as u32);
        let restore = Named::Raw { device: Device::Its(0), group, high: 0, low };
        for act in [
            Act::Boot,
            word(TableAddress::Collections, Word::Collection { collection: 3, cpu: 1 }),
            word(
                TableAddress::Devices,
                Word::Device { events: TableAddress::Translations(0), bits: 3, next: 0 },
            ),
            word(TableAddress::Translations(0), Word::Event { lpi: 2, collection: 3, next: 0 }),
            word(TableAddress::Pending(1), Word::Raw(1)),
            Act::Access(Access::Set(restore, Value::Small(0))),
            Act::Save,
        ] {
            monitor.take(act);
        }
        let event = monitor.state.its[0].devices[0].events[0];
        assert_eq!((event.intid.get(), event.pending), (8192, true));
        monitor.restore();
        assert_eq!(monitor.machine.save().its[0].devices.len(), 1);
    }
}
