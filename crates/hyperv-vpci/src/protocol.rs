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

mod notice;
pub mod reply;
mod request;
mod retarget;

pub use notice::{DeviceDescription, Notice, Relations, RelationsForm};
pub use reply::Status;
pub use request::{AssignedResources, PowerState, Request, ResourcesForm};
pub use retarget::{DeviceKey, HIGHEST_PROCESSOR, RETARGET_INTERRUPT, Retarget, RetargetInput};

use core::fmt;
use msi_types::{MsiMessage, RequesterId};

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

/// Reason why bytes are not a valid message, or why a message cannot be emitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The peer's message ends inside a field.
    #[error("the message ends after {have} of the {needed} bytes of a field")]
    Truncated {
        /// Length of the field in bytes.
        needed: usize,
        /// Number of bytes left.
        have: usize,
    },
    /// The caller's buffer is too short.
    #[error("the buffer is too short: the message needs at least {needed} bytes")]
    NoRoom {
        /// Number of bytes up to the end of the field that did not fit.
        needed: usize,
    },
    /// This end does not accept messages of this type.
    #[error("message type {0:#x} is not accepted by this end")]
    UnknownType(u32),
    /// The peer sent a slot with reserved bits set.
    #[error("slot {0:#x} has reserved bits set")]
    BadSlot(u32),
    /// The peer announced more entries than a message can have.
    #[error("{count} entries exceed the maximum of {limit}")]
    BadCount {
        /// Number of entries that the peer announced.
        count: u32,
        /// Maximum number of entries.
        limit: u32,
    },
    /// The peer requested a power state other than D0 and D3.
    #[error("{0} is not a power state: 1 is D0, 4 is D3")]
    BadPowerState(u32),
    /// The peer requested a delivery mode other than fixed and lowest priority.
    #[error("{0} is not a delivery mode: 0 is fixed, 1 is lowest priority")]
    BadDelivery(u8),
    /// The number of vectors of an interrupt is not a power of two up to 32.
    #[error("an interrupt cannot have {0} vectors: the number must be a power of two up to 32")]
    BadGroup(u16),
    /// An interrupt has no target processor, or processors that its form cannot represent.
    #[error("the interrupt's form cannot represent its set of processors")]
    BadProcessors,
    /// The vector does not fit the interrupt's form. SPIs above 255 need protocol 1.4.
    #[error("vector {vector} does not fit the 8 bits that protocol versions below 1.4 provide")]
    VectorTooWide {
        /// The vector.
        vector: u32,
    },
    /// The peer's retarget request has fields that this end does not support.
    #[error("the retarget request is not for an MSI with a supported set of processors")]
    BadRetarget,
}

/// Either end of a message's bytes. Each layout is written once, as a function that passes its
/// fields through a `Codec`: a [`Writer`] stores the given values and returns them, and a
/// [`Reader`] ignores them and returns the values in the message.
pub(crate) trait Codec {
    fn bytes<const N: usize>(&mut self, value: [u8; N]) -> Result<[u8; N], ProtocolError>;

    /// Passes bytes that are written as zero and not interpreted.
    fn reserved(&mut self, length: usize) -> Result<(), ProtocolError>;

    /// Writes zeros that readers do not require.
    fn padding(&mut self, length: usize) -> Result<(), ProtocolError>;

    fn u8(&mut self, value: u8) -> Result<u8, ProtocolError> {
        self.bytes([value]).map(|[byte]| byte)
    }

    fn u16(&mut self, value: u16) -> Result<u16, ProtocolError> {
        self.bytes(value.to_le_bytes()).map(u16::from_le_bytes)
    }

    fn u32(&mut self, value: u32) -> Result<u32, ProtocolError> {
        self.bytes(value.to_le_bytes()).map(u32::from_le_bytes)
    }

    fn u64(&mut self, value: u64) -> Result<u64, ProtocolError> {
        self.bytes(value.to_le_bytes()).map(u64::from_le_bytes)
    }
}

/// Reads little-endian fields from a message, which may end anywhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Returns the next `length` bytes.
    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], ProtocolError> {
        let truncated = ProtocolError::Truncated { needed: length, have: self.0.len() };
        let (taken, rest) = self.0.split_at_checked(length).ok_or(truncated)?;
        self.0 = rest;
        Ok(taken)
    }
}

impl Codec for Reader<'_> {
    fn bytes<const N: usize>(&mut self, _: [u8; N]) -> Result<[u8; N], ProtocolError> {
        let truncated = ProtocolError::Truncated { needed: N, have: self.0.len() };
        let (taken, rest) = self.0.split_first_chunk().ok_or(truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn reserved(&mut self, length: usize) -> Result<(), ProtocolError> {
        self.take(length).map(drop)
    }

    fn padding(&mut self, _: usize) -> Result<(), ProtocolError> {
        Ok(())
    }
}

/// Writes consecutive little-endian fields.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    out: &'a mut [u8],
    length: usize,
}

impl<'a> Writer<'a> {
    pub(crate) const fn new(out: &'a mut [u8]) -> Self {
        Self { out, length: 0 }
    }

    fn room(&mut self, length: usize) -> Result<&mut [u8], ProtocolError> {
        let start = self.length;
        self.length = start.saturating_add(length);
        let room = self.out.get_mut(start..self.length);
        room.ok_or(ProtocolError::NoRoom { needed: self.length })
    }

    pub(crate) fn slice(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        self.room(bytes.len()).map(|room| room.copy_from_slice(bytes))
    }

    /// Returns the number of bytes written.
    pub(crate) const fn length(&self) -> usize {
        self.length
    }
}

impl Codec for Writer<'_> {
    fn bytes<const N: usize>(&mut self, value: [u8; N]) -> Result<[u8; N], ProtocolError> {
        self.slice(&value).map(|()| value)
    }

    fn reserved(&mut self, length: usize) -> Result<(), ProtocolError> {
        self.room(length).map(|room| room.fill(0))
    }

    fn padding(&mut self, length: usize) -> Result<(), ProtocolError> {
        self.reserved(length)
    }
}

/// Maximum number of vectors in one interrupt (the limit for multi-message MSI).
pub const MAX_GROUP: u16 = 32;

/// Maximum number of processors that an interrupt can target.
pub const MAX_PROCESSORS: usize = 32;

/// Form of an interrupt in messages. The first form, with a mask of processors, belongs to version
/// 1.1 of the protocol.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum InterruptForm {
    /// 8-bit vector.
    V2,
    /// 32-bit vector.
    V3,
}

impl InterruptForm {
    /// Returns the highest vector that this form can represent.
    pub const fn highest_vector(self) -> u32 {
        match self {
            Self::V2 => 0xff,
            Self::V3 => u32::MAX,
        }
    }

    /// Checks that all vectors of a group, including the last, fit the form.
    const fn check_vectors(self, vector: u32, count: u16) -> Result<(), ProtocolError> {
        let last = vector.saturating_add((count as u32).saturating_sub(1));
        if last <= self.highest_vector() {
            Ok(())
        } else {
            Err(ProtocolError::VectorTooWide { vector })
        }
    }
}

/// An interrupt's delivery mode.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Delivery {
    /// Delivery to each target processor. This crate's host accepts only one processor.
    Fixed,
    /// Delivery to any one of the target processors. This crate's host selects the first processor.
    LowestPriority,
}

/// An interrupt's target processors, by the hypervisor's VP index (neither an APIC ID nor an
/// MPIDR).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Processors {
    indices: [u16; MAX_PROCESSORS],
    count: u8,
}

impl Processors {
    /// Creates a set with one processor.
    pub const fn one(index: u16) -> Self {
        let mut indices = [0; MAX_PROCESSORS];
        indices[0] = index;
        Self { indices, count: 1 }
    }

    /// Creates a set with these processors.
    ///
    /// # Errors
    /// Returns [`ProtocolError::BadProcessors`] if the list is empty or longer than
    /// [`MAX_PROCESSORS`].
    pub fn new(list: &[u16]) -> Result<Self, ProtocolError> {
        let mut indices = [0; MAX_PROCESSORS];
        let room = indices.get_mut(..list.len()).ok_or(ProtocolError::BadProcessors)?;
        room.copy_from_slice(list);
        match u8::try_from(list.len()) {
            Ok(count @ 1..) => Ok(Self { indices, count }),
            _ => Err(ProtocolError::BadProcessors),
        }
    }

    /// Returns the processors in message order.
    pub fn indices(&self) -> &[u16] {
        self.indices.get(..self.count.into()).unwrap_or_default()
    }

    /// Passes the processors as a list. Entries past the count are zero.
    fn through_list(self, by: &mut impl Codec) -> Result<Self, ProtocolError> {
        let count = by.u16(self.count.into())?;
        let mut indices = self.indices;
        for index in &mut indices {
            *index = by.u16(*index)?;
        }
        Self::new(indices.get(..count.into()).ok_or(ProtocolError::BadProcessors)?)
    }
}

/// Descriptor for an interrupt that a guest requests from its host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InterruptDescriptor {
    /// First vector: an SPI on arm64, a local APIC vector on x86.
    pub vector: u32,
    /// Delivery mode.
    pub delivery: Delivery,
    /// Number of vectors: 1, or a power of two up to [`MAX_GROUP`] for multi-message MSI.
    pub count: u16,
    /// Target processors.
    pub processors: Processors,
}

impl InterruptDescriptor {
    /// Descriptor whose fields a message will replace.
    const BLANK: Self =
        Self { vector: 0, delivery: Delivery::Fixed, count: 1, processors: Processors::one(0) };

    fn through(self, form: InterruptForm, by: &mut impl Codec) -> Result<Self, ProtocolError> {
        form.check_vectors(self.vector, self.count)?;
        let vector = match form {
            InterruptForm::V2 => by.u8(self.vector.to_le_bytes()[0])?.into(),
            InterruptForm::V3 => by.u32(self.vector)?,
        };
        let delivery = match by.u8(self.delivery as u8)? {
            0 => Delivery::Fixed,
            1 => Delivery::LowestPriority,
            other => return Err(ProtocolError::BadDelivery(other)),
        };
        by.reserved(usize::from(form == InterruptForm::V3))?;
        let count = check_group(by.u16(self.count)?)?;
        form.check_vectors(vector, count)?;
        let processors = self.processors.through_list(by)?;
        // OpenVMM's structures end with a reserved field here and expect its bytes.
        by.padding(2)?;
        Ok(Self { vector, delivery, count, processors })
    }
}

fn check_group(count: u16) -> Result<u16, ProtocolError> {
    if count.is_power_of_two() && count <= MAX_GROUP {
        Ok(count)
    } else {
        Err(ProtocolError::BadGroup(count))
    }
}

/// The message that a host granted for an interrupt. The guest stores the message in the function,
/// and returns the message unchanged when it deletes the interrupt. Only the host interprets the
/// message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TranslatedInterrupt {
    /// Number of vectors.
    pub count: u16,
    /// The first vector's message. The messages of the other vectors differ from this one in the
    /// low bits of the data.
    pub message: MsiMessage,
}

impl TranslatedInterrupt {
    /// Message whose fields a message will replace.
    const BLANK: Self = Self { count: 0, message: MsiMessage { address: 0, data: 0 } };

    fn through(self, by: &mut impl Codec) -> Result<Self, ProtocolError> {
        by.reserved(2)?;
        let count = by.u16(self.count)?;
        let (data, address) = (by.u32(self.message.data)?, by.u64(self.message.address)?);
        Ok(Self { count, message: MsiMessage { address, data } })
    }
}
