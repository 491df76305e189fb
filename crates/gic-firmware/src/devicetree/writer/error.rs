//! Errors of writing a devicetree.

use crate::origin::NodeId;

/// A description that no devicetree can express. The caller is at fault.
#[derive(Clone, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[error("{id}: {kind}")]
pub struct WriteError {
    /// Node that cannot be expressed.
    pub id: NodeId,
    /// Reason.
    pub kind: WriteErrorKind,
}

/// Reason why a description cannot be written as a devicetree.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteErrorKind {
    /// The identifier is not an absolute node path, or is too deep or too long to be read back; or
    /// a bridge's identifier does not match its host's identifier and its path.
    #[error("the identifier is not a node path")]
    NotAPath,
    /// Two CPUs, controllers, hosts or devices share an identifier.
    #[error("the description contains this identifier twice")]
    Twice,
    /// A CPU's identifier is not a child of `/cpus`.
    #[error("a CPU must be a child of /cpus")]
    NotInCpus,
    /// The identifier of an MBI or Direct LPI controller differs from its GIC's.
    #[error("MBI and Direct LPI must have the GIC's own identifier")]
    NotTheGic,
    /// A reference does not resolve to a controller or IOMMU of the description.
    #[error("a reference does not resolve to a controller or IOMMU of the description")]
    Nowhere,
    /// A reference has a different number of cells than its target's `#msi-cells` or
    /// `#iommu-cells`.
    #[error("a reference does not have as many cells as its target asks for")]
    Specifier,
    /// A devicetree cannot express the value: a v2m frame can have only one range, the base and the
    /// size of a pre-ITS window must fit into 32 bits, a host with ECAM needs the compatible string
    /// of an ECAM host, and the parent of a secondary GIC must be a GIC.
    #[error("a devicetree cannot express this")]
    Inexpressible,
}

impl WriteErrorKind {
    pub(super) fn of(self, id: &NodeId) -> WriteError {
        WriteError { id: id.clone(), kind: self }
    }
}
