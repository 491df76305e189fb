//! Errors from writing a description.

use crate::origin::NodeId;

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
