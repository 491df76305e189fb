//! Validates ITS commands (IHI 0069 §5.3), and executes them on the machine's LPI state.
//!
//! Implementation choices beyond those in [`crate::lpi`]: MAPTI may map an event to an unmapped
//! collection. DISCARD works while the event's collection is unmapped. Unmapping an unmapped device
//! or collection is not an error. A mapped device or collection remains usable when its first-level
//! table entry becomes invalid.

use super::tables::{TableRegisters, covers};
use super::targets::Targets;
use crate::config::ItsConfig;
use crate::lpi::{Control, ItsIndex, MappedDevice, MappedEvent, NoRoom};
use doorbell_fallible::OutOfMemory;
use gic_arch::Lpi;
use gic_arch::its::CommandErrorReason::{
    self, CollectionOutOfRange, DeviceOutOfRange, EventOutOfRange, IttSizeOutOfRange,
    PhysicalIdOutOfRange, ProcessorNumberOutOfRange, UnmappedCollection, UnmappedDevice,
    UnmappedInterrupt,
};
use gic_arch::its::{CollectionId, Command, MapAction, RdBase};
use msi_types::{DeviceId, EventId};

/// Reason for refusing a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// The architecture defines a code for this error.
    Reason(CommandErrorReason),
    /// The model's mapping budget is exhausted.
    NoRoom,
    /// The heap is exhausted.
    OutOfMemory,
}

impl From<CommandErrorReason> for Refusal {
    fn from(reason: CommandErrorReason) -> Self {
        Self::Reason(reason)
    }
}

impl From<NoRoom> for Refusal {
    fn from(no_room: NoRoom) -> Self {
        match no_room {
            NoRoom::Budget => Self::NoRoom,
            NoRoom::OutOfMemory => Self::OutOfMemory,
        }
    }
}

impl From<OutOfMemory> for Refusal {
    fn from(OutOfMemory: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

type Outcome<T = ()> = Result<T, Refusal>;

/// Context for executing one command.
pub(super) struct Executor<'a> {
    pub(super) its: ItsIndex,
    pub(super) config: &'a ItsConfig,
    pub(super) targets: &'a Targets,
    pub(super) tables: TableRegisters,
    pub(super) control: &'a mut Control,
}

impl Executor<'_> {
    pub(super) fn execute(&mut self, command: Command) -> Outcome {
        match command {
            Command::Mapd { device, itt, event_bits_minus_one, action } => {
                self.mapd(device, itt, event_bits_minus_one, action)
            }
            Command::Mapc { collection, target, action } => self.mapc(collection, target, action),
            Command::Mapti { device, event, intid, collection } => {
                self.mapti(device, event, intid, collection)
            }
            Command::Mapi { device, event, collection } => {
                self.mapti(device, event, event.get(), collection)
            }
            Command::Movi { device, event, collection } => self.movi(device, event, collection),
            Command::Discard { device, event } => {
                let event = self.event(device, event)?;
                self.control.discard_event(event);
                Ok(())
            }
            Command::Int { device, event } => {
                let event = self.routed_event(device, event)?;
                self.control.signal_event(event);
                Ok(())
            }
            Command::Clear { device, event } => {
                let event = self.routed_event(device, event)?;
                self.control.clear_event(event);
                Ok(())
            }
            Command::Inv { device, event } => {
                let event = self.routed_event(device, event)?;
                Ok(self.control.invalidate_event(event)?)
            }
            Command::Invall { collection } => self.invall(collection),
            Command::Movall { from, to } => {
                let (from, to) = (self.vcpu(from)?, self.vcpu(to)?);
                self.control.move_all(self.its, from, to);
                Ok(())
            }
            // SYNC needs no work here, because every command updates the affected entries before it
            // is consumed, and the queue itself waits for interrupts in list registers.
            Command::Sync { target } => self.vcpu(target).map(drop),
        }
    }

    fn mapd(
        &mut self,
        device: DeviceId,
        itt: u64,
        event_bits_minus_one: u8,
        action: MapAction,
    ) -> Outcome {
        if self.control.device(self.its, device.get()).is_none()
            && !self.provides_for_device(device)
        {
            return Err(DeviceOutOfRange.into());
        }
        match action {
            MapAction::Unmap => self.control.unmap_device(self.its, device.get()),
            MapAction::Map if event_bits_minus_one >= self.config.event_id_bits => {
                return Err(IttSizeOutOfRange.into());
            }
            MapAction::Map => {
                let mapped = MappedDevice { event_bits: event_bits_minus_one + 1, itt };
                self.control.map_device(self.its, device.get(), mapped)?;
            }
        }
        Ok(())
    }

    fn mapc(&mut self, collection: CollectionId, target: RdBase, action: MapAction) -> Outcome {
        self.check_collection(collection)?;
        match action {
            MapAction::Unmap => self.control.unmap_collection(self.its, collection.get()),
            MapAction::Map => {
                let vcpu = self.vcpu(target)?;
                self.control.map_collection(self.its, collection.get(), vcpu)?;
            }
        }
        Ok(())
    }

    fn mapti(
        &mut self,
        device: DeviceId,
        event: EventId,
        intid: u32,
        collection: CollectionId,
    ) -> Outcome {
        self.check_event(device, event)?;
        self.check_collection(collection)?;
        let lpi = Lpi::try_from(intid).ok().filter(|lpi| self.control.implements(*lpi));
        let lpi = lpi.ok_or(PhysicalIdOutOfRange)?;
        let event = (device.get(), event.get());
        Ok(self.control.map_event(self.its, event, lpi, collection.get())?)
    }

    fn movi(&mut self, device: DeviceId, event: EventId, collection: CollectionId) -> Outcome {
        let event = self.routed_event(device, event)?;
        self.check_collection(collection)?;
        self.target(collection.get())?;
        Ok(self.control.move_event(event, collection.get())?)
    }

    fn invall(&mut self, collection: CollectionId) -> Outcome {
        self.check_collection(collection)?;
        let vcpu = self.target(collection.get())?;
        self.control.invalidate_all_for(self.its, vcpu);
        Ok(())
    }

    /// Checks that the device is mapped and the EventID is in its range.
    fn check_event(&self, device: DeviceId, event: EventId) -> Outcome {
        match self.control.device(self.its, device.get()) {
            Some(mapped) if u64::from(event.get()) >> mapped.event_bits == 0 => Ok(()),
            Some(_) => Err(EventOutOfRange.into()),
            None if self.provides_for_device(device) => Err(UnmappedDevice.into()),
            None => Err(DeviceOutOfRange.into()),
        }
    }

    fn event(&self, device: DeviceId, event: EventId) -> Outcome<MappedEvent> {
        if let Some(found) = self.control.event(self.its, device.get(), event.get()) {
            return Ok(found);
        }
        self.check_event(device, event)?;
        Err(UnmappedInterrupt.into())
    }

    /// Looks up a mapped event. The event's collection must also be mapped.
    fn routed_event(&self, device: DeviceId, event: EventId) -> Outcome<MappedEvent> {
        let event = self.event(device, event)?;
        self.target(event.collection)?;
        Ok(event)
    }

    fn target(&self, collection: u16) -> Outcome<u16> {
        Ok(self.control.collection(self.its, collection).ok_or(UnmappedCollection)?)
    }

    fn provides_for_device(&self, device: DeviceId) -> bool {
        u64::from(device.get()) >> self.config.device_id_bits == 0
            && covers(self.tables.devices, device.get(), self.control.memory())
    }

    fn check_collection(&self, collection: CollectionId) -> Outcome {
        let in_table = |id| covers(self.tables.collections, id, self.control.memory());
        let provided = match collection.get().checked_sub(self.config.held_collections.into()) {
            None => true,
            Some(beyond_held) => {
                self.config.names_collection(collection.get()) && in_table(beyond_held.into())
            }
        };
        if provided || self.control.collection(self.its, collection.get()).is_some() {
            Ok(())
        } else {
            Err(CollectionOutOfRange.into())
        }
    }

    fn vcpu(&self, target: RdBase) -> Outcome<u16> {
        Ok(self.targets.find(target).ok_or(ProcessorNumberOutOfRange)?)
    }
}
