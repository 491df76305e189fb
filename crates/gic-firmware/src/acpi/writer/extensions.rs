//! Additions to the specifications.

/// Additions to the specifications that a caller asks for by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Extensions {
    /// Write direct LPIs as this project's **draft** of an IORT node
    /// (`docs/specs/iort-redistributor-group.md`). No operating system knows it.
    pub draft_redistributor_group: bool,
}

impl Extensions {
    /// With the draft of an IORT node for direct LPIs.
    pub const DRAFT_REDISTRIBUTOR_GROUP: Self = Self { draft_redistributor_group: true };
}
