//! Levels between a device and its controller: buses with quirks, IOMMUs, a hypervisor.
//!
//! A [`Layer`] states what it changes and nothing else. [`LayeredParent`] makes an
//! [`MsiParent`](msi_types::MsiParent) of a layer and the parent below it: forwarding, roll-back,
//! and the record of each device's messages are written there, once. Masks, pending states and the
//! owners of vectors are not in [`Layer`] and go to the parent: a layer cannot get in its way.

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

/// Fit below a layer that chooses addresses: the way the endpoint changes them is known
/// where they are.
const fn unaddressed(rewrite: Rewrite) -> Rewrite {
    match rewrite {
        Rewrite::LowWordOnly | Rewrite::Never => Rewrite::AddressOnly,
        Rewrite::Masked | Rewrite::Atomic64 | Rewrite::AddressOnly => rewrite,
    }
}

/// A level between a device and its controller.
///
/// All operations but [`tier`](Self::tier), [`fit`](Self::fit), [`requester`](Self::requester),
/// [`isolation`](Self::isolation) and [`dma_isolation`](Self::dma_isolation) are task operations.
pub trait Layer: Send + Sync {
    /// Returns the layer's name, and the properties that it adds to or removes from the levels
    /// below.
    ///
    /// Context: any.
    fn tier(&self) -> Tier;

    /// Returns the requester that the level below sees.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// [`MsiError::Bus`] if this requester cannot be passed on.
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

    /// Makes the message that a device is to store of the one that the level below composed, and
    /// whatever that takes (a page is mapped). `fit` is what the device can store. Each message
    /// held is [let go](Self::let_go) once.
    fn hold(
        &self,
        device: RequesterId,
        below: MsiMessage,
        fit: Fit,
    ) -> Result<MsiMessage, MsiError> {
        let _ = (device, fit);
        Ok(below)
    }

    /// The device stores a message no more: `message` is what [`hold`](Self::hold) answered.
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

    /// Writes one line for people, not indented.
    fn describe(&self, device: RequesterId, out: &mut dyn fmt::Write) -> fmt::Result {
        writeln!(out, "{}: requester {device}", self.tier().name)
    }
}
