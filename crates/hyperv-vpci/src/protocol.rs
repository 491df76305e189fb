//! Virtual PCI bus messages, with parsers and emitters.
//!
//! Neither end trusts the other. A parser ignores bytes after the last field, because the ring
//! rounds lengths up to a multiple of 8. Every count and number in a message is validated before it
//! is used. Layouts follow Linux's `drivers/pci/controller/pci-hyperv.c` and OpenVMM's
//! `vpci_protocol`.
//!
//! | direction | packet | type |
//! |---|---|---|
//! | guest to host | in-band | [`Request`] |
//! | host to guest | in-band | [`Notice`] |
//! | host to guest | completion of a request | [`reply`] |

mod bytes;
mod interrupt;
mod notice;
pub mod reply;
mod request;
mod resources;
mod retarget;

pub use bytes::ProtocolError;
pub use interrupt::{
    Delivery, InterruptDescriptor, InterruptForm, MAX_GROUP, MAX_PROCESSORS, Processors,
    TranslatedInterrupt,
};
pub use notice::{DeviceDescription, Notice, Relations, RelationsForm};
pub use reply::Status;
pub use request::{PowerState, Request};
pub use resources::{AssignedResources, ResourcesForm};
pub use retarget::{DeviceKey, HIGHEST_PROCESSOR, RETARGET_INTERRUPT, Retarget, RetargetInput};

use bytes::{Codec, Reader, Writer};
use core::fmt;
use msi_types::RequesterId;

/// Number of base address registers in a function.
pub const BARS: usize = 6;

/// Number of slots on a bus: 32 devices with 8 functions each.
pub const SLOTS: usize = 256;

/// Length in bytes of the longest message that either end sends: a bus relations notice for a full
/// bus.
pub const MAX_MESSAGE: usize = Relations::message_length(RelationsForm::V2, SLOTS);

/// Message type numbers. All of them start at `0x42490000` ("BI").
mod kind {
    pub(super) const BUS_RELATIONS: u32 = 0x4249_0000;
    pub(super) const QUERY_BUS_RELATIONS: u32 = 0x4249_0001;
    pub(super) const INVALIDATE_DEVICE: u32 = 0x4249_0002;
    pub(super) const INVALIDATE_BUS: u32 = 0x4249_0003;
    pub(super) const POWER_STATE_CHANGE: u32 = 0x4249_0004;
    pub(super) const QUERY_RESOURCES: u32 = 0x4249_0005;
    pub(super) const D0_ENTRY: u32 = 0x4249_0007;
    pub(super) const D0_EXIT: u32 = 0x4249_0008;
    pub(super) const EJECT: u32 = 0x4249_000b;
    pub(super) const EJECTION_COMPLETE: u32 = 0x4249_000f;
    pub(super) const RESOURCES_ASSIGNED: u32 = 0x4249_0010;
    pub(super) const RESOURCES_RELEASED: u32 = 0x4249_0011;
    pub(super) const QUERY_PROTOCOL_VERSION: u32 = 0x4249_0013;
    pub(super) const DELETE_INTERRUPT: u32 = 0x4249_0015;
    pub(super) const RESOURCES_ASSIGNED2: u32 = 0x4249_0016;
    pub(super) const CREATE_INTERRUPT2: u32 = 0x4249_0017;
    pub(super) const DELETE_INTERRUPT2: u32 = 0x4249_0018;
    pub(super) const BUS_RELATIONS2: u32 = 0x4249_0019;
    pub(super) const RESOURCES_ASSIGNED3: u32 = 0x4249_001a;
    pub(super) const CREATE_INTERRUPT3: u32 = 0x4249_001b;
}

/// A function's device and function number on its bus. In messages, the device number is in bits
/// 4:0 and the function number in bits 7:5. A requester ID contains the two fields in the opposite
/// order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Slot(u8);

impl Slot {
    /// Creates the slot of a device (0 to 31) and function (0 to 7). Higher bits are ignored.
    pub const fn new(device: u8, function: u8) -> Self {
        Self(device & 0x1f | function << 5)
    }

    /// Returns a requester's slot. Ignores the bus number, because the kernel numbers virtual buses
    /// itself.
    pub const fn of(requester: RequesterId) -> Self {
        Self::new(requester.pci_device(), requester.pci_function())
    }

    /// Decodes a slot from a message.
    ///
    /// # Errors
    /// Returns [`ProtocolError::BadSlot`] if any of bits 31:8 is set.
    pub const fn from_wire(wire: u32) -> Result<Self, ProtocolError> {
        match wire.to_le_bytes() {
            [slot, 0, 0, 0] => Ok(Self(slot)),
            _ => Err(ProtocolError::BadSlot(wire)),
        }
    }

    /// Returns the slot's number in messages.
    pub const fn to_wire(self) -> u32 {
        self.0 as u32
    }

    /// Returns this slot's requester ID on the bus with number `bus`.
    pub const fn requester(self, bus: u8) -> RequesterId {
        RequesterId::pci(bus, self.device(), self.function())
    }

    /// Returns the device number.
    pub const fn device(self) -> u8 {
        self.0 & 0x1f
    }

    /// Returns the function number.
    pub const fn function(self) -> u8 {
        self.0 >> 5
    }

    fn through(self, by: &mut impl Codec) -> Result<Self, ProtocolError> {
        Self::from_wire(by.u32(self.to_wire())?)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slot({self})")
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}.{}", self.device(), self.function())
    }
}

/// Protocol version that this crate supports. Version 1.1, which names processors by a mask of 64
/// bits, is not supported: a host refuses it as it refuses an unknown version.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Version {
    /// Lowest version with lists of processors in interrupts.
    V1_2,
    /// Adds NUMA nodes to bus relations.
    V1_3,
    /// Extends vectors to 32 bits, which SPIs above 255 need.
    V1_4,
}

impl Version {
    /// All versions from highest to lowest, the order in which a guest proposes them.
    pub const OFFERED: [Self; 3] = [Self::V1_4, Self::V1_3, Self::V1_2];

    /// Decodes a version from a message. Returns `None` if this crate does not support it.
    pub const fn from_wire(wire: u32) -> Option<Self> {
        match wire {
            0x1_0002 => Some(Self::V1_2),
            0x1_0003 => Some(Self::V1_3),
            0x1_0004 => Some(Self::V1_4),
            _ => None,
        }
    }

    /// Returns the version's number in messages: the major version in the upper half, the minor
    /// version in the lower half.
    pub const fn to_wire(self) -> u32 {
        match self {
            Self::V1_2 => 0x1_0002,
            Self::V1_3 => 0x1_0003,
            Self::V1_4 => 0x1_0004,
        }
    }

    /// Returns the form of interrupts under this version.
    pub const fn interrupts(self) -> InterruptForm {
        match self {
            Self::V1_2 | Self::V1_3 => InterruptForm::V2,
            Self::V1_4 => InterruptForm::V3,
        }
    }

    /// Returns the form of bus relations under this version.
    pub const fn relations(self) -> RelationsForm {
        match self {
            Self::V1_2 => RelationsForm::V1,
            Self::V1_3 | Self::V1_4 => RelationsForm::V2,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.to_wire() >> 16, self.to_wire() & 0xffff)
    }
}
