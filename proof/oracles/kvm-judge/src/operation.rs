//! Operations for the guest: register accesses that the guest's program reads from memory.

use gic_arch::{Reg, RegisterValue};
use vgic::AccessWidth;

/// An access to a register of 32 or 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Operation {
    pub(crate) address: u64,
    pub(crate) width: AccessWidth,
    /// The value that is written; `None` to read the register.
    pub(crate) written: Option<u64>,
}

impl Operation {
    /// Size of an operation (kind, address, value) in memory, in bytes.
    pub const BYTES: usize = 24;
    /// Marks the end of a list of operations.
    pub const END: [u8; Self::BYTES] = [0; Self::BYTES];

    /// Writes a register of the frame at `base`.
    pub fn write<V: RegisterValue, A>(base: u64, register: Reg<V, A>, value: V) -> Self {
        let raw: V::Raw = value.into();
        Self { written: Some(raw.into()), ..Self::read(base, register) }
    }

    /// Reads a register of the frame at `base`.
    pub fn read<V: RegisterValue, A>(base: u64, register: Reg<V, A>) -> Self {
        let is_double = size_of::<V::Raw>() == 8;
        let width = if is_double { AccessWidth::Double } else { AccessWidth::Word };
        Self { address: base + u64::from(register.offset()), width, written: None }
    }

    /// Encodes the operation for the guest's program.
    pub fn encode(self) -> [u8; Self::BYTES] {
        let kind = match (self.written, self.width) {
            (Some(_), AccessWidth::Double) => 2_u64,
            (Some(_), _) => 1,
            (None, AccessWidth::Double) => 4,
            (None, _) => 3,
        };
        let mut bytes = Self::END;
        let words = [kind, self.address, self.written.unwrap_or(0)];
        bytes.copy_from_slice(words.map(u64::to_le_bytes).as_flattened());
        bytes
    }
}
