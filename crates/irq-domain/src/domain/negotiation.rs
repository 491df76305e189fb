//! Negotiation between an endpoint and the levels below it.

use super::endpoint::Endpoint;
use crate::error::MsiDeviceError;
use msi_types::{
    Capabilities, Capability, InterruptIsolated, Mismatch, MsiParent, Properties, Property,
    RequesterId, Storage, negotiate,
};

/// Checks that an endpoint fits every level of the hierarchy, before anything is allocated.
///
/// Context: any.
pub(super) fn check_store(
    parent: &dyn MsiParent,
    requester: RequesterId,
    endpoint: &Endpoint,
) -> Result<(), MsiDeviceError> {
    let isolated = if endpoint.hides_messages() {
        InterruptIsolated::prove(parent, requester).map(drop)
    } else {
        Ok(())
    };
    let has = properties(endpoint);
    let has = if isolated.is_ok() { has.with(Property::Isolation) } else { has };
    negotiate(needs(endpoint), has, &|visit| parent.tiers(visit)).map_err(|mismatch| {
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

fn needs(endpoint: &Endpoint) -> Capabilities {
    let needed = [
        (Capability::DeviceStorage, endpoint.storage() != Storage::Bus),
        (Capability::MessageRemapping, endpoint.hides_messages()),
        (Capability::Masking, endpoint.mask().is_none()),
    ];
    let needed = needed.iter().filter(|(_, needed)| *needed);
    needed.fold(Capabilities::NONE, |set, (capability, _)| set.with(*capability))
}

fn properties(endpoint: &Endpoint) -> Properties {
    let fit = endpoint.fit();
    let has = [
        (Property::WideAddress, fit.address_bits >= 64),
        (Property::WideData, fit.data_bits >= 32),
        (Property::Maskable, endpoint.masks_all()),
    ];
    let present = has.iter().filter(|(_, present)| *present);
    present.fold(Properties::NONE, |set, (property, _)| set.with(*property))
}
