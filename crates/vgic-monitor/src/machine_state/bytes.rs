//! The binary form of a machine's state.

use super::{MachineState, VERSION, WITHOUT_SHAPE};
use alloc::vec::Vec;
use serde::Deserialize as _;
use vgic::saved_state::SavedState;

/// First bytes of the binary form.
const MAGIC: [u8; 8] = *b"GICSTATE";

/// Reason why bytes are not the binary form of a state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BytesError {
    /// The bytes don't begin like the binary form of a state.
    #[error("the bytes are no machine state: they do not begin with \"GICSTATE\"")]
    NoState,
    /// The state's version is not supported.
    #[error("the state has version {0}, but this library reads versions 1 to {VERSION}")]
    Version(u32),
    /// A value is invalid, bytes are missing at the end, or there are too many.
    #[error(
        "the state is damaged after {offset} bytes: a value is invalid, or the length is wrong"
    )]
    Damaged {
        /// Number of bytes that were read, including those of an invalid value.
        offset: usize,
    },
    /// All values are valid, but at least one has changed since the state was saved.
    #[error(
        "the state is damaged: its checksum is {saved:#010x}, but that of its bytes is \
         {computed:#010x}"
    )]
    Checksum {
        /// Checksum in the state.
        saved: u32,
        /// Checksum of the state's bytes.
        computed: u32,
    },
}

impl MachineState {
    /// Returns the state's binary form.
    ///
    /// It consists of the eight characters `GICSTATE`; the state's fields in [postcard's wire
    /// format](https://postcard.jamesmunns.com/wire-format), of which the first is the version; and
    /// the FNV-1a checksum of all bytes before it, as a little-endian number of 32 bits. An LPI
    /// takes at most 14 bytes, or 20 if its collection is unmapped.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let fields = (self.version.max(VERSION), &self.gic, &self.functions);
        let body = postcard::to_extend(&fields, MAGIC.to_vec());
        // Postcard refuses only lists of unknown length, and a state has none.
        debug_assert!(body.is_ok(), "{body:?}");
        let mut bytes = body.unwrap_or_default();
        bytes.extend(checksum(&bytes).to_le_bytes());
        bytes
    }

    /// Reads a state from its [binary form](Self::to_bytes). The bytes may come from anyone: a
    /// length that exceeds them allocates no memory. The checksum finds changes by accident, not
    /// those by an attacker.
    ///
    /// # Errors
    /// Returns an error that says where the bytes are damaged, or that the version is unsupported.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BytesError> {
        let body = bytes.strip_prefix(&MAGIC).ok_or(BytesError::NoState)?;
        let version = postcard::take_from_bytes(body);
        let damaged = |rest: &[u8]| BytesError::Damaged { offset: bytes.len() - rest.len() };
        let (version, _): (u32, _) = version.map_err(|_| damaged(body))?;
        let mut reader = postcard::Deserializer::from_bytes(body);
        let state = match version {
            VERSION => Self::deserialize(&mut reader),
            WITHOUT_SHAPE => <(u32, (u32, _, _, _), _)>::deserialize(&mut reader).map(
                |(version, (_, distributor, cpus, its), functions)| {
                    let gic = SavedState::without_shape(distributor, cpus, its);
                    Self { version, gic, functions }
                },
            ),
            _ => return Err(BytesError::Version(version)),
        };
        let rest = reader.finalize().unwrap_or(body);
        let state = state.map_err(|_| damaged(rest))?;
        let end = bytes.len() - rest.len();
        let saved = rest
            .try_into()
            .map(u32::from_le_bytes)
            .map_err(|_| BytesError::Damaged { offset: bytes.len().min(end + size_of::<u32>()) })?;
        let computed = checksum(bytes.get(..end).unwrap_or_default());
        if saved == computed { Ok(state) } else { Err(BytesError::Checksum { saved, computed }) }
    }
}

/// Returns the FNV-1a checksum with 32 bits. Changing one byte always changes it.
fn checksum(bytes: &[u8]) -> u32 {
    let add = |sum: u32, byte: &u8| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    bytes.iter().fold(0x811c_9dc5, add)
}
