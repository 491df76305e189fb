//! Numbers and encodes the tables, structures and segments to write. An item keeps the number that
//! the description states; every other item receives the lowest free number.

use crate::acpi::fields::{Field, Layout};
use crate::acpi::table::{HEADER_BYTES, Signature};
use crate::controller::{Controller, ControllerKind};
use crate::description::{Description, PciHost};
use crate::finding::NodeId;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

/// Returns the number at the end of `id`, if `id` is a name that the reader would assign.
pub(super) fn number(id: &NodeId, prefix: &str) -> Option<u32> {
    id.as_str().strip_prefix(prefix)?.parse().ok()
}

/// Returns a number for each of `ids`: the number in the identifier, or else the lowest free
/// number.
pub(super) fn numbers<'d>(ids: impl Iterator<Item = &'d NodeId> + Clone, prefix: &str) -> Vec<u32> {
    let mut taken: Vec<u32> = ids.clone().filter_map(|id| number(id, prefix)).collect();
    taken.sort_unstable();
    let mut free = (0..=u32::MAX).filter(|number| taken.binary_search(number).is_err());
    ids.map(|id| number(id, prefix).or_else(|| free.next()).unwrap_or_default()).collect()
}

/// Returns the enabled controllers of `kind`, with their indices in the description and their
/// numbers.
pub(super) fn numbered<'d>(
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
pub(super) struct Segments<'d>(Vec<(u32, &'d PciHost)>);

impl<'d> Segments<'d> {
    pub(super) fn of(description: &'d Description) -> Result<Self, WriteError> {
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
    pub(super) fn hosts(&self) -> &[(u32, &'d PciHost)] {
        &self.0
    }

    /// Returns one host of each segment, all of which have the same routing.
    pub(super) fn complexes(&self) -> BTreeMap<u32, &'d PciHost> {
        self.0.iter().rev().copied().collect()
    }
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
    pub(super) fn of(self, id: &NodeId) -> WriteError {
        WriteError { id: id.clone(), kind: self }
    }
}

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
