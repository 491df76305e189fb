//! Additions to the specifications.

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
