//! Encodes tables and structures.

use crate::acpi::fields::{Field, Layout};
use crate::acpi::table::{HEADER_BYTES, Signature};
use alloc::string::String;
use alloc::vec::Vec;

/// The OEM names in a table's header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Oem {
    id: [u8; 6],
    table_id: [u8; 8],
}

impl Oem {
    /// Returns the names in `compatible`, where the reader stores them, or this project's names if
    /// they do not fit.
    pub(super) fn of(compatible: &[String]) -> Self {
        match compatible {
            [table_id, id] => Self::fitting(id, table_id),
            _ => None,
        }
        .unwrap_or(Self { id: *b"DRBELL", table_id: *b"DOORBELL" })
    }

    fn fitting(id: &str, table_id: &str) -> Option<Self> {
        Some(Self { id: padded(id)?, table_id: padded(table_id)? })
    }
}

/// Returns `text` in `N` bytes, padded with spaces.
fn padded<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [b' '; N];
    bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
    text.bytes().all(|byte| byte.is_ascii_graphic()).then_some(bytes)
}

/// Returns a table: a header, then `body`.
pub(super) fn table(signature: Signature, revision: u8, oem: Oem, body: &[u8]) -> Option<Vec<u8>> {
    let mut table = Vec::from(signature.get());
    table.extend(u32::try_from(HEADER_BYTES + body.len()).ok()?.to_le_bytes());
    table.extend([revision, 0]);
    table.extend(oem.id);
    table.extend(oem.table_id);
    table.extend(1u32.to_le_bytes());
    table.extend(*b"DRBL");
    table.extend(1u32.to_le_bytes());
    table.extend(body);
    let sum = table.iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte));
    if let Some(checksum) = table.get_mut(9) {
        *checksum = sum.wrapping_neg();
    }
    Some(table)
}

/// A structure or a node. Bytes that are not set are zero.
pub(super) struct Structure(pub(super) Vec<u8>);

impl Structure {
    /// Creates a structure of a type, with its length, in a revision that has all fields. A
    /// structure of the MADT has revision 0.
    pub(super) fn of(layout: Layout, revision: u8) -> Self {
        let mut bytes = Vec::from([layout.kind, layout.later, 0, revision]);
        bytes.resize(layout.later.into(), 0);
        Self(bytes)
    }

    /// Sets a field; bytes past the end are ignored.
    pub(super) fn set(mut self, field: Field, value: impl Into<u64>) -> Self {
        let bytes = value.into().to_le_bytes().into_iter().take(field.bytes);
        self.0.iter_mut().skip(field.at).zip(bytes).for_each(|(place, byte)| *place = byte);
        self
    }
}
