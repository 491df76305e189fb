//! Reasons for which a description cannot be written.

use crate::origin::NodeId;

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
    /// A MADT has one distributor (ACPI 6.5 §5.2.12.15).
    #[error("a MADT describes the root GIC alone")]
    SeveralGics,
    /// A stride, a pre-ITS window and a region of 4 GiB have no field.
    #[error("these registers have no field in the MADT")]
    Registers,
    /// Only ITSes and GICv2m frames have structures; direct LPIs have a draft.
    #[error("ACPI has no structure for this kind of controller")]
    Controller,
    /// The host's buses start below address 0, or its segment has more than 16 bits.
    #[error("MCFG cannot express its configuration space")]
    ConfigAccess,
    /// Two hosts share a segment but not their routing.
    #[error("another host of the same segment has another routing")]
    Segment,
    /// The mask is neither all ones nor zero.
    #[error("IORT has no mask of requester IDs")]
    Mask,
    /// IORT leads to ITSes; a GICv2m frame serves everything, if it is the first and no ITS is
    /// there.
    #[error("IORT cannot lead it to this controller")]
    Route,
    /// A table or a structure would be longer than its length field allows.
    #[error("there is more of it than a table can hold")]
    TooLong,
}

impl WriteErrorKind {
    /// Returns the error of the part with this name.
    pub(super) fn of(self, id: &NodeId) -> WriteError {
        WriteError { id: id.clone(), kind: self }
    }
}
