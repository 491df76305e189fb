//! Mappings and pending LPIs as plain data, and back. What is visited is in proportion to what is mapped.

use super::control::{Control, Settings};
use super::directory::{CHUNK_BITS, CHUNK_SLOTS, Entry, NODE_BITS, NODE_ENTRIES, depth};
use super::mappings::{ItsIndex, MappedDevice, NoRoom};
use super::own::LpiBlock;
use super::pool::Owner;
use super::shared::Location;
use super::slots::Slot;
use super::sweeps::OwnCursor;
use super::tables::LpiTables;
use super::word::Word;
use core::sync::atomic::Ordering;
use gic_arch::lpi::Config;
use gic_arch::{Lpi, gicr};

/// An LPI of an event or of a redistributor, at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SavedLpi {
    pub(crate) lpi: Lpi,
    /// The vCPU that it goes to.
    pub(crate) target: u32,
    /// Pending there, or held until LPIs are enabled there.
    pub(crate) pending: bool,
    /// Its configuration, as far as the model keeps it; `None`: to be read from memory.
    pub(crate) configuration: Option<Config>,
}

/// Saving.
impl Control {
    /// The mapped devices of an ITS, ascending.
    pub(crate) fn mapped_devices(&self, its: ItsIndex) -> impl Iterator<Item = (u32, MappedDevice)> {
        let devices = self.translator(its).into_iter().flat_map(|translator| &translator.devices);
        devices.map(|(device, mapped)| (*device, *mapped))
    }

    /// The mapped collections of an ITS with their vCPUs, ascending.
    pub(crate) fn mapped_collections(&self, its: ItsIndex) -> impl Iterator<Item = (u16, u16)> {
        let collections = self.translator(its).into_iter().flat_map(|translator| &translator.collections);
        collections.map(|(collection, vcpu)| (*collection, *vcpu))
    }

    /// Visits the mapped events of a device by ascending EventID, each with its collection.
    pub(crate) fn each_event(&self, its: ItsIndex, device: u32, mut each: impl FnMut(u32, u16, SavedLpi)) {
        let Some(sender) = self.translator(its).and_then(|translator| translator.senders.get(device)) else {
            return;
        };
        self.each_slot(Entry::from_bits(sender.load(Ordering::SeqCst)), &mut |event, slot| {
            if let Owner::Event { collection, .. } = self.pool.owner(slot) {
                each(event, collection, self.saved(Location::Slot(slot)));
            }
        });
    }

    /// Visits the LPIs that are pending at a redistributor by themselves, ascending.
    pub(crate) fn each_pending_by_itself(&self, vcpu: u32, mut each: impl FnMut(SavedLpi)) {
        for index in self.own_blocks(vcpu).into_iter().flat_map(LpiBlock::indices) {
            let saved = self.saved(Location::Own { vcpu, index });
            if saved.pending {
                each(saved);
            }
        }
    }

    fn each_slot(&self, root: Entry, each: &mut dyn FnMut(u32, Slot)) {
        if root.is_valid() {
            let event_bits = root.event_bits();
            self.each_slot_below(root, depth(event_bits), event_bits.min(CHUNK_BITS), 0, each);
        }
    }

    /// Visits what an entry names: nodes down to blocks of `2^size` slots, of events from `first` on.
    fn each_slot_below(
        &self,
        entry: Entry,
        depth: u32,
        size: u32,
        first: u32,
        each: &mut dyn FnMut(u32, Slot),
    ) {
        let Some(below) = depth.checked_sub(1) else {
            (0..1 << size).for_each(|at| each(first + at, Slot::new(entry.index()).offset(at)));
            return;
        };
        for index in 0..NODE_ENTRIES {
            let Some(place) = self.shared.nodes.entry(entry.index(), index) else { break };
            let child = Entry::from_bits(place.load(Ordering::SeqCst));
            if child.is_valid() {
                let first = first + (index << (CHUNK_BITS + NODE_BITS * below));
                self.each_slot_below(child, below, size, first, each);
            }
        }
    }

    /// One load of the word: what is pending is pending at one place.
    fn saved(&self, location: Location) -> SavedLpi {
        let word = self.shared.load(location);
        SavedLpi {
            lpi: word.lpi(),
            target: word.target(),
            pending: word.is_pending_or_held(),
            configuration: Some(
                Config::new().with_enable(word.is_enabled()).with_priority(word.level().configured()),
            ),
        }
    }
}

/// Restoring, into a core after reset. Whether there is [`Room`] was asked before.
impl Control {
    /// `EnableLPIs` is set at a redistributor whose pending state is not in memory.
    pub(crate) fn restore_enabled(
        &mut self,
        vcpu: u32,
        propbaser: gicr::Propbaser,
        pendbaser: gicr::Pendbaser,
    ) {
        let tables = LpiTables::new(propbaser, pendbaser, self.config.id_bits);
        if let Some(place) = self.redistributors.get_mut(vcpu as usize) {
            *place = Some(tables);
        }
        self.provide_own(vcpu, &tables);
        let reload = |control: &mut Self, block| control.reload_own(vcpu, block);
        let mut all = OwnCursor::START;
        self.visit_own(vcpu, &mut all, u64::MAX, reload);
    }

    /// A mapped collection, of which no event is mapped yet.
    pub(crate) fn restore_collection(&mut self, its: ItsIndex, collection: u16, vcpu: u16) {
        if let Some(translator) = self.translator_mut(its) {
            translator.collections.insert(collection, vcpu);
        }
    }

    /// A mapped event.
    pub(crate) fn restore_event(
        &mut self,
        its: ItsIndex,
        (device, event): (u32, u32),
        collection: u16,
        saved: SavedLpi,
    ) -> Result<(), NoRoom> {
        let event_bits = self.event_bits(its, device).ok_or(NoRoom)?;
        let senders = self.senders(its).ok_or(NoRoom)?;
        let sender = senders.get(device).ok_or(NoRoom)?;
        let place = self.attach(sender, u32::from(event_bits), event).ok_or(NoRoom)?;
        self.give_slot(place.slot, its.owner(collection), saved.lpi);
        self.restore_word(Location::Slot(place.slot), Word::unmapped(place.generation), saved);
        Ok(())
    }

    /// An LPI that is pending at a redistributor by itself; of its event, if that targets it.
    pub(crate) fn restore_pending_by_itself(&mut self, saved: SavedLpi) {
        let own = match self.place_of(saved.target, saved.lpi) {
            event @ Location::Slot(_) => return self.pend(event),
            own @ Location::Own { .. } => own,
        };
        if let Some(own) = self.shared.own(saved.target) {
            own.ensure(saved.lpi);
        }
        self.restore_word(own, Word::unmapped(0), saved);
    }

    fn restore_word(&mut self, location: Location, word: Word, saved: SavedLpi) {
        let word = word.with_target(saved.target).with_lpi_index(saved.lpi.index()).with_held(saved.pending);
        let (word, settings) = match saved.configuration {
            None => (word, Settings::Reload),
            Some(config) => {
                let word = word
                    .with_enabled(config.enable())
                    .with_level(self.config.priorities.level(config.priority()));
                (word, Settings::Given)
            }
        };
        let (old, _) = self.shared.update(location, |old| old.replaced_by(word));
        self.recall(old);
        self.refresh(location, settings);
    }
}

/// What a saved state needs of the pool, added up.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Room {
    /// Blocks, by the logarithm of their size.
    blocks: [u64; CHUNK_BITS as usize + 1],
    nodes: u64,
}

impl Room {
    /// A device with these mapped events, ascending.
    pub(crate) fn add_device(&mut self, event_bits: u8, events: impl Iterator<Item = u32>) {
        let event_bits = u32::from(event_bits);
        let (size, depth) = (event_bits.min(CHUNK_BITS), depth(event_bits));
        let mut last: Option<u32> = None;
        for event in events {
            // What lies in another part of the tree than the event before it needs that part.
            let fresh = |shift: u32| last.is_none_or(|last| last >> shift != event >> shift);
            self.blocks[size as usize] += u64::from(fresh(size));
            let nodes = (1..=depth).filter(|below| fresh(CHUNK_BITS + NODE_BITS * below)).count();
            self.nodes += nodes as u64;
            last = Some(event);
        }
    }

    fn chunks(&self) -> u64 {
        let slots = self.blocks.iter().enumerate().map(|(size, blocks)| (blocks << size, CHUNK_SLOTS));
        slots.map(|(slots, chunk)| slots.div_ceil(chunk.into())).sum()
    }
}

impl Control {
    /// Does this fit, once nothing else is mapped?
    pub(crate) fn has_room(&self, room: &Room) -> bool {
        room.chunks() <= self.pool.usable_chunks() && room.nodes <= self.pool.usable_nodes()
    }

    /// Can these devices be mapped at an ITS, ascending, once no other is?
    pub(crate) fn has_room_for_devices(
        &self,
        its: ItsIndex,
        devices: impl ExactSizeIterator<Item = u32>,
    ) -> bool {
        let Some(translator) = self.translator(its) else { return false };
        devices.len() <= self.config.devices as usize
            && translator.growth.allows(translator.senders.nodes_of(devices))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_sender_needs_as_many_nodes_and_blocks_as_it_has_parts_with_events(
            event_bits in 6u8..=23,
            events in proptest::collection::btree_set(any::<u32>(), 0..40),
        ) {
            use alloc::collections::BTreeSet;
            let events: BTreeSet<u32> = events.iter().map(|event| event >> (32 - event_bits)).collect();
            let mut room = Room::default();
            room.add_device(event_bits, events.iter().copied());
            let parts = |shift: u32| events.iter().map(|event| event >> shift).collect::<BTreeSet<_>>().len() as u64;
            let nodes: u64 = (1..=depth(event_bits.into())).map(|below| parts(CHUNK_BITS + NODE_BITS * below)).sum();
            prop_assert_eq!((room.chunks(), room.nodes), (parts(CHUNK_BITS), nodes));
        }
    }
}
