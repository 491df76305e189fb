//! Negotiation between a store and the levels below it.

use crate::error::MsiDeviceError;
use msi_types::{
    Capabilities, Capability, InterruptIsolated, Masking, MessageStore, Mismatch, MsiParent,
    Properties, Property, RequesterId, Storage, negotiate,
};

/// Checks that a store fits every level of the hierarchy, before anything is allocated.
///
/// Context: any.
pub(super) fn check_store(
    parent: &dyn MsiParent,
    requester: RequesterId,
    store: &dyn MessageStore,
) -> Result<(), MsiDeviceError> {
    let isolated = match store.storage() {
        Storage::Bus | Storage::Emulated => Ok(()),
        Storage::Device => InterruptIsolated::prove(parent, requester).map(drop),
    };
    let has = properties(store);
    let has = if isolated.is_ok() { has.with(Property::Isolation) } else { has };
    negotiate(needs(store), has, &|visit| parent.tiers(visit)).map_err(|mismatch| {
        match (mismatch, isolated) {
            (Mismatch::Required { property: Property::Isolation, tier }, Err(reason)) => {
                MsiDeviceError::NotIsolated { tier, reason }
            }
            (other, _) => other.into(),
        }
    })
}

/// Checks that the hierarchy provides a capability.
///
/// Context: any.
pub(super) fn require(parent: &dyn MsiParent, capability: Capability) -> Result<(), Mismatch> {
    let needs = Capabilities::NONE.with(capability);
    negotiate(needs, Properties::ALL, &|visit| parent.tiers(visit))
}

fn needs(store: &dyn MessageStore) -> Capabilities {
    let storage = match store.storage() {
        Storage::Bus => Capabilities::NONE,
        Storage::Emulated => Capabilities::NONE.with(Capability::DeviceStorage),
        Storage::Device => {
            Capabilities::NONE.with(Capability::DeviceStorage).with(Capability::MessageRemapping)
        }
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
