//! Layers between a device and its controller: buses with quirks, IOMMUs, a hypervisor.
//!
//! A [`Layer`] only describes what it changes. [`LayeredParent`] combines it with the parent below
//! into an [`MsiParent`], and implements forwarding, rollback and the record
//! of each device's messages once for all layers. Masking, pending state and vector ownership
//! bypass the layer: these calls are forwarded straight to the parent.

mod doorbell_mapping;
mod layered_parent;
mod shim;

pub use doorbell_mapping::{
    DoorbellMapping, DoorbellMode, Iommu, IommuDomain, IovaConstraint, Translated,
};
pub use layered_parent::LayeredParent;
pub use msi_types::Hypervisor;
pub use shim::{AddressRule, RequesterRule, ShimLayer};

use crate::runtime::Host;
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use core::fmt;
use doorbell_fallible::try_arc;
use msi_types::explain::Explanation;
use msi_types::{
    DmaIsolation, DoorbellPage, Fit, Granule, Isolation, MsiError, MsiMessage, MsiParent,
    RequesterId, Rewrite, Surroundings, Tier,
};

/// Returns the rewrite limit for the level below a layer that chooses addresses. When a message is
/// rewritten, the layer's own output is checked against the endpoint's limit, so the level below
/// only has to keep the data unchanged.
const fn unaddressed(rewrite: Rewrite) -> Rewrite {
    match rewrite {
        Rewrite::LowWordOnly | Rewrite::Never => Rewrite::AddressOnly,
        Rewrite::Masked | Rewrite::Atomic64 | Rewrite::AddressOnly => rewrite,
    }
}

/// A layer between a device and its controller. Functions have the following context unless they
/// state a different one.
///
/// Context: task; may sleep.
pub trait Layer: Send + Sync {
    /// Returns the layer's name, and how it changes the capabilities and properties of the levels
    /// below.
    ///
    /// Context: any.
    fn tier(&self) -> Tier;

    /// Returns the requester ID that the level below sees. The result must not change while the
    /// device is attached.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// [`MsiError::Bus`] if the layer cannot forward this requester's messages.
    fn requester(&self, device: RequesterId) -> Result<RequesterId, MsiError> {
        Ok(device)
    }

    /// Returns the fit that the level below must satisfy, so that the endpoint can hold the message
    /// after this layer has translated it.
    ///
    /// Context: any.
    fn fit(&self, fit: Fit) -> Fit {
        fit
    }

    /// Translates a message from the level below into the one that the device must store, and
    /// acquires the resources for it (e.g. maps a page). `fit` describes what the device can store.
    /// Every message that this function returns is [released](Self::let_go) exactly once.
    fn hold(
        &self,
        device: RequesterId,
        below: MsiMessage,
        fit: Fit,
    ) -> Result<MsiMessage, MsiError> {
        let _ = (device, fit);
        Ok(below)
    }

    /// Releases the resources for a message that [`hold`](Self::hold) returned and that the device
    /// no longer stores.
    fn let_go(&self, device: RequesterId, message: MsiMessage) {
        let _ = (device, message);
    }

    /// Returns whether the device is prevented from triggering other devices' interrupts, given the
    /// isolation at the level below. `page` lists the registers that share a page with the
    /// doorbells.
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
    /// given the isolation at the level below.
    ///
    /// Context: any.
    fn dma_isolation(&self, device: RequesterId, below: DmaIsolation) -> DmaIsolation {
        let _ = device;
        below
    }

    /// Explains whether a message reaches the level below. `stored` is the message that the device
    /// stores, and `below` is the message that the level below composed.
    fn explain(&self, device: RequesterId, stored: MsiMessage, below: MsiMessage) -> Explanation {
        let _ = (device, stored, below);
        Explanation::new()
    }

    /// Writes one readable line about this layer, without indentation.
    fn describe(&self, device: RequesterId, out: &mut dyn fmt::Write) -> fmt::Result {
        writeln!(out, "{}: requester {device}", self.tier().name)
    }
}

impl Layer for Hypervisor {
    fn tier(&self) -> Tier {
        (*self).tier()
    }
}

/// Returns the parent that devices must use in these surroundings: in a guest, the hypervisor's
/// layer directly over the virtual controller, below all other layers.
///
/// # Errors
/// Returns an error if the kernel's heap is exhausted.
pub fn surrounded(
    controller: Arc<dyn MsiParent>,
    surroundings: Surroundings,
    host: &Arc<dyn Host>,
) -> Result<Arc<dyn MsiParent>, TryReserveError> {
    Ok(match surroundings.hypervisor() {
        Some(layer) => try_arc(LayeredParent::new(layer, controller, host.clone()))?,
        None => controller,
    })
}
