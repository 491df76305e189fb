//! Local APICs (IDs, vectors, and the trait that a kernel must implement), and messages to them in
//! the compatibility format (SDM vol. 3A §11.11), plus the two extensions for more than 8
//! destination bits.

use bitfield_struct::bitfield;
use core::fmt;
use msi_types::{Cpu, LocalCpu, MsiMessage};

/// Base address of the local APICs' doorbells, which occupy 1 MiB.
pub const DOORBELL_BASE: u64 = 0xfee0_0000;
/// Bits 31:20 of every doorbell.
pub(crate) const DOORBELL_TOP: u16 = 0xfee;

/// Low word of the address.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct AddressLow {
    #[bits(2)]
    __: u8,
    /// DM: the destination is logical.
    pub logical: bool,
    /// RH: the chipset may choose among the destinations.
    pub redirection_hint: bool,
    /// The message is in the remappable format, whose layout differs.
    pub remappable: bool,
    /// Destination bits 14:8 in the 15-bit form; otherwise 0.
    #[bits(7)]
    pub destination_14_8: u8,
    /// Destination bits 7:0.
    pub destination_7_0: u8,
    /// Always 0xFEE.
    #[bits(12)]
    pub top: u16,
}

/// The data word.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Data {
    /// Vector.
    pub vector: u8,
    /// Delivery mode.
    #[bits(3)]
    pub delivery_mode: u8,
    #[bits(3)]
    __: u8,
    /// The level is asserted. Ignored for edges.
    pub asserted: bool,
    /// Level-triggered instead of edge-triggered.
    pub level_triggered: bool,
    __: u16,
}

/// Width and position of a message's destination bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DestinationFormat {
    /// 8 bits, in address bits 19:12. Used by hardware without interrupt remapping.
    Xapic,
    /// 15 bits: bits 14:8 are in address bits 11:5. Supported by hypervisors that advertise it: KVM
    /// with `KVM_FEATURE_MSI_EXT_DEST_ID` (CPUID 0x4000_0001, EAX bit 15), and likewise Hyper-V and
    /// Xen.
    Extended15,
    /// 32 bits: bits 31:8 are in address bits 63:40. A VMM passes this form to KVM after
    /// `KVM_CAP_X2APIC_API` with `KVM_X2APIC_API_USE_32BIT_IDS`. The broadcast quirk must also be
    /// disabled; otherwise, ID 255 is a broadcast. This form never occurs on a bus.
    Kvm32,
}

impl DestinationFormat {
    /// Returns the highest ID that can be encoded.
    pub const fn max(self) -> ApicId {
        ApicId::new(match self {
            Self::Xapic => 0xff,
            Self::Extended15 => 0x7fff,
            Self::Kvm32 => 0xffff_ffff,
        })
    }

    /// Returns `true` if a physical destination with this ID reaches exactly one APIC, i.e. if the
    /// ID can be encoded and is not the broadcast ID.
    pub const fn reaches(self, id: ApicId) -> bool {
        let broadcast = match self {
            Self::Xapic | Self::Extended15 => 0xff,
            Self::Kvm32 => 0xffff_ffff,
        };
        id.get() <= self.max().get() && id.get() != broadcast
    }
}

/// Meaning of a destination.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DestinationMode {
    /// The ID of an APIC.
    Physical,
    /// A set of APICs, matched by their logical destination registers.
    Logical,
}

/// Choice among several destinations.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Redirection {
    /// The message is delivered to exactly its destination.
    Directed,
    /// The chipset may choose one of the destinations.
    Hint,
}

/// Effect of a message at its destination.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DeliveryMode {
    /// Makes the vector pending.
    Fixed(ApicVector),
    /// Makes the vector pending at the lowest-priority CPU among the destinations.
    LowestPriority(ApicVector),
    /// System management interrupt.
    Smi,
    /// Non-maskable interrupt.
    Nmi,
    /// INIT.
    Init,
    /// An interrupt whose vector is supplied by an 8259A-compatible controller.
    ExtInt,
}

impl DeliveryMode {
    const fn fields(self) -> (u8, u8) {
        match self {
            Self::Fixed(vector) => (0, vector.get()),
            Self::LowestPriority(vector) => (1, vector.get()),
            Self::Smi => (2, 0),
            Self::Nmi => (4, 0),
            Self::Init => (5, 0),
            Self::ExtInt => (7, 0),
        }
    }

    pub(crate) const fn mode(self) -> u8 {
        self.fields().0
    }

    pub(crate) const fn vector_number(self) -> u8 {
        self.fields().1
    }

    pub(crate) fn from_fields(mode: u8, vector: u8) -> Result<Self, MessageError> {
        let checked = || ApicVector::new(vector).ok_or(MessageError::BadVector(vector));
        match mode {
            0 => checked().map(Self::Fixed),
            1 => checked().map(Self::LowestPriority),
            2 => Ok(Self::Smi),
            4 => Ok(Self::Nmi),
            5 => Ok(Self::Init),
            7 => Ok(Self::ExtInt),
            _ => Err(MessageError::ReservedDelivery(mode)),
        }
    }
}

/// Trigger and level of a message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Signal {
    /// An edge. Devices send these.
    Edge,
    /// The beginning of a level.
    Assert,
    /// The end of a level.
    Deassert,
}

/// A message in the compatibility format.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ApicMessage {
    /// Destination APIC.
    pub destination: ApicId,
    /// Meaning of the destination.
    pub mode: DestinationMode,
    /// Choice among destinations.
    pub redirection: Redirection,
    /// Effect at the destination.
    pub delivery: DeliveryMode,
    /// Trigger and level.
    pub signal: Signal,
}

impl ApicMessage {
    /// Creates an edge-triggered message that makes `vector` pending at one APIC. All messages that
    /// this crate writes to devices are of this kind.
    pub const fn fixed(destination: ApicId, vector: ApicVector) -> Self {
        Self {
            destination,
            mode: DestinationMode::Physical,
            redirection: Redirection::Directed,
            delivery: DeliveryMode::Fixed(vector),
            signal: Signal::Edge,
        }
    }

    /// Decodes an address and data that a device wrote.
    ///
    /// Decoding is strict: reserved bits must be 0, and so must the vector if the delivery mode
    /// doesn't use it. The only exception is the level bit of an edge, which some systems set; it
    /// is ignored.
    pub fn decode(message: MsiMessage, format: DestinationFormat) -> Result<Self, MessageError> {
        let low = AddressLow::from(message.address_low());
        if low.top() != DOORBELL_TOP {
            return Err(MessageError::NotADoorbell(message.address));
        }
        if low.remappable() {
            return Err(MessageError::Remappable);
        }
        let data = Data::from(message.data);
        let signal = match (data.level_triggered(), data.asserted()) {
            (false, _) => Signal::Edge,
            (true, true) => Signal::Assert,
            (true, false) => Signal::Deassert,
        };
        let decoded = Self {
            destination: destination(message.address_high(), low, format),
            mode: if low.logical() { DestinationMode::Logical } else { DestinationMode::Physical },
            redirection: if low.redirection_hint() {
                Redirection::Hint
            } else {
                Redirection::Directed
            },
            delivery: DeliveryMode::from_fields(data.delivery_mode(), data.vector())?,
            signal,
        };
        // Encoding writes every reserved bit as 0.
        let asserted = data.asserted() && signal == Signal::Edge;
        let plain =
            MsiMessage { data: data.with_asserted(data.asserted() && !asserted).into(), ..message };
        if decoded.encode(format) == Ok(plain) {
            Ok(decoded)
        } else {
            Err(MessageError::Reserved(message))
        }
    }

    /// Returns the address and data of this message.
    ///
    /// # Errors
    /// Returns [`MessageError::DestinationTooWide`] if `format` cannot encode the destination.
    pub fn encode(&self, format: DestinationFormat) -> Result<MsiMessage, MessageError> {
        let id = self.destination;
        if id > format.max() {
            return Err(MessageError::DestinationTooWide { id, max: format.max() });
        }
        let [byte0, byte1, ..] = id.get().to_le_bytes();
        let (middle, high) = match format {
            DestinationFormat::Xapic => (0, 0),
            DestinationFormat::Extended15 => (byte1, 0),
            DestinationFormat::Kvm32 => (0, id.get() & !0xff),
        };
        let low = AddressLow::new()
            .with_logical(self.mode == DestinationMode::Logical)
            .with_redirection_hint(self.redirection == Redirection::Hint)
            .with_destination_14_8(middle)
            .with_destination_7_0(byte0)
            .with_top(DOORBELL_TOP);
        Ok(MsiMessage {
            address: u64::from(high) << 32 | u64::from(u32::from(low)),
            data: self.data().into(),
        })
    }

    fn data(&self) -> Data {
        Data::new()
            .with_vector(self.delivery.vector_number())
            .with_delivery_mode(self.delivery.mode())
            .with_asserted(self.signal == Signal::Assert)
            .with_level_triggered(self.signal != Signal::Edge)
    }
}

fn destination(high: u32, low: AddressLow, format: DestinationFormat) -> ApicId {
    let byte0 = u32::from(low.destination_7_0());
    ApicId::new(match format {
        DestinationFormat::Xapic => byte0,
        DestinationFormat::Extended15 => u32::from(low.destination_14_8()) << 8 | byte0,
        DestinationFormat::Kvm32 => high & !0xff | byte0,
    })
}

/// Error from encoding or decoding a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The destination does not fit the format.
    #[error("APIC ID {id} is beyond {max}, the highest that this message format can name")]
    DestinationTooWide {
        /// Requested destination.
        id: ApicId,
        /// Highest destination of the format.
        max: ApicId,
    },
    /// The sender wrote to an address that is not a local APIC's.
    #[error("{0:#x} is not an address of the local APICs")]
    NotADoorbell(u64),
    /// The sender's message is in the remappable format.
    #[error("the message is in the remappable format, which only a remapping unit can translate")]
    Remappable,
    /// The sender's message is in the compatibility format.
    #[error(
        "the message is in the compatibility format, which does not name a remapping table entry"
    )]
    Compatibility,
    /// The sender's vector is not allowed in a message.
    #[error("vector {0:#04x} is not allowed in a message")]
    BadVector(u8),
    /// The sender's delivery mode is reserved.
    #[error("delivery mode {0} is reserved")]
    ReservedDelivery(u8),
    /// The sender set reserved bits.
    #[error("the message {0:x?} has reserved bits set")]
    Reserved(MsiMessage),
}

/// ID of a local APIC: 8 bits in xAPIC mode, 32 in x2APIC mode. Not to be confused with [`Cpu`],
/// which is the kernel's own dense number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ApicId(u32);

impl ApicId {
    /// Creates an APIC ID.
    pub const fn new(id: u32) -> Self {
        Self(id)
    }

    /// Returns the number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for ApicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApicId({})", self.0)
    }
}

impl fmt::Display for ApicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Vector of a local APIC that a message may carry: 0x10 to 0xFE (SDM vol. 3A §11.11.2). The same
/// vector is a different interrupt on each CPU.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApicVector(u8);

impl ApicVector {
    /// Lowest vector.
    pub const MIN: Self = Self(0x10);
    /// Highest vector.
    pub const MAX: Self = Self(0xfe);

    /// Creates the vector with this number. Returns `None` unless the number is in the range from
    /// [`MIN`](Self::MIN) to [`MAX`](Self::MAX).
    pub const fn new(number: u8) -> Option<Self> {
        if number >= Self::MIN.0 && number <= Self::MAX.0 { Some(Self(number)) } else { None }
    }

    /// Returns the number.
    pub const fn get(self) -> u8 {
        self.0
    }

    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }

    /// Returns the vectors of `self..=last`.
    pub(crate) fn up_to(self, last: Self) -> impl DoubleEndedIterator<Item = Self> + Clone {
        (self.0..=last.0).map(Self)
    }
}

impl fmt::Debug for ApicVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApicVector({:#04x})", self.0)
    }
}

impl fmt::Display for ApicVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x}", self.0)
    }
}

/// A vector at one CPU. On x86, each interrupt has a CPU vector that no other interrupt uses.
#[doc(alias = "apic_chip_data")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CpuVector {
    /// The CPU.
    pub cpu: Cpu,
    /// Vector on which the CPU receives the interrupt.
    pub vector: ApicVector,
}

impl fmt::Display for CpuVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vector {} at CPU {}", self.vector, self.cpu)
    }
}

/// The kernel's access to its local APICs.
///
/// This crate calls these functions in any context and with its locks held, so they must not sleep,
/// and must not call back into this crate.
pub trait Apic: LocalCpu {
    /// Sends an interprocessor interrupt with fixed delivery, edge trigger and a physical
    /// destination. Implementations must return only after the APIC has sent the interrupt
    /// (delivery status idle, in xAPIC mode).
    fn send(&self, to: ApicId, vector: ApicVector);

    /// Returns `true` if `cpu` has accepted the vector but not begun to serve it, according to the
    /// vector's bit in the interrupt request register. Returns `None` if the register cannot be
    /// read (a CPU can only access its own APIC). [`VectorDomain::clean_up`] and
    /// [`VectorDomain::offline`] call this on the CPU itself, where it must not return `None`.
    ///
    /// [`VectorDomain::clean_up`]: crate::VectorDomain::clean_up
    /// [`VectorDomain::offline`]: crate::VectorDomain::offline
    fn is_requested(&self, cpu: Cpu, vector: ApicVector) -> Option<bool>;

    /// Ensures that `cpu` calls [`VectorDomain::clean_up`](crate::VectorDomain::clean_up) soon, for
    /// example through a dedicated IPI or at the CPU's next timer tick. The CPU is online, or has
    /// just gone [offline](crate::VectorDomain::offline); in the latter case it has no vectors left
    /// to clean up, and the request may be dropped.
    fn request_cleanup(&self, cpu: Cpu);
}
