//! Suspend and resume of a whole GIC.

use super::Gic;
use crate::cpu_interface::SavedCpuInterface;
use crate::distributor::SavedDistributor;
use crate::lpi::PendingLpis;
use crate::saved::{PrivateState, SharedBlock};
use crate::{Block, GicError, GicPlatform, SystemRegisters};
use alloc::boxed::Box;
use alloc::vec::Vec;
use doorbell_fallible::{try_box, try_collect};
use msi_types::Cpu;

/// State that a GIC loses while the system sleeps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Suspended(Box<[SavedState; 1]>);

#[derive(Clone, PartialEq, Eq, Debug)]
struct SavedState {
    cpu: Cpu,
    interface: SavedCpuInterface,
    distributor: SavedDistributor,
    shared: Vec<SharedBlock>,
    private: PrivateState,
}

/// Errors of a suspend.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SuspendError {
    /// Nothing was changed.
    #[error(transparent)]
    Refused(#[from] GicError),
    /// Everything is saved, and everything else is stopped.
    #[error("{error}; everything else is saved and stopped")]
    Incomplete {
        /// The first wait that failed.
        error: GicError,
        /// For [`Gic::resume`], whether the system sleeps nevertheless or not.
        saved: Suspended,
    },
}

/// State that a resume could not restore.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Resumed {
    /// LPIs that were pending at the last CPU's redistributor.
    pub lpis: PendingLpis,
}

impl<P: GicPlatform> Gic<P> {
    /// Saves the GIC and stops it. The last step before the system loses power, after the other
    /// CPUs were turned off and the senders of LPIs stopped. Must be called on the last CPU, with
    /// its interrupts masked.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// Redistributors of CPUs that are off are left alone: they sleep, and may have no power.
    ///
    /// # Errors
    /// [`SuspendError::Refused`] with [`GicError::UnknownCpu`], [`GicError::NoRedistributor`] or
    /// [`GicError::NoMemory`];
    /// [`SuspendError::Incomplete`] with [`GicError::TimedOut`].
    pub fn suspend<S: SystemRegisters>(
        &self,
        cpu: Cpu,
        registers: &S,
    ) -> Result<Suspended, SuspendError> {
        let redistributor = self.redistributor_frames(cpu)?;
        let mut shared = self.storage()?;
        let distributor = self.distributor.save(&mut shared)?;
        let private = redistributor.save();
        let interface = self.cpu_interface(registers).save();
        let saved = try_box(SavedState { cpu, interface, distributor, shared, private });
        let saved = Suspended(saved.map_err(|_| self.no_memory())?);
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

    /// Restores the GIC, even if it kept its state. The first step after the system gets power; the
    /// other CPUs are [turned on](Self::cpu_on) and the senders of LPIs resumed afterwards. Must be
    /// called on the CPU that suspended, with its interrupts masked. The CPU interface ends
    /// interrupts as before.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// As [`cpu_on`](Self::cpu_on), and [`GicError::NoAffinityRouting`].
    pub fn resume<S: SystemRegisters>(
        &self,
        saved: &Suspended,
        registers: &S,
    ) -> Result<Resumed, GicError> {
        let [SavedState { cpu, interface, distributor, shared, private }] = &*saved.0;
        let redistributor = self.redistributor_frames(*cpu)?;
        self.distributor.restore(&*self.platform, distributor, shared)?;
        redistributor.wake(&*self.platform)?;
        redistributor.restore(&*self.platform, private)?;
        let attached = self.attach_lpis(redistributor)?;
        interface.restore(registers)?;
        self.set_on(*cpu, true);
        Ok(Resumed { lpis: attached.map_or(PendingLpis::Kept, |attached| attached.pending) })
    }

    /// Allocates the blocks for the distributor's state.
    fn storage(&self) -> Result<Vec<SharedBlock>, GicError> {
        let blocks = core::iter::repeat_n(SharedBlock::default(), self.distributor.saved_blocks());
        try_collect(blocks).map_err(|_| self.no_memory())
    }

    fn no_memory(&self) -> GicError {
        GicError::NoMemory(Block::Distributor(self.distributor.address()))
    }
}
