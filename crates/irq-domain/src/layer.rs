//! Layers between a device and its controller: buses with quirks, IOMMUs, a hypervisor.
//!
//! A [`Layer`] describes only what it changes. [`LayeredParent`] combines a layer and the parent
//! below it into an [`MsiParent`](msi_types::MsiParent), and implements forwarding, rollback and
//! the record of each device's messages for all layers. Masking, pending state and the ownership of
//! vectors bypass the layer and are forwarded to the parent.

mod doorbell_mapping;
mod hypervisor;
mod layered_parent;
mod shim;

pub use doorbell_mapping::{DoorbellMapping, DoorbellMode, Iommu, IommuDomain, IovaConstraint};
pub use hypervisor::Hypervisor;
pub use layered_parent::LayeredParent;
pub use shim::{AddressRule, RequesterRule, ShimLayer};

use core::fmt;
use msi_types::{
    DmaIsolation, DoorbellPage, Fit, Granule, Isolation, MsiError, MsiMessage, RequesterId,
    Rewrite, Tier,
};

/// Returns the rewrite limit for the level below a layer that chooses addresses. The layer's own
/// messages are checked against the endpoint's limit when they are rewritten, so the level below
/// only has to keep the data unchanged.
const fn unaddressed(rewrite: Rewrite) -> Rewrite {
    match rewrite {
        Rewrite::LowWordOnly | Rewrite::Never => Rewrite::AddressOnly,
        Rewrite::Masked | Rewrite::Atomic64 | Rewrite::AddressOnly => rewrite,
    }
}

/// A layer between a device and its controller.
///
/// All operations except [`tier`](Self::tier), [`fit`](Self::fit), [`requester`](Self::requester),
/// [`isolation`](Self::isolation) and [`dma_isolation`](Self::dma_isolation) are called only by
/// tasks, and may sleep.
pub trait Layer: Send + Sync {
    /// Returns the layer's name, and the capabilities and properties by which it changes those of
    /// the levels below.
    ///
    /// Context: any.
    fn tier(&self) -> Tier;

    /// Returns the requester that the level below sees.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// [`MsiError::Bus`] if the layer cannot forward messages of this requester.
    fn requester(&self, device: RequesterId) -> Result<RequesterId, MsiError> {
        Ok(device)
    }

    /// Returns the fit that the level below must satisfy so that the endpoint can hold this layer's
    /// message.
    ///
    /// Context: any.
    fn fit(&self, fit: Fit) -> Fit {
        fit
    }

    /// Translates the message that the level below composed into the message that the device must
    /// store, and acquires the resources that this requires (for example, maps a page). `fit`
    /// describes the messages that the device can store. Each message that this returns is
    /// [released](Self::let_go) exactly once.
    fn hold(
        &self,
        device: RequesterId,
        below: MsiMessage,
        fit: Fit,
    ) -> Result<MsiMessage, MsiError> {
        let _ = (device, fit);
        Ok(below)
    }

    /// Releases the resources of `message`, which [`hold`](Self::hold) returned and the device no
    /// longer stores.
    fn let_go(&self, device: RequesterId, message: MsiMessage) {
        let _ = (device, message);
    }

    /// Returns whether the device is prevented from triggering other devices' interrupts, given the
    /// isolation of the level below. `page` tells which registers share a page with the doorbells.
    ///
    /// Context: any.
    fn isolation(
        &self,
        device: RequesterId,
        below: Isolation,
        page: &dyn Fn(Granule) -> DoorbellPage,
    ) -> Isolation {
        let _ = (device, page);
        below
    }

    /// Returns whether the device is prevented from accessing memory that does not belong to it,
    /// given the isolation of the level below.
    ///
    /// Context: any.
    fn dma_isolation(&self, device: RequesterId, below: DmaIsolation) -> DmaIsolation {
        let _ = device;
        below
    }

    /// Writes one readable line without indentation.
    fn describe(&self, device: RequesterId, out: &mut dyn fmt::Write) -> fmt::Result {
        writeln!(out, "{}: requester {device}", self.tier().name)
    }
}
