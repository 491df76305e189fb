//! What an ITS's commands do once their operands are checked.

use super::control::{Control, Settings, Translator};
use super::pool::{Cold, Owner};
use super::senders::{Growth, Senders};
use super::shared::Injection;
use super::slots::Slot;
use super::word::Word;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use gic_arch::Lpi;

/// Which ITS, among those that share redistributors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ItsIndex(u16);

impl ItsIndex {
    /// The owner of an event's slot.
    pub(super) const fn owner(self, collection: u16) -> Owner {
        Owner::Event { its: self.0, collection }
    }
}

/// The model's budget for mappings is used up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NoRoom;

/// What MAPD says of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MappedDevice {
    /// Bits of its EventIDs.
    pub(crate) event_bits: u8,
    /// Where its interrupt translation table lies. The model keeps nothing there.
    pub(crate) itt: u64,
}

/// An event that is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MappedEvent {
    its: ItsIndex,
    device: u32,
    event: u32,
    slot: Slot,
    /// Its collection.
    pub(crate) collection: u16,
}

impl Control {
    /// Adds an ITS, disabled and without mappings.
    pub(super) fn add_its(&mut self, senders: Arc<Senders>) -> Option<ItsIndex> {
        let index = u16::try_from(self.translators.len()).ok()?;
        self.translators.push(Translator {
            enabled: false,
            senders,
            growth: Growth::FULL,
            devices: BTreeMap::new(),
            collections: BTreeMap::new(),
        });
        Some(ItsIndex(index))
    }

    pub(super) fn translator(&self, its: ItsIndex) -> Option<&Translator> {
        self.translators.get(usize::from(its.0))
    }

    fn translator_mut(&mut self, its: ItsIndex) -> Option<&mut Translator> {
        self.translators.get_mut(usize::from(its.0))
    }

    pub(super) fn senders(&self, its: ItsIndex) -> Option<Arc<Senders>> {
        self.translator(its).map(|translator| translator.senders.clone())
    }

    /// `GITS_CTLR.Enabled`: on return, messages are taken, or none becomes pending through this ITS any more.
    pub(crate) fn set_its_enabled(&mut self, its: ItsIndex, enabled: bool) {
        if let Some(translator) = self.translator_mut(its)
            && translator.enabled != enabled
        {
            translator.enabled = enabled;
            self.refresh_owned_by(
                Settings::Keep,
                |owner| matches!(owner, Owner::Event { its: of, .. } if of == its.0),
            );
        }
    }

    /// A mapped device's event bits.
    pub(crate) fn event_bits(&self, its: ItsIndex, device: u32) -> Option<u8> {
        self.translator(its)?.devices.get(&device).map(|device| device.event_bits)
    }

    /// A mapped collection's vCPU.
    pub(crate) fn collection(&self, its: ItsIndex, collection: u16) -> Option<u16> {
        self.translator(its)?.collections.get(&collection).copied()
    }

    /// A mapped event.
    pub(crate) fn event(&self, its: ItsIndex, device: u32, event: u32) -> Option<MappedEvent> {
        let place = self.find(self.translator(its)?.senders.get(device)?, event)?;
        match self.pool.cold(place.slot).owner {
            Owner::Event { collection, .. } => {
                Some(MappedEvent { its, device, event, slot: place.slot, collection })
            }
            Owner::Nobody | Owner::Redistributor(_) => None,
        }
    }

    /// MAPD, V = 1. A mapped device is unmapped first, with all its events and what is pending of them. Slots are
    /// taken when events are mapped.
    pub(crate) fn map_device(
        &mut self,
        its: ItsIndex,
        device: u32,
        mapped: MappedDevice,
    ) -> Result<(), NoRoom> {
        self.unmap_device(its, device);
        let limit = self.config.devices as usize;
        let translator = self.translator_mut(its).ok_or(NoRoom)?;
        if translator.devices.len() >= limit {
            return Err(NoRoom);
        }
        let senders = translator.senders.clone();
        senders.ensure(device, &mut translator.growth).ok_or(NoRoom)?;
        translator.devices.insert(device, mapped);
        Ok(())
    }

    /// MAPD, V = 0.
    pub(crate) fn unmap_device(&mut self, its: ItsIndex, device: u32) {
        let Some(translator) = self.translator_mut(its) else { return };
        let Some(MappedDevice { event_bits, .. }) = translator.devices.remove(&device) else { return };
        let senders = translator.senders.clone();
        if let Some(sender) = senders.get(device) {
            self.detach(sender, u32::from(event_bits));
        }
    }

    /// Unmaps all devices.
    pub(crate) fn unmap_all_devices(&mut self, its: ItsIndex) {
        let devices: Vec<u32> =
            self.translator(its).map(|its| its.devices.keys().copied().collect()).unwrap_or_default();
        for device in devices {
            self.unmap_device(its, device);
        }
    }

    /// MAPC, V = 1. Events of a collection that was mapped elsewhere move, and what is pending of them moves along.
    pub(crate) fn map_collection(&mut self, its: ItsIndex, collection: u16, vcpu: u16) {
        if let Some(translator) = self.translator_mut(its) {
            translator.collections.insert(collection, vcpu);
            self.refresh_collection(its, collection);
        }
    }

    /// MAPC, V = 0. What is pending stays pending where it is.
    pub(crate) fn unmap_collection(&mut self, its: ItsIndex, collection: u16) {
        if self.translator_mut(its).is_some_and(|its| its.collections.remove(&collection).is_some()) {
            self.refresh_collection(its, collection);
        }
    }

    /// Unmaps all collections.
    pub(crate) fn unmap_all_collections(&mut self, its: ItsIndex) {
        if let Some(translator) = self.translator_mut(its) {
            translator.collections.clear();
            self.refresh_owned_by(
                Settings::Keep,
                |owner| matches!(owner, Owner::Event { its: of, .. } if of == its.0),
            );
        }
    }

    fn refresh_collection(&mut self, its: ItsIndex, collection: u16) {
        let meant = Owner::Event { its: its.0, collection };
        self.refresh_owned_by(Settings::Keep, |owner| owner == meant);
    }

    /// MAPTI and MAPI. An event that was mapped is mapped anew: what was pending of it is gone. The event fits its
    /// device, the LPI the distributor.
    pub(crate) fn map_event(
        &mut self,
        its: ItsIndex,
        (device, event): (u32, u32),
        lpi: Lpi,
        collection: u16,
    ) -> Result<(), NoRoom> {
        let event_bits = self.event_bits(its, device).ok_or(NoRoom)?;
        let senders = self.senders(its).ok_or(NoRoom)?;
        let sender = senders.get(device).ok_or(NoRoom)?;
        let place = self.attach(sender, u32::from(event_bits), event).ok_or(NoRoom)?;
        let target = self.collection(its, collection).unwrap_or(0);
        let word =
            Word::unmapped(place.generation).with_target(u32::from(target)).with_lpi_index(lpi.index());
        let (old, _) = self.shared.slots.update(place.slot.position(), |old| old.replaced_by(word));
        self.recall(old);
        self.pool.set_cold(place.slot, Cold { owner: Owner::Event { its: its.0, collection }, held: false });
        self.refresh(place.slot, Settings::Reload);
        Ok(())
    }

    /// MOVI: the event, and what is pending of it, goes to another collection.
    pub(crate) fn move_event(&mut self, event: MappedEvent, collection: u16) {
        let pending_by_itself = self.own_slot_of(event).filter(|_| self.goes_elsewhere(event, collection));
        let held = match pending_by_itself {
            Some(own) => self.clear_slot(own),
            None => false,
        };
        let cold = self.pool.cold(event.slot);
        self.pool.set_cold(
            event.slot,
            Cold { owner: Owner::Event { its: event.its.0, collection }, held: cold.held || held },
        );
        self.refresh(event.slot, Settings::Keep);
    }

    fn goes_elsewhere(&self, event: MappedEvent, collection: u16) -> bool {
        self.collection(event.its, event.collection) != self.collection(event.its, collection)
    }

    /// Where the event's LPI may be pending by itself, at the redistributor that the event targets.
    fn own_slot_of(&self, event: MappedEvent) -> Option<Slot> {
        let word = self.shared.slots.load(event.slot.position());
        self.own_slot(word.target(), word.lpi())
    }

    /// CLEAR: nothing of the event is pending at its redistributor.
    pub(crate) fn clear_event(&mut self, event: MappedEvent) {
        if let Some(own) = self.own_slot_of(event) {
            self.clear_slot(own);
        }
        self.clear_slot(event.slot);
    }

    /// DISCARD: as CLEAR, and the event is no longer mapped.
    pub(crate) fn discard_event(&mut self, event: MappedEvent) {
        if let Some(own) = self.own_slot_of(event) {
            self.clear_slot(own);
        }
        self.unmap_slot(event.slot);
        self.pool.set_cold(event.slot, Cold { owner: Owner::Nobody, held: false });
    }

    /// INV: takes the configuration of the event's LPI from memory again.
    pub(crate) fn invalidate_event(&mut self, event: MappedEvent) {
        if let Some(own) = self.own_slot_of(event) {
            self.refresh(own, Settings::Reload);
        }
        self.refresh(event.slot, Settings::Reload);
    }

    /// INT: a message for the event.
    pub(crate) fn signal_event(&mut self, event: MappedEvent) -> Injection {
        let Some(senders) = self.senders(event.its) else {
            return Injection::Dropped;
        };
        match senders.get(event.device) {
            Some(sender) => self.inject(sender, event.event),
            None => Injection::Dropped,
        }
    }
}
