//! Errors of applying an overlay.

use crate::devicetree::DtbError;
use alloc::string::String;

/// An overlay that cannot be applied.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{place}: {kind}")]
pub struct OverlayError {
    /// Node of the overlay.
    pub place: String,
    /// Defect of the node.
    pub kind: OverlayErrorKind,
}

/// Defects that keep an overlay from being applied.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OverlayErrorKind {
    /// The overlay is not a devicetree.
    #[error("{0}")]
    Blob(DtbError),
    /// The base has no node with this label. Bases that are compiled without `dtc -@` have no
    /// labels.
    #[error("the base has no node with the label {0:?}, or was compiled without labels (`dtc -@`)")]
    NoLabel(String),
    /// The target of a fragment does not exist in the base.
    #[error("its target does not exist in the base")]
    NoTarget,
    /// A property, or a node that it refers to, is malformed or missing.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// Phandles are exhausted.
    #[error("no phandles are left")]
    NoPhandles,
    /// The result is deeper or larger than a devicetree may be.
    #[error("the tree becomes too deep or too large")]
    TooLarge,
}

impl OverlayErrorKind {
    pub(super) fn at(self, place: &str) -> OverlayError {
        OverlayError { place: String::from(place), kind: self }
    }
}

impl OverlayError {
    pub(super) fn blob(error: DtbError) -> Self {
        OverlayErrorKind::Blob(error).at("/")
    }
}
