//! Decodes loads and stores of one general-purpose register that update their base register. The
//! syndrome of their exits does not describe them (DDI 0487, ISS encoding for a Data Abort, ISV).

use crate::syndrome::{DeviceAccess, Extension, UndescribedAccess};
use vgic::AccessWidth;

/// A load or store with pre-indexed or post-indexed addressing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndexedTransfer {
    width: AccessWidth,
    register: usize,
    is_write: bool,
    extension: Extension,
    /// Number of the base register, where 31 is the stack pointer.
    pub base: usize,
    /// Amount that is added to the base register.
    offset: i64,
    /// `true` if the amount is added before the access.
    is_pre_indexed: bool,
}

impl IndexedTransfer {
    /// Decodes an A64 instruction (DDI 0487, C4.1.94: load/store register, immediate pre-indexed
    /// and immediate post-indexed). Returns `None` for all other instructions, and for instructions
    /// that transfer their own base register, whose effect is unpredictable.
    pub fn decode(instruction: u32) -> Option<Self> {
        /// Op0 and op1, the vector bit, bit 21, and bit 10, which both addressing modes have set.
        const MASK: u32 = 0x3f20_0400;
        const INDEXED: u32 = 0x3800_0400;
        let field = |shift: u32, bits: u32| instruction >> shift & ((1 << bits) - 1);
        let (register, base) = (field(0, 5) as usize, field(5, 5) as usize);
        if instruction & MASK != INDEXED || register == base && base != 31 {
            return None;
        }
        let size = field(30, 2);
        let (is_write, extension) = match (field(22, 2), size) {
            (0, _) => (true, Extension::Zero),
            (1, _) => (false, Extension::Zero),
            (2, 0..=2) => (false, Extension::Sign64),
            (3, 0..=1) => (false, Extension::Sign32),
            _ => return None,
        };
        Some(Self {
            width: AccessWidth::try_from(1 << size).ok()?,
            register,
            is_write,
            extension,
            base,
            offset: (i64::from(field(12, 9)) << 55) >> 55,
            is_pre_indexed: field(11, 1) == 1,
        })
    }

    /// Returns the access that the instruction makes, and the new value of the base register.
    /// Returns `None` if the access of the exit is not of this instruction: another vCPU may have
    /// changed the instruction in the meantime.
    pub fn of(self, access: UndescribedAccess, base: u64) -> Option<(DeviceAccess, u64)> {
        /// The top byte of an address, which may be a tag.
        const TAG_BITS: u32 = 8;
        let UndescribedAccess { address, virtual_address, is_write } = access;
        let Self { width, register, extension, .. } = self;
        let updated = base.wrapping_add_signed(self.offset);
        let accessed = if self.is_pre_indexed { updated } else { base };
        let is_same = (accessed ^ virtual_address) << TAG_BITS == 0 && is_write == self.is_write;
        let access =
            DeviceAccess { address, virtual_address, width, register, is_write, extension };
        is_same.then_some((access, updated))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words as GNU as encodes these instructions, and the fields: bytes, register, base, offset.
    #[test]
    fn indexed_loads_and_stores_are_decoded() {
        use Extension::{Sign32, Sign64, Zero};
        let table = [
            ("strb w1, [x0], #1", 0x3800_1401, (1, 1, true, Zero), (0, 1, false)),
            ("strh w2, [x3, #-2]!", 0x781f_ec62, (2, 2, true, Zero), (3, -2, true)),
            ("str w4, [x5], #255", 0xb80f_f4a4, (4, 4, true, Zero), (5, 255, false)),
            ("str xzr, [sp, #-256]!", 0xf810_0fff, (8, 31, true, Zero), (31, -256, true)),
            ("ldrb w6, [x7, #1]!", 0x3840_1ce6, (1, 6, false, Zero), (7, 1, true)),
            ("ldrh w8, [x9], #-1", 0x785f_f528, (2, 8, false, Zero), (9, -1, false)),
            ("ldr w10, [x11], #4", 0xb840_456a, (4, 10, false, Zero), (11, 4, false)),
            ("ldr x30, [sp], #16", 0xf841_07fe, (8, 30, false, Zero), (31, 16, false)),
            ("ldrsb x12, [x13], #1", 0x3880_15ac, (1, 12, false, Sign64), (13, 1, false)),
            ("ldrsb w12, [x13], #1", 0x38c0_15ac, (1, 12, false, Sign32), (13, 1, false)),
            ("ldrsh w14, [x15, #2]!", 0x78c0_2dee, (2, 14, false, Sign32), (15, 2, true)),
            ("ldrsw x16, [x17], #4", 0xb880_4630, (4, 16, false, Sign64), (17, 4, false)),
        ];
        for (name, word, (bytes, register, is_write, extension), (base, offset, pre)) in table {
            let expected = IndexedTransfer {
                width: AccessWidth::try_from(bytes).expect("the table has valid widths"),
                register,
                is_write,
                extension,
                base,
                offset,
                is_pre_indexed: pre,
            };
            assert_eq!(IndexedTransfer::decode(word), Some(expected), "{name}");
        }
    }

    #[test]
    fn unsupported_instructions_are_not_decoded() {
        for (name, word) in [
            ("str w1, [x0]", 0xb900_0001),
            ("stur w1, [x0, #1]", 0xb800_1001),
            ("sttr w1, [x0, #1]", 0xb800_1801),
            ("str w1, [x0, x2]", 0xb822_6801),
            ("stp x1, x2, [x0], #16", 0xa881_0801),
            ("str q0, [x0], #16", 0x3c81_0400),
            ("ldadd x1, x2, [x0]", 0xf821_0002),
            ("ldraa x1, [x0, #8]!", 0xf820_1c01),
            ("str x0, [x0], #8", 0xf800_8400),
            ("opc 2 of 8 bytes", 0xf880_8401),
            ("opc 3 of 4 bytes", 0xb8c0_4401),
            ("nop", 0xd503_201f),
        ] {
            assert_eq!(IndexedTransfer::decode(word), None, "{name}");
        }
    }

    #[test]
    fn a_decoded_transfer_refuses_a_different_access() {
        let access =
            |virtual_address| UndescribedAccess { address: 8, virtual_address, is_write: true };
        for (word, base, updated, accessed) in [
            (0x3800_1401, 0x1000, 0x1001, 0x1000),
            (0x781f_ec60, 0x1000, 0x0ffe, 0x0ffe),
            (0x3800_1401, u64::MAX, 0, u64::MAX),
            (0x3800_1401, 0xaa00_0000_0000_1000, 0xaa00_0000_0000_1001, 0x1000),
        ] {
            let transfer = IndexedTransfer::decode(word).expect("both are stores");
            let found = transfer.of(access(accessed), base);
            assert_eq!(found.map(|(access, base)| (access.address, base)), Some((8, updated)));
            assert_eq!(transfer.of(access(accessed ^ 1), base), None, "another address");
            let load = UndescribedAccess { is_write: false, ..access(accessed) };
            assert_eq!(transfer.of(load, base), None, "a load");
        }
    }
}
