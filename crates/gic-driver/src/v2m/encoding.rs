//! Encodings of an SPI in a message: some implementations take other data than the INTID.

/// The name of an SPI in a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Encoding {
    /// The data is the INTID minus this.
    Data { base: u32 },
    /// The address is the frame's with the SPI's number, counted from 32, in bits from 3 on; the
    /// data says nothing.
    Address,
}

/// From where the data counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DataBase {
    /// From INTID 0: the data is the INTID.
    Zero,
    /// From the first SPI, 32.
    FirstSpi,
    /// From the frame's own first SPI.
    FirstOfFrame,
}

/// An implementation whose data counts from another base.
struct Implementation {
    /// `MSI_IIDR`.
    iidr: u32,
    base: DataBase,
}

/// All implementations that are known to count otherwise.
const TABLE: &[Implementation] = &[
    // APM X-Gene 1.
    Implementation { iidr: 0x0600_0170, base: DataBase::FirstOfFrame },
    // Broadcom Northstar 2.
    Implementation { iidr: 0x0000_013f, base: DataBase::FirstSpi },
];

/// OEM IDs of the MADT on machines whose frames have 8 KiB of doorbells and no registers: Amazon
/// Graviton.
const ADDRESS_ONLY: &[&str] = &["AMAZON"];

/// From where the data of a frame with this `MSI_IIDR` counts.
pub(super) fn data_base(iidr: u32) -> DataBase {
    TABLE.iter().find(|row| row.iidr == iidr).map_or(DataBase::Zero, |row| row.base)
}

/// Do frames on a machine of this OEM take the address alone?
pub(super) fn is_address_only(oem_id: &str) -> bool {
    ADDRESS_ONLY.contains(&oem_id.trim_end())
}
