//! Register arrays with one field per interrupt (`ISENABLER`, `IPRIORITYR`, `ICFGR` and their kin).

use crate::{IntId, IntIdClass, ReadWrite, Reg, RegArray, RegisterInfo};

/// Interrupts that an [`IntIdField`] covers, and their order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IntIdRange {
    /// Distributor, `GICD_x<n>`: fields 0–31 are RES0 with affinity routing, 32–1019 are SPIs.
    Spi,
    /// Distributor, `GICD_x<n>E`: extended SPIs 4096–5119.
    ExtendedSpi,
    /// Distributor without affinity routing (GICv2): fields 0–31 are the accessing CPU's own SGIs
    /// and PPIs, 32–1019 are SPIs.
    Banked,
    /// Redistributor, `GICR_x0` and `GICR_x<n>E`: SGIs and PPIs 0–31, then extended PPIs 1056–1119.
    Private,
}

impl IntIdRange {
    /// The field's number for an interrupt; `None` if this range does not hold it.
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

    /// The interrupt with a field's number; `None` if there is none.
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
    /// `fields` fields of `bits` (1, 2 or 8) bits each, from `offset` on.
    pub const fn at(offset: u32, bits: u32, fields: u32, range: IntIdRange) -> Self {
        Self { registers: RegArray::at(offset, fields * bits / 32), offset, bits, range }
    }

    /// The same registers, for other interrupts: [`Banked`](IntIdRange::Banked) ones of the
    /// distributor's.
    pub const fn of_range(self, range: IntIdRange) -> Self {
        Self { range, ..self }
    }

    /// The registers that hold the fields.
    pub const fn registers(self) -> RegArray<u32, ReadWrite> {
        self.registers
    }

    /// Bits per interrupt.
    pub const fn bits(self) -> u32 {
        self.bits
    }

    /// Returns the interrupts that the array covers.
    pub const fn range(self) -> IntIdRange {
        self.range
    }

    /// Offset of the array's first byte in the frame.
    pub const fn offset(self) -> u32 {
        self.offset
    }

    /// Locates the interrupt's field. Returns `None` if this array has none for it.
    pub const fn locate(self, intid: IntId) -> Option<IntIdLocation> {
        let Some(index) = self.range.index_of(intid) else { return None };
        let bit = index * self.bits;
        match self.registers.get(bit / 32) {
            Some(register) => Some(IntIdLocation { register, shift: bit % 32, bits: self.bits }),
            None => None,
        }
    }

    /// The field number of the lowest field in the register `offset` bytes into the frame, and the
    /// number of fields in a 32-bit register. `None` if the array does not hold that byte.
    pub const fn fields_at(self, offset: u32) -> Option<(u32, u32)> {
        match self.info("").index_of(offset) {
            Some(register) => Some((register * 32 / self.bits, 32 / self.bits)),
            None => None,
        }
    }

    /// This array's row of a frame's table.
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
    /// The 32-bit register.
    pub const fn register(self) -> Reg<u32> {
        self.register
    }

    /// The field's lowest bit.
    pub const fn shift(self) -> u32 {
        self.shift
    }

    /// The field's bits in the register.
    pub const fn mask(self) -> u32 {
        (u32::MAX >> (32 - self.bits)) << self.shift
    }

    /// `register` with this field replaced.
    pub const fn insert(self, register: u32, field: u32) -> u32 {
        (register & !self.mask()) | ((field << self.shift) & self.mask())
    }

    /// The field in `register`.
    pub const fn extract(self, register: u32) -> u32 {
        (register & self.mask()) >> self.shift
    }

    /// Byte offset of the field in the frame, for 8-bit fields written one by one.
    pub const fn byte_offset(self) -> u32 {
        self.register.offset() + self.shift / 8
    }
}
