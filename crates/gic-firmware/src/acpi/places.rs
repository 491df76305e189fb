//! Names structures of tables, so that facts and findings can state their origins.

use super::table::{Signature, TableError};
use crate::finding::{FindingList, Rule};
use crate::origin::{NodeId, Origin};
use alloc::format;
use alloc::string::{String, ToString as _};

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
