//! CPUs that come and go, and what is pending at them.

use super::records::Deferred;
use super::{DirectLpi, ResendReason};
use crate::lpi::{Collected, PendingLpis};
use crate::{LpiPlatform, wait_until};
use alloc::vec::Vec;
use gic_arch::Lpi;
use msi_types::{Cpu, HwIrq, MsiError};

/// What [`DirectLpi::cpu_on`] did.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CpuOn {
    /// LPIs that were made pending because it cannot be known whether they were: handlers may run
    /// once more than devices sent.
    pub redelivered: u32,
}

/// What [`DirectLpi::cpu_off`] did.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct CpuOff {
    /// LPIs that were pending at the CPU, and are pending at their targets now.
    pub carried: u32,
    /// LPIs that were made pending at their targets because it cannot be known whether they were
    /// pending at the CPU: handlers may run once more than devices sent.
    pub redelivered: u32,
    /// Vectors whose messages still go to the CPU, because they were not moved. What arrives while
    /// it is off stays pending at its redistributor, as long as that keeps its power.
    pub stranded: Vec<HwIrq>,
}

impl<P: LpiPlatform> DirectLpi<P> {
    /// A CPU takes LPIs, from now or [`Gic::cpu_on`](crate::Gic::cpu_on) on, which told what became
    /// of those that were pending there ([`Attached::pending`](crate::lpi::Attached::pending);
    /// [`Gic::resume`](crate::Gic::resume) tells it too). Its redistributor may remember
    /// configurations of before: it reads all anew. Task, on any CPU.
    ///
    /// # Errors
    /// [`MsiError::NotReachable`] if its LPIs are not enabled; [`MsiError::Controller`].
    pub fn cpu_on(&self, cpu: Cpu, pending: PendingLpis) -> Result<CpuOn, MsiError> {
        if !self.takes_lpis(cpu) {
            return Err(MsiError::NotReachable(cpu, "its LPIs are not enabled"));
        }
        self.open(cpu)?;
        let mut redelivered = 0;
        self.records.for_each(self.platform(), |lpi, record| {
            let lost = pending == PendingLpis::Lost && record.cached_at().contains(cpu);
            match record.deferred {
                Deferred::SetPending(reason) if record.target == cpu => {
                    self.deliver(lpi, record, reason);
                }
                Deferred::Nothing if lost => {
                    self.deliver(lpi, record, ResendReason::Unknowable);
                    redelivered += 1;
                }
                _ => {}
            }
        });
        Ok(CpuOn { redelivered })
    }

    /// A CPU leaves, after its vectors were moved elsewhere and before
    /// [`Gic::cpu_off`](crate::Gic::cpu_off). What may be pending at its redistributor becomes
    /// pending at the targets: nothing is lost. On return its redistributor's registers are not
    /// used any more. Task, on any CPU; the leaving one does not take interrupts any more.
    ///
    /// Where `GICR_CTLR.CES` allows, LPIs are disabled there and its pending table says what has to
    /// be carried over. Elsewhere all that may be pending is made pending at the targets, and
    /// counted. LPIs are left enabled if messages still go there.
    ///
    /// # Errors
    /// [`MsiError::NotReachable`] if it is not on; [`MsiError::Controller`] if somebody else does
    /// not stop using its registers: nothing is lost then either, but its redistributor must not be
    /// put to sleep yet.
    /// [`MsiError::NoMemory`]: it stays on.
    pub fn cpu_off(&self, cpu: Cpu) -> Result<CpuOff, MsiError> {
        self.check_accepts(cpu)?;
        let access = self.access(cpu).ok_or(MsiError::NotReachable(cpu, "it is not known"))?;
        access.refuse();
        let stranded = self.stranded(cpu).inspect_err(|_| access.accept())?;
        let mut off = CpuOff { carried: 0, redelivered: 0, stranded };
        match if off.stranded.is_empty() { self.carry(cpu) } else { None } {
            Some(carried) => off.carried = carried,
            None => off.redelivered = self.redeliver(cpu),
        }
        access.close();
        wait_until(self.platform(), "the last user of its registers", || !access.is_used())
            .map_err(|late| self.fault_at(cpu, "cpu_off", late.0))?;
        Ok(off)
    }

    /// Uses a redistributor from now on: nothing is pending there that nobody owns, and nothing is
    /// cached.
    pub(super) fn open(&self, cpu: Cpu) -> Result<(), MsiError> {
        let access = self.access(cpu).ok_or(MsiError::NotReachable(cpu, "it is not known"))?;
        access.open();
        self.clear_unowned(cpu);
        self.invalidate_all_at(cpu).inspect_err(|_| access.close())?;
        access.accept();
        Ok(())
    }

    pub(super) fn takes_lpis(&self, cpu: Cpu) -> bool {
        self.gic.is_on(cpu)
            && self.gic.redistributor_frames(cpu).is_ok_and(crate::Redistributor::lpis_enabled)
    }

    /// Clears, at a redistributor that slept, LPIs that are pending for nobody, and frees those
    /// that waited for it.
    fn clear_unowned(&self, cpu: Cpu) {
        for lpi in self.records.lpis() {
            let waited = self.records.update(self.platform(), lpi, |record| {
                let waits = matches!(record.deferred, Deferred::Free(left) if left.contains(cpu));
                if record.stale.contains(cpu) && !record.cached_at().contains(cpu) {
                    self.clear_at(cpu, lpi);
                    record.stale = record.stale.without(cpu, self.per_cpu.len());
                }
                if waits {
                    self.clear_at(cpu, lpi);
                }
                waits
            });
            if waited == Some(true) {
                self.free_if_cleared(lpi, |missed| missed != cpu);
            }
        }
    }

    fn stranded(&self, cpu: Cpu) -> Result<Vec<HwIrq>, MsiError> {
        let mut count = 0;
        self.records
            .for_each(self.platform(), |_, record| count += usize::from(record.is_bound_for(cpu)));
        // Nothing is placed here any more, so that there is room for all; no memory is asked for
        // under a lock.
        let mut stranded = Vec::new();
        let no_memory = MsiError::NoMemory("the list of stranded vectors");
        stranded.try_reserve_exact(count).map_err(|_| no_memory)?;
        self.records.for_each(self.platform(), |lpi, record| {
            if record.is_bound_for(cpu) && stranded.len() < count {
                stranded.push(lpi.intid().hwirq());
            }
        });
        Ok(stranded)
    }

    /// Disables LPIs at a redistributor, and makes pending elsewhere what was pending there. `None`
    /// if that cannot be known.
    fn carry(&self, cpu: Cpu) -> Option<u32> {
        let redistributor = self.gic.redistributor_frames(cpu).ok()?;
        match self.gic.lpis().detach(redistributor) {
            Ok(PendingLpis::Kept) => {}
            Ok(PendingLpis::Lost) => return None,
            Err(_) => {
                self.note(self.fault_at(cpu, "disable LPIs", "timeout"));
                return None;
            }
        }
        let mut carried = 0;
        let found = |lpi| carried += u32::from(self.carry_one(lpi));
        if self.gic.lpis().collect_pending(redistributor, found) == Collected::Unknown {
            return None;
        }
        self.records.for_each(self.platform(), |_, record| {
            record.previous.remove(cpu);
        });
        Some(carried)
    }

    /// An LPI that nobody owns was sent by a device that should not have: it is dropped, as freeing
    /// it did or will do.
    fn carry_one(&self, lpi: Lpi) -> bool {
        let owned = self.records.update(self.platform(), lpi, |record| {
            let owned = !record.is_freed();
            if owned {
                self.deliver(lpi, record, ResendReason::Carried);
            }
            owned
        });
        owned == Some(true)
    }

    /// Makes pending elsewhere what may be pending here.
    fn redeliver(&self, cpu: Cpu) -> u32 {
        let mut redelivered = 0;
        self.records.for_each(self.platform(), |lpi, record| {
            let moved_away = record.previous.contains(cpu) && !record.is_bound_for(cpu);
            if moved_away && !record.is_freed() {
                self.resend_from(core::iter::once(cpu), lpi, record);
                redelivered += 1;
            }
        });
        redelivered
    }
}
