//! Errors. Each message names the party at fault.

use crate::number::Irq;
use alloc::collections::TryReserveError;
use msi_types::{Cpu, HwIrq, Mismatch, MsiError, NotIsolated, StoreError};

/// A handler could not be installed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The interrupt has an owner: another handler, or a controller that allocates it for messages.
    #[error("vector {0} is in use already")]
    InUse(HwIrq),
    /// Handlers can share only a level-triggered input: after an edge, the line does not show
    /// whether another device still needs service.
    #[error("vector {0} is triggered by edges, which handlers cannot share")]
    SharedEdge(HwIrq),
    /// No controller acknowledges such a number.
    #[error("vector {0} is beyond the 24 bits of the vector space")]
    OutOfRange(HwIrq),
    /// The core was made without a root controller for wired interrupts.
    #[error("no wired parent was given to the interrupt core")]
    NoWiredParent,
    /// The device has no vector there.
    #[error("the device has no vector allocated at slot {0}")]
    NoVector(u16),
    /// The device's domain was torn down.
    #[error("the device is gone")]
    Gone,
    /// No CPU is online, or the request names none.
    #[error("no CPU is online to take the interrupt")]
    NoCpu,
    /// The request names a CPU that does not exist.
    #[error(transparent)]
    UnknownCpu(#[from] UnknownCpu),
    /// The kernel's heap is exhausted. Nothing was done.
    #[error("the kernel has no memory for the interrupt's handler")]
    NoMemory,
    /// The controller refused.
    #[error(transparent)]
    Controller(MsiError),
    /// A wired-to-MSI bridge has no vector for the input.
    #[error(transparent)]
    Bridge(#[from] MsiDeviceError),
}

impl From<MsiError> for RequestError {
    fn from(error: MsiError) -> Self {
        match error {
            MsiError::InUse(hwirq) => Self::InUse(hwirq),
            error => Self::Controller(error),
        }
    }
}

/// An affinity could not be changed. The interrupt is where it was, unless a controller failed
/// half-way and says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MoveError {
    /// There is no such interrupt (any more).
    #[error("IRQ {0} does not exist")]
    UnknownIrq(Irq),
    /// Private interrupts stay on their CPUs.
    #[error("IRQ {0} is private to each CPU")]
    PerCpu(Irq),
    /// The CPU is off line or unknown.
    #[error("CPU {0} is not on line")]
    Offline(Cpu),
    /// None of the CPUs that the caller names is on line.
    #[error("none of the CPUs that the interrupt may be delivered to is on line")]
    NoneOnline,
    /// The interrupt is managed for other CPUs:
    /// [`MsiDevice::allocate_managed`](crate::MsiDevice::allocate_managed).
    #[error("the interrupt follows certain CPUs, and CPU {0} is none of them")]
    NotAmong(Cpu),
    /// The kernel's heap is exhausted. Nothing was moved.
    #[error("the kernel has no memory for the interrupt's affinity")]
    NoMemory,
    /// The controller or the endpoint's limits refuse. [`MsiError::WouldTear`] if the endpoint can
    /// neither be masked nor change its message in one store.
    #[error(transparent)]
    Controller(#[from] MsiError),
    /// A controller composed a message for a group whose data is not aligned to the group's size.
    #[error(
        "the controller's message data {data:#x} is not aligned to its group of {count} vectors"
    )]
    Misaligned {
        /// The data.
        data: u32,
        /// Vectors of the group.
        count: u16,
    },
    /// The endpoint did not take the new message, and keeps the old one.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An interrupt that stays on a CPU that goes off line, and why. It is not delivered until it is
/// moved or the CPU is back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stranded {
    /// The interrupt.
    pub irq: Irq,
    /// The reason.
    pub error: MoveError,
}

/// The CPU is not one of those the core was made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("CPU {0} is not one of those that the interrupt core was made for")]
pub struct UnknownCpu(pub Cpu);

/// A device's vectors could not be set up. Nothing of the attempt remains.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MsiDeviceError {
    /// The range of counts asked for is empty or zero, or holds no power of two for a group.
    #[error("no count of vectors that the device could be granted lies between {min} and {max}")]
    BadCount {
        /// The least that was asked for.
        min: u16,
        /// The most.
        max: u16,
    },
    /// The device stores fewer messages than the caller needs.
    #[error("the device has {free} free message slots, {wanted} are needed")]
    TooFewSlots {
        /// Slots without a vector.
        free: u16,
        /// The least that was asked for.
        wanted: u16,
    },
    /// The device's store has no such slot.
    #[error("the device's message store has no slot {0}")]
    NoSlot(u16),
    /// The slot was asked for twice, or has a vector.
    #[error("slot {0} of the device's message store has a vector already")]
    SlotInUse(u16),
    /// The device has no vector there.
    #[error("the device has no vector allocated at slot {0}")]
    NoVector(u16),
    /// The vectors of a group have one message.
    #[error("slot {0} is one of a group, which is freed as a whole")]
    OfAGroup(u16),
    /// A group needs the whole store.
    #[error(
        "the device has vectors already, an aligned group needs to be the first and only allocation"
    )]
    GroupNotFirst,
    /// A controller composed a message for a group whose data is not aligned to the group's size.
    #[error(
        "the controller's message data {data:#x} is not aligned to its group of {count} vectors"
    )]
    Misaligned {
        /// The data.
        data: u32,
        /// Vectors of the group.
        count: u16,
    },
    /// A controller handed out a vector beyond the vector space, or none where it had to.
    #[error(
        "the controller handed out vector {0}, which is beyond the 24 bits of the vector space"
    )]
    VectorOutOfRange(HwIrq),
    /// The device's domain was torn down.
    #[error("the device is gone")]
    Gone,
    /// A tier of the hierarchy does not fit the endpoint.
    #[error(transparent)]
    Tier(#[from] Mismatch),
    /// A tier of the hierarchy takes messages that the device stores itself only from isolated
    /// devices.
    #[error("tier {tier} lets only isolated devices store messages, and this one is not: {reason}")]
    NotIsolated {
        /// The tier.
        tier: &'static str,
        /// The reason.
        reason: NotIsolated,
    },
    /// No CPU is on line.
    #[error("no CPU is on line to take the interrupts")]
    NoCpu,
    /// The kernel's heap is exhausted.
    #[error("the kernel has no memory for the device's vectors")]
    NoMemory,
    /// The controller refused.
    #[error(transparent)]
    Controller(#[from] MsiError),
    /// The endpoint did not take its messages.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<TryReserveError> for RequestError {
    fn from(_: TryReserveError) -> Self {
        Self::NoMemory
    }
}

impl From<TryReserveError> for MoveError {
    fn from(_: TryReserveError) -> Self {
        Self::NoMemory
    }
}

impl From<TryReserveError> for MsiDeviceError {
    fn from(_: TryReserveError) -> Self {
        Self::NoMemory
    }
}
