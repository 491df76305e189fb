//! Error types. Every error message names the party at fault.

use crate::name::Irq;
use alloc::collections::TryReserveError;
use msi_types::{Cpu, HwIrq, Mismatch, MsiError, NotIsolated, StoreError};

/// The reason why a handler could not be installed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The interrupt is already owned by another handler, or by a controller that allocates it for
    /// messages.
    #[error("vector {0} is already in use")]
    InUse(HwIrq),
    /// Handlers can only share a level-triggered input. An edge does not show whether another
    /// device on the line still needs service.
    #[error("vector {0} is edge-triggered and cannot be shared by several handlers")]
    SharedEdge(HwIrq),
    /// The number is outside the vector space, so no controller can acknowledge it.
    #[error("vector {0} is beyond the 24 bits of the vector space")]
    OutOfRange(HwIrq),
    /// The core was created without a root controller for wired interrupts.
    #[error("the interrupt core was created without a wired parent")]
    NoWiredParent,
    /// The slot has no vector.
    #[error("the device has no vector allocated at slot {0}")]
    NoVector(u16),
    /// The device's domain was torn down.
    #[error("the device's interrupt domain was torn down")]
    Gone,
    /// No CPU is online.
    #[error("no CPU is online to take the interrupt")]
    NoCpu,
    /// The kernel's heap is exhausted. Nothing was changed.
    #[error("the kernel has no memory for the interrupt's handler")]
    NoMemory,
    /// The controller refused the request.
    #[error(transparent)]
    Controller(MsiError),
}

impl From<MsiError> for RequestError {
    fn from(error: MsiError) -> Self {
        match error {
            MsiError::InUse(hwirq) => Self::InUse(hwirq),
            error => Self::Controller(error),
        }
    }
}

/// The reason why an affinity could not be changed. The interrupt keeps its old target, unless the
/// controller failed in the last step of the move.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MoveError {
    /// The interrupt does not exist, or no longer exists.
    #[error("IRQ {0} does not exist")]
    UnknownIrq(Irq),
    /// The interrupt is private to each CPU and cannot be moved.
    #[error("IRQ {0} is private to each CPU")]
    PerCpu(Irq),
    /// The vector has the target CPU of its line, the wired interrupt with this number. Moving the
    /// line moves all of its vectors.
    #[error("the interrupt shares its target CPU with the other vectors of line IRQ {0}")]
    SharesLine(Irq),
    /// The CPU is offline or unknown.
    #[error("CPU {0} is not online")]
    Offline(Cpu),
    /// The interrupt is confined to other CPUs by
    /// [`MsiDevice::allocate_managed`](crate::MsiDevice::allocate_managed).
    #[error("the interrupt is managed for other CPUs, and cannot be delivered to CPU {0}")]
    NotAmong(Cpu),
    /// The kernel's heap is exhausted. Nothing was moved.
    #[error("the kernel has no memory for the interrupt's affinity")]
    NoMemory,
    /// The controller refused the move, or the endpoint's limits rule it out. For example, the
    /// error is [`MsiError::WouldTear`] if the endpoint can neither be masked nor change its
    /// message in one store.
    #[error(transparent)]
    Controller(#[from] MsiError),
    /// A controller composed a group message with data that is not aligned to the group size.
    #[error(
        "the controller's message data {data:#x} is not aligned to its group of {count} vectors"
    )]
    Misaligned {
        /// The message data.
        data: u32,
        /// Number of vectors in the group.
        count: u16,
    },
    /// The endpoint did not accept the new message and still has the old one.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An interrupt that could not be moved away from a CPU that is going offline. The interrupt is not
/// delivered until it is moved or the CPU is online again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Stranded {
    /// The interrupt.
    pub irq: Irq,
    /// The reason why the interrupt could not be moved.
    pub error: MoveError,
}

/// A CPU number that is not below the number of CPUs in the core's configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("CPU {0} is unknown to the interrupt core")]
pub struct UnknownCpu(pub Cpu);

/// The reason why a device's vectors could not be set up. All completed steps were rolled back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MsiDeviceError {
    /// The requested range of vector counts is empty or only contains zero, or a group was
    /// requested and the range contains no power of two.
    #[error("the device cannot be granted any number of vectors between {min} and {max}")]
    BadCount {
        /// The smallest requested count.
        min: u16,
        /// The largest requested count.
        max: u16,
    },
    /// The device's message store has too few free slots.
    #[error("the device has {free} free message slots, but {wanted} are needed")]
    TooFewSlots {
        /// Number of slots without a vector.
        free: u16,
        /// The smallest requested count.
        wanted: u16,
    },
    /// The device's message store has no slot with this number.
    #[error("the device's message store has no slot {0}")]
    NoSlot(u16),
    /// The slot already has a vector, or was requested twice.
    #[error("slot {0} of the device's message store already has a vector")]
    SlotInUse(u16),
    /// The slot has no vector.
    #[error("the device has no vector allocated at slot {0}")]
    NoVector(u16),
    /// The slot belongs to a group, whose vectors share one message and can only be freed together.
    #[error("slot {0} belongs to a group, which can be freed only as a whole")]
    OfAGroup(u16),
    /// An aligned group needs the whole store, but some vectors are already allocated.
    #[error("the device already has vectors, but an aligned group must be its only allocation")]
    GroupNotFirst,
    /// A controller composed a group message with data that is not aligned to the group size.
    #[error(
        "the controller's message data {data:#x} is not aligned to its group of {count} vectors"
    )]
    Misaligned {
        /// The message data.
        data: u32,
        /// Number of vectors in the group.
        count: u16,
    },
    /// A controller allocated a vector outside the vector space, or too few vectors.
    #[error("the controller allocated vector {0}, which is beyond the 24 bits of the vector space")]
    VectorOutOfRange(HwIrq),
    /// The device's domain was torn down.
    #[error("the device's interrupt domain was torn down")]
    Gone,
    /// The endpoint does not fit a tier of the hierarchy.
    #[error(transparent)]
    Tier(#[from] Mismatch),
    /// A tier accepts messages in device-defined stores only from isolated devices, and this device
    /// is not isolated.
    #[error(
        "tier {tier} lets only isolated devices store messages, but this device is not isolated: \
         {reason}"
    )]
    NotIsolated {
        /// Name of the tier.
        tier: &'static str,
        /// The reason why the device is not isolated.
        reason: NotIsolated,
    },
    /// No CPU is online.
    #[error("no CPU is online to take the interrupts")]
    NoCpu,
    /// The kernel's heap is exhausted.
    #[error("the kernel has no memory for the device's vectors")]
    NoMemory,
    /// The controller refused the request.
    #[error(transparent)]
    Controller(#[from] MsiError),
    /// The endpoint did not accept its messages.
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
