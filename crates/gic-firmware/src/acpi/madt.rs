//! The MADT describes CPUs, the GIC and its MSI controllers (ACPI 6.5 §5.2.12).

use super::fields::{gicc, gicd, gicr, its, msi_frame, structure_head};
use super::table::{Fields, Signature, Table, TableError, TableErrorKind};

/// Offset of the first structure, after the header, the local interrupt controller address and
/// flags.
const FIRST_STRUCTURE: usize = 44;

/// A Multiple APIC Description Table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Madt<'a>(Table<'a>);

impl<'a> Madt<'a> {
    /// Reads `table` as a MADT.
    ///
    /// # Errors
    ///
    /// Returns an error if `table` is not a MADT.
    pub fn new(table: Table<'a>) -> Result<Self, TableError> {
        table.expect(Signature::MADT).map(Self)
    }

    /// Returns the table with its header.
    pub const fn table(self) -> Table<'a> {
        self.0
    }

    /// Returns the structures in order. If an error makes the offset of the next structure unknown,
    /// the iterator ends after the error.
    pub const fn structures(self) -> MadtStructureIter<'a> {
        MadtStructureIter { table: self.0, at: FIRST_STRUCTURE }
    }
}

/// A structure of a MADT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MadtStructure {
    /// Offset in bytes from the start of the table.
    pub offset: usize,
    /// Contents of the structure.
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
    /// GICv5 structure (28–30). GICv5 is a different architecture.
    GicV5(GicV5),
    /// Structure of any other type, e.g. one for another architecture.
    Other(u8),
}

/// A CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gicc {
    /// GICv2 CPU interface number.
    pub interface: u32,
    /// ACPI processor UID.
    pub uid: u32,
    /// Flags; see [`is_enabled`](Self::is_enabled).
    pub flags: u32,
    /// Address of the memory-mapped CPU interface; 0 if the CPU has none.
    pub base: u64,
    /// Address of this CPU's redistributor; 0 if a GICR structure describes it. `None` before ACPI
    /// 5.1.
    pub redistributor: Option<u64>,
    /// Affinity fields of `MPIDR_EL1`. `None` before ACPI 5.1.
    pub mpidr: Option<u64>,
}

impl Gicc {
    /// Returns `true` if the operating system may use the CPU at boot.
    pub const fn is_enabled(self) -> bool {
        self.flags & 1 != 0
    }

    /// Returns `true` if the CPU may be brought online later (ACPI 6.5).
    pub const fn is_online_capable(self) -> bool {
        self.flags & (1 << 3) != 0
    }

    /// Returns `true` if the table accesses of this CPU's redistributor bypass the CPUs' caches
    /// (ACPI 6.6).
    pub const fn is_redistributor_non_coherent(self) -> bool {
        self.flags & (1 << 4) != 0
    }
}

/// The distributor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gicd {
    /// Identifier.
    pub id: u32,
    /// Address of the registers.
    pub base: u64,
    /// GIC version; 0 if the operating system must read it from the hardware.
    pub version: u8,
}

/// A GICv2m frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MsiFrame {
    /// Identifier.
    pub id: u32,
    /// Address of the registers.
    pub base: u64,
    /// First SPI and number of SPIs, if they override the frame's `MSI_TYPER`.
    pub spis: Option<(u16, u16)>,
}

/// A redistributor region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gicr {
    /// `true` if the redistributors' table accesses bypass the CPUs' caches (ACPI 6.6).
    pub non_coherent: bool,
    /// Address of the first redistributor's registers.
    pub base: u64,
    /// Length in bytes.
    pub length: u32,
}

/// An ITS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GicIts {
    /// `true` if the ITS's table accesses bypass the CPUs' caches (ACPI 6.6).
    pub non_coherent: bool,
    /// ID that the IORT uses for the ITS.
    pub id: u32,
    /// Address of the registers.
    pub base: u64,
}

/// A GICv5 structure (ACPI 6.7).
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
    /// Returns the name of the structure.
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
            gicc::KIND => Self::Gicc(Gicc::read(fields)?),
            gicd::KIND => Self::Gicd(Gicd {
                id: gicd::ID.read(fields)?,
                base: gicd::BASE.read(fields)?,
                version: gicd::VERSION.read(fields)?,
            }),
            msi_frame::KIND => Self::MsiFrame(MsiFrame::read(fields)?),
            gicr::KIND => Self::Gicr(Gicr {
                non_coherent: gicr::FLAGS.has(fields, 1)?,
                base: gicr::BASE.read(fields)?,
                length: gicr::LENGTH.read(fields)?,
            }),
            its::KIND => Self::Its(GicIts {
                non_coherent: its::FLAGS.has(fields, 1)?,
                id: its::ID.read(fields)?,
                base: its::BASE.read(fields)?,
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
        // ACPI 5.0 lacks the virtualization fields, the redistributor's address and the MPIDR.
        let is_5_0 = fields.0.len() == usize::from(gicc::LAYOUT.first);
        Some(Self {
            interface: gicc::INTERFACE.read(fields)?,
            uid: gicc::UID.read(fields)?,
            flags: gicc::FLAGS.read(fields)?,
            base: gicc::BASE.read(fields)?,
            redistributor: if is_5_0 { None } else { Some(gicc::REDISTRIBUTOR.read(fields)?) },
            mpidr: if is_5_0 { None } else { Some(gicc::MPIDR.read(fields)?) },
        })
    }
}

impl MsiFrame {
    fn read(fields: Fields<'_>) -> Option<Self> {
        let spis = (msi_frame::SPI_BASE.read(fields)?, msi_frame::SPI_COUNT.read(fields)?);
        Some(Self {
            id: msi_frame::ID.read(fields)?,
            base: msi_frame::BASE.read(fields)?,
            spis: msi_frame::FLAGS.has(fields, 1)?.then_some(spis),
        })
    }
}

/// An iterator over the structures of a MADT.
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
        let length = structure_head::LENGTH.read(fields).unwrap_or(rest.len());
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
