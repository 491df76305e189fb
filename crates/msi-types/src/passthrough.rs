//! Devices whose interrupts are given to somebody who is not trusted: a guest, or a driver in user space.

use crate::{Attachment, BlockRequest, Isolated, Isolation, MsiError, MsiMessage, MsiParent, NotIsolated};
use crate::{RequesterId, VectorBlock};
use core::fmt;

/// Why a device is not given away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PassthroughError {
    /// The device's path does not isolate it: it could ring, or reprogram, what is not its own.
    #[error("requester {device} cannot be passed through: {reason}")]
    NotIsolated {
        /// The device.
        device: RequesterId,
        /// Why not.
        reason: NotIsolated,
    },
    /// The caller shows a proof that is not this device's.
    #[error("requester {0} cannot be passed through: the proof is another device's")]
    ForeignProof(RequesterId),
    /// The controller refused the device.
    #[error(transparent)]
    Controller(#[from] MsiError),
}

/// A device that was given away: whoever has it may write any message into the device, so that its path has to
/// isolate it. This value cannot be had without the proof:
///
/// ```
/// use msi_types::{MsiParent, Passthrough, PassthroughError, RequesterId};
///
/// fn give_away(
///     parent: &dyn MsiParent,
///     device: RequesterId,
/// ) -> Result<Passthrough<'_>, PassthroughError> {
///     let answer = parent.isolation(device);
///     let proof = answer.proof().map_err(|reason| PassthroughError::NotIsolated { device, reason })?;
///     Passthrough::new(parent, device, 32, proof)
/// }
/// ```
///
/// ```compile_fail,E0061
/// use msi_types::{MsiParent, Passthrough, RequesterId};
///
/// fn give_away(parent: &dyn MsiParent, device: RequesterId) {
///     let _ = Passthrough::new(parent, device, 32);
/// }
/// ```
///
/// The grain is that of the mechanism: requesters that it cannot tell apart (an ITS: those that share a DeviceID) are
/// given away together or not at all, which is the caller's business.
#[must_use = "the device is taken back when this is dropped"]
pub struct Passthrough<'a> {
    parent: &'a dyn MsiParent,
    device: RequesterId,
    proof: Isolated,
    /// `None` only while it is dropped.
    attachment: Option<Attachment>,
}

impl<'a> Passthrough<'a> {
    /// Gives a device away, for at most `vectors` vectors. Task.
    ///
    /// # Errors
    /// The parent is asked again: what it does not isolate, or isolates by something else than the proof says, is
    /// refused.
    pub fn new(
        parent: &'a dyn MsiParent,
        device: RequesterId,
        vectors: u32,
        proof: Isolated,
    ) -> Result<Self, PassthroughError> {
        match parent.isolation(device) {
            Isolation::Isolated(known) if known == proof => {}
            Isolation::Isolated(_) => return Err(PassthroughError::ForeignProof(device)),
            Isolation::NotIsolated(reason) => return Err(PassthroughError::NotIsolated { device, reason }),
        }
        let attachment = Some(parent.attach(device, vectors)?);
        Ok(Self { parent, device, proof, attachment })
    }

    /// Hands out vectors to the new owner. Task.
    pub fn allocate(&self, request: &BlockRequest) -> Result<VectorBlock, MsiError> {
        match &self.attachment {
            Some(attachment) => self.parent.allocate(attachment, request),
            None => Err(MsiError::NoRoute(self.device)),
        }
    }

    /// Takes vectors back: all of them, before this is dropped. Task.
    pub fn free(&self, block: VectorBlock) {
        if let Some(attachment) = &self.attachment {
            self.parent.free(attachment, block);
        }
    }

    /// The message that the new owner may store for a vector, or show to its guest. Task.
    pub fn compose(&self, block: &VectorBlock, index: u16) -> Result<MsiMessage, MsiError> {
        self.parent.compose(block, index)
    }

    /// The device.
    pub const fn device(&self) -> RequesterId {
        self.device
    }

    /// What isolates it.
    pub const fn proof(&self) -> Isolated {
        self.proof
    }
}

impl Drop for Passthrough<'_> {
    fn drop(&mut self) {
        if let Some(attachment) = self.attachment.take() {
            self.parent.detach(attachment);
        }
    }
}

impl fmt::Debug for Passthrough<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passthrough").field("device", &self.device).field("proof", &self.proof).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Cpu, Fit, Initially, IsolatingMechanism, Move, MoveOutcome, Pending, Rewrite, Shape, Vector,
    };
    use core::num::NonZeroU16;
    use core::sync::atomic::{AtomicU32, Ordering};

    const ITS: Isolated = Isolated::by(IsolatingMechanism::Its);
    const SHARED: NotIsolated = NotIsolated::SharedDoorbell("everybody's");
    const MINE: RequesterId = RequesterId::new(1);
    const OTHER: RequesterId = RequesterId::new(2);

    /// Isolates one requester; counts what is attached and handed out.
    #[derive(Default)]
    struct Parent {
        attached: AtomicU32,
        vectors: AtomicU32,
    }

    impl MsiParent for Parent {
        fn isolation(&self, of: RequesterId) -> Isolation {
            if of == MINE { Isolation::Isolated(ITS) } else { Isolation::NotIsolated(SHARED) }
        }
        fn attach(&self, _: RequesterId, _: u32) -> Result<Attachment, MsiError> {
            self.attached.fetch_add(1, Ordering::Relaxed);
            Ok(Attachment::new(0))
        }
        fn detach(&self, _: Attachment) {
            self.attached.fetch_sub(1, Ordering::Relaxed);
        }
        fn allocate(&self, _: &Attachment, request: &BlockRequest) -> Result<VectorBlock, MsiError> {
            self.vectors.fetch_add(1, Ordering::Relaxed);
            Ok(VectorBlock::new(Vector::new(8192), request.count))
        }
        fn free(&self, _: &Attachment, _: VectorBlock) {
            self.vectors.fetch_sub(1, Ordering::Relaxed);
        }
        fn compose(&self, _: &VectorBlock, index: u16) -> Result<MsiMessage, MsiError> {
            Ok(MsiMessage { address: 0x40, data: index.into() })
        }
        fn begin_move(&self, block: &VectorBlock, _: u16, to: Cpu) -> Result<Move, MsiError> {
            Ok(Move { first: block.first(), count: block.count(), message: None, from: to, to })
        }
        fn end_move(&self, _: Move, _: MoveOutcome) -> Result<(), MsiError> {
            Ok(())
        }
        fn mask(&self, _: Vector) {}
        fn unmask(&self, _: Vector) {}
        fn set_pending(&self, _: Vector, _: Pending) {}
        fn describe(&self, _: Vector, _: &mut dyn fmt::Write) -> fmt::Result {
            Ok(())
        }
    }

    #[test]
    fn an_isolated_device_is_given_away_and_taken_back() {
        let parent = Parent::default();
        let given = Passthrough::new(&parent, MINE, 4, ITS).unwrap();
        let fit = Fit { address_bits: 64, data_bits: 32, rewrite: Rewrite::Never };
        let request = BlockRequest {
            count: NonZeroU16::MIN,
            shape: Shape::Independent,
            fit,
            cpu: Cpu::new(0),
            initially: Initially::Masked,
        };
        let block = given.allocate(&request).unwrap();
        assert_eq!(given.compose(&block, 0), Ok(MsiMessage { address: 0x40, data: 0 }));
        assert_eq!((given.device(), given.proof()), (MINE, ITS));
        given.free(block);
        assert_eq!(parent.attached.load(Ordering::Relaxed), 1);
        drop(given);
        assert_eq!((parent.attached.into_inner(), parent.vectors.into_inner()), (0, 0));
    }

    #[test]
    fn the_proof_of_another_device_or_mechanism_does_not_serve() {
        let parent = Parent::default();
        let refused = Passthrough::new(&parent, OTHER, 4, ITS).unwrap_err();
        assert_eq!(refused, PassthroughError::NotIsolated { device: OTHER, reason: SHARED });
        let remapping = Isolated::by(IsolatingMechanism::InterruptRemapping);
        let refused = Passthrough::new(&parent, MINE, 4, remapping).unwrap_err();
        assert_eq!(refused, PassthroughError::ForeignProof(MINE));
        assert_eq!(parent.attached.into_inner(), 0);
    }
}
