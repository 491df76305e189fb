//! Writes descriptions as ACPI tables. A structure or segment keeps the number that the description
//! states; every other one receives the lowest free number.

mod bytes;
mod iort;
mod madt;
mod source;

pub use source::iort_source;

use super::fields::allocation;
use super::table::Signature;
use crate::controller::{Controller, ControllerKind};
use crate::description::Description;
use crate::origin::NodeId;
use crate::requester::{BusRange, ConfigAccess, PciHost};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bytes::{Oem, Structure, table};

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

/// A description that ACPI tables cannot express. The caller is at fault.
#[derive(Clone, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[error("{id}: {kind}")]
pub struct WriteError {
    /// Part of the description that cannot be expressed.
    pub id: NodeId,
    /// Reason.
    pub kind: WriteErrorKind,
}

/// Reason why a description cannot be written as ACPI tables.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteErrorKind {
    /// The description has no enabled GIC, and thus no distributor for the MADT.
    #[error("the description has no enabled GIC")]
    NoGic,
    /// The description has more than one enabled GIC; a MADT has one distributor (ACPI 6.5
    /// §5.2.12.15).
    #[error("a MADT can describe the root GIC only")]
    SeveralGics,
    /// The description has a redistributor stride, a pre-ITS window or a redistributor region of 4
    /// GiB or more, none of which the MADT can express.
    #[error("these registers have no field in the MADT")]
    Registers,
    /// The controller is neither an ITS nor a GICv2m frame. If the controller is Direct LPI, the
    /// caller did not request the draft node.
    #[error("ACPI has no structure for this kind of controller")]
    Controller,
    /// The host's window would begin below address 0, or its segment has more than 16 bits.
    #[error("MCFG cannot express the host's configuration space")]
    ConfigAccess,
    /// Two hosts share a segment but have different routings.
    #[error("another host of the same segment has a different routing")]
    Segment,
    /// The mask of requester IDs is neither all ones nor zero.
    #[error("IORT has no mask of requester IDs")]
    Mask,
    /// The requesters' controller is not an ITS, and the IORT refers to ITSes only. (If the machine
    /// has no ITS, the first GICv2m frame serves all requesters without an IORT.)
    #[error("IORT cannot route the node to this controller")]
    Route,
    /// A table or a structure would be longer than its length field allows.
    #[error("the node is too long for a table")]
    TooLong,
}

impl WriteErrorKind {
    /// Returns the error with this reason, for the part with identifier `id`.
    fn of(self, id: &NodeId) -> WriteError {
        WriteError { id: id.clone(), kind: self }
    }
}

/// Additions to the specifications that a caller explicitly requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Extensions {
    /// `true` to write direct LPIs as this project's **draft** of an IORT node
    /// (`docs/specs/iort-redistributor-group.md`). No operating system supports this node.
    pub draft_redistributor_group: bool,
}

impl Extensions {
    /// Requests the draft of an IORT node for direct LPIs, and no other extension.
    pub const DRAFT_REDISTRIBUTOR_GROUP: Self = Self { draft_redistributor_group: true };
}

/// Returns the number at the end of `id`, if `id` is a name that the reader would assign.
fn number(id: &NodeId, prefix: &str) -> Option<u32> {
    id.as_str().strip_prefix(prefix)?.parse().ok()
}

/// Returns a number for each of `ids`: the number in the identifier, or else the lowest free
/// number.
fn numbers<'d>(ids: impl Iterator<Item = &'d NodeId> + Clone, prefix: &str) -> Vec<u32> {
    let mut taken: Vec<u32> = ids.clone().filter_map(|id| number(id, prefix)).collect();
    taken.sort_unstable();
    let mut free = (0..=u32::MAX).filter(|number| taken.binary_search(number).is_err());
    ids.map(|id| number(id, prefix).or_else(|| free.next()).unwrap_or_default()).collect()
}

/// Returns the enabled controllers of `kind`, with their indices in the description and their
/// numbers.
fn numbered<'d>(
    description: &'d Description,
    kind: &ControllerKind,
    prefix: &str,
) -> Vec<(usize, &'d Controller, u32)> {
    let all = description.controllers.iter().enumerate();
    let these: Vec<_> =
        all.filter(|(_, one)| one.kind == *kind && one.status.is_enabled()).collect();
    let numbers = numbers(these.iter().map(|(_, one)| &one.id), prefix);
    these.into_iter().zip(numbers).map(|((place, one), number)| (place, one, number)).collect()
}

/// The enabled hosts with their segments, in the order of the description.
struct Segments<'d>(Vec<(u32, &'d PciHost)>);

impl<'d> Segments<'d> {
    fn of(description: &'d Description) -> Result<Self, WriteError> {
        let enabled = || description.hosts.iter().filter(|host| host.status.is_enabled());
        let stated = |host: &PciHost| host.segment.as_ref().map(|segment| segment.value);
        let taken: Vec<u32> = enabled().filter_map(stated).collect();
        let mut free = (0..=u32::MAX).filter(|number| !taken.contains(number));
        let hosts: Vec<_> = enabled()
            .map(|host| (stated(host).or_else(|| free.next()).unwrap_or_default(), host))
            .collect();
        let mut routings = BTreeMap::new();
        for (segment, host) in &hosts {
            if *routings.entry(*segment).or_insert(&host.msi) != &host.msi {
                return Err(WriteErrorKind::Segment.of(&host.id));
            }
        }
        Ok(Self(hosts))
    }

    /// Returns the hosts with their segments.
    fn hosts(&self) -> &[(u32, &'d PciHost)] {
        &self.0
    }

    /// Returns one host of each segment, all of which have the same routing.
    fn complexes(&self) -> BTreeMap<u32, &'d PciHost> {
        self.0.iter().rev().copied().collect()
    }
}
