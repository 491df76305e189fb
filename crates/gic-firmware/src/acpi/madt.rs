//! The MADT: CPUs, the GIC and its MSI controllers (ACPI 6.5 §5.2.12).

use super::table::{Fields, Signature, Table, TableError, TableErrorKind};

/// The first structure's offset, after the header, the local interrupt controller address, flags.
const FIRST_STRUCTURE: usize = 44;

/// A GICC of ACPI 5.0 ends before the virtualization fields, the redistributor and the MPIDR.
const GICC_5_0_BYTES: usize = 40;

/// A Multiple APIC Description Table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Madt<'a>(Table<'a>);

impl<'a> Madt<'a> {
    /// Reads `table` as a MADT.
    ///
    /// # Errors
    ///
    /// It is another table.
    pub fn new(table: Table<'a>) -> Result<Self, TableError> {
        table.expect(Signature::MADT).map(Self)
    }

    /// The table with its header.
    pub const fn table(self) -> Table<'a> {
        self.0
    }

    /// The structures in their order. After an error that leaves the next one's place unknown,
    /// none.
    pub const fn structures(self) -> MadtStructureIter<'a> {
        MadtStructureIter { table: self.0, at: FIRST_STRUCTURE }
    }
}

/// A structure of a MADT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MadtStructure {
    /// Bytes from the table's start.
    pub offset: usize,
    /// Its contents.
    pub contents: MadtContents,
}

/// The contents of a MADT structure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum MadtContents {
    /// GIC CPU interface (type 11): a CPU.
    Gicc(Gicc),
    /// GIC distributor (12).
    Gicd(Gicd),
    /// GIC MSI frame (13), a GICv2m.
    MsiFrame(MsiFrame),
    /// GIC redistributor region (14).
    Gicr(Gicr),
    /// GIC ITS (15).
    Its(GicIts),
    /// A structure of GICv5 (28–30), which is another architecture.
    GicV5(GicV5),
    /// A structure of another type, such as another architecture's.
    Other(u8),
}

/// A CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gicc {
    /// GICv2's CPU interface number.
    pub interface: u32,
    /// The ACPI processor UID.
    pub uid: u32,
    /// The flags; see [`is_enabled`](Self::is_enabled).
    pub flags: u32,
    /// The memory-mapped CPU interface; 0 = none.
    pub base: u64,
    /// This CPU's redistributor; 0 = GICR structures describe it. `None` before ACPI 5.1.
    pub redistributor: Option<u64>,
    /// `MPIDR_EL1`'s affinity fields. `None` before ACPI 5.1.
    pub mpidr: Option<u64>,
}

impl Gicc {
    /// May the operating system use the CPU from the beginning?
    pub const fn is_enabled(self) -> bool {
        self.flags & 1 != 0
    }

    /// May it be brought online later (ACPI 6.5)?
    pub const fn is_online_capable(self) -> bool {
        self.flags & (1 << 3) != 0
    }

    /// Do this CPU's redistributor's table accesses bypass the CPUs' caches (ACPI 6.6)?
    pub const fn is_redistributor_non_coherent(self) -> bool {
        self.flags & (1 << 4) != 0
    }
}

/// The distributor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gicd {
    /// Its identifier.
    pub id: u32,
    /// Its registers.
    pub base: u64,
    /// The GIC's version; 0 = the hardware says it.
    pub version: u8,
}

/// A GICv2m frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MsiFrame {
    /// Its identifier.
    pub id: u32,
    /// Its registers.
    pub base: u64,
    /// The first SPI and the number of SPIs, if they override the frame's `MSI_TYPER`.
    pub spis: Option<(u16, u16)>,
}

/// A region full of redistributors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gicr {
    /// Do their table accesses bypass the CPUs' caches (ACPI 6.6)?
    pub non_coherent: bool,
    /// The first one's registers.
    pub base: u64,
    /// Bytes.
    pub length: u32,
}

/// An ITS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GicIts {
    /// Do its table accesses bypass the CPUs' caches (ACPI 6.6)?
    pub non_coherent: bool,
    /// The number by which IORT refers to it.
    pub id: u32,
    /// Its registers.
    pub base: u64,
}

/// A structure of GICv5 (ACPI 6.7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GicV5 {
    /// Interrupt Routing Service.
    Irs,
    /// ITS configuration frame.
    Its,
    /// ITS translate frame.
    ItsTranslate,
}

impl GicV5 {
    /// The structure's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Irs => "IRS",
            Self::Its => "ITS configuration frame",
            Self::ItsTranslate => "ITS translate frame",
        }
    }
}

impl MadtContents {
    /// Reads the structure `bytes`; `None` if it is too short.
    fn read(kind: u8, bytes: &[u8]) -> Option<Self> {
        let fields = Fields(bytes);
        Some(match kind {
            11 => Self::Gicc(Gicc::read(fields)?),
            12 => Self::Gicd(Gicd {
                id: fields.u32(4)?,
                base: fields.u64(8)?,
                version: fields.u8(20)?,
            }),
            13 => Self::MsiFrame(MsiFrame::read(fields)?),
            14 => Self::Gicr(Gicr {
                non_coherent: fields.u8(2)? & 1 != 0,
                base: fields.u64(4)?,
                length: fields.u32(12)?,
            }),
            15 => Self::Its(GicIts {
                non_coherent: fields.u8(2)? & 1 != 0,
                id: fields.u32(4)?,
                base: fields.u64(8)?,
            }),
            28 => Self::GicV5(GicV5::Irs),
            29 => Self::GicV5(GicV5::Its),
            30 => Self::GicV5(GicV5::ItsTranslate),
            other => Self::Other(other),
        })
    }
}

impl Gicc {
    fn read(fields: Fields<'_>) -> Option<Self> {
        let is_5_0 = fields.0.len() == GICC_5_0_BYTES;
        Some(Self {
            interface: fields.u32(4)?,
            uid: fields.u32(8)?,
            flags: fields.u32(12)?,
            base: fields.u64(32)?,
            redistributor: if is_5_0 { None } else { Some(fields.u64(60)?) },
            mpidr: if is_5_0 { None } else { Some(fields.u64(68)?) },
        })
    }
}

impl MsiFrame {
    fn read(fields: Fields<'_>) -> Option<Self> {
        let overrides = fields.u32(16)? & 1 != 0;
        let (count, first) = (fields.u16(20)?, fields.u16(22)?);
        Some(Self {
            id: fields.u32(4)?,
            base: fields.u64(8)?,
            spis: overrides.then_some((first, count)),
        })
    }
}

/// The structures of a MADT.
#[derive(Clone, Debug)]
pub struct MadtStructureIter<'a> {
    table: Table<'a>,
    at: usize,
}

impl Iterator for MadtStructureIter<'_> {
    type Item = Result<MadtStructure, TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.at;
        let rest = self.table.bytes().get(offset..).filter(|rest| !rest.is_empty())?;
        let fields = Fields(rest);
        let length = fields.u8(1).map_or(rest.len(), usize::from);
        let structure = fields.slice(0, length).filter(|structure| structure.len() >= 2);
        let Some(structure) = structure else {
            self.at = self.table.bytes().len();
            return Some(Err(self.table.error(offset, TableErrorKind::StructureLength(length))));
        };
        self.at = offset.saturating_add(length);
        let kind = fields.u8(0)?;
        let contents = MadtContents::read(kind, structure);
        let short = TableErrorKind::ShortStructure { kind, length };
        let contents = contents.ok_or(self.table.error(offset, short));
        Some(contents.map(|contents| MadtStructure { offset, contents }))
    }
}
