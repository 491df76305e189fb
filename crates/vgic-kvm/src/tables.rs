//! ITS tables in guest memory, in KVM's ABI revision 0 (`arm-vgic-its.rst`, "ITS Table ABI REV0").
//! The contents are not trusted, because the guest may write to the tables between save and
//! restore.

mod saving;
pub(super) mod scan;

pub(super) use saving::{Written, save};

use crate::abi::{CollectionEntry, DeviceEntry, Errno, TranslationEntry};
use crate::left_out::TableMemory;
use crate::pending::Bit;
use crate::register::{EntryFault, RefusedEntry};
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use doorbell_fallible::{SortedMap, try_collect, try_push};
use gic_arch::gicr::{Pendbaser, Propbaser, Typer};
use gic_arch::gits::{self, Baser};
use gic_arch::its::CollectionId;
use gic_arch::{Affinity, IntId, Lpi, lpi};
use msi_types::{DeviceId, EventId};
use scan::{Budget, ENTRY, EntryReader, IDS, Next};
use vgic::saved_state::{CollectionState, CpuState, DeviceState, EventState, ItsState};

/// Number of EventID bits.
const EVENT_BITS: u8 = 16;
/// Target of an unmapped collection.
const UNMAPPED: u64 = CollectionEntry::UNMAPPED as u64;

/// Redistributor affinities, indexed by their number in tables (`GICR_TYPER.Processor_Number`).
pub(super) struct Numbers(Vec<(u16, Affinity)>);

impl Numbers {
    pub(super) fn of(cpus: &[CpuState]) -> Result<Self, TryReserveError> {
        let number = |cpu: &CpuState| Typer::from(cpu.redistributor.typer).processor_number();
        Ok(Self(try_collect(cpus.iter().map(|cpu| (number(cpu), cpu.affinity)))?))
    }

    fn number(&self, affinity: Affinity) -> Option<u16> {
        self.0.iter().find(|(_, cpu)| *cpu == affinity).map(|(number, _)| *number)
    }

    fn affinity(&self, number: u64) -> Option<Affinity> {
        self.0.iter().find(|(of, _)| u64::from(*of) == number).map(|(_, cpu)| *cpu)
    }
}

/// Mappings that a restore has read from the tables.
pub(super) struct Restored {
    pub(super) collections: Vec<CollectionState>,
    pub(super) devices: Vec<DeviceState>,
    /// Pending bits that were transferred to events.
    pub(super) consumed: Vec<Bit>,
}

impl Restored {
    /// Exchanges these mappings with those of an ITS.
    pub(super) const fn exchange(&mut self, its: &mut ItsState) {
        core::mem::swap(&mut self.collections, &mut its.collections);
        core::mem::swap(&mut self.devices, &mut its.devices);
    }
}

/// Reads all tables. The guest controls the contents, so the work must be bounded for any contents.
/// Stores the entry that causes an error in `refused`.
///
/// In a rehearsal, reads and refuses what `vgic_its_restore_tables_v0` does, in the same order.
pub(super) fn restore(
    its: &ItsState,
    cpus: &[CpuState],
    memory: &mut TableMemory<'_>,
    budget: &mut Budget,
    refused: &mut Option<RefusedEntry>,
) -> Result<Restored, Errno> {
    let [devices, collections, ..] = its.baser.map(Baser::from_bits);
    let mut reader = Reader {
        cpus,
        numbers: Numbers::of(cpus)?,
        memory,
        budget,
        refused,
        device: DeviceId::new(0),
        known: SortedMap::new(),
        restored: Restored { collections: Vec::new(), devices: Vec::new(), consumed: Vec::new() },
        found: Vec::new(),
    };
    if collections.valid() {
        let named = 1 << gits::Typer::from(its.typer).collection_id_bits();
        reader.collections(collections, named)?;
    }
    if devices.valid() {
        reader.devices(devices)?;
    }
    reader.take_each_bit_once()
}

struct Reader<'a, 'm> {
    cpus: &'a [CpuState],
    numbers: Numbers,
    memory: &'a mut TableMemory<'m>,
    budget: &'a mut Budget,
    refused: &'a mut Option<RefusedEntry>,
    /// Device whose entry or events are being read.
    device: DeviceId,
    /// Collections in the table, mapped or not.
    known: SortedMap<CollectionId, ()>,
    restored: Restored,
    /// Events' pending bits, each with the indices of the device and the event.
    found: Vec<(Bit, usize, usize)>,
}

impl<'a> Reader<'a, '_> {
    /// Reads the collection table, up to `named` entries or the first one that can't be read.
    fn collections(&mut self, table: Baser, named: u64) -> Result<(), Errno> {
        let most = if self.memory.is_strict() { u64::MAX } else { named };
        let room = (table.bytes() / ENTRY).min(most);
        let mut entries = EntryReader::new(table.address() + ENTRY * room);
        for index in 0..room {
            self.budget.spend()?;
            let address = table.address() + ENTRY * index;
            let read = entries.read(address, self.memory);
            let Some(word) = self.readable(read, address)? else { break };
            let entry = CollectionEntry::from_bits(word);
            if !entry.valid() {
                break;
            }
            let collection = CollectionId::new(entry.collection());
            let at = u32::try_from(index).unwrap_or(u32::MAX);
            let at = |fault| RefusedEntry::Collection(at, collection, fault);
            // Ignore the upper bits of the target, as KVM does.
            let number = entry.target() & UNMAPPED;
            let target = self.numbers.affinity(number);
            if target.is_none() && number != UNMAPPED {
                return Err(self.refuse(at(EntryFault::NoCpu(number)), Errno::Invalid));
            }
            if self.known.contains(collection) {
                return Err(self.refuse(at(EntryFault::Duplicate), Errno::Exists));
            }
            let own = u64::from(entry.collection());
            if own >= room {
                let fault = EntryFault::CollectionOutOfRange(room);
                return Err(self.refuse(at(fault), Errno::Invalid));
            }
            // KVM's own entry of a collection only needs to be in memory.
            let own = table.address() + ENTRY * own;
            if self.memory.is_strict() && self.memory.read_u64(own).is_err() {
                return Err(self.refuse(at(EntryFault::Unreadable(own)), Errno::Invalid));
            }
            self.known.reserve()?;
            self.known.insert(collection, ());
            if let Some(target) = target {
                let state = CollectionState::new(collection, target);
                try_push(&mut self.restored.collections, state)?;
            }
        }
        self.restored.collections.sort_unstable_by_key(|state| state.collection);
        Ok(())
    }

    fn devices(&mut self, table: Baser) -> Result<(), Errno> {
        for index in 0..scan::page_count(table, self.memory) {
            self.budget.spend()?;
            let page = scan::page(table, index, self.memory);
            let page = self.readable(page, table.address() + ENTRY * index)?;
            let Some(page) = page.flatten() else { continue };
            let goes_on = self.page(page)?;
            if goes_on == Next::End {
                break;
            }
        }
        Ok(())
    }

    fn page(&mut self, page: scan::Page) -> Result<Next, Errno> {
        let mut index = 0;
        let mut entries = EntryReader::new(page.address + ENTRY * page.entries);
        while index < page.entries {
            self.budget.spend()?;
            let address = page.address + ENTRY * index;
            let read = entries.read(address, self.memory);
            let Some(word) = self.readable(read, address)? else { break };
            let entry = DeviceEntry::from_bits(word);
            if !entry.valid() {
                index += 1;
                continue;
            }
            self.device(page.first + index, entry)?;
            match entry.next() {
                0 => return Ok(Next::End),
                distance => index += u64::from(distance),
            }
        }
        Ok(Next::Page)
    }

    fn device(&mut self, id: u64, entry: DeviceEntry) -> Result<(), Errno> {
        let event_bits = entry.event_bits_minus_one() + 1;
        let device = DeviceId::new(u32::try_from(id).unwrap_or(u32::MAX));
        let fault = if event_bits > EVENT_BITS {
            Some(EntryFault::EventBits(event_bits))
        } else {
            (id >= IDS).then_some(EntryFault::DeviceIdBits)
        };
        if let Some(fault) = fault {
            return Err(self.refuse(RefusedEntry::Device(device, fault), Errno::Invalid));
        }
        self.budget.map_device()?;
        self.device = device;
        let mut state = DeviceState::new(device, event_bits, entry.itt_address());
        state.events = self.events(entry.itt_address(), event_bits)?;
        Ok(try_push(&mut self.restored.devices, state)?)
    }

    fn events(&mut self, itt: u64, event_bits: u8) -> Result<Vec<EventState>, Errno> {
        let all = 1_u64 << event_bits;
        let mut events = Vec::new();
        let mut id = 0;
        let mut entries = EntryReader::new(itt.checked_add(ENTRY * all).ok_or(Errno::Fault)?);
        while id < all {
            self.budget.spend()?;
            let address = itt + ENTRY * id;
            let word = entries.read(address, self.memory).map_err(|errno| {
                self.refuse(self.event_at(id, EntryFault::Unreadable(address)), errno)
            })?;
            let entry = TranslationEntry::from_bits(word);
            if entry.intid() == 0 {
                id += 1;
                continue;
            }
            let distance = u64::from(entry.next());
            if id + distance >= all {
                let entry = self.event_at(id, EntryFault::Distance(entry.next()));
                return Err(self.refuse(entry, Errno::Invalid));
            }
            self.budget.map_event()?;
            let event = self.event(id, entry, events.len())?;
            try_push(&mut events, event)?;
            if distance == 0 {
                break;
            }
            id += distance;
        }
        Ok(events)
    }

    /// Converts a translation entry. `index` is the index that the event will have in the device
    /// that is added next.
    fn event(
        &mut self,
        id: u64,
        entry: TranslationEntry,
        index: usize,
    ) -> Result<EventState, Errno> {
        let intid = IntId::new(entry.intid());
        let collection = CollectionId::new(entry.collection());
        let is_known = self.known.contains(collection);
        let target = self.target(collection);
        if intid.is_lpi() && is_known {
            self.read_lpi(id, intid, target)?;
        }
        let is_lpi = intid.is_lpi() && u64::from(entry.intid()) < IDS;
        if !is_lpi || !is_known {
            let no_collection = EntryFault::NoCollection(collection);
            let fault = if is_lpi { no_collection } else { EntryFault::NotLpi(intid) };
            return Err(self.refuse(self.event_at(id, fault), Errno::Invalid));
        }
        let event = EventId::new(u32::try_from(id).map_err(|_| Errno::Invalid)?);
        let mut state = EventState::new(event, intid, collection);
        let bit = target.and_then(|cpu| Bit::of(&cpu.redistributor, intid));
        if let Some(bit) = bit.filter(|bit| bit.read(self.memory)) {
            state.pending = true;
            try_push(&mut self.found, (bit, self.restored.devices.len(), index))?;
        }
        Ok(state)
    }

    /// Returns the target of a collection; `None` if the collection is not mapped.
    fn target(&self, collection: CollectionId) -> Option<&'a CpuState> {
        let mapped = &self.restored.collections;
        let at = mapped.binary_search_by_key(&collection, |state| state.collection).ok();
        let target = at.and_then(|at| mapped.get(at)).map(|state| state.target)?;
        self.cpus.iter().find(|cpu| cpu.affinity == target)
    }

    /// In a rehearsal, reads what KVM reads in guest memory when it adds an LPI (`vgic_add_lpi`):
    /// the configuration, and the pending bit at the target, whatever the sizes of the tables, and
    /// whether or not LPIs are enabled.
    fn read_lpi(&mut self, id: u64, intid: IntId, target: Option<&CpuState>) -> Result<(), Errno> {
        let Some(rehearsal) = &mut self.memory.rehearsal else { return Ok(()) };
        let (Ok(lpi), true) = (Lpi::try_from(intid), rehearsal.map(intid)?) else { return Ok(()) };
        let configurations = self.cpus.first().map_or(0, |cpu| cpu.redistributor.propbaser);
        let configuration = Propbaser::from(configurations).address() + lpi::config_offset(lpi);
        let pending = target.map(|cpu| {
            let (offset, _) = lpi::pending_location(lpi);
            Pendbaser::from(cpu.redistributor.pendbaser).address() + offset
        });
        for address in [Some(configuration), pending].into_iter().flatten() {
            self.memory.read(address, &mut [0]).map_err(|errno| {
                self.refuse(self.event_at(id, EntryFault::Unreadable(address)), errno)
            })?;
        }
        Ok(())
    }

    /// Returns `None` if an entry could not be read, except in a rehearsal, which then fails.
    fn readable<T>(&mut self, read: Result<T, Errno>, address: u64) -> Result<Option<T>, Errno> {
        match read {
            Err(errno) if self.memory.is_strict() => {
                Err(self.refuse(RefusedEntry::Unreadable(address), errno))
            }
            read => Ok(read.ok()),
        }
    }

    /// Records an entry as refused, and returns the error number.
    const fn refuse(&mut self, entry: RefusedEntry, errno: Errno) -> Errno {
        *self.refused = Some(entry);
        errno
    }

    fn event_at(&self, id: u64, fault: EntryFault) -> RefusedEntry {
        let event = EventId::new(u32::try_from(id).unwrap_or(u32::MAX));
        RefusedEntry::Event(self.device, event, fault)
    }

    /// If an LPI has several events, assigns its pending bit to the first of them.
    fn take_each_bit_once(self) -> Result<Restored, Errno> {
        let Self { mut restored, mut found, .. } = self;
        found.sort_unstable();
        for (bit, device, event) in found {
            if restored.consumed.last() != Some(&bit) {
                try_push(&mut restored.consumed, bit)?;
            } else if let Some(device) = restored.devices.get_mut(device)
                && let Some(event) = device.events.get_mut(event)
            {
                event.pending = false;
            }
        }
        Ok(restored)
    }
}
