//! Proofs that a device is isolated, which only the device's parent can supply.

use crate::{
    DmaIsolation, IsolatingMechanism, Isolation, MsiParent, NotDmaIsolated, NotIsolated,
    RequesterId,
};
use core::fmt;

/// A device and its parent. The parent is identified by reference, so a subject cannot outlive its
/// parent and cannot refer to another one.
#[derive(Clone, Copy)]
struct Subject<'a> {
    parent: &'a dyn MsiParent,
    device: RequesterId,
}

impl PartialEq for Subject<'_> {
    fn eq(&self, other: &Self) -> bool {
        core::ptr::addr_eq(self.parent, other.parent) && self.device == other.device
    }
}

/// Proof that a device's parent prevents the device from triggering other devices' interrupts. The
/// only way to obtain a proof is to ask that parent, and the proof holds only for that device at
/// that parent:
///
/// ```compile_fail,E0451
/// use msi_types::{InterruptIsolated, IsolatingMechanism};
///
/// fn forge(real: InterruptIsolated<'_>) -> InterruptIsolated<'_> {
///     InterruptIsolated { mechanism: IsolatingMechanism::Its, ..real }
/// }
/// ```
#[derive(Clone, Copy)]
pub struct InterruptIsolated<'a> {
    subject: Subject<'a>,
    mechanism: IsolatingMechanism,
}

impl<'a> InterruptIsolated<'a> {
    /// Asks `parent` whether `device` is isolated.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// Returns the reason why `device` is not isolated.
    pub fn prove(parent: &'a dyn MsiParent, device: RequesterId) -> Result<Self, NotIsolated> {
        match parent.isolation(device) {
            Isolation::Isolated(mechanism) => {
                Ok(Self { subject: Subject { parent, device }, mechanism })
            }
            Isolation::NotIsolated(reason) => Err(reason),
        }
    }

    /// Returns the device.
    pub const fn device(&self) -> RequesterId {
        self.subject.device
    }

    /// Returns the parent that isolates the device.
    pub const fn parent(&self) -> &'a dyn MsiParent {
        self.subject.parent
    }

    /// Returns the mechanism that isolates the device.
    pub const fn mechanism(&self) -> IsolatingMechanism {
        self.mechanism
    }

    /// Returns `true` if `dma` is a proof for the same device at the same parent.
    pub fn is_with(&self, dma: &DmaIsolated<'_>) -> bool {
        self.subject == dma.subject
    }
}

impl fmt::Debug for InterruptIsolated<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InterruptIsolated")
            .field("device", &self.device())
            .field("mechanism", &self.mechanism)
            .finish_non_exhaustive()
    }
}

/// Proof that an IOMMU between a device and its parent prevents the device from accessing memory
/// that does not belong to it. As with [`InterruptIsolated`], the only way to obtain this proof is
/// to ask the parent.
#[derive(Clone, Copy)]
pub struct DmaIsolated<'a> {
    subject: Subject<'a>,
}

impl<'a> DmaIsolated<'a> {
    /// Asks `parent` whether `device` is isolated.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// Returns the reason why `device` is not isolated.
    pub fn prove(parent: &'a dyn MsiParent, device: RequesterId) -> Result<Self, NotDmaIsolated> {
        match parent.dma_isolation(device) {
            DmaIsolation::Isolated => Ok(Self { subject: Subject { parent, device } }),
            DmaIsolation::NotIsolated(reason) => Err(reason),
        }
    }

    /// Returns the device.
    pub const fn device(&self) -> RequesterId {
        self.subject.device
    }
}

impl fmt::Debug for DmaIsolated<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaIsolated").field("device", &self.device()).finish_non_exhaustive()
    }
}
