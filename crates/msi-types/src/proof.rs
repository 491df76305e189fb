//! Proofs that a device is isolated, each made by asking its parent.

use crate::{
    DmaIsolation, IsolatingMechanism, Isolation, MsiParent, NotDmaIsolated, NotIsolated,
    RequesterId,
};
use core::fmt;

/// A device at a parent. The reference is the identity: it cannot outlive the parent, nor stand for
/// another.
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

/// Proof that a device's parent keeps it from ringing others' interrupts. It is made by asking that
/// parent and in no other way, and stands for that device at that parent alone:
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
    /// Asks `parent` for the proof.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// The reason why `device` is not isolated.
    pub fn prove(parent: &'a dyn MsiParent, device: RequesterId) -> Result<Self, NotIsolated> {
        match parent.isolation(device) {
            Isolation::Isolated(mechanism) => {
                Ok(Self { subject: Subject { parent, device }, mechanism })
            }
            Isolation::NotIsolated(reason) => Err(reason),
        }
    }

    /// The device.
    pub const fn device(&self) -> RequesterId {
        self.subject.device
    }

    /// The parent that isolates it.
    pub const fn parent(&self) -> &'a dyn MsiParent {
        self.subject.parent
    }

    /// Returns the mechanism that isolates the device.
    pub const fn mechanism(&self) -> IsolatingMechanism {
        self.mechanism
    }

    /// Is `dma` of the same device at the same parent?
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

/// Proof that an IOMMU on the way to a device's parent keeps it from memory that is not its own. As
/// [`InterruptIsolated`], it is made by asking that parent alone.
#[derive(Clone, Copy)]
pub struct DmaIsolated<'a> {
    subject: Subject<'a>,
}

impl<'a> DmaIsolated<'a> {
    /// Asks `parent` for the proof.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// The reason why `device` is not isolated.
    pub fn prove(parent: &'a dyn MsiParent, device: RequesterId) -> Result<Self, NotDmaIsolated> {
        match parent.dma_isolation(device) {
            DmaIsolation::Isolated => Ok(Self { subject: Subject { parent, device } }),
            DmaIsolation::NotIsolated(reason) => Err(reason),
        }
    }

    /// The device.
    pub const fn device(&self) -> RequesterId {
        self.subject.device
    }
}

impl fmt::Debug for DmaIsolated<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaIsolated").field("device", &self.device()).finish_non_exhaustive()
    }
}
