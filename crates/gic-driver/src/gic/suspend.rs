//! Suspends and resumes a whole GIC.

use super::Gic;
use crate::cpu_interface::SavedCpuInterface;
use crate::distributor::SavedDistributor;
use crate::frame::{PrivateState, SGIS, SharedBlock};
use crate::lpi::PendingLpis;
use crate::spi_messages::SpiRange;
use crate::{Block, GicError, GicPlatform, SystemRegisters};
use alloc::boxed::Box;
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use doorbell_fallible::{try_box, try_collect};
use msi_types::Cpu;

/// GIC state that is lost while the system sleeps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Suspended(Box<[Option<SavedState>; 1]>);

/// Memory for the state that [`Gic::suspend`] saves with interrupts masked.
#[derive(Debug)]
pub struct SuspendRoom {
    state: Box<[Option<SavedState>; 1]>,
    shared: Vec<SharedBlock>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct SavedState {
    cpu: Cpu,
    interface: SavedCpuInterface,
    distributor: SavedDistributor,
    shared: Vec<SharedBlock>,
    private: PrivateState,
}

/// Error from [`Gic::suspend`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SuspendError {
    /// The suspend was rejected, and the GIC is unchanged.
    #[error(transparent)]
    Refused(#[from] GicError),
    /// The state was saved, but a part of the GIC did not stop in time. All other parts of the GIC
    /// are stopped.
    #[error("{error}; the GIC's state is saved and all its other parts are stopped")]
    Incomplete {
        /// The first wait that failed.
        error: GicError,
        /// State for [`Gic::resume`], which must be called even if the system does not sleep after
        /// all.
        saved: Suspended,
    },
}

impl SuspendError {
    /// Returns the failure, and the saved state if the GIC was stopped.
    pub fn into_parts(self) -> (GicError, Option<Suspended>) {
        match self {
            Self::Refused(error) => (error, None),
            Self::Incomplete { error, saved } => (error, Some(saved)),
        }
    }
}

/// Result of a resume.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct Resumed {
    /// Fate of the LPIs that were pending at the last CPU's redistributor.
    pub lpis: PendingLpis,
}

impl<P: GicPlatform> Gic<P> {
    /// Allocates memory for a [`suspend`](Self::suspend).
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`GicError::NoMemory`] if the allocation fails.
    pub fn suspend_room(&self) -> Result<SuspendRoom, GicError> {
        let no_memory = |_| GicError::NoMemory(Block::Distributor(self.distributor.address()));
        let blocks = core::iter::repeat_n(SharedBlock::default(), self.distributor.saved_blocks());
        let shared = try_collect(blocks).map_err(no_memory)?;
        Ok(SuspendRoom { state: try_box(None).map_err(no_memory)?, shared })
    }

    /// Saves and stops the GIC, as the last step before the system loses power. The other CPUs must
    /// already be off and the LPI senders stopped. Must be called on the last CPU, with its
    /// interrupts masked.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// Redistributors of CPUs that are off are not accessed, because they are asleep and may have
    /// no power.
    ///
    /// # Errors
    /// [`SuspendError::Refused`] with [`GicError::UnknownCpu`], [`GicError::NoRedistributor`], or
    /// [`GicError::StorageTooSmall`] if `room` belongs to another GIC; [`SuspendError::Incomplete`]
    /// with [`GicError::TimedOut`].
    pub fn suspend<S: SystemRegisters>(
        &self,
        room: SuspendRoom,
        cpu: Cpu,
        registers: &S,
    ) -> Result<Suspended, SuspendError> {
        let redistributor = self.redistributor_frames(cpu)?;
        let SuspendRoom { mut state, mut shared } = room;
        let distributor = self.distributor.save(&mut shared)?;
        let mut private = redistributor.save();
        self.drop_wired_levels(&mut shared, &mut private);
        let interface = self.cpu_interface(registers).save();
        *state = [Some(SavedState { cpu, interface, distributor, shared, private })];
        let saved = Suspended(state);
        self.set_on(cpu, false);
        self.cpu_interface(registers).disable();
        let stopped = self.distributor.stop(&*self.platform);
        let detached =
            self.lpis.as_ref().map_or(Ok(()), |lpis| lpis.detach(redistributor).map(drop));
        let asleep = redistributor.sleep(&*self.platform);
        match stopped.and(detached).and(asleep) {
            Ok(()) => Ok(saved),
            Err(error) => Err(SuspendError::Incomplete { error, saved }),
        }
    }

    /// Restores the GIC, whether or not it lost its state. This is the first step after power
    /// returns; the kernel then [turns on](Self::cpu_on) the other CPUs and resumes the LPI
    /// senders. Must be called on the CPU that suspended, with its interrupts masked. The EOI mode
    /// of the CPU interface is restored.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// Any error of [`cpu_on`](Self::cpu_on), or [`GicError::NoAffinityRouting`] if firmware keeps
    /// affinity routing off.
    pub fn resume<S: SystemRegisters>(
        &self,
        saved: &Suspended,
        registers: &S,
    ) -> Result<Resumed, GicError> {
        let [Some(SavedState { cpu, interface, distributor, shared, private })] = &*saved.0 else {
            unreachable!("`suspend` stores the state before it creates this value")
        };
        let redistributor = self.redistributor_frames(*cpu)?;
        self.distributor.restore(&*self.platform, distributor, shared)?;
        redistributor.wake(&*self.platform)?;
        redistributor.restore(&*self.platform, private)?;
        let attached = self.attach_lpis(redistributor)?;
        interface.restore(registers)?;
        self.set_on(*cpu, true);
        Ok(Resumed { lpis: attached.map_or(PendingLpis::Kept, |attached| attached.pending) })
    }

    /// Records SPIs that are asserted by messages.
    ///
    /// Context: task; may sleep.
    pub(crate) fn record_messages(&self, ranges: &[SpiRange]) -> Result<(), TryReserveError> {
        let known = self.message_ranges.with(&*self.platform, |known| known.len());
        let mut all = Vec::new();
        all.try_reserve_exact(known + ranges.len())?;
        self.message_ranges.with(&*self.platform, |known| {
            // Message-based SPIs are claimed at boot, one owner at a time, so the list can't have
            // grown since its length was read.
            all.extend(known.iter().take(all.capacity() - ranges.len()));
            all.extend(ranges);
            *known = all;
        });
        Ok(())
    }

    /// Drops the pending state of level-triggered interrupts: a line that's still asserted will
    /// make them pending again. Levels asserted by messages are kept, because they exist only in
    /// the distributor.
    fn drop_wired_levels(&self, shared: &mut [SharedBlock], private: &mut PrivateState) {
        for (first, saved) in self.distributor.first_intids().zip(shared) {
            let kept = self.message_ranges.with(&*self.platform, |ranges| {
                let has = |intid: u32| {
                    let is_in = |range: &SpiRange| {
                        intid
                            .checked_sub(range.first.get())
                            .is_some_and(|at| at < range.count.get().into())
                    };
                    ranges.iter().any(is_in)
                };
                (0..u32::BITS).filter(|bit| has(first + bit)).fold(0, |kept, bit| kept | 1 << bit)
            });
            saved.interrupts.drop_levels(kept);
        }
        for (block, kept) in private.blocks.iter_mut().zip([SGIS, 0, 0]) {
            block.drop_levels(kept);
        }
    }
}
