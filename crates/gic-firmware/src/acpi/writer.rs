//! A description as ACPI tables.

mod bytes;
mod iort;
mod madt;

use super::table::Signature;
use crate::controller::{Controller, ControllerKind};
use crate::description::Description;
use crate::origin::NodeId;
use crate::requester::{BusRange, ConfigSpace, PciHost};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bytes::{Oem, Structure, table};

/// The revision of the MADT of ACPI 6.6, of the MCFG, and of the IORT of DEN 0049E.e.
const MADT_REVISION: u8 = 7;
const MCFG_REVISION: u8 = 1;
const IORT_REVISION: u8 = 6;

/// The tables of a machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WrittenTables {
    /// CPUs, GIC and MSI controllers.
    pub madt: Vec<u8>,
    /// PCI configuration space, if there is any.
    pub mcfg: Option<Vec<u8>>,
    /// Requester IDs, if anything signals through an ITS.
    pub iort: Option<Vec<u8>>,
}

impl WrittenTables {
    /// All of them, with their signatures.
    pub fn all(&self) -> impl Iterator<Item = (Signature, &[u8])> {
        let others = [(Signature::MCFG, &self.mcfg), (Signature::IORT, &self.iort)];
        let others = others.into_iter().filter_map(|(name, table)| Some((name, table.as_deref()?)));
        [(Signature::MADT, self.madt.as_slice())].into_iter().chain(others)
    }
}

/// Writes `description` as ACPI tables, for simulated machines, for tests and for conversion.
///
/// Read back, the enabled controllers, hosts and devices have the same registers, DeviceIDs and routes.
/// Disabled ones are left out: these tables list what can be used. Names become those that
/// [`parse`](super::parse) gives, numbered in order unless they carry a number already; with such names, and
/// without disabled parts, what is written reads back equal.
///
/// # Errors
///
/// The caller's description says something that these tables cannot.
pub fn write(description: &Description) -> Result<WrittenTables, WriteError> {
    let oem = Oem::of(&description.compatible);
    let segments = Segments::of(description)?;
    let finish = |id: &NodeId, signature, revision, body: Vec<u8>| {
        table(signature, revision, oem, &body).ok_or_else(|| WriteErrorKind::TooLong.of(id))
    };
    let gic = description.gic.as_ref().ok_or_else(|| WriteErrorKind::NoGic.of(&NodeId::new("MADT")))?;
    let madt = madt::body(description, gic)?;
    let mcfg = mcfg(description, &segments)?;
    let iort = iort::body(description, &segments)?;
    Ok(WrittenTables {
        madt: finish(&gic.id, Signature::MADT, MADT_REVISION, madt)?,
        mcfg: mcfg.map(|body| finish(&gic.id, Signature::MCFG, MCFG_REVISION, body)).transpose()?,
        iort: iort.map(|body| finish(&gic.id, Signature::IORT, IORT_REVISION, body)).transpose()?,
    })
}

/// A description that ACPI tables cannot express. The caller is at fault.
#[derive(Clone, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[error("{id}: {kind}")]
pub struct WriteError {
    /// The part that cannot be expressed.
    pub id: NodeId,
    /// The reason.
    pub kind: WriteErrorKind,
}

/// The reason why a description cannot be written as ACPI tables.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteErrorKind {
    /// A MADT without a distributor describes no machine of this family.
    #[error("the description has no enabled GIC")]
    NoGic,
    /// A stride, a pre-ITS window and a region of 4 GiB have no field.
    #[error("these registers have no field in the MADT")]
    Registers,
    /// Only ITSes and GICv2m frames have structures.
    #[error("ACPI has no structure for this kind of controller")]
    Controller,
    /// The host's buses start below address 0, or its segment has more than 16 bits.
    #[error("MCFG cannot express its configuration space")]
    ConfigSpace,
    /// Two hosts share a segment but not their routing.
    #[error("another host of the same segment has another routing")]
    Segment,
    /// The mask is neither all ones nor zero.
    #[error("IORT has no mask of requester IDs")]
    Mask,
    /// IORT leads to ITSes; a GICv2m frame serves everything, if it is the first and no ITS is there.
    #[error("IORT cannot lead it to this controller")]
    Route,
    /// A table or a structure would be longer than its length field allows.
    #[error("there is more of it than a table can hold")]
    TooLong,
}

impl WriteErrorKind {
    fn of(self, id: &NodeId) -> WriteError {
        WriteError { id: id.clone(), kind: self }
    }
}

/// The number that `id` ends with, if it was given by the reader.
fn number(id: &NodeId, prefix: &str) -> Option<u32> {
    id.as_str().strip_prefix(prefix)?.parse().ok()
}

/// A number for each of `ids`: its own, else the lowest that is free.
fn numbers<'d>(ids: impl Iterator<Item = &'d NodeId> + Clone, prefix: &str) -> Vec<u32> {
    let mut taken: Vec<u32> = ids.clone().filter_map(|id| number(id, prefix)).collect();
    taken.sort_unstable();
    let mut free = (0..=u32::MAX).filter(|number| taken.binary_search(number).is_err());
    ids.map(|id| number(id, prefix).or_else(|| free.next()).unwrap_or_default()).collect()
}

/// The enabled controllers of `kind` with their places in the description and their numbers.
fn numbered<'d>(
    description: &'d Description,
    kind: &ControllerKind,
    prefix: &str,
) -> Vec<(usize, &'d Controller, u32)> {
    let all = description.controllers.iter().enumerate();
    let these: Vec<_> = all.filter(|(_, one)| one.kind == *kind && one.status.is_enabled()).collect();
    let numbers = numbers(these.iter().map(|(_, one)| &one.id), prefix);
    these.into_iter().zip(numbers).map(|((place, one), number)| (place, one, number)).collect()
}

/// The enabled hosts by segment, in the order of the description within each.
struct Segments<'d>(Vec<(u32, &'d PciHost)>);

impl<'d> Segments<'d> {
    fn of(description: &'d Description) -> Result<Self, WriteError> {
        let enabled = || description.hosts.iter().filter(|host| host.status.is_enabled());
        let stated = |host: &PciHost| host.segment.as_ref().map(|segment| segment.value);
        let taken: Vec<u32> = enabled().filter_map(stated).collect();
        let mut free = (0..=u32::MAX).filter(|number| !taken.contains(number));
        let hosts: Vec<_> =
            enabled().map(|host| (stated(host).or_else(|| free.next()).unwrap_or_default(), host)).collect();
        let mut routings = BTreeMap::new();
        for (segment, host) in &hosts {
            if *routings.entry(*segment).or_insert(&host.msi) != &host.msi {
                return Err(WriteErrorKind::Segment.of(&host.id));
            }
        }
        Ok(Self(hosts))
    }

    /// One host of each segment, all of which have the same routing.
    fn complexes(&self) -> BTreeMap<u32, &'d PciHost> {
        self.0.iter().rev().copied().collect()
    }
}

fn mcfg(description: &Description, segments: &Segments<'_>) -> Result<Option<Vec<u8>>, WriteError> {
    let mut body = Vec::from([0; 8]);
    for (segment, host) in &segments.0 {
        let Some(ConfigSpace::Ecam(ecam)) = host.config.as_ref().map(|config| config.value) else {
            continue;
        };
        let BusRange { first, last } = host.buses.value;
        let more = (ecam.size() >> 20).saturating_sub(1).min(u64::from(last - first));
        let last = u64::from(first) + more;
        let base = ecam.base().checked_sub(u64::from(first) << 20);
        let fields = base.zip(u16::try_from(*segment).ok()).zip(u8::try_from(last).ok());
        let ((base, segment), last) = fields.ok_or_else(|| WriteErrorKind::ConfigSpace.of(&host.id))?;
        let allocation = Structure::new(16)
            .set(0, base.to_le_bytes())
            .set(8, segment.to_le_bytes())
            .set(10, [first, last]);
        body.extend(allocation.bytes());
    }
    let is_needed = body.len() > 8 && !description.hosts.is_empty();
    Ok(is_needed.then_some(body))
}
