//! The hypercall that moves an interrupt of a device on x86: `HvCallRetargetDeviceInterrupt`
//! (Hypervisor Top Level Functional Specification).

use super::{ProtocolError, Reader, Slot, Writer};
use msi_types::MsiMessage;

/// Call code of the hypercall.
pub const RETARGET_INTERRUPT: u16 = 0x7e;

/// Length of the input that [`Retarget::emit`] writes.
pub const RETARGET_LENGTH: usize = 56;

/// The caller's own partition.
const SELF: u64 = u64::MAX;

/// The interrupt is message-signalled.
const SOURCE_MSI: u32 = 1;

/// A function, as hypercalls name it: made of the bus's instance GUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DeviceKey(u64);

impl DeviceKey {
    /// The function in `slot` of the bus with this instance GUID, in memory order.
    pub const fn new(instance: [u8; 16], slot: Slot) -> Self {
        let [_, _, _, _, b4, b5, b6, b7, ..] = instance;
        Self(u32::from_le_bytes([b6 & 0xf8 | slot.function(), b7, b4, b5]) as u64)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// A new target for an interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retarget {
    /// The function.
    pub device: DeviceKey,
    /// The host's message. The call carries the lower half of its address.
    pub message: MsiMessage,
    /// The vector.
    pub vector: u32,
    /// The processor, by VP index below 64.
    pub processor: u8,
}

impl Retarget {
    /// Writes the hypercall's input to `out` and returns its length in bytes.
    ///
    /// # Errors
    /// [`ProtocolError::NoRoom`]; [`ProtocolError::BadProcessors`] for a VP index above 63, which
    /// would need a sparse set.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, ProtocolError> {
        let mask = 1u64.checked_shl(self.processor.into()).ok_or(ProtocolError::BadProcessors)?;
        let mut to = Writer::new(out);
        to.u64(SELF)?;
        to.u64(self.device.0)?;
        to.u32(SOURCE_MSI)?;
        to.u32(0)?;
        to.u32(self.message.address_low())?;
        to.u32(self.message.data)?;
        to.u64(0)?;
        to.u32(self.vector)?;
        to.u32(0)?;
        to.u64(mask)?;
        Ok(to.length())
    }

    /// Parses the hypercall's input. Only the form that [`emit`](Self::emit) writes is taken: the
    /// caller's own partition, one processor in a mask.
    ///
    /// # Errors
    /// [`ProtocolError::Truncated`]; [`ProtocolError::BadRetarget`] for other forms.
    pub fn parse(input: &[u8]) -> Result<Self, ProtocolError> {
        let mut from = Reader::new(input);
        let partition = from.u64()?;
        let device = DeviceKey(from.u64()?);
        let (source, _) = (from.u32()?, from.u32()?);
        let message = MsiMessage { address: from.u32()?.into(), data: from.u32()? };
        from.u64()?;
        let (vector, flags, mask) = (from.u32()?, from.u32()?, from.u64()?);
        let plain = partition == SELF && source == SOURCE_MSI && flags == 0;
        match u8::try_from(mask.trailing_zeros()) {
            Ok(processor) if plain && mask.is_power_of_two() => {
                Ok(Self { device, message, vector, processor })
            }
            _ => Err(ProtocolError::BadRetarget),
        }
    }
}
