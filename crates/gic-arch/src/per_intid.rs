//! Register arrays with one field per interrupt (`ISENABLER`, `IPRIORITYR`, `ICFGR` and similar
//! arrays).

use crate::{IntId, IntIdClass, ReadWrite, Reg, RegArray, RegisterInfo};

/// Interrupts covered by an [`IntIdField`], and their order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IntIdRange {
    /// Distributor fields, `GICD_x<n>`. With affinity routing, the fields of INTIDs 0–31 are RES0;
    /// INTIDs 32–1019 are SPIs.
    Spi,
    /// Distributor fields, `GICD_x<n>E`, for extended SPIs 4096–5119.
    ExtendedSpi,
    /// Fields of a distributor without affinity routing (GICv2): INTIDs 0–31 are SGIs and PPIs of
    /// the accessing CPU, and INTIDs 32–1019 are SPIs.
    Banked,
    /// Redistributor fields, `GICR_x0` and `GICR_x<n>E`: SGIs and PPIs 0–31, then extended PPIs
    /// 1056–1119.
    Private,
}

impl IntIdRange {
    /// Returns the index of an interrupt's field, or `None` if the range does not contain the
    /// interrupt.
    pub const fn index_of(self, intid: IntId) -> Option<u32> {
        match (self, intid.class()) {
            (Self::Spi | Self::Banked, IntIdClass::Spi)
            | (Self::Private | Self::Banked, IntIdClass::Sgi | IntIdClass::Ppi) => {
                Some(intid.get())
            }
            (Self::ExtendedSpi, IntIdClass::ExtendedSpi) => {
                Some(intid.get() - IntId::EXTENDED_SPI_BASE)
            }
            (Self::Private, IntIdClass::ExtendedPpi) => {
                Some(intid.get() - IntId::EXTENDED_PPI_BASE + 32)
            }
            _ => None,
        }
    }

    /// Returns the interrupt with this field index, or `None` if no interrupt has it.
    pub const fn intid_at(self, index: u32) -> Option<IntId> {
        let intid = match self {
            Self::Spi | Self::Private | Self::Banked if index < 32 => {
                return if matches!(self, Self::Spi) { None } else { Some(IntId::new(index)) };
            }
            Self::Spi | Self::Banked if index < IntId::SPI_END => IntId::new(index),
            Self::ExtendedSpi if index < IntId::EXTENDED_SPI_COUNT => {
                IntId::new(index + IntId::EXTENDED_SPI_BASE)
            }
            Self::Private if index < 32 + IntId::EXTENDED_PPI_COUNT => {
                IntId::new(index - 32 + IntId::EXTENDED_PPI_BASE)
            }
            _ => return None,
        };
        Some(intid)
    }
}

/// A register array with `bits` bits per interrupt, packed into 32-bit registers.
#[derive(Clone, Copy, Debug)]
pub struct IntIdField {
    registers: RegArray<u32, ReadWrite>,
    offset: u32,
    bits: u32,
    range: IntIdRange,
}

impl IntIdField {
    /// Creates an array of `fields` fields with `bits` bits each (1, 2 or 8), starting at `offset`.
    pub const fn at(offset: u32, bits: u32, fields: u32, range: IntIdRange) -> Self {
        Self { registers: RegArray::at(offset, fields * bits / 32), offset, bits, range }
    }

    /// Returns the same register array with fields for another range of interrupts, such as
    /// [`Banked`](IntIdRange::Banked) for the distributor of a GICv2.
    pub const fn of_range(self, range: IntIdRange) -> Self {
        Self { range, ..self }
    }

    /// Returns the registers that contain the fields.
    pub const fn registers(self) -> RegArray<u32, ReadWrite> {
        self.registers
    }

    /// Returns the number of bits per interrupt.
    pub const fn bits(self) -> u32 {
        self.bits
    }

    /// Returns the interrupts that the array covers.
    pub const fn range(self) -> IntIdRange {
        self.range
    }

    /// Returns the offset of the array's first byte in the frame.
    pub const fn offset(self) -> u32 {
        self.offset
    }

    /// Locates the interrupt's field. Returns `None` if the array has no field for the interrupt.
    pub const fn locate(self, intid: IntId) -> Option<IntIdLocation> {
        let Some(index) = self.range.index_of(intid) else { return None };
        let bit = index * self.bits;
        match self.registers.get(bit / 32) {
            Some(register) => Some(IntIdLocation { register, shift: bit % 32, bits: self.bits }),
            None => None,
        }
    }

    /// Returns the index of the lowest field in the register at `offset` bytes in the frame, and
    /// the number of fields in a 32-bit register. Returns `None` if the array does not contain that
    /// byte.
    pub const fn fields_at(self, offset: u32) -> Option<(u32, u32)> {
        match self.info("").index_of(offset) {
            Some(register) => Some((register * 32 / self.bits, 32 / self.bits)),
            None => None,
        }
    }

    /// Returns the entry for this array in a frame's register table.
    pub const fn info(self, name: &'static str) -> RegisterInfo {
        self.registers.info(name)
    }
}

/// One interrupt's field in a register array.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IntIdLocation {
    register: Reg<u32>,
    shift: u32,
    bits: u32,
}

impl IntIdLocation {
    /// Returns the 32-bit register that contains the field.
    pub const fn register(self) -> Reg<u32> {
        self.register
    }

    /// Returns the position of the field's lowest bit.
    pub const fn shift(self) -> u32 {
        self.shift
    }

    /// Returns the mask of the field's bits in the register.
    pub const fn mask(self) -> u32 {
        (u32::MAX >> (32 - self.bits)) << self.shift
    }

    /// Returns the register value `register` with this field replaced by `field`.
    pub const fn insert(self, register: u32, field: u32) -> u32 {
        (register & !self.mask()) | ((field << self.shift) & self.mask())
    }

    /// Extracts the field from the register value `register`.
    pub const fn extract(self, register: u32) -> u32 {
        (register & self.mask()) >> self.shift
    }

    /// Returns the byte offset of the field in the frame, for byte accesses to 8-bit fields.
    pub const fn byte_offset(self) -> u32 {
        self.register.offset() + self.shift / 8
    }
}
