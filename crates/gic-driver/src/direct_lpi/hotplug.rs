//! CPU hotplug. LPIs still pending at a CPU that goes offline are resent at their current targets,
//! so that none of them is lost.

use super::records::Deferred;
use super::{DirectLpi, ResendReason};
use crate::lpi::{Collected, PendingLpis};
use crate::register_access::RegisterAccess;
use crate::{GicPlatform, wait_until};
use gic_arch::Lpi;
use msi_types::{Cpu, HwIrq, MsiError};

/// Result of [`DirectLpi::cpu_on`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct CpuOn {
    /// Number of LPIs resent because their earlier pending state is unknown. The handler of each of
    /// these LPIs may run once without a message.
    pub redelivered: u32,
}

/// Result of [`DirectLpi::cpu_off`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct CpuOff {
    /// Number of LPIs that were pending at the CPU and were made pending at their current targets
    /// instead.
    pub carried: u32,
    /// Number of LPIs resent at their targets because their pending state at the CPU is unknown.
    /// The handler of each of these LPIs may run once without a message.
    pub redelivered: u32,
    /// Number of vectors that were not moved and still target the CPU. Messages that arrive while
    /// the CPU is off stay pending at its redistributor as long as the redistributor has power.
    pub stranded: u32,
}

impl<P: GicPlatform> DirectLpi<P> {
    /// Enables the delivery of LPIs to a CPU. Must be called after
    /// [`Gic::cpu_on`](crate::Gic::cpu_on) or [`Gic::resume`](crate::Gic::resume), which report the
    /// fate of LPIs that were pending at the redistributor
    /// ([`Attached::pending`](crate::lpi::Attached::pending)). All configurations are invalidated,
    /// because the redistributor may have old ones cached. May be called on any CPU.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// [`MsiError::NotReachable`] if LPIs are not enabled at the CPU's redistributor;
    /// [`MsiError::Controller`] if the redistributor does not complete the invalidation.
    pub fn cpu_on(&self, cpu: Cpu, pending: PendingLpis) -> Result<CpuOn, MsiError> {
        if !self.redistributors.takes_lpis(cpu) {
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

    /// Takes a CPU offline, after its vectors were moved elsewhere and before
    /// [`Gic::cpu_off`](crate::Gic::cpu_off). LPIs that may be pending at its redistributor become
    /// pending at their targets, so no pending LPI is lost. Afterwards, the driver no longer uses
    /// the redistributor's registers. May be called on any CPU, but the CPU that goes offline must
    /// no longer take interrupts.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// Vectors whose messages still target the CPU are passed to `stranded`. The closure is called
    /// with interrupts masked and must not call back into the driver.
    ///
    /// With `GICR_CTLR.CES`, the driver disables LPIs at the redistributor and then reads its
    /// pending table to find the LPIs that must be resent elsewhere. Without `GICR_CTLR.CES`, or if
    /// messages still target the CPU, LPIs stay enabled. In that case, every LPI that was moved
    /// away but may still be pending there is resent at its target, and counted as
    /// [`redelivered`](CpuOff::redelivered).
    ///
    /// # Errors
    /// [`MsiError::NotReachable`] if the CPU does not take LPIs; [`MsiError::Controller`] if
    /// another user keeps using the redistributor's registers. In the latter case no LPI is lost,
    /// but the redistributor must not be put to sleep yet.
    pub fn cpu_off(&self, cpu: Cpu, stranded: impl FnMut(HwIrq)) -> Result<CpuOff, MsiError> {
        self.redistributors.check_accepts(cpu)?;
        let access = self
            .redistributors
            .access(cpu)
            .ok_or(MsiError::NotReachable(cpu, "it is not known"))?;
        access.refuse();
        let stranded = self.count_stranded(cpu, stranded);
        let mut off = CpuOff { carried: 0, redelivered: 0, stranded };
        match if off.stranded == 0 { self.carry(cpu, access) } else { None } {
            Some(carried) => off.carried = carried,
            None => off.redelivered = self.redeliver(cpu),
        }
        self.close(cpu, access)?;
        Ok(off)
    }

    /// Closes access to a redistributor and waits until its last user has finished.
    fn close(&self, cpu: Cpu, access: &RegisterAccess) -> Result<(), MsiError> {
        access.close();
        wait_until(self.platform(), "the last user of its registers", || !access.is_used())
            .map_err(|late| self.redistributors.fault_at(cpu, "cpu_off", late.0))
    }

    /// Opens access to a redistributor. On return, no LPI without an owner is pending at the
    /// redistributor, and it has no configuration cached from before.
    pub(super) fn open(&self, cpu: Cpu) -> Result<(), MsiError> {
        let access = self
            .redistributors
            .access(cpu)
            .ok_or(MsiError::NotReachable(cpu, "it is not known"))?;
        access.open();
        self.clear_unowned(cpu);
        self.redistributors.invalidate_all_at(cpu).inspect_err(|_| access.close())?;
        access.accept();
        Ok(())
    }

    /// Clears LPIs without an owner at a redistributor that was asleep, and frees LPIs whose
    /// release was waiting for this redistributor.
    fn clear_unowned(&self, cpu: Cpu) {
        for lpi in self.records.lpis() {
            let waited = self.records.update(self.platform(), lpi, |record| {
                let waits = record.waits_for(cpu);
                if record.is_stale_at(cpu) {
                    self.redistributors.clear_at(cpu, lpi);
                    record.stale = record.stale.without(cpu, self.gic().cpus().count());
                }
                if waits {
                    self.redistributors.clear_at(cpu, lpi);
                }
                waits
            });
            if waited == Some(true) {
                self.free_if_cleared(lpi, |missed| missed != cpu);
            }
        }
    }

    fn count_stranded(&self, cpu: Cpu, mut stranded: impl FnMut(HwIrq)) -> u32 {
        let mut count = 0;
        self.records.for_each(self.platform(), |lpi, record| {
            if record.is_bound_for(cpu) {
                count += 1;
                stranded(lpi.intid().hwirq());
            }
        });
        count
    }

    /// Disables LPIs at a redistributor, and makes its pending LPIs pending at their current
    /// targets instead. Returns their number, or `None` if the driver can't determine which LPIs
    /// were pending.
    ///
    /// Access is closed first, because with LPIs disabled, a redistributor ignores `GICR_CLRLPIR`
    /// and may have written its pending table already. A concurrent clear must therefore count as
    /// not done, or a freed LPI could be reused before the table is emptied.
    fn carry(&self, cpu: Cpu, access: &RegisterAccess) -> Option<u32> {
        let redistributor = self.gic().redistributor_frames(cpu).ok()?;
        if !redistributor.can_disable_lpis() || self.close(cpu, access).is_err() {
            return None;
        }
        match self.lpis().detach(redistributor) {
            Ok(PendingLpis::Kept) => {}
            Ok(PendingLpis::Lost) => return None,
            Err(_) => {
                self.note(self.redistributors.fault_at(cpu, "disable LPIs", "timeout"));
                return None;
            }
        }
        let mut carried = 0;
        let found = |lpi| carried += u32::from(self.carry_one(cpu, lpi));
        if self.lpis().collect_pending(redistributor, found) == Collected::Unknown {
            return None;
        }
        self.forget(cpu);
        Some(carried)
    }

    /// Removes a CPU from the records once no LPI is pending there, and frees LPIs whose release
    /// was waiting for this CPU's redistributor.
    fn forget(&self, cpu: Cpu) {
        for lpi in self.records.lpis() {
            let waited = self.records.update(self.platform(), lpi, |record| {
                record.previous.remove(cpu);
                record.waits_for(cpu)
            });
            if waited == Some(true) {
                self.free_if_cleared(lpi, |missed| missed != cpu);
            }
        }
    }

    /// Makes an LPI that was pending at `cpu` pending at its target. Drops the pending state if the
    /// LPI was freed, or was pending at `cpu` for an earlier owner.
    fn carry_one(&self, cpu: Cpu, lpi: Lpi) -> bool {
        let owned = self.records.update(self.platform(), lpi, |record| {
            let owned = !record.is_freed() && !record.is_stale_at(cpu);
            if owned {
                self.deliver(lpi, record, ResendReason::Carried);
            }
            owned
        });
        owned == Some(true)
    }

    /// Resends LPIs that were moved away from `cpu` but may still be pending there. Returns their
    /// number.
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
