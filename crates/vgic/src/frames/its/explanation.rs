//! Explanations of why an ITS does not translate a message, and views of its registers.

use super::tables::{capacity, covers};
use super::{Its, ItsRegisters};
use crate::frames::registers::low_word;
use crate::lpi::{EventStatus, LpiStatus};
use crate::monitor::events::{CommandFault, FailedCommand};
use crate::monitor::view::ItsView;
use alloc::vec::Vec;
use gic_arch::gits::Baser;
use gic_arch::its::CommandError;
use msi_types::explain::{Explanation, Fact, Obstacle, TableRegister};
use msi_types::{DeviceId, EventId};

impl Its {
    /// Returns the address of `GITS_TRANSLATER`.
    pub(crate) const fn doorbell(&self) -> u64 {
        self.config.doorbell()
    }

    /// Returns the state of the LPI to which a device's event is mapped, or the reason why the ITS
    /// does not translate the event. If a mapping is missing and the ITS has refused commands, adds
    /// a fact about them.
    pub(crate) fn explain(
        &self,
        device: DeviceId,
        event: EventId,
        explanation: &mut Explanation,
    ) -> Result<LpiStatus, Obstacle> {
        let state = self.state.lock();
        let (is_enabled, status, has_entry) = self.lpis.with_kicks_deferred(|control| {
            let is_enabled = state.enabled && !control.is_admitting(self.index);
            let status = control.event_status(self.index, device.get(), event.get());
            let is_unmapped = matches!(status, EventStatus::UnmappedDevice(_));
            let has_entry =
                is_unmapped && covers(state.tables.devices, device.get(), control.memory());
            (is_enabled, status, has_entry)
        });
        if !is_enabled {
            return Err(Obstacle::ItsDisabled { its: self.config.base });
        }
        let obstacle = match status {
            EventStatus::Mapped(status) => return Ok(status),
            EventStatus::UnmappedDevice(mapped) if has_entry => {
                let mapped = u32::try_from(mapped).unwrap_or(u32::MAX);
                Obstacle::UnmappedDevice { device, mapped }
            }
            EventStatus::UnmappedDevice(_) => self.no_entry(&state, device),
            EventStatus::OutOfRange(bits) => Obstacle::EventOutOfRange { device, event, bits },
            // An ITS that needs a collection table but has none refuses to map events.
            EventStatus::Unmapped => {
                self.no_collections(&state, 0).unwrap_or(Obstacle::UnmappedEvent { device, event })
            }
            EventStatus::UnmappedCollection(collection) => self
                .no_collections(&state, collection)
                .unwrap_or(Obstacle::UnmappedCollection { collection }),
        };
        if let Some(refused) = refused_commands(&state) {
            *explanation = explanation.with_fact(refused);
        }
        Err(ignored_write(&state, obstacle).or_else(|| queued(&state)).unwrap_or(obstacle))
    }

    /// Returns an obstacle if the command queue is not empty.
    pub(crate) fn queued_commands(&self) -> Option<Obstacle> {
        queued(&self.state.lock())
    }

    /// Returns the registers and counters, without mappings.
    pub(crate) fn view(&self) -> ItsView {
        self.view_of(&self.state.lock())
    }

    /// Like [`view`](Self::view), but returns `None` if another thread is accessing the registers.
    pub(crate) fn try_view(&self) -> Option<ItsView> {
        self.state.try_lock().map(|state| self.view_of(&state))
    }

    fn view_of(&self, state: &ItsRegisters) -> ItsView {
        ItsView {
            base: self.config.base,
            enabled: state.enabled,
            creadr: state.queue.creadr().into_bits(),
            cwriter: state.queue.cwriter().into_bits(),
            commands: state.commands,
            refused: state.faults.count,
            collections: Vec::new(),
            devices: Vec::new(),
        }
    }

    /// Returns the reason why the device table has no entry for a DeviceID.
    fn no_entry(&self, state: &ItsRegisters, device: DeviceId) -> Obstacle {
        let table = state.tables.devices;
        if !table.valid() {
            return invalid_table(0, table);
        }
        let entries = capacity(table).min(1 << self.config.device_id_bits);
        if u64::from(device.get()) < entries {
            return Obstacle::NoSecondLevel { device };
        }
        let bits = entries.checked_ilog2().and_then(|bits| u8::try_from(bits).ok());
        Obstacle::DeviceOutOfRange { device, bits: bits.unwrap_or(0) }
    }

    /// Returns an obstacle if a collection needs an entry in the collection table and `GITS_BASER1`
    /// is not valid.
    fn no_collections(&self, state: &ItsRegisters, collection: u16) -> Option<Obstacle> {
        let table = state.tables.collections;
        let needs_table = collection >= self.config.held_collections.into()
            && self.config.collection_table.is_some();
        (needs_table && !table.valid()).then(|| invalid_table(1, table))
    }
}

const fn invalid_table(index: u8, table: Baser) -> Obstacle {
    let register = TableRegister::Baser(index);
    Obstacle::InvalidTable { register, value: table.into_bits() }
}

/// Returns the ignored register write that may have caused the missing mapping, if any.
fn ignored_write(state: &ItsRegisters, obstacle: Obstacle) -> Option<Obstacle> {
    let of_table = match obstacle {
        Obstacle::UnmappedDevice { .. }
        | Obstacle::NoSecondLevel { .. }
        | Obstacle::DeviceOutOfRange { .. } => Some(0u8),
        Obstacle::UnmappedCollection { .. } => Some(1),
        Obstacle::InvalidTable { register: TableRegister::Baser(index), .. } => Some(index),
        _ => None,
    };
    let queue = (TableRegister::Cbaser, state.queue.written().into_bits(), state.ignored.cbaser);
    let table = of_table.map(|index| {
        let ignored = state.ignored.baser.get(usize::from(index)).copied().flatten();
        (TableRegister::Baser(index), state.tables.get(index.into()).into_bits(), ignored)
    });
    [Some(queue), table].into_iter().flatten().find_map(|(register, value, ignored)| {
        let ignored = ignored.filter(|ignored| *ignored != value)?;
        Some(Obstacle::WriteIgnored { register, value, ignored })
    })
}

fn queued(state: &ItsRegisters) -> Option<Obstacle> {
    let (read, write) = (state.queue.creadr(), state.queue.cwriter());
    (read.offset() != write.offset()).then(|| Obstacle::CommandsQueued {
        read: low_word(read.into_bits()),
        write: low_word(write.into_bits()),
    })
}

fn refused_commands(state: &ItsRegisters) -> Option<Fact> {
    let FailedCommand { fault, .. } = state.faults.first?;
    let (command, reason) = match fault {
        CommandFault::Refused(CommandError { opcode, reason }) => {
            (opcode.name(), reason.description())
        }
        CommandFault::Unknown(_) => ("an unknown command", "its opcode does not exist"),
        CommandFault::NoRoom(opcode) => (opcode.name(), "the model's budget is exhausted"),
        CommandFault::OutOfMemory(opcode) => (opcode.name(), "the heap has no memory left"),
        CommandFault::Unreadable => ("a command", "the queue is not in memory"),
    };
    Some(Fact::RefusedCommands { count: state.faults.count, command, reason })
}
