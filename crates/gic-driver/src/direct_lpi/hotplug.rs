//! CPUs that come and go, and what is pending at them.

use super::records::{Drain, Owed, Record};
use super::{DirectLpi, ResendReason};
use crate::cpu_interface::EoiMode;
use crate::lpi::{Collected, PendingLpis};
use crate::{CpuInterface, Platform, SystemRegisters, wait_until};
use alloc::vec::Vec;
use gic_arch::Lpi;
use msi_types::{Cpu, MsiError, Vector};

/// What [`DirectLpi::cpu_on`] did.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CpuOn {
    /// LPIs that were made pending because it cannot be known whether they were: handlers may run once more than
    /// devices sent.
    pub redelivered: u32,
}

/// What [`DirectLpi::cpu_off`] did.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct CpuOff {
    /// LPIs that were pending at the CPU, and are pending at their targets now.
    pub carried: u32,
    /// LPIs that were made pending at their targets because it cannot be known whether they were pending at the CPU:
    /// handlers may run once more than devices sent.
    pub redelivered: u32,
    /// Vectors whose messages still go to the CPU, because they were not moved. What arrives while it is off stays
    /// pending at its redistributor, as long as that keeps its power.
    pub stranded: Vec<Vector>,
}

impl<P: Platform> DirectLpi<P> {
    /// A CPU takes LPIs, from now or [`Gic::cpu_on`](crate::Gic::cpu_on) on, which told what became of those that were
    /// pending there ([`Attached::pending`](crate::lpi::Attached::pending);
    /// [`Gic::resume`](crate::Gic::resume) tells it too). Its redistributor may remember configurations of before:
    /// it reads all anew. Task, on any CPU.
    ///
    /// # Errors
    /// [`MsiError::NotReachable`] if its LPIs are not enabled; [`MsiError::Controller`].
    pub fn cpu_on(&self, cpu: Cpu, pending: PendingLpis) -> Result<CpuOn, MsiError> {
        if !self.takes_lpis(cpu) {
            return Err(MsiError::NotReachable(cpu, "its LPIs are not enabled"));
        }
        self.open(cpu)?;
        let mut redelivered = 0;
        let mut retired = Vec::with_capacity(self.count(|record| is_retired_at(cpu, record)));
        self.records.for_each(self.platform(), |lpi, record| {
            self.clear_stale(cpu, lpi, record);
            match record.owed {
                Owed::Retirement if record.holders.contains(cpu) => {
                    self.at(cpu, |registers| registers.clear(lpi));
                    // Those that come now did so after the gate was open, and were cleared there themselves.
                    if retired.len() < retired.capacity() {
                        retired.push(lpi);
                    }
                }
                Owed::SetPending(reason) if record.target == cpu => self.deliver(lpi, record, reason),
                Owed::Nothing if record.target == cpu && pending == PendingLpis::Lost => {
                    self.deliver(lpi, record, ResendReason::Unknowable);
                    redelivered += 1;
                }
                _ => {}
            }
        });
        for lpi in retired {
            self.retire(lpi, |holders| holders.without(cpu, self.gates.len()));
        }
        Ok(CpuOn { redelivered })
    }

    /// A CPU leaves, after its vectors were moved elsewhere and before [`Gic::cpu_off`](crate::Gic::cpu_off). What
    /// may be pending at its redistributor becomes pending at the targets: nothing is lost. On return its
    /// redistributor's registers are not used any more. Task, on any CPU; the leaving one does not take interrupts
    /// any more.
    ///
    /// Where `GICR_CTLR.CES` allows, LPIs are disabled there and its pending table says what has to be carried over.
    /// Elsewhere all that may be pending is made pending at the targets, and counted. LPIs are left enabled if
    /// messages still go there.
    ///
    /// # Errors
    /// [`MsiError::NotReachable`] if it is not on; [`MsiError::Controller`] if somebody else does not stop using its
    /// registers: nothing is lost then either, but its redistributor must not be put to sleep yet.
    pub fn cpu_off(&self, cpu: Cpu) -> Result<CpuOff, MsiError> {
        self.check_accepts(cpu)?;
        let gate = self.gates.get(cpu.index()).ok_or(MsiError::NotReachable(cpu, "it is not known"))?;
        gate.refuse();
        let stranded = self.stranded(cpu);
        let mut off = CpuOff { carried: 0, redelivered: 0, stranded };
        match if off.stranded.is_empty() { self.flush(cpu) } else { None } {
            Some(pending) => off.carried = self.carry(cpu, &pending),
            None => off.redelivered = self.redeliver(cpu),
        }
        gate.close();
        wait_until(self.platform(), "the last user of its registers", || !gate.is_used())
            .map_err(|late| self.fault_at(cpu, "cpu_off", late.0))?;
        Ok(off)
    }

    /// Finds out which LPIs that were moved away from the CPU that executes this are not pending here any more: all
    /// that are enabled, if nothing is pending at its interface at one moment. From then on masking them does not
    /// involve this redistributor. Returns how many; 0 if something is pending, which changes nothing. Task, on the CPU
    /// whose `interface` it is, with its interrupts masked and its priority mask open.
    pub fn drain<S: SystemRegisters, E: EoiMode>(
        &self,
        interface: &CpuInterface<S, E>,
    ) -> Result<u32, MsiError> {
        let cpu = self.platform().cpu();
        self.records.for_each(self.platform(), |lpi, record| {
            if is_left_at(cpu, record) && self.is_enabled(lpi) {
                record.drain = Drain::Watched(cpu);
            }
        });
        // What the redistributor remembers is what the configurations say: none is held back by an old one.
        self.invalidate_all_at(cpu)?;
        if interface.highest_pending().is_some() {
            return Ok(0);
        }
        let mut drained = 0;
        self.records.for_each(self.platform(), |lpi, record| {
            // Enabled and undisturbed all the while: `configure` and `prepare_move` end the watch before they begin.
            if record.drain == Drain::Watched(cpu) && self.is_enabled(lpi) {
                record.holders = record.holders.without(cpu, self.gates.len());
                record.drain = Drain::No;
                drained += 1;
            }
        });
        Ok(drained)
    }

    /// Opens a CPU's gate, with nothing remembered at its redistributor.
    pub(super) fn open(&self, cpu: Cpu) -> Result<(), MsiError> {
        let Some(gate) = self.gates.get(cpu.index()) else {
            return Err(MsiError::NotReachable(cpu, "it is not known"));
        };
        gate.open();
        self.invalidate_all_at(cpu).inspect_err(|_| gate.close())?;
        gate.accept();
        Ok(())
    }

    pub(super) fn takes_lpis(&self, cpu: Cpu) -> bool {
        self.gic.is_on(cpu)
            && self.gic.redistributor_frames(cpu).is_ok_and(crate::Redistributor::lpis_enabled)
    }

    /// Drops what the last owner's device made pending at a redistributor that slept, unless it may be the owner's.
    fn clear_stale(&self, cpu: Cpu, lpi: Lpi, record: &mut Record) {
        if record.stale.contains(cpu) && !record.holders.contains(cpu) {
            self.at(cpu, |registers| registers.clear(lpi));
            record.stale = record.stale.without(cpu, self.gates.len());
        }
    }

    fn count(&self, matches: impl Fn(&Record) -> bool) -> usize {
        let mut count = 0;
        self.records.for_each(self.platform(), |_, record| count += usize::from(matches(record)));
        count
    }

    fn stranded(&self, cpu: Cpu) -> Vec<Vector> {
        let count = self.count(|record| is_bound_for(cpu, record));
        // Nothing is placed here any more, so that there is room for all; no memory is asked for under a lock.
        let mut stranded = Vec::with_capacity(count);
        self.records.for_each(self.platform(), |lpi, record| {
            if is_bound_for(cpu, record) && stranded.len() < count {
                stranded.push(lpi.intid().vector());
            }
        });
        stranded
    }

    /// Disables LPIs at a redistributor and reads what was pending there; `None` if that cannot be known.
    fn flush(&self, cpu: Cpu) -> Option<Vec<Lpi>> {
        let redistributor = self.gic.redistributor_frames(cpu).ok()?;
        if !redistributor.can_disable_lpis() {
            return None;
        }
        match self.lpis.detach(redistributor) {
            Ok(PendingLpis::Kept) => {}
            Ok(PendingLpis::Lost) => return None,
            Err(_) => {
                self.note(self.fault_at(cpu, "disable LPIs", "timeout"));
                return None;
            }
        }
        let mut pending = Vec::new();
        let collected = self.lpis.collect_pending(redistributor, |lpi| pending.push(lpi));
        (collected == Collected::All).then_some(pending)
    }

    /// Makes pending elsewhere what was pending here. An LPI that nobody owns was sent by a device that should not
    /// have: it is dropped, as freeing it did or will do.
    fn carry(&self, cpu: Cpu, pending: &[Lpi]) -> u32 {
        let mut carried = 0;
        for lpi in pending {
            let owned = self.records.update(self.platform(), *lpi, |record| {
                let owned = record.owed != Owed::Retirement;
                if owned {
                    self.deliver(*lpi, record, ResendReason::Carried);
                }
                owned
            });
            carried += u32::from(owned == Some(true));
        }
        self.records.for_each(self.platform(), |_, record| {
            record.holders = record.holders.without(cpu, self.gates.len());
        });
        carried
    }

    /// Makes pending elsewhere what may be pending here, and not pending here, in this order.
    fn redeliver(&self, cpu: Cpu) -> u32 {
        let mut redelivered = 0;
        self.records.for_each(self.platform(), |lpi, record| {
            if is_left_at(cpu, record) {
                self.deliver(lpi, record, ResendReason::Unknowable);
                self.at(cpu, |registers| registers.clear(lpi));
                record.holders = record.holders.without(cpu, self.gates.len());
                redelivered += 1;
            }
        });
        redelivered
    }

    fn is_enabled(&self, lpi: Lpi) -> bool {
        self.lpis.config(lpi).is_ok_and(|config| config.enable())
    }
}

/// Messages go to the CPU, or are about to.
fn is_bound_for(cpu: Cpu, record: &Record) -> bool {
    record.owed != Owed::Retirement && (record.target == cpu || record.moving == Some(cpu))
}

/// It was taken back while the CPU's redistributor slept.
fn is_retired_at(cpu: Cpu, record: &Record) -> bool {
    record.owed == Owed::Retirement && record.holders.contains(cpu)
}

/// It was moved away from the CPU, where it may still be pending.
fn is_left_at(cpu: Cpu, record: &Record) -> bool {
    record.owed != Owed::Retirement && record.holders.contains(cpu) && !is_bound_for(cpu, record)
}
