//! The header that every ACPI table begins with, and fields read within bounds.

use core::fmt;
use core::ops::Range;

/// Bytes of a table's header (ACPI 6.5 §5.2.6).
pub(super) const HEADER_BYTES: usize = 36;

/// The four characters that name a kind of table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature([u8; 4]);

impl Signature {
    /// Multiple APIC Description Table, the MADT.
    pub const MADT: Self = Self(*b"APIC");
    /// IO Remapping Table.
    pub const IORT: Self = Self(*b"IORT");
    /// PCI memory-mapped configuration space.
    pub const MCFG: Self = Self(*b"MCFG");
    /// Root System Description Pointer, which is no table; these are the first characters of its
    /// own.
    pub(super) const RSDP: Self = Self(*b"RSD ");
    /// Extended System Description Table.
    pub const XSDT: Self = Self(*b"XSDT");

    /// These four characters.
    pub const fn new(characters: [u8; 4]) -> Self {
        Self(characters)
    }

    /// The four characters.
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

/// A table cannot be read, or a part of it. The table's producer is at fault, or its transport.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[error("{table} byte {offset:#x}: {kind}")]
pub struct TableError {
    /// The table.
    pub table: Signature,
    /// Bytes from the table's start.
    pub offset: usize,
    /// The fault.
    pub kind: TableErrorKind,
}

/// A table's fault.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableErrorKind {
    /// There are fewer bytes than a header has.
    #[error("the input is too short for a table's header")]
    NoHeader,
    /// The header states fewer bytes than it has itself, or more than there are.
    #[error("the header states {0} bytes, which is not what there are")]
    Length(u32),
    /// It is another kind of table.
    #[error("this is a table {0}")]
    Signature(Signature),
    /// A structure states a length that leads nowhere.
    #[error("a structure of {0} bytes cannot stand here")]
    StructureLength(usize),
    /// A structure is shorter than the fields that its type has.
    #[error("a structure of type {kind} has {length} bytes, too few for its fields")]
    ShortStructure {
        /// The structure's type.
        kind: u8,
        /// Its length.
        length: usize,
    },
    /// An array reaches past the structure that holds it.
    #[error("an array of {0} elements reaches past its structure")]
    Array(u32),
    /// The table that the machine cannot be described without is absent.
    #[error("there is no such table")]
    Absent,
    /// An address leads to memory that cannot be read.
    #[error("nothing can be read at address {0:#x}")]
    Unreadable(u64),
    /// The root pointer has no XSDT, which Arm systems must have.
    #[error("the root pointer names no XSDT")]
    NoXsdt,
}

impl TableErrorKind {
    pub(super) const fn at(self, table: Signature, offset: usize) -> TableError {
        TableError { table, offset, kind: self }
    }
}

/// A table of at least a header, as long as its header states.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Table<'a> {
    bytes: &'a [u8],
    signature: Signature,
}

impl<'a> Table<'a> {
    /// The table that `bytes` begin with. Bytes after it are ignored.
    ///
    /// # Errors
    ///
    /// The header is incomplete, or states a length that is not there.
    pub fn new(bytes: &'a [u8]) -> Result<Self, TableError> {
        let characters = bytes.first_chunk().copied().unwrap_or(*b"????");
        let signature = Signature(characters);
        let header = bytes.get(..HEADER_BYTES).ok_or(TableErrorKind::NoHeader.at(signature, 0))?;
        let stated = Fields(header).u32(4).unwrap_or_default();
        let length = usize::try_from(stated).ok().filter(|&length| length >= HEADER_BYTES);
        let bytes = length.and_then(|length| bytes.get(..length));
        Ok(Self { bytes: bytes.ok_or(TableErrorKind::Length(stated).at(signature, 4))?, signature })
    }

    /// The kind of table.
    pub const fn signature(self) -> Signature {
        self.signature
    }

    /// All its bytes.
    pub const fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The revision of its layout.
    pub fn revision(self) -> u8 {
        self.fields().u8(8).unwrap_or_default()
    }

    /// Do its bytes add up to zero, as they have to?
    pub fn is_checksum_right(self) -> bool {
        self.bytes.iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte)) == 0
    }

    /// OEM ID, without padding; empty if it is no printable ASCII.
    pub fn oem_id(self) -> &'a str {
        self.padded(10..16)
    }

    /// OEM table ID, without padding; empty if it is no printable ASCII.
    pub fn oem_table_id(self) -> &'a str {
        self.padded(16..24)
    }

    /// This table if it is one of `signature`.
    pub(super) fn expect(self, signature: Signature) -> Result<Self, TableError> {
        if self.signature == signature {
            return Ok(self);
        }
        Err(TableErrorKind::Signature(self.signature).at(signature, 0))
    }

    pub(super) fn fields(self) -> Fields<'a> {
        Fields(self.bytes)
    }

    /// This fault in this table.
    pub(super) const fn error(self, offset: usize, kind: TableErrorKind) -> TableError {
        kind.at(self.signature, offset)
    }

    fn padded(self, range: Range<usize>) -> &'a str {
        let bytes = self.bytes.get(range).unwrap_or_default();
        let text = core::str::from_utf8(bytes).unwrap_or_default();
        let text = text.trim_end_matches([' ', '\0']);
        let is_printable = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if is_printable { text } else { "" }
    }
}

/// Little-endian fields of a structure, by their offsets in it; `None` outside of it.
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

    /// `length` bytes from `at` on.
    pub(super) fn slice(self, at: usize, length: usize) -> Option<&'a [u8]> {
        self.0.get(at..at.checked_add(length)?)
    }
}
