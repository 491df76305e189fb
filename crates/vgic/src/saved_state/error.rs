//! Errors for saved states that the model refuses, each with the affected object.

use super::{PropertyName, VERSION};
use crate::config::ConfigError;
use crate::lpi::NoRoom;
use alloc::collections::TryReserveError;
use core::fmt;
use doorbell_fallible::OutOfMemory;
use gic_arch::its::CollectionId;
use gic_arch::{Affinity, IntId};
use msi_types::{DeviceId, EventId};

/// Error for a saved state that doesn't fit the machine, or is damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the saved state of {object} cannot be restored: {problem}")]
pub struct RestoreError {
    /// The affected object.
    pub object: Object,
    /// Problem with the object.
    pub problem: Problem,
}

impl From<OutOfMemory> for RestoreError {
    fn from(OutOfMemory: OutOfMemory) -> Self {
        Problem::OutOfMemory.of(Object::Machine)
    }
}

impl From<NoRoom> for RestoreError {
    fn from(no_room: NoRoom) -> Self {
        let problem = match no_room {
            NoRoom::Budget => Problem::NoRoom,
            NoRoom::OutOfMemory => Problem::OutOfMemory,
        };
        problem.of(Object::Machine)
    }
}

impl From<SaveError> for RestoreError {
    fn from(error: SaveError) -> Self {
        match error {
            SaveError::Running(cpu) => Problem::Running.of(Object::Cpu(cpu)),
            SaveError::OutOfMemory(error) => error.into(),
        }
    }
}

impl From<TryReserveError> for RestoreError {
    fn from(error: TryReserveError) -> Self {
        OutOfMemory::from(error).into()
    }
}

/// Error for a configuration and a saved state that don't fit together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotRestorable {
    /// No machine can have the configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The machine cannot be in this state.
    #[error(transparent)]
    State(#[from] RestoreError),
}

/// Object in a saved state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Object {
    /// The machine as a whole.
    Machine,
    /// A property of the machine, of the CPU with this affinity, or of the frame with this address.
    Property(PropertyName, u64),
    /// The distributor.
    Distributor,
    /// A shared interrupt.
    Shared(IntId),
    /// A CPU, by its affinity.
    Cpu(Affinity),
    /// A CPU's redistributor.
    Redistributor(Affinity),
    /// A CPU's interface.
    Interface(Affinity),
    /// A private interrupt.
    Private {
        /// The CPU's affinity.
        cpu: Affinity,
        /// The interrupt's INTID.
        intid: IntId,
    },
    /// An LPI that is pending at a redistributor without an event.
    Lpi {
        /// Affinity of the redistributor's CPU.
        cpu: Affinity,
        /// The LPI's INTID.
        intid: IntId,
    },
    /// An ITS, by the address of its control frame.
    Its(u64),
    /// A collection.
    Collection {
        /// The ITS's address.
        its: u64,
        /// The collection's number.
        collection: CollectionId,
    },
    /// A device.
    Device {
        /// The ITS's address.
        its: u64,
        /// DeviceID.
        device: DeviceId,
    },
    /// An event.
    Event {
        /// The ITS's address.
        its: u64,
        /// DeviceID of its device.
        device: DeviceId,
        /// EventID.
        event: EventId,
    },
}

/// Problem with an object in a saved state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Problem {
    /// The format has a version that this library does not read.
    Version(u32),
    /// The object exists on the machine, but not in the saved state.
    Absent,
    /// The object exists in the saved state, but not on the machine.
    Unknown,
    /// The state contains the object twice, or out of order.
    Order,
    /// A register or property that describes the machine has a different value in the saved state.
    OtherMachine {
        /// The register's name, or "value".
        register: &'static str,
        /// Value of the register in the state.
        saved: u64,
        /// Value of the register on this machine.
        machine: u64,
    },
    /// A field has a value that is invalid on this machine.
    Value {
        /// The field's name.
        field: &'static str,
        /// Value of the field in the state.
        value: u64,
    },
    /// A field refers to a CPU that the machine doesn't have, or that isn't valid for the field.
    NoSuchCpu {
        /// The field's name.
        field: &'static str,
        /// Value of the field in the state.
        cpu: Affinity,
    },
    /// The mapped LPIs or devices exceed the machine's budgets.
    NoRoom,
    /// The CPU's vCPU is not [paused](crate::Paused).
    Running,
    /// The heap is exhausted.
    OutOfMemory,
}

impl Problem {
    /// Returns an error that reports this problem with `object`.
    pub(crate) const fn of(self, object: Object) -> RestoreError {
        RestoreError { object, problem: self }
    }

    /// Returns an error that reports the field's value, unless `holds` is `true`.
    pub(crate) fn unless(
        holds: bool,
        field: &'static str,
        value: impl Into<u64>,
    ) -> Result<(), Self> {
        if holds { Ok(()) } else { Err(Self::Value { field, value: value.into() }) }
    }

    /// Returns an error unless a register that describes the machine has the same value in the
    /// state.
    pub(crate) const fn unless_same(
        register: &'static str,
        saved: u64,
        machine: u64,
    ) -> Result<(), Self> {
        if saved == machine { Ok(()) } else { Err(Self::OtherMachine { register, saved, machine }) }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Machine => f.write_str("the machine"),
            Self::Property(name, of) => write!(f, "the property {name:?} of {of:#x}"),
            Self::Distributor => f.write_str("the distributor"),
            Self::Shared(intid) => write!(f, "SPI {}", intid.get()),
            Self::Cpu(cpu) => write!(f, "CPU {cpu}"),
            Self::Redistributor(cpu) => write!(f, "the redistributor of CPU {cpu}"),
            Self::Interface(cpu) => write!(f, "the interface of CPU {cpu}"),
            Self::Private { cpu, intid } => write!(f, "interrupt {} of CPU {cpu}", intid.get()),
            Self::Lpi { cpu, intid } => write!(f, "LPI {} pending at CPU {cpu}", intid.get()),
            Self::Its(its) => write!(f, "its@{its:x}"),
            Self::Collection { its, collection } => {
                write!(f, "its@{its:x}, collection {}", collection.get())
            }
            Self::Device { its, device } => write!(f, "its@{its:x}, device {:#x}", device.get()),
            Self::Event { its, device, event } => {
                write!(f, "its@{its:x}, device {:#x} event {:#x}", device.get(), event.get())
            }
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Version(version) => {
                write!(f, "its format has version {version}, but this library reads {VERSION}")
            }
            Self::Absent => f.write_str("the machine has it, but the state does not"),
            Self::Unknown => f.write_str("the machine does not have it"),
            Self::Order => f.write_str("the state contains it twice, or out of order"),
            Self::OtherMachine { register, saved, machine } => {
                write!(f, "{register} is {saved:#x}, but the machine's is {machine:#x}")
            }
            Self::Value { field, value } => write!(f, "its {field} cannot be {value:#x}"),
            Self::NoSuchCpu { field, cpu } => write!(f, "its {field} cannot be CPU {cpu}"),
            Self::NoRoom => f.write_str("its mappings exceed the machine's budgets"),
            Self::Running => f.write_str("its vCPU is not paused: its owner must pause it first"),
            Self::OutOfMemory => OutOfMemory.fmt(f),
        }
    }
}

/// Error from saving a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// A vCPU is not [paused](crate::Paused).
    #[error("the vCPU with affinity {0} is not paused: its owner must pause it first")]
    Running(Affinity),
    /// The heap is exhausted.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}

impl From<TryReserveError> for SaveError {
    fn from(error: TryReserveError) -> Self {
        OutOfMemory::from(error).into()
    }
}
