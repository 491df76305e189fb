//! ITS commands from plain numbers.

use gic_arch::its::{CollectionId, Command, MapAction, RdBase};
use msi_types::{DeviceId, EventId};

/// Maps a device with `bits` EventID bits and the translation table at `itt`.
pub fn mapd(device: u32, bits: u8, itt: u64) -> Command {
    let (device, action) = (DeviceId::new(device), MapAction::Map);
    Command::Mapd { device, itt, event_bits_minus_one: bits - 1, action }
}

/// Unmaps a device.
pub fn unmapd(device: u32) -> Command {
    let (device, action) = (DeviceId::new(device), MapAction::Unmap);
    Command::Mapd { device, itt: 0, event_bits_minus_one: 0, action }
}

/// Maps a collection to a vCPU.
pub fn mapc(collection: u16, cpu: u16) -> Command {
    let (collection, target) = (CollectionId::new(collection), RdBase::from_processor_number(cpu));
    Command::Mapc { collection, target, action: MapAction::Map }
}

/// Unmaps a collection.
pub fn unmapc(collection: u16) -> Command {
    let (collection, target) = (CollectionId::new(collection), RdBase::from_processor_number(0));
    Command::Mapc { collection, target, action: MapAction::Unmap }
}

/// Maps an event to an LPI in a collection.
pub fn mapti(device: u32, event: u32, intid: u32, collection: u16) -> Command {
    let (device, event) = (DeviceId::new(device), EventId::new(event));
    Command::Mapti { device, event, intid, collection: CollectionId::new(collection) }
}

/// Maps an event to the LPI with the same number.
pub fn mapi(device: u32, event: u32, collection: u16) -> Command {
    let (device, event) = (DeviceId::new(device), EventId::new(event));
    Command::Mapi { device, event, collection: CollectionId::new(collection) }
}

/// Moves an event to a collection.
pub fn movi(device: u32, event: u32, collection: u16) -> Command {
    let (device, event) = (DeviceId::new(device), EventId::new(event));
    Command::Movi { device, event, collection: CollectionId::new(collection) }
}

/// Moves all LPIs that are pending at one vCPU to another vCPU.
pub fn movall(from: u16, to: u16) -> Command {
    let [from, to] = [from, to].map(RdBase::from_processor_number);
    Command::Movall { from, to }
}

/// Unmaps an event.
pub fn discard(device: u32, event: u32) -> Command {
    Command::Discard { device: DeviceId::new(device), event: EventId::new(event) }
}

/// Makes an event's LPI pending.
pub fn int(device: u32, event: u32) -> Command {
    Command::Int { device: DeviceId::new(device), event: EventId::new(event) }
}

/// Clears an event's pending LPI.
pub fn clear(device: u32, event: u32) -> Command {
    Command::Clear { device: DeviceId::new(device), event: EventId::new(event) }
}

/// Invalidates the cached configuration of an event's LPI.
pub fn inv(device: u32, event: u32) -> Command {
    Command::Inv { device: DeviceId::new(device), event: EventId::new(event) }
}

/// Invalidates the cached configurations of a collection's LPIs.
pub fn invall(collection: u16) -> Command {
    Command::Invall { collection: CollectionId::new(collection) }
}

/// Waits for the effects of earlier commands at a vCPU.
pub fn sync(cpu: u16) -> Command {
    Command::Sync { target: RdBase::from_processor_number(cpu) }
}
