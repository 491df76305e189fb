//! CPUs that come and go: one order over the GIC, every ITS, direct LPIs and the interrupt core.

use crate::error::CpuError;
use crate::irqchip::Irqchip;
use gic_driver::cpu_interface::EoiMode;
use gic_driver::lpi::PendingLpis;
use gic_driver::{GicPlatform, Its, ItsError, SystemRegisters};
use irq_domain::Stranded;
use msi_types::Cpu;

/// A CPU whose interface is on, and to which nothing is sent yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "no interrupt is sent to the CPU before `Irqchip::cpu_online`"]
pub struct Started {
    cpu: Cpu,
    pending: Option<PendingLpis>,
}

impl<P: GicPlatform, E: EoiMode> Irqchip<P, E> {
    /// Makes the CPU that executes this take interrupts: [`cpu_starting`](Self::cpu_starting), then
    /// [`cpu_online`](Self::cpu_online). Managed interrupts that could not come back to it are
    /// handed to `stranded`.
    ///
    /// Context: task; may sleep.
    ///
    /// Interrupts may be masked if [`LocalCpu::yield_now`](gic_driver::LocalCpu::yield_now) spins;
    /// nothing is allocated. A kernel whose tasks preempt each other calls the two by themselves,
    /// the second from a task.
    ///
    /// # Errors
    /// [`CpuError`], but for [`CpuError::Stranded`].
    pub fn cpu_on(
        &self,
        cpu: Cpu,
        registers: &impl SystemRegisters,
        stranded: impl FnMut(Stranded),
    ) -> Result<(), CpuError> {
        let started = self.cpu_starting(cpu, registers)?;
        self.cpu_online(started, stranded)
    }

    /// The first half, on the CPU itself before it unmasks interrupts: its redistributor and its
    /// interface. Private interrupts that were enabled there before it went off are on again.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// [`CpuError::Gic`], and [`CpuError::OtherCpu`] if [`GicPlatform::affinity`] says so.
    pub fn cpu_starting(
        &self,
        cpu: Cpu,
        registers: &impl SystemRegisters,
    ) -> Result<Started, CpuError> {
        self.check_executing(cpu)?;
        let pending = self.gic.cpu_on::<E>(cpu, registers)?;
        self.interrupts.cpu_starting();
        Ok(Started { cpu, pending })
    }

    /// A GICv3's redistributors belong to CPUs by their affinities.
    fn check_executing(&self, cpu: Cpu) -> Result<(), CpuError> {
        match (self.platform.affinity(), self.affinity(cpu)) {
            (Some(found), Some(expected)) if found != expected && self.gic.v3().is_some() => {
                Err(CpuError::OtherCpu { expected, found })
            }
            _ => Ok(()),
        }
    }

    /// The second half, on any CPU: what sends interrupts may send them there. Managed interrupts
    /// that could not come back to it are handed to `stranded`. If its redistributor lost pending
    /// LPIs, all that may have been pending become pending again.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`CpuError::Its`], [`CpuError::DirectLpi`], [`CpuError::Unknown`].
    pub fn cpu_online(
        &self,
        started: Started,
        stranded: impl FnMut(Stranded),
    ) -> Result<(), CpuError> {
        let Started { cpu, pending } = started;
        // A CPU whose LPIs are off takes wired interrupts.
        if let Some(pending) = pending {
            for its in self.msi.itses() {
                its.cpu_on(cpu)?;
                answer_loss(its, cpu, pending)?;
            }
            if let Some(direct_lpi) = self.msi.direct_lpi() {
                direct_lpi.cpu_on(cpu, pending).map_err(CpuError::DirectLpi)?;
            }
        }
        Ok(self.interrupts.cpu_online(cpu, stranded)?)
    }

    /// Makes the CPU that executes this take no interrupts any more:
    /// [`cpu_offline`](Self::cpu_offline), then what is pending, then
    /// [`cpu_dying`](Self::cpu_dying). Its interrupts arrive elsewhere; events that the interrupt
    /// core does not know move to `heir`, and those that cannot move are handed to `stranded`. The
    /// kernel then turns the CPU off.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`CpuError`]; with [`CpuError::Stranded`] and [`CpuError::Its`] the CPU stays on.
    pub fn cpu_off(
        &self,
        cpu: Cpu,
        heir: Cpu,
        registers: &impl SystemRegisters,
        stranded: impl FnMut(Stranded),
    ) -> Result<(), CpuError> {
        self.cpu_offline(cpu, heir, stranded)?;
        let state = self.platform.irq_save();
        self.handle_irq(cpu, registers, |_, _| ());
        let result = self.cpu_dying(cpu, registers);
        self.platform.irq_restore(state);
        result
    }

    /// The first half, on any CPU: nothing is sent to `cpu` any more. Interrupts that cannot move
    /// are handed to `stranded`. The CPU then takes what is pending there.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`CpuError::Stranded`], [`CpuError::Its`], [`CpuError::Unknown`]: the CPU stays on line.
    pub fn cpu_offline(
        &self,
        cpu: Cpu,
        heir: Cpu,
        mut stranded: impl FnMut(Stranded),
    ) -> Result<(), CpuError> {
        let mut left: usize = 0;
        self.interrupts.cpu_offline(cpu, |one| {
            left += 1;
            stranded(one);
        })?;
        if left != 0 {
            self.interrupts.cpu_online(cpu, stranded)?;
            return Err(CpuError::Stranded(left));
        }
        for its in self.msi.itses() {
            if let Err(error) = its.cpu_off(cpu, heir) {
                self.return_to_itses(cpu);
                self.interrupts.cpu_online(cpu, stranded)?;
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// ITSes that took the CPU offline take it online again.
    fn return_to_itses(&self, cpu: Cpu) {
        for its in self.msi.itses() {
            // The ITS that fails is the one that is reported already.
            let _ = its.cpu_on(cpu);
        }
    }

    /// The second half, on the CPU itself with its interrupts masked, after it took what was
    /// pending. Its direct LPIs are carried elsewhere, and its interface and redistributor go off.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// [`CpuError::DirectLpi`], [`CpuError::Gic`].
    pub fn cpu_dying(&self, cpu: Cpu, registers: &impl SystemRegisters) -> Result<(), CpuError> {
        if let Some(direct_lpi) = self.msi.direct_lpi() {
            direct_lpi.cpu_off(cpu, |_| ()).map_err(CpuError::DirectLpi)?;
        }
        Ok(self.gic.cpu_off(cpu, registers)?)
    }
}

/// Makes the CPU's events pending again if its redistributor lost its pending LPIs: a handler that
/// runs once more than needed is better than a message that is never handled.
pub(crate) fn answer_loss<P: GicPlatform>(
    its: &Its<P>,
    cpu: Cpu,
    pending: PendingLpis,
) -> Result<(), ItsError> {
    if pending == PendingLpis::Kept {
        return Ok(());
    }
    match its.resend(cpu) {
        // An ITS that does not reach the CPU has no event there.
        Ok(_) | Err(ItsError::NotReachable(..)) => Ok(()),
        Err(error) => Err(error),
    }
}
