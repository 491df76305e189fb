//! The common ACPI table header, bounds-checked access to fields, and the names of structures that
//! facts and findings state as their origins.

use crate::finding::{FindingList, NodeId, Origin, Rule};
use alloc::format;
use alloc::string::{String, ToString as _};
use core::fmt;
use core::ops::Range;

/// Length of a table's header in bytes (ACPI 6.5 §5.2.6).
pub(super) const HEADER_BYTES: usize = 36;

/// Four characters that identify a kind of table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature([u8; 4]);

impl Signature {
    /// Multiple APIC Description Table, the MADT.
    pub const MADT: Self = Self(*b"APIC");
    /// IO Remapping Table.
    pub const IORT: Self = Self(*b"IORT");
    /// PCI memory-mapped configuration space.
    pub const MCFG: Self = Self(*b"MCFG");
    /// Fixed ACPI Description Table, the FADT.
    pub const FADT: Self = Self(*b"FACP");
    /// Processor Properties Topology Table.
    pub const PPTT: Self = Self(*b"PPTT");
    /// First four characters of the signature of the Root System Description Pointer, which is not
    /// a table.
    pub(super) const RSDP: Self = Self(*b"RSD ");
    /// Extended System Description Table.
    pub const XSDT: Self = Self(*b"XSDT");

    /// Creates a signature of four characters.
    pub const fn new(characters: [u8; 4]) -> Self {
        Self(characters)
    }

    /// Returns the four characters.
    pub const fn get(self) -> [u8; 4] {
        self.0
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            let shown = if byte.is_ascii_graphic() { char::from(byte) } else { '?' };
            write!(f, "{shown}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({self})")
    }
}

/// A table that cannot be read completely. Either the producer or the transport of the table is at
/// fault.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[error("{table} byte {offset:#x}: {kind}")]
pub struct TableError {
    /// Table with the defect.
    pub table: Signature,
    /// Offset in bytes from the start of the table.
    pub offset: usize,
    /// Kind of defect.
    pub kind: TableErrorKind,
}

/// A kind of defect in a table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableErrorKind {
    /// The input is shorter than a header.
    #[error("the input is too short for a table's header")]
    NoHeader,
    /// The header states a length below its own size, or beyond the end of the input.
    #[error("the header states an impossible length of {0} bytes")]
    Length(u32),
    /// The table has another signature.
    #[error("this is a table of kind {0}")]
    Signature(Signature),
    /// A structure's stated length is below the minimum or reaches past the table.
    #[error("a structure here cannot have {0} bytes")]
    StructureLength(usize),
    /// A structure is shorter than the fields of its type.
    #[error("a structure of type {kind} has {length} bytes, too few for its fields")]
    ShortStructure {
        /// Type of the structure.
        kind: u8,
        /// Length of the structure in bytes.
        length: usize,
    },
    /// An array reaches past the structure that contains it.
    #[error("an array of {0} elements reaches past its structure")]
    Array(u32),
    /// A required table is absent.
    #[error("the table is absent")]
    Absent,
    /// Memory at an address cannot be read.
    #[error("the memory at address {0:#x} cannot be read")]
    Unreadable(u64),
    /// The root pointer does not refer to an XSDT, which Arm systems must have.
    #[error("the root pointer does not refer to an XSDT")]
    NoXsdt,
}

impl TableErrorKind {
    pub(super) const fn at(self, table: Signature, offset: usize) -> TableError {
        TableError { table, offset, kind: self }
    }
}

/// A table with a complete header, and with the length that the header states.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Table<'a> {
    bytes: &'a [u8],
    /// The table and all bytes after it.
    with_rest: &'a [u8],
    signature: Signature,
}

impl<'a> Table<'a> {
    /// Reads the table at the start of `bytes`. Bytes that follow the table are ignored.
    ///
    /// # Errors
    ///
    /// Returns an error if the header is incomplete, or if it states a length below its own size or
    /// beyond the end of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Result<Self, TableError> {
        let characters = bytes.first_chunk().copied().unwrap_or(*b"????");
        let signature = Signature(characters);
        let header = bytes.get(..HEADER_BYTES).ok_or(TableErrorKind::NoHeader.at(signature, 0))?;
        let stated = Fields(header).u32(4).unwrap_or_default();
        let length = usize::try_from(stated).ok().filter(|&length| length >= HEADER_BYTES);
        let table = length.and_then(|length| bytes.get(..length));
        let table = table.ok_or(TableErrorKind::Length(stated).at(signature, 4))?;
        Ok(Self { bytes: table, with_rest: bytes, signature })
    }

    /// Returns the signature, which identifies the kind of table.
    pub const fn signature(self) -> Signature {
        self.signature
    }

    /// Returns all bytes of the table.
    pub const fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Returns all bytes from the start of the table, including those after its stated end.
    pub(super) const fn with_rest(self) -> &'a [u8] {
        self.with_rest
    }

    /// Returns the revision of the table's layout.
    pub fn revision(self) -> u8 {
        self.fields().u8(8).unwrap_or_default()
    }

    /// Returns `true` if the table's bytes add up to zero, as they must.
    pub fn is_checksum_right(self) -> bool {
        self.bytes.iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte)) == 0
    }

    /// Returns the OEM ID without padding; empty if it is not printable ASCII.
    pub fn oem_id(self) -> &'a str {
        self.padded(10..16)
    }

    /// Returns the OEM table ID without padding; empty if it is not printable ASCII.
    pub fn oem_table_id(self) -> &'a str {
        self.padded(16..24)
    }

    /// Returns this table if its signature is `signature`.
    pub(super) fn expect(self, signature: Signature) -> Result<Self, TableError> {
        if self.signature == signature {
            return Ok(self);
        }
        Err(TableErrorKind::Signature(self.signature).at(signature, 0))
    }

    pub(super) fn fields(self) -> Fields<'a> {
        Fields(self.bytes)
    }

    /// Creates the error for a defect at `offset` in this table.
    pub(super) const fn error(self, offset: usize, kind: TableErrorKind) -> TableError {
        kind.at(self.signature, offset)
    }

    pub(super) fn padded(self, range: Range<usize>) -> &'a str {
        let bytes = self.bytes.get(range).unwrap_or_default();
        let text = core::str::from_utf8(bytes).unwrap_or_default();
        let text = text.trim_end_matches([' ', '\0']);
        let is_printable = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if is_printable { text } else { "" }
    }
}

/// A structure's little-endian fields, addressed by offset. Reading past the end returns `None`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn u8(self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    pub(super) fn u16(self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_le_bytes)
    }

    pub(super) fn u32(self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_le_bytes)
    }

    pub(super) fn u64(self, at: usize) -> Option<u64> {
        self.array(at).map(u64::from_le_bytes)
    }

    pub(super) fn array<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..)?.first_chunk().copied()
    }

    /// Returns `length` bytes from offset `at` on.
    pub(super) fn slice(self, at: usize, length: usize) -> Option<&'a [u8]> {
        self.0.get(at..at.checked_add(length)?)
    }
}

/// Returns the value, or adds the error as a finding and returns `None`.
pub(super) fn sound<T>(result: Result<T, TableError>, findings: &mut FindingList) -> Option<T> {
    result
        .map_err(|error| {
            let origin = origin(error.table, error.offset, "");
            findings.add(Rule::MalformedTable, origin, error.kind.to_string());
        })
        .ok()
}

/// Returns the origin of `item` in the structure at `offset`.
pub(super) fn origin(table: Signature, offset: usize, item: &'static str) -> Origin {
    let name = if table == Signature::MADT { String::from("MADT") } else { table.to_string() };
    Origin::new(format!("{name}+{offset:#x}").into(), item)
}

/// Returns the origin of `item` in the structure at `offset` of the MADT.
pub(super) fn in_madt(offset: usize, item: &'static str) -> Origin {
    origin(Signature::MADT, offset, item)
}

/// Returns the name of a numbered structure of the MADT.
pub(super) fn madt_id(structure: &str, number: u32) -> NodeId {
    NodeId::from(format!("MADT/{structure}@{number}"))
}
