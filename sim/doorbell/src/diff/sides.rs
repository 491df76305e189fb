//! The two descriptions, and the identity of objects to which others refer.

use doorbell_inspection::{Raw, Source};
use gic_firmware::{ControllerIndex, Description, IommuIndex, NodeId};

/// Two descriptions that are compared.
#[derive(Clone, Copy)]
pub(super) struct Two<'s> {
    pub(super) old: &'s Source,
    pub(super) new: &'s Source,
}

impl Two<'_> {
    /// Returns `true` if both are devicetrees, or both ACPI tables. Nodes of different forms have
    /// different names, and some facts exist in only one form.
    pub(super) const fn is_same_form(self) -> bool {
        matches!(
            (&self.old.raw, &self.new.raw),
            (Raw::Devicetree(_), Raw::Devicetree(_)) | (Raw::Tables(_), Raw::Tables(_))
        )
    }
}

/// The identity of controllers or IOMMUs in both descriptions: an object of the old description and
/// its counterpart in the new one have the same label.
#[derive(Debug, Default)]
pub(super) struct Labels {
    pub(super) old: Vec<usize>,
    pub(super) new: Vec<usize>,
}

/// One of the two descriptions, as seen by a comparison.
#[derive(Clone, Copy)]
pub(super) struct Side<'d> {
    pub(super) description: &'d Description,
    pub(super) controllers: &'d [usize],
    pub(super) iommus: &'d [usize],
}

impl<'d> Side<'d> {
    /// Returns the label and the node of a controller.
    pub(super) fn controller(self, index: ControllerIndex) -> Option<(usize, &'d NodeId)> {
        let label = self.controllers.get(index.get())?;
        Some((*label, &self.description.controller(index)?.id))
    }

    /// Returns the label and the node of an IOMMU.
    pub(super) fn iommu(self, index: IommuIndex) -> Option<(usize, &'d NodeId)> {
        Some((*self.iommus.get(index.get())?, &self.description.iommu(index)?.id))
    }
}
