//! Suspend and resume of a whole GIC.

use super::Gic;
use crate::cpu_interface::Combined;
use crate::distributor::SavedDistributor;
use crate::lpi::PendingLpis;
use crate::saved::{PrivateState, SharedBlock};
use crate::{GicError, Platform, SystemRegisters};
use alloc::vec;
use alloc::vec::Vec;
use msi_types::Cpu;

/// What a GIC forgets while the system sleeps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Suspended {
    cpu: Cpu,
    distributor: SavedDistributor,
    shared: Vec<SharedBlock>,
    private: PrivateState,
}

/// What a resume could not bring back.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Resumed {
    /// LPIs that were pending at the last CPU's redistributor.
    pub lpis: PendingLpis,
}

impl<P: Platform> Gic<P> {
    /// Saves the GIC and stops it. The last step before the system loses power, after the other CPUs were turned off
    /// and whoever sends LPIs was stopped. Task; on the last CPU, with its interrupts masked.
    ///
    /// # Errors
    /// [`GicError::UnknownCpu`], [`GicError::NoRedistributor`], [`GicError::TimedOut`]. Some of the GIC may be
    /// stopped then: [`resume`](Self::resume) undoes it only with a state that was saved.
    pub fn suspend<S: SystemRegisters>(&self, cpu: Cpu, registers: &S) -> Result<Suspended, GicError> {
        let redistributor = self.redistributor_frames(cpu)?;
        let mut shared = vec![SharedBlock::default(); self.distributor.saved_blocks()];
        let distributor = self.distributor.save(&mut shared)?;
        let private = redistributor.save();
        self.cpu_off_without_sleep(cpu, registers);
        self.distributor.stop(&*self.platform)?;
        if let Ok(lpis) = &self.lpis {
            for per_cpu in &self.cpus {
                if let Some(redistributor) = &per_cpu.redistributor {
                    lpis.detach(redistributor)?;
                }
            }
        }
        redistributor.sleep(&*self.platform)?;
        Ok(Suspended { cpu, distributor, shared, private })
    }

    /// Brings the GIC back, whether it lost its state or not. The first step after the system gets power; the other
    /// CPUs are [turned on](Self::cpu_on) afterwards, and whoever sends LPIs is resumed. Task; on the CPU that
    /// suspended, with its interrupts masked.
    ///
    /// # Errors
    /// As [`cpu_on`](Self::cpu_on), and [`GicError::NoAffinityRouting`].
    pub fn resume<S: SystemRegisters>(&self, saved: &Suspended, registers: &S) -> Result<Resumed, GicError> {
        let Suspended { cpu, distributor, shared, private } = saved;
        let redistributor = self.redistributor_frames(*cpu)?;
        self.distributor.restore(&*self.platform, distributor, shared)?;
        redistributor.wake(&*self.platform)?;
        redistributor.restore(&*self.platform, private)?;
        let attached = self.attach_lpis(redistributor)?;
        self.enable_interface::<S, Combined>(registers)?;
        self.set_on(*cpu, true);
        Ok(Resumed { lpis: attached.map_or(PendingLpis::Kept, |attached| attached.pending) })
    }

    fn cpu_off_without_sleep<S: SystemRegisters>(&self, cpu: Cpu, registers: &S) {
        self.set_on(cpu, false);
        self.cpu_interface(registers).disable();
    }
}
