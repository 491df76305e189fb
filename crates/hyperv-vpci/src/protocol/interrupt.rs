//! Interrupt descriptors that guests send, and messages that hosts grant.

use super::{Codec, ProtocolError};
use msi_types::MsiMessage;

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
    pub(super) const BLANK: Self =
        Self { vector: 0, delivery: Delivery::Fixed, count: 1, processors: Processors::one(0) };

    pub(super) fn through(
        self,
        form: InterruptForm,
        by: &mut impl Codec,
    ) -> Result<Self, ProtocolError> {
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
    pub(super) const BLANK: Self = Self { count: 0, message: MsiMessage { address: 0, data: 0 } };

    pub(super) fn through(self, by: &mut impl Codec) -> Result<Self, ProtocolError> {
        by.reserved(2)?;
        let count = by.u16(self.count)?;
        let (data, address) = (by.u32(self.message.data)?, by.u64(self.message.address)?);
        Ok(Self { count, message: MsiMessage { address, data } })
    }
}
