//! Passes a device's interrupts through to a guest or to a driver in user space. The caller must
//! present two proofs of isolation, one for interrupts and one for memory accesses.

use core::fmt;
use msi_types::{
    Attachment, BlockRequest, DmaIsolated, HwIrqBlock, InterruptIsolated, MsiError, MsiMessage,
    MsiParent, NotDmaIsolated, NotIsolated, RequesterId,
};

/// The reason why a device can't be passed through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PassthroughError {
    /// The device can signal other devices' interrupts.
    #[error("requester {device} cannot be passed through: {reason}")]
    NotIsolated {
        /// The device's requester ID.
        device: RequesterId,
        /// The reason why its interrupts are not isolated.
        reason: NotIsolated,
    },
    /// The device can access other devices' memory.
    #[error("requester {device} cannot be passed through: {reason}")]
    NotDmaIsolated {
        /// The device's requester ID.
        device: RequesterId,
        /// The reason why its memory accesses are not isolated.
        reason: NotDmaIsolated,
    },
    /// The two proofs are for different devices or different parents.
    #[error(
        "requester {0} cannot be passed through: the proof of DMA isolation is not of this device \
         at this parent"
    )]
    ForeignProof(RequesterId),
    /// The controller rejected the device.
    #[error(transparent)]
    Controller(#[from] MsiError),
}

/// A passed-through device. The new owner may write any message into the device, and may make the
/// device access any address. Therefore, the path from the device must isolate both its interrupts
/// and its memory accesses. The caller must prove this for this device at this parent:
///
/// ```
/// use doorbell_matrix::{Passthrough, PassthroughError};
/// use msi_types::{DmaIsolated, InterruptIsolated, MsiParent, RequesterId};
///
/// fn give_away(
///     parent: &dyn MsiParent,
///     device: RequesterId,
/// ) -> Result<Passthrough<'_>, PassthroughError> {
///     let interrupts = InterruptIsolated::prove(parent, device)
///         .map_err(|reason| PassthroughError::NotIsolated { device, reason })?;
///     let dma = DmaIsolated::prove(parent, device)
///         .map_err(|reason| PassthroughError::NotDmaIsolated { device, reason })?;
///     Passthrough::new(interrupts, dma, 32)
/// }
/// ```
///
/// ```compile_fail,E0061
/// use doorbell_matrix::Passthrough;
/// use msi_types::InterruptIsolated;
///
/// fn give_away(interrupts: InterruptIsolated<'_>) {
///     let _ = Passthrough::new(interrupts, 32);
/// }
/// ```
///
/// A mechanism does not isolate requesters from each other if it can't distinguish them. Callers
/// must pass such requesters through together, to one owner, or not at all. For an ITS, these are
/// requesters that share a DeviceID; for an IOMMU, those that share an address space.
#[must_use = "the device is reclaimed when this is dropped"]
pub struct Passthrough<'a> {
    proof: InterruptIsolated<'a>,
    /// Attachment of the device; `None` only while the value is being dropped.
    attachment: Option<Attachment>,
}

impl<'a> Passthrough<'a> {
    /// Assigns the device covered by both proofs to a new owner, with up to `vectors` vectors.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`PassthroughError::ForeignProof`] if the proofs are for different devices or parents. The
    /// parent is queried again, and a device that is no longer isolated is refused.
    pub fn new(
        interrupts: InterruptIsolated<'a>,
        dma: DmaIsolated<'a>,
        vectors: u32,
    ) -> Result<Self, PassthroughError> {
        let (parent, device) = (interrupts.parent(), interrupts.device());
        if !interrupts.is_with(&dma) {
            return Err(PassthroughError::ForeignProof(device));
        }
        let proof = InterruptIsolated::prove(parent, device)
            .map_err(|reason| PassthroughError::NotIsolated { device, reason })?;
        DmaIsolated::prove(parent, device)
            .map_err(|reason| PassthroughError::NotDmaIsolated { device, reason })?;
        Ok(Self { proof, attachment: Some(parent.attach(device, vectors)?) })
    }

    /// Allocates vectors for the new owner.
    ///
    /// Context: task; may sleep.
    pub fn allocate(&self, request: &BlockRequest) -> Result<HwIrqBlock, MsiError> {
        match &self.attachment {
            Some(attachment) => self.parent().allocate(attachment, request),
            None => Err(MsiError::NoRoute(self.device())),
        }
    }

    /// Frees vectors. The caller must free all vectors before dropping this value.
    ///
    /// Context: task; may sleep.
    pub fn free(&self, block: HwIrqBlock) {
        if let Some(attachment) = &self.attachment {
            self.parent().free(attachment, block);
        }
    }

    /// Returns the message for a vector. The new owner may write the message to the device, or pass
    /// it on to a guest.
    ///
    /// Context: task; may sleep.
    pub fn compose(&self, block: &HwIrqBlock, index: u16) -> Result<MsiMessage, MsiError> {
        self.parent().compose(block, index)
    }

    /// Returns the device's requester ID.
    pub const fn device(&self) -> RequesterId {
        self.proof.device()
    }

    /// Returns the proof that the device's interrupts are isolated.
    pub const fn proof(&self) -> InterruptIsolated<'a> {
        self.proof
    }

    const fn parent(&self) -> &'a dyn MsiParent {
        self.proof.parent()
    }
}

impl Drop for Passthrough<'_> {
    fn drop(&mut self) {
        if let Some(attachment) = self.attachment.take() {
            self.parent().detach(attachment);
        }
    }
}

impl fmt::Debug for Passthrough<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passthrough").field("proof", &self.proof).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::num::NonZeroU16;
    use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use msi_types::{
        Cpu, DmaIsolation, Fit, HwIrq, Initially, IsolatingMechanism, Isolation, Move, MoveOutcome,
        Pending, Rewrite,
    };

    const SHARED: NotIsolated = NotIsolated::SharedDoorbell("everybody's");
    const MINE: RequesterId = RequesterId::new(1);
    const OTHER: RequesterId = RequesterId::new(2);

    /// A parent that isolates a single requester, and counts attachments and allocations.
    #[derive(Default)]
    struct Parent {
        attached: AtomicU32,
        vectors: AtomicU32,
        /// If set, memory accesses aren't isolated, as on a machine with an ITS but no IOMMU.
        no_iommu: AtomicBool,
    }

    impl MsiParent for Parent {
        fn isolation(&self, of: RequesterId) -> Isolation {
            if of == MINE {
                Isolation::Isolated(IsolatingMechanism::Its)
            } else {
                Isolation::NotIsolated(SHARED)
            }
        }
        fn dma_isolation(&self, _: RequesterId) -> DmaIsolation {
            if self.no_iommu.load(Ordering::Relaxed) {
                DmaIsolation::NotIsolated(NotDmaIsolated::NoIommu)
            } else {
                DmaIsolation::Isolated
            }
        }
        fn attach(&self, device: RequesterId, _: u32) -> Result<Attachment, MsiError> {
            self.attached.fetch_add(1, Ordering::Relaxed);
            Ok(Attachment::new(device, 0))
        }
        fn detach(&self, _: Attachment) {
            self.attached.fetch_sub(1, Ordering::Relaxed);
        }
        fn allocate(&self, _: &Attachment, request: &BlockRequest) -> Result<HwIrqBlock, MsiError> {
            self.vectors.fetch_add(1, Ordering::Relaxed);
            Ok(HwIrqBlock::new(HwIrq::new(8192), request.count))
        }
        fn free(&self, _: &Attachment, _: HwIrqBlock) {
            self.vectors.fetch_sub(1, Ordering::Relaxed);
        }
        fn compose(&self, _: &HwIrqBlock, index: u16) -> Result<MsiMessage, MsiError> {
            Ok(MsiMessage { address: 0x40, data: index.into() })
        }
        fn begin_move(&self, block: &HwIrqBlock, _: u16, to: Cpu) -> Result<Move, MsiError> {
            Ok(Move { first: block.first(), count: block.count(), message: None, from: to, to })
        }
        fn end_move(&self, _: Move, _: MoveOutcome) -> Result<(), MsiError> {
            Ok(())
        }
        fn mask(&self, _: HwIrq) {}
        fn unmask(&self, _: HwIrq) {}
        fn set_pending(&self, _: HwIrq, _: Pending) {}
        fn describe(&self, _: HwIrq, _: &mut dyn fmt::Write) -> fmt::Result {
            Ok(())
        }
    }

    fn proofs(parent: &Parent, device: RequesterId) -> (InterruptIsolated<'_>, DmaIsolated<'_>) {
        (
            InterruptIsolated::prove(parent, device).unwrap(),
            DmaIsolated::prove(parent, device).unwrap(),
        )
    }

    #[test]
    fn an_isolated_device_is_passed_through_and_returned() {
        let parent = Parent::default();
        let (interrupts, dma) = proofs(&parent, MINE);
        let given = Passthrough::new(interrupts, dma, 4).unwrap();
        let fit = Fit::new(Rewrite::Never);
        let request =
            BlockRequest::new(NonZeroU16::MIN, fit, Cpu::new(0)).with_initially(Initially::Masked);
        let block = given.allocate(&request).unwrap();
        assert_eq!(given.compose(&block, 0), Ok(MsiMessage { address: 0x40, data: 0 }));
        assert_eq!((given.device(), given.proof().mechanism()), (MINE, IsolatingMechanism::Its));
        given.free(block);
        assert_eq!(parent.attached.load(Ordering::Relaxed), 1);
        drop(given);
        assert_eq!((parent.attached.into_inner(), parent.vectors.into_inner()), (0, 0));
    }

    #[test]
    fn a_device_that_is_not_isolated_gets_no_proof() {
        let parent = Parent::default();
        assert_eq!(InterruptIsolated::prove(&parent, OTHER).err(), Some(SHARED));
        parent.no_iommu.store(true, Ordering::Relaxed);
        assert_eq!(DmaIsolated::prove(&parent, MINE).err(), Some(NotDmaIsolated::NoIommu));
    }

    #[test]
    fn proofs_of_another_device_or_parent_are_refused() {
        let (parent, decoy) = (Parent::default(), Parent::default());
        let (interrupts, _) = proofs(&parent, MINE);
        let other_device = DmaIsolated::prove(&parent, OTHER).unwrap();
        let other_parent = DmaIsolated::prove(&decoy, MINE).unwrap();
        for foreign in [other_device, other_parent] {
            let refused = Passthrough::new(interrupts, foreign, 4).unwrap_err();
            assert_eq!(refused, PassthroughError::ForeignProof(MINE));
        }
        assert_eq!(parent.attached.into_inner(), 0);
    }

    #[test]
    fn passthrough_is_refused_if_the_iommu_disappears() {
        let parent = Parent::default();
        let (interrupts, dma) = proofs(&parent, MINE);
        parent.no_iommu.store(true, Ordering::Relaxed);
        let refused = Passthrough::new(interrupts, dma, 4).unwrap_err();
        let reason = NotDmaIsolated::NoIommu;
        assert_eq!(refused, PassthroughError::NotDmaIsolated { device: MINE, reason });
    }
}
