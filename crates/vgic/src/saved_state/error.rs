//! Reasons to refuse a state, each with the object concerned.

use super::VERSION;
use crate::config::ConfigError;
use crate::lpi::NoRoom;
use alloc::collections::TryReserveError;
use core::fmt;
use doorbell_fallible::OutOfMemory;
use gic_arch::its::CollectionId;
use gic_arch::{Affinity, IntId};
use msi_types::{DeviceId, EventId};

/// A saved state does not fit the machine, or was damaged. Nothing of it was restored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the saved state of {object} cannot be restored: {problem}")]
pub struct RestoreError {
    /// Of what.
    pub object: Object,
    /// The problem with it.
    pub problem: Problem,
}

impl From<OutOfMemory> for RestoreError {
    fn from(OutOfMemory: OutOfMemory) -> Self {
        Problem::OutOfMemory.of(Object::Machine)
    }
}

impl From<TryReserveError> for RestoreError {
    fn from(error: TryReserveError) -> Self {
        OutOfMemory::from(error).into()
    }
}

/// A configuration and a saved state that do not fit each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotRestorable {
    /// The configuration describes no machine.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The machine cannot be in this state.
    #[error(transparent)]
    State(#[from] RestoreError),
}

/// An object of a saved state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Object {
    /// The machine as a whole.
    Machine,
    /// The distributor.
    Distributor,
    /// A shared interrupt.
    Shared(IntId),
    /// A CPU.
    Cpu(Affinity),
    /// A CPU's redistributor.
    Redistributor(Affinity),
    /// A CPU's interface.
    Interface(Affinity),
    /// A private interrupt.
    Private {
        /// Its CPU.
        cpu: Affinity,
        /// Its INTID.
        intid: IntId,
    },
    /// An LPI that is pending at a redistributor by itself.
    Lpi {
        /// Its CPU.
        cpu: Affinity,
        /// Its INTID.
        intid: IntId,
    },
    /// An ITS, by the address of its control frame.
    Its(u64),
    /// A collection.
    Collection {
        /// Of which ITS.
        its: u64,
        /// Its number.
        collection: CollectionId,
    },
    /// A device.
    Device {
        /// Of which ITS.
        its: u64,
        /// Its DeviceID.
        device: DeviceId,
    },
    /// An event.
    Event {
        /// Of which ITS.
        its: u64,
        /// Of which device.
        device: DeviceId,
        /// Its EventID.
        event: EventId,
    },
}

/// A problem with an object of a saved state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Problem {
    /// The format's version is not one that this library reads.
    Version(u32),
    /// The machine has it, the state does not.
    Absent,
    /// The state has it, the machine does not.
    Unknown,
    /// It is in the state twice, or not where its key belongs.
    Order,
    /// A register says that the state is another kind of machine's.
    OtherMachine {
        /// The register.
        register: &'static str,
        /// Its value in the state.
        saved: u64,
        /// Its value in the machine.
        machine: u64,
    },
    /// A value that this field cannot have on this machine.
    Value {
        /// The field.
        field: &'static str,
        /// Its value in the state.
        value: u64,
    },
    /// A field names a CPU that the machine does not have, or that cannot be meant.
    NoSuchCpu {
        /// The field.
        field: &'static str,
        /// Its value in the state.
        cpu: Affinity,
    },
    /// The machine's budgets for LPIs or devices do not suffice for all that is mapped.
    NoRoom,
    /// The heap has no memory left.
    OutOfMemory,
}

impl From<NoRoom> for Problem {
    fn from(no_room: NoRoom) -> Self {
        match no_room {
            NoRoom::Budget => Self::NoRoom,
            NoRoom::OutOfMemory => Self::OutOfMemory,
        }
    }
}

impl Problem {
    /// This problem with an object.
    pub(crate) const fn of(self, object: Object) -> RestoreError {
        RestoreError { object, problem: self }
    }

    /// `Ok` if the field can have the value.
    pub(crate) fn unless(
        holds: bool,
        field: &'static str,
        value: impl Into<u64>,
    ) -> Result<(), Self> {
        if holds { Ok(()) } else { Err(Self::Value { field, value: value.into() }) }
    }

    /// `Ok` if a register that says what the machine is has the same value in the state.
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
                write!(f, "its format has version {version}, this library reads {VERSION}")
            }
            Self::Absent => f.write_str("the machine has it, the state has not"),
            Self::Unknown => f.write_str("the machine has none such"),
            Self::Order => f.write_str("it is there twice, or not in ascending order"),
            Self::OtherMachine { register, saved, machine } => {
                write!(f, "{register} is {saved:#x}, that of the machine {machine:#x}")
            }
            Self::Value { field, value } => write!(f, "its {field} cannot be {value:#x}"),
            Self::NoSuchCpu { field, cpu } => write!(f, "its {field} cannot be CPU {cpu}"),
            Self::NoRoom => f.write_str("more is mapped than the machine's budgets allow"),
            Self::OutOfMemory => OutOfMemory.fmt(f),
        }
    }
}

/// A machine cannot be frozen: its vCPUs were not all given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FreezeError {
    /// A vCPU is missing: it may be running.
    #[error("the vCPU with affinity {0} was not given: it may be running")]
    Missing(Affinity),
    /// A vCPU belongs to another machine.
    #[error("the vCPU with affinity {0} belongs to another machine")]
    Foreign(Affinity),
    /// The heap has no memory left.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}

impl From<TryReserveError> for FreezeError {
    fn from(error: TryReserveError) -> Self {
        OutOfMemory::from(error).into()
    }
}
