//! vPEs of vCPUs that wait for an interrupt. A wait begins in this order, so that no virtual LPI is
//! missed:
//!
//! 1. The vPE is recorded as waiting.
//! 2. It leaves its CPU, and `GICR_VPENDBASER.PendingLast` covers the virtual LPIs until then.
//! 3. The later ones ring its doorbell, which ends the wait.
//!
//! Doorbells stay enabled, because each change of one takes several commands. So a message to a
//! preempted vCPU causes an exit, as without direct injection, but wakes no vCPU. A doorbell that
//! rang before the wait can end the wait early.

use super::error::{ItsError, fault};
use super::vpe::{Doorbells, Vpe, VpeSet, with_vpe_table};
use crate::platform::GicPlatform;
use core::num::NonZeroU16;
use core::sync::atomic::Ordering::SeqCst;
use gic_arch::Lpi;
use msi_types::{Cpu, DeviceId};

impl<P: GicPlatform> VpeSet<P> {
    /// Gives each vPE a doorbell, for events that are handed over later. No device may have the
    /// DeviceID `proxy`; sets of the same ITS can share it. A CPU that acknowledges a doorbell must
    /// call [`ring`](Self::ring). A set that has doorbells keeps them.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// Any error of [`Its::attach`](super::Its::attach) and
    /// [`Its::map_events`](super::Its::map_events).
    pub fn with_doorbells(mut self, proxy: DeviceId) -> Result<Self, ItsError> {
        let vpes = u16::try_from(self.vpes.len()).ok().and_then(NonZeroU16::new);
        if let (Some(count), None) = (vpes, &self.doorbells) {
            let room = with_vpe_table(&self.its, |table| Ok(table.capacity().into()))?;
            let cpu = |vpe: &Vpe| vpe.cpu(self.its.platform());
            let cpus = |vpe| self.vpe(vpe).map_or(Cpu::new(0), cpu);
            self.doorbells = Some(Doorbells::map(&self.its, proxy, room, (count, cpus))?);
        }
        Ok(self)
    }

    /// Makes the vPE of a vCPU that waits for an interrupt leave its CPU. Virtual LPIs then ring
    /// its doorbell, until the vPE is loaded again. Afterwards, and whenever the vCPU is woken,
    /// callers must check [`may_be_pending`](Self::may_be_pending).
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// Any error of [`load`](Self::load), and [`ItsError::Fault`] if the vPE has no doorbell. A
    /// virtual LPI may then be pending, and the vPE may still be resident.
    pub fn put_to_wait(&self, vpe: u16) -> Result<(), ItsError> {
        let waiting = self.vpe(vpe)?;
        // Must precede `waits`, because `wake` may then set it.
        waiting.may_be_pending.store(false, SeqCst);
        // Must precede the put, because the doorbell may ring immediately afterwards.
        waiting.waits.store(true, SeqCst);
        let left = match self.doorbell(vpe) {
            Some(_) => self.put(vpe),
            None => Err(fault(self.its.base(), "VMAPTI", "the vPE has no doorbell")),
        };
        if left != Ok(false) {
            waiting.may_be_pending.store(true, SeqCst);
        }
        left.map(|_| ())
    }

    /// Records that a CPU has acknowledged this LPI. If it is the doorbell of a vCPU that waits,
    /// returns the number of its vPE. The caller must then wake the vCPU.
    ///
    /// Context: any.
    pub fn ring(&self, lpi: Lpi) -> Option<u16> {
        let vpe = self.doorbells.as_ref()?.vpe_of(lpi)?;
        self.wake(vpe).then_some(vpe)
    }

    /// Ends the wait of a vCPU. Returns `true` if it waits; the caller must then wake the vCPU.
    /// Must be called after a change that may make a virtual LPI pending without ringing the
    /// doorbell: after an LPI was [configured](Self::configure) and invalidated, and after its
    /// event was [moved](Self::move_event) to this vPE.
    ///
    /// Context: any.
    pub fn wake(&self, vpe: u16) -> bool {
        let Ok(vpe) = self.vpe(vpe) else { return false };
        let waits = vpe.waits.load(SeqCst);
        if waits {
            vpe.may_be_pending.store(true, SeqCst);
        }
        waits
    }

    /// Returns `true` if a virtual LPI may have become pending since the vCPU
    /// [waits](Self::put_to_wait).
    ///
    /// Context: any.
    pub fn may_be_pending(&self, vpe: u16) -> bool {
        self.vpe(vpe).is_ok_and(|vpe| vpe.may_be_pending.load(SeqCst))
    }
}
