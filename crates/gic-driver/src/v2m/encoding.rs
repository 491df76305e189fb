//! Encoding of SPIs in messages. Some implementations don't use the INTID as data.

/// Encoding of an SPI in a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Encoding {
    /// The data is the INTID minus `base`.
    Data { base: u32 },
    /// The address is the frame's address, with the INTID minus 32 in bits 3 and up. The data is
    /// ignored.
    Address,
}

/// INTID that corresponds to data 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DataBase {
    /// Base 0: the data is the INTID itself.
    Zero,
    /// The first SPI (INTID 32).
    FirstSpi,
    /// The frame's first SPI.
    FirstOfFrame,
}

/// An implementation whose message data is relative to a nonzero INTID.
struct Implementation {
    /// `MSI_IIDR`.
    iidr: u32,
    base: DataBase,
}

/// Known implementations whose message data is relative to a nonzero INTID.
const TABLE: &[Implementation] = &[
    // APM X-Gene 1.
    Implementation { iidr: 0x0600_0170, base: DataBase::FirstOfFrame },
    // Broadcom Northstar 2.
    Implementation { iidr: 0x0000_013f, base: DataBase::FirstSpi },
];

/// MADT OEM IDs for machines whose frames have 8 KiB of doorbells and no registers (Amazon
/// Graviton).
const ADDRESS_ONLY: &[&str] = &["AMAZON"];

/// Returns the data base for frames with this `MSI_IIDR`.
pub(super) fn data_base(iidr: u32) -> DataBase {
    TABLE.iter().find(|row| row.iidr == iidr).map_or(DataBase::Zero, |row| row.base)
}

/// Returns `true` if frames on this OEM's machines encode the SPI in the address.
pub(super) fn is_address_only(oem_id: &str) -> bool {
    ADDRESS_ONLY.contains(&oem_id.trim_end())
}
