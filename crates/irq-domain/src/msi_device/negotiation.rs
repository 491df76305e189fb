//! Does a store fit what is below it?

use super::Domain;
use crate::error::MsiDeviceError;
use crate::interrupts::Interrupts;
use crate::world::{StoredMessages, World};
use msi_types::{
    Capabilities, Capability, Masking, MessageStore, Mismatch, MsiParent, Properties, Property, RequesterId,
    Storage, negotiate,
};

impl Domain {
    /// Asks the platform and each level of the hierarchy, before anything is done.
    pub(super) fn check(
        core: &Interrupts,
        parent: &dyn MsiParent,
        requester: RequesterId,
        store: &dyn MessageStore,
    ) -> Result<(), MsiDeviceError> {
        if store.storage() == Storage::Device {
            match core.world {
                World::BareMetal => {}
                World::Guest(StoredMessages::Trapped) => return Err(MsiDeviceError::GuestStorage),
                World::Guest(StoredMessages::Remapped) => {
                    let proof = parent.isolation(requester).proof();
                    proof.map_err(MsiDeviceError::GuestNotIsolated)?;
                }
            }
        }
        Ok(negotiate(needs(store), properties(store), &|visit| parent.tiers(visit))?)
    }

    /// Asks each level for something that is needed now.
    pub(super) fn require(&self, capability: Capability) -> Result<(), Mismatch> {
        let needs = Capabilities::NONE.with(capability);
        negotiate(needs, Properties::ALL, &|visit| self.parent().tiers(visit))
    }
}

fn needs(store: &dyn MessageStore) -> Capabilities {
    let storage = match store.storage() {
        Storage::Bus => Capabilities::NONE,
        Storage::Device => Capabilities::NONE.with(Capability::DeviceStorage),
    };
    if store.fast_mask().is_none() { storage.with(Capability::Masking) } else { storage }
}

fn properties(store: &dyn MessageStore) -> Properties {
    let fit = store.fit();
    let has = [
        (Property::WideAddress, fit.address_bits >= 64),
        (Property::WideData, fit.data_bits >= 32),
        (Property::Maskable, store.masking() == Masking::PerVector),
    ];
    let present = has.iter().filter(|(_, present)| *present);
    present.fold(Properties::NONE, |set, (property, _)| set.with(*property))
}
