//! Hypercall `HvCallRetargetDeviceInterrupt`, which retargets an interrupt of a device on x86
//! (Hypervisor Top Level Functional Specification).
//!
//! | bytes | field |
//! |---|---|
//! | 0 to 7 | partition: the caller's own |
//! | 8 to 15 | function, as [`DeviceKey`] |
//! | 16 to 23 | source (1 for a message), reserved |
//! | 24 to 31 | message: lower half of the address, data |
//! | 32 to 39 | reserved |
//! | 40 to 47 | vector, flags |
//! | 48 to 55 | mask of the processors 0 to 63, or format of a set |
//! | 56 to 63 | for a sparse set: one bit for each bank that follows |
//! | from 64 | for a sparse set: 8 bytes for each bank, one bit for each of its 64 processors |

use super::{Codec, ProtocolError, Reader, Slot, Writer};
use msi_types::MsiMessage;

/// Call code of the hypercall.
pub const RETARGET_INTERRUPT: u16 = 0x7e;

/// Length in bytes of the fixed part of the input, which the variable header follows.
const FIXED_LENGTH: usize = 56;

/// Length in bytes of an input with a sparse set of one bank.
const SPARSE_LENGTH: usize = FIXED_LENGTH + 16;

/// Identifier of the caller's own partition.
const SELF: u64 = u64::MAX;

/// Source number of a message-signaled interrupt.
const SOURCE_MSI: u32 = 1;

/// Target flag: the interrupt is delivered to every target processor.
const MULTICAST: u32 = 1;

/// Target flag: the processors are encoded as a set, not a mask.
const PROCESSOR_SET: u32 = 2;

/// Format of a set whose banks follow.
const SPARSE: u64 = 0;

/// Format of the set of all processors. No bank follows.
const ALL: u64 = 1;

/// Lowest bit of the variable header's length in a control word, in units of 8 bytes.
const VARIABLE_SHIFT: u32 = 17;

/// Mask of the variable header's length, in units of 8 bytes.
const VARIABLE_MASK: u64 = 0x3ff;

/// Highest VP index that interrupts can target: a sparse set covers 4096 processors.
pub const HIGHEST_PROCESSOR: u16 = 4095;

/// Identifier of a function in hypercalls, derived from the bus's instance GUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DeviceKey(u64);

impl DeviceKey {
    /// Creates the identifier of the function in `slot` of the bus with this instance GUID, which
    /// is in memory order.
    pub const fn new(instance: [u8; 16], slot: Slot) -> Self {
        let [_, _, _, _, b4, b5, b6, b7, ..] = instance;
        Self(u32::from_le_bytes([b6 & 0xf8 | slot.function(), b7, b4, b5]) as u64)
    }

    /// Returns the number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// An interrupt's new target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retarget {
    /// The function.
    pub device: DeviceKey,
    /// Message that the host granted. The hypercall contains only the lower half of the message's
    /// address.
    pub message: MsiMessage,
    /// New vector.
    pub vector: u32,
    /// Target processor, by VP index.
    pub processor: u16,
}

/// Input of the hypercall.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RetargetInput {
    bytes: [u8; SPARSE_LENGTH],
}

impl RetargetInput {
    /// Encodes a target. The processor is encoded as a sparse set, as in Linux.
    ///
    /// # Errors
    /// Returns [`ProtocolError::BadProcessors`] for a VP index above [`HIGHEST_PROCESSOR`].
    pub fn new(retarget: &Retarget) -> Result<Self, ProtocolError> {
        let mut bytes = [0; SPARSE_LENGTH];
        let mut to = Writer::new(&mut bytes);
        let (bank, bit) = (retarget.processor / 64, 1u64 << (retarget.processor % 64));
        if retarget.processor > HIGHEST_PROCESSOR {
            return Err(ProtocolError::BadProcessors);
        }
        to.u64(SELF)?;
        to.u64(retarget.device.0)?;
        to.u32(SOURCE_MSI)?;
        to.u32(0)?;
        to.u32(retarget.message.address_low())?;
        to.u32(retarget.message.data)?;
        to.u64(0)?;
        to.u32(retarget.vector)?;
        to.u32(PROCESSOR_SET)?;
        to.u64(SPARSE)?;
        to.u64(1 << bank)?;
        to.u64(bit)?;
        Ok(Self { bytes })
    }

    /// Returns the input's bytes. The hypercall requires that the input is aligned to 8 bytes and
    /// does not cross a page.
    pub const fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the hypercall's control word: the call code and the variable header's length.
    pub const fn control(&self) -> u64 {
        let variable = (SPARSE_LENGTH - FIXED_LENGTH) as u64 / 8;
        RETARGET_INTERRUPT as u64 | variable << VARIABLE_SHIFT
    }
}

impl Retarget {
    /// Parses the hypercall's input: a processor mask, a sparse set, or all processors. If the
    /// interrupt may be delivered to any of several processors, the one with the lowest VP index is
    /// used.
    ///
    /// # Errors
    /// Returns [`ProtocolError::Truncated`] if the input is too short, or
    /// [`ProtocolError::BadRetarget`] for another partition or source, for an empty set of
    /// processors, and for delivery to each of several processors.
    pub fn parse(input: &[u8]) -> Result<Self, ProtocolError> {
        let mut from = Reader::new(input);
        let partition = from.u64(0)?;
        let device = DeviceKey(from.u64(0)?);
        let (source, _) = (from.u32(0)?, from.u32(0)?);
        let message = MsiMessage { address: from.u32(0)?.into(), data: from.u32(0)? };
        from.u64(0)?;
        let (vector, flags) = (from.u32(0)?, from.u32(0)?);
        if partition != SELF || source != SOURCE_MSI || flags & !(MULTICAST | PROCESSOR_SET) != 0 {
            return Err(ProtocolError::BadRetarget);
        }
        let (processor, count) = read_processors(flags & PROCESSOR_SET != 0, &mut from)?;
        if count == 0 || flags & MULTICAST != 0 && count > 1 {
            return Err(ProtocolError::BadRetarget);
        }
        Ok(Self { device, message, vector, processor })
    }

    /// Returns the length in bytes of the input that a guest's control word announces.
    pub const fn input_length(control: u64) -> usize {
        FIXED_LENGTH + 8 * (control >> VARIABLE_SHIFT & VARIABLE_MASK) as usize
    }
}

/// Reads a target's processors. Returns the lowest VP index and the number of processors.
fn read_processors(is_set: bool, from: &mut Reader<'_>) -> Result<(u16, u32), ProtocolError> {
    let banks = match (is_set, from.u64(0)?) {
        (false, mask) => return Ok((lowest(0, mask), mask.count_ones())),
        (true, ALL) => return Ok((0, u32::MAX)),
        (true, SPARSE) => from.u64(0)?,
        (true, _) => return Err(ProtocolError::BadRetarget),
    };
    let (mut first, mut count) = (0, 0);
    for bank in (0..64).filter(|bank| banks >> bank & 1 == 1) {
        let processors = from.u64(0)?;
        if count == 0 && processors != 0 {
            first = lowest(bank, processors);
        }
        count += processors.count_ones();
    }
    Ok((first, count))
}

/// Returns the VP index of a bank's lowest bit. `bank` must be less than 64. Callers must not use
/// the result if the bank is empty.
const fn lowest(bank: u16, processors: u64) -> u16 {
    bank * 64 + (processors.trailing_zeros() % 64) as u16
}
