//! Explanations of why an ITS does not translate a message, and views of its registers.

use super::tables::{ITT_ENTRY_BYTES, capacity, check_translation_table, covers};
use super::{ItsRegisters, LockedIts};
use crate::frames::registers::low_word;
use crate::lpi::{EventStatus, LpiStatus, MappedDevice, event_status};
use crate::monitor::GuestMemory;
use crate::monitor::events::{CommandFault, FailedCommand};
use gic_arch::gits::Baser;
use gic_arch::its::{COMMAND_BYTES, Command, CommandError, CommandErrorReason, MapAction};
use gic_arch::its::{RawCommand, UnknownOpcode};
use msi_types::explain::{Explanation, Fact, Obstacle, TableRegister};
use msi_types::{DeviceId, EventId};

impl LockedIts<'_> {
    /// Returns the state of the LPI to which a device's event is mapped, or the reason why the ITS
    /// does not translate the event. If a mapping is missing and the ITS has refused commands, adds
    /// a fact about them.
    pub(crate) fn explain(
        &self,
        device: DeviceId,
        event: EventId,
        explanation: &mut Explanation,
    ) -> Result<LpiStatus, Obstacle> {
        let Self { its, state } = self;
        let (is_enabled, status, has_entry) = its.lpis.with_kicks_deferred(|control| {
            let is_enabled = state.enabled && !control.is_admitting(its.index);
            let status = event_status(control, its.index, device.get(), event.get());
            let is_unmapped = matches!(status, EventStatus::UnmappedDevice(_));
            let has_entry =
                is_unmapped && covers(state.tables.devices, device.get(), control.memory());
            (is_enabled, status, has_entry)
        });
        if let Some((register, value)) = state.hasty {
            let hasty = Fact::WrittenWhileBusy { register, value };
            *explanation = explanation.with_fact(hasty);
        }
        if !is_enabled {
            return Err(Obstacle::ItsDisabled { its: self.its.config.base });
        }
        let obstacle = match status {
            EventStatus::Mapped(status) => {
                let facts = self.facts_of_mapped(device, event);
                *explanation =
                    facts.into_iter().flatten().fold(*explanation, Explanation::with_fact);
                return Ok(status);
            }
            EventStatus::UnmappedDevice(mapped) if has_entry => {
                let mapped = u32::try_from(mapped).unwrap_or(u32::MAX);
                Obstacle::UnmappedDevice { device, mapped }
            }
            EventStatus::UnmappedDevice(_) => self.no_entry(device),
            EventStatus::OutOfRange(bits) => Obstacle::EventOutOfRange { device, event, bits },
            // An ITS that needs a collection table but has none refuses to map events.
            EventStatus::Unmapped => {
                self.no_collections(0).unwrap_or(Obstacle::UnmappedEvent { device, event })
            }
            EventStatus::UnmappedCollection(collection) => self
                .no_collections(collection)
                .unwrap_or(Obstacle::UnmappedCollection { collection }),
        };
        let refused = its.lpis.with_kicks_deferred(|control| {
            let about = Wanted { device, event, obstacle: Some(obstacle) };
            let memory = control.memory();
            [
                about.refused(state, memory),
                about.removed(state, memory),
                about.unannounced(state, memory),
            ]
        });
        *explanation = refused.into_iter().flatten().fold(*explanation, Explanation::with_fact);
        let queue = || invalid_queue(state).or_else(|| queued(state));
        Err(ignored_write(state, obstacle).or_else(queue).unwrap_or(obstacle))
    }

    /// Returns facts about a mapped event: that the device's translation table is not in memory,
    /// and that a command for the event has not been announced.
    fn facts_of_mapped(&self, device: DeviceId, event: EventId) -> [Option<Fact>; 3] {
        let Self { its, state } = self;
        its.lpis.with_kicks_deferred(|control| {
            let memory = control.memory();
            let mapped = control.device(its.index, device.get());
            let missing = mapped.and_then(|MappedDevice { event_bits, itt }| {
                let bytes = ITT_ENTRY_BYTES << event_bits;
                let is_missing = check_translation_table(itt, event_bits, memory).is_err();
                is_missing.then_some(Fact::TranslationTableMissing { device, itt, bytes })
            });
            let about = Wanted { device, event, obstacle: None };
            let refused = about.refused(state, memory).filter(has_fix);
            [missing, refused, about.unannounced(state, memory)]
        })
    }

    /// Returns an obstacle if the command queue is not empty.
    pub(crate) fn queued_commands(&self) -> Option<Obstacle> {
        queued(&self.state)
    }

    /// Returns the reason why the device table has no entry for a DeviceID.
    fn no_entry(&self, device: DeviceId) -> Obstacle {
        let table = self.state.tables.devices;
        if !table.valid() {
            return invalid_table(0, table);
        }
        let entries = capacity(table).min(1 << self.its.config.device_id_bits);
        if u64::from(device.get()) < entries {
            return Obstacle::NoSecondLevel { device };
        }
        let bits = entries.checked_ilog2().and_then(|bits| u8::try_from(bits).ok());
        Obstacle::DeviceOutOfRange { device, bits: bits.unwrap_or(0) }
    }

    /// Returns an obstacle if a collection needs an entry in the collection table and `GITS_BASER1`
    /// is not valid.
    fn no_collections(&self, collection: u16) -> Option<Obstacle> {
        let table = self.state.tables.collections;
        let needs_table = collection >= self.its.config.held_collections.into()
            && self.its.config.collection_table.is_some();
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

fn invalid_queue(state: &ItsRegisters) -> Option<Obstacle> {
    let (register, base) = (TableRegister::Cbaser, state.queue.base);
    (!base.valid()).then_some(Obstacle::InvalidTable { register, value: base.into_bits() })
}

fn queued(state: &ItsRegisters) -> Option<Obstacle> {
    let (read, write) = (state.queue.creadr(), state.queue.cwriter());
    (read.offset() != write.offset()).then(|| Obstacle::CommandsQueued {
        read: low_word(read.into_bits()),
        write: low_word(write.into_bits()),
    })
}

/// An event and its mapping obstacle, if any. Searches for commands that may have caused it.
struct Wanted {
    device: DeviceId,
    event: EventId,
    obstacle: Option<Obstacle>,
}

impl Wanted {
    /// Maximum number of commands that are read from the queue.
    const MOST_COMMANDS: u32 = 64;

    /// Returns a fact about the refused commands, if there are any: about the first or the last of
    /// them that would have provided the mapping, or else about the first.
    fn refused(&self, state: &ItsRegisters, memory: &dyn GuestMemory) -> Option<Fact> {
        let all = [state.faults.first, state.faults.last].into_iter().flatten();
        let facts = all.map(|failed| self.refusal(state.faults.count, failed, memory));
        facts.clone().find(has_fix).or_else(|| facts.into_iter().next())
    }

    fn refusal(&self, count: u64, failed: FailedCommand, memory: &dyn GuestMemory) -> Fact {
        let FailedCommand { address, fault } = failed;
        let held = command_at(memory, address);
        let (command, reason, fix) = match fault {
            CommandFault::Refused(CommandError { opcode, reason }) => {
                (opcode.name(), reason.description(), Some(fix_of(reason)))
            }
            CommandFault::Unknown(_) => {
                ("an unknown command", "its opcode does not exist", Some(UNKNOWN))
            }
            CommandFault::NoRoom(opcode) => {
                (opcode.name(), "the model's budget is exhausted", None)
            }
            CommandFault::OutOfMemory(opcode) => {
                (opcode.name(), "the heap has no memory left", None)
            }
            CommandFault::Unreadable => {
                ("a command", "the queue is not in memory", Some(UNREADABLE))
            }
        };
        // The guest may have overwritten the command since.
        let held = held.filter(|held| held.opcode().name() == command);
        let operand = match fault {
            CommandFault::Refused(error) => held.and_then(|held| operand(held, error.reason)),
            CommandFault::Unknown(UnknownOpcode(opcode)) => Some(opcode.into()),
            _ => None,
        };
        let fix = fix.filter(|_| held.is_none_or(|held| self.is_met_by(held)));
        Fact::RefusedCommands { count, address, command, reason, operand, fix }
    }

    /// Returns a fact about the first command at or after `GITS_CWRITER` that is about the event or
    /// would provide the mapping.
    fn unannounced(&self, state: &ItsRegisters, memory: &dyn GuestMemory) -> Option<Fact> {
        let (queue, base) = (&state.queue, state.queue.base);
        let write = low_word(queue.cwriter().into_bits());
        let slots = base.bytes() / COMMAND_BYTES;
        let wrapped = state.has_past || state.commands + state.faults.count >= u64::from(slots);
        let waiting = queue.creadr().offset() != queue.cwriter().offset();
        let limit = if base.valid() && !waiting { slots.min(Self::MOST_COMMANDS) } else { 0 };
        let offsets =
            (0..limit).map(|n| (queue.cwriter().offset() + n * COMMAND_BYTES) % base.bytes());
        let commands = offsets.map(|offset| base.address() + u64::from(offset));
        let mut decoded =
            commands.map_while(|address| Some((address, command_at(memory, address)?)));
        decoded.find(|(_, command)| self.is_met_by(*command)).map(|(address, command)| {
            let command = command.opcode().name();
            Fact::Unannounced { command, address, write, wrapped }
        })
    }

    /// Returns a fact about the command that has removed a mapping of an older command.
    fn removed(&self, state: &ItsRegisters, memory: &dyn GuestMemory) -> Option<Fact> {
        let (base, end) = (state.queue.base, state.queue.creadr().offset());
        let slots = (base.bytes() / COMMAND_BYTES).min(Self::MOST_COMMANDS);
        let limit = u64::from(slots).min(state.commands + state.faults.count);
        let refused = [state.faults.first, state.faults.last];
        let mut removed = None;
        for back in (1..=limit).map(|n| low_word(n) * COMMAND_BYTES) {
            let offset = (end + base.bytes() - back) % base.bytes();
            let address = base.address() + u64::from(offset);
            let is_refused = refused.iter().flatten().any(|failed| failed.address == address);
            let held = command_at(memory, address).filter(|_| !is_refused);
            let Some(command) = held.filter(|held| self.is_met_by(*held)) else { continue };
            match self.maps(command) {
                Some(true) => return removed,
                Some(false) => {
                    let command = command.opcode().name();
                    removed = removed.or(Some(Fact::Removed { command, address }));
                }
                None => {}
            }
        }
        None
    }

    /// Returns `true` if the command provides the missing mapping, and `false` if it removes the
    /// mapping.
    fn maps(&self, command: Command) -> Option<bool> {
        use Obstacle::{UnmappedCollection, UnmappedDevice, UnmappedEvent};
        match (self.obstacle?, command) {
            (UnmappedEvent { .. }, Command::Mapti { .. } | Command::Mapi { .. }) => Some(true),
            // MAPD replaces the device's table, and with it the mappings of all events.
            (UnmappedEvent { .. }, Command::Mapd { .. } | Command::Discard { .. }) => Some(false),
            (UnmappedDevice { .. }, Command::Mapd { action, .. })
            | (UnmappedCollection { .. }, Command::Mapc { action, .. }) => {
                Some(action == MapAction::Map)
            }
            _ => None,
        }
    }

    /// Returns `true` if the command is about the event, or maps what is missing.
    fn is_met_by(&self, command: Command) -> bool {
        match command {
            Command::Mapc { collection, .. } => {
                let collection = collection.get();
                let missing = Obstacle::UnmappedCollection { collection };
                self.obstacle.is_none_or(|obstacle| obstacle == missing)
            }
            Command::Invall { .. } => self.obstacle.is_none(),
            _ => {
                let event = command.event();
                command.device() == Some(self.device) && event.is_none_or(|of| of == self.event)
            }
        }
    }
}

const UNKNOWN: &str = "correct the opcode, or check that GITS_CBASER is the address of the \
                       commands, and that GITS_CWRITER is not beyond the last one";
const UNREADABLE: &str = "write the address of a queue in memory to GITS_CBASER";

/// Returns `true` if a refused command may be the reason for the obstacle.
const fn has_fix(fact: &Fact) -> bool {
    matches!(fact, Fact::RefusedCommands { fix: Some(_), .. })
}

/// Returns the command at an address, if it is in memory and its opcode exists.
fn command_at(memory: &dyn GuestMemory, address: u64) -> Option<Command> {
    let mut raw = RawCommand::default();
    for (address, word) in (address..).step_by(8).zip(&mut raw) {
        *word = memory.read_u64(address).ok()?;
    }
    Command::decode(raw).ok()
}

/// Returns the operand that a refusal is about.
fn operand(command: Command, reason: CommandErrorReason) -> Option<u32> {
    use CommandErrorReason as Reason;
    match (reason, command) {
        (Reason::DeviceOutOfRange | Reason::UnmappedDevice, _) => {
            command.device().map(DeviceId::get)
        }
        (Reason::EventOutOfRange | Reason::UnmappedInterrupt, _) => {
            command.event().map(EventId::get)
        }
        (Reason::IttSizeOutOfRange, Command::Mapd { event_bits_minus_one, .. }) => {
            Some(u32::from(event_bits_minus_one) + 1)
        }
        (Reason::ProcessorNumberOutOfRange, Command::Mapc { target, .. }) => {
            u32::try_from(target.field()).ok()
        }
        (Reason::PhysicalIdOutOfRange, Command::Mapti { intid, .. }) => Some(intid),
        (Reason::PhysicalIdOutOfRange, Command::Mapi { event, .. }) => Some(event.get()),
        (
            Reason::CollectionOutOfRange | Reason::UnmappedCollection,
            Command::Mapc { collection, .. }
            | Command::Mapti { collection, .. }
            | Command::Mapi { collection, .. }
            | Command::Movi { collection, .. }
            | Command::Invall { collection },
        ) => Some(collection.get().into()),
        _ => None,
    }
}

/// Returns advice on a refused command.
const fn fix_of(reason: CommandErrorReason) -> &'static str {
    use CommandErrorReason as Reason;
    match reason {
        Reason::DeviceOutOfRange => {
            "enlarge the device table in GITS_BASER<n>, or correct the DeviceID, and send the \
             command again"
        }
        Reason::IttSizeOutOfRange => "send MAPD with a Size that GITS_TYPER.ID_bits permits",
        Reason::ProcessorNumberOutOfRange => {
            "name an existing redistributor in the form that GITS_TYPER.PTA specifies"
        }
        Reason::CollectionOutOfRange => {
            "use a collection for which GITS_TYPER.HCC or the collection table has room"
        }
        Reason::UnmappedDevice => "send MAPD for the device first, and then the command again",
        Reason::EventOutOfRange => "send MAPD with a larger Size, or use a smaller EventID",
        Reason::PhysicalIdOutOfRange => {
            "use an INTID of at least 8192 with at most as many bits as GICD_TYPER.IDbits specifies"
        }
        Reason::UnmappedInterrupt => "send MAPTI for the event first, and then the command again",
        Reason::UnmappedCollection => {
            "send MAPC for the collection first, and then the command again"
        }
        Reason::EntryInvalid => "write a valid table entry first, and then send the command again",
    }
}
