//! Writes descriptions as ACPI tables.

mod iort;
mod madt;
mod numbering;
mod source;

pub use madt::Extensions;
pub use numbering::{WriteError, WriteErrorKind};
pub use source::iort_source;

use super::fields::allocation;
use super::table::Signature;
use crate::description::{BusRange, ConfigAccess, Description};
use crate::finding::NodeId;
use alloc::vec::Vec;
use numbering::{Oem, Segments, Structure, table};

/// Revisions of the MADT (ACPI 6.6), of the MCFG, and of the IORT (DEN 0049D), all of which
/// compilers and operating systems support.
const MADT_REVISION: u8 = 7;
const MCFG_REVISION: u8 = 1;
const IORT_REVISION: u8 = 0;

/// The tables of a machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WrittenTables {
    /// CPUs, GIC and MSI controllers.
    pub madt: Vec<u8>,
    /// PCI configuration space, if the machine has any.
    pub mcfg: Option<Vec<u8>>,
    /// Routing of requester IDs, if a device signals through an ITS.
    pub iort: Option<Vec<u8>>,
}

impl WrittenTables {
    /// Returns all tables with their signatures.
    pub fn all(&self) -> impl Iterator<Item = (Signature, &[u8])> {
        let others = [(Signature::MCFG, &self.mcfg), (Signature::IORT, &self.iort)];
        let others = others.into_iter().filter_map(|(name, table)| Some((name, table.as_deref()?)));
        [(Signature::MADT, self.madt.as_slice())].into_iter().chain(others)
    }
}

/// Writes `description` as ACPI tables, for simulated machines, tests and conversion.
///
/// Enabled controllers, hosts and devices read back with the same registers, DeviceIDs and routes.
/// Disabled parts are omitted, because these tables only list usable parts. IOMMUs and the FADT are
/// omitted as well, and a path through IOMMUs becomes a direct mapping to the controller. Nodes are
/// named as [`parse`](super::parse) would name them, and nodes without a number in their identifier
/// are numbered in order. If a description uses these names and has no disabled parts, it reads
/// back equal.
///
/// # Errors
///
/// Returns an error if `description` cannot be expressed in these tables. The caller is at fault.
pub fn write(description: &Description) -> Result<WrittenTables, WriteError> {
    write_with(description, Extensions::default())
}

/// Writes `description` like [`write()`], with these extensions.
///
/// # Errors
///
/// Returns an error if `description` cannot be expressed in these tables. The caller is at fault.
pub fn write_with(
    description: &Description,
    extensions: Extensions,
) -> Result<WrittenTables, WriteError> {
    let oem = Oem::of(&description.compatible);
    let segments = Segments::of(description)?;
    let finish = |id: &NodeId, signature, revision, body: Vec<u8>| {
        table(signature, revision, oem, &body).ok_or_else(|| WriteErrorKind::TooLong.of(id))
    };
    let gic =
        description.gic.as_ref().ok_or_else(|| WriteErrorKind::NoGic.of(&NodeId::new("MADT")))?;
    let madt = madt::body(description, gic, extensions)?;
    let mcfg = mcfg(description, &segments)?;
    let iort = iort::body(description, &segments)?;
    Ok(WrittenTables {
        madt: finish(&gic.id, Signature::MADT, MADT_REVISION, madt)?,
        mcfg: mcfg.map(|body| finish(&gic.id, Signature::MCFG, MCFG_REVISION, body)).transpose()?,
        iort: iort.map(|body| finish(&gic.id, Signature::IORT, IORT_REVISION, body)).transpose()?,
    })
}

fn mcfg(description: &Description, segments: &Segments<'_>) -> Result<Option<Vec<u8>>, WriteError> {
    let mut body = Vec::from([0; 8]);
    for (segment, host) in segments.hosts() {
        let Some(ConfigAccess::Ecam(ecam)) = host.config.as_ref().map(|config| config.value) else {
            continue;
        };
        let BusRange { first, last } = host.buses.value;
        let more = (ecam.size() >> 20).saturating_sub(1).min(u64::from(last - first));
        let last = u64::from(first) + more;
        let base = ecam.base().checked_sub(u64::from(first) << 20);
        let fields = base.zip(u16::try_from(*segment).ok()).zip(u8::try_from(last).ok());
        let ((base, segment), last) =
            fields.ok_or_else(|| WriteErrorKind::ConfigAccess.of(&host.id))?;
        let allocation = Structure(Vec::from([0; 16]))
            .set(allocation::BASE, base)
            .set(allocation::SEGMENT, segment)
            .set(allocation::FIRST_BUS, first)
            .set(allocation::LAST_BUS, last);
        body.extend(allocation.0);
    }
    let is_needed = body.len() > 8 && !description.hosts.is_empty();
    Ok(is_needed.then_some(body))
}
