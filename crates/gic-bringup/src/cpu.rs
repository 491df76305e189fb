//! CPU hotplug. Turning a CPU on or off involves the GIC, every ITS, direct LPIs and the interrupt
//! core; the order of these steps ensures that no interrupt is lost.

use crate::error::{CpuError, DriverError};
use crate::irqchip::Irqchip;
use gic_driver::cpu_interface::EoiMode;
use gic_driver::lpi::PendingLpis;
use gic_driver::{GicPlatform, Its, ItsError, SystemRegisters};
use irq_domain::Stranded;
use msi_types::Cpu;

/// A CPU that can take interrupts but is not yet targeted by any controller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "controllers send no interrupts to the CPU before `Irqchip::cpu_online`"]
pub struct Started {
    cpu: Cpu,
    pending: Option<PendingLpis>,
}

impl<P: GicPlatform, E: EoiMode> Irqchip<P, E> {
    /// Makes the calling CPU take interrupts by calling [`cpu_starting`](Self::cpu_starting) and
    /// [`cpu_online`](Self::cpu_online). Managed interrupts that could not be moved back to the CPU
    /// are passed to `stranded`.
    ///
    /// Context: task; may sleep.
    ///
    /// Does not allocate. May be called with interrupts masked if
    /// [`LocalCpu::yield_now`](gic_driver::LocalCpu::yield_now) spins. A kernel with preemptible
    /// tasks should call the two halves separately, and the second one from a task.
    ///
    /// # Errors
    /// Any [`CpuError`] except [`CpuError::Stranded`].
    pub fn cpu_on(
        &self,
        cpu: Cpu,
        registers: &impl SystemRegisters,
        stranded: impl FnMut(Stranded),
    ) -> Result<(), CpuError> {
        let started = self.cpu_starting(cpu, registers)?;
        self.cpu_online(started, stranded)
    }

    /// First half of [`cpu_on`](Self::cpu_on): sets up the redistributor and the CPU interface.
    /// Must be called on the CPU itself, before it unmasks interrupts. Private interrupts that were
    /// enabled when the CPU was turned off are enabled again.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// [`DriverError::Gic`], and [`CpuError::OtherCpu`] if [`GicPlatform::affinity`] names another
    /// CPU.
    pub fn cpu_starting(
        &self,
        cpu: Cpu,
        registers: &impl SystemRegisters,
    ) -> Result<Started, CpuError> {
        self.check_executing(cpu)?;
        let pending = self.gic.cpu_on::<E>(cpu, registers).map_err(DriverError::Gic)?;
        self.interrupts.cpu_starting();
        Ok(Started { cpu, pending })
    }

    /// Checks that `cpu` is the calling CPU. Always succeeds on a GICv2, which does not identify
    /// CPUs by their affinity.
    fn check_executing(&self, cpu: Cpu) -> Result<(), CpuError> {
        match (self.platform.affinity(), self.affinity(cpu)) {
            (Some(found), Some(expected)) if found != expected && self.gic.v3().is_some() => {
                Err(CpuError::OtherCpu { expected, found })
            }
            _ => Ok(()),
        }
    }

    /// Second half of [`cpu_on`](Self::cpu_on): allows controllers to target the CPU. May be called
    /// on any CPU. Managed interrupts that could not be moved back to the CPU are passed to
    /// `stranded`. If its redistributor lost pending LPIs, every LPI that may have been pending is
    /// resent.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`CpuError::Driver`], [`CpuError::Unknown`].
    pub fn cpu_online(
        &self,
        started: Started,
        stranded: impl FnMut(Stranded),
    ) -> Result<(), CpuError> {
        let Started { cpu, pending } = started;
        // With LPIs disabled, the CPU takes only wired interrupts, so no further step is needed.
        if let Some(pending) = pending {
            for its in self.msi.itses() {
                let ready = its.cpu_on(cpu).and_then(|()| answer_loss(its, cpu, pending));
                ready.map_err(DriverError::Its)?;
            }
            if let Some(direct_lpi) = self.msi.direct_lpi() {
                direct_lpi.cpu_on(cpu, pending).map_err(DriverError::DirectLpi)?;
            }
        }
        Ok(self.interrupts.cpu_online(cpu, stranded)?)
    }

    /// Makes the calling CPU stop taking interrupts: calls [`cpu_offline`](Self::cpu_offline),
    /// handles the CPU's pending interrupts, and calls [`cpu_dying`](Self::cpu_dying). The
    /// interrupts of the interrupt core move to other CPUs, all other events move to `heir`, and
    /// interrupts that can't be moved are passed to `stranded`. On success, the kernel must turn
    /// the CPU off.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// Any [`CpuError`]. After [`CpuError::Stranded`] and [`DriverError::Its`], the CPU stays on.
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

    /// First half of [`cpu_off`](Self::cpu_off): stops sending interrupts to `cpu`. May be called
    /// on any CPU. Interrupts that cannot be moved are passed to `stranded`. The CPU must then
    /// handle its pending interrupts.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`CpuError::Stranded`], [`DriverError::Its`], [`CpuError::Unknown`]. After any of these
    /// errors, the CPU stays online.
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
                return Err(DriverError::Its(error).into());
            }
        }
        Ok(())
    }

    /// Brings the CPU back online at the ITSes that had already taken it offline.
    fn return_to_itses(&self, cpu: Cpu) {
        for its in self.msi.itses() {
            // Ignore errors: this can fail only for the ITS whose error the caller already reports.
            let _ = its.cpu_on(cpu);
        }
    }

    /// Second half of [`cpu_off`](Self::cpu_off): resends the CPU's pending direct LPIs to their
    /// new target CPUs, then turns off its CPU interface and redistributor. Must be called on the
    /// CPU itself, with interrupts masked, once it has handled its pending interrupts.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// [`DriverError::DirectLpi`], [`DriverError::Gic`].
    pub fn cpu_dying(&self, cpu: Cpu, registers: &impl SystemRegisters) -> Result<(), CpuError> {
        if let Some(direct_lpi) = self.msi.direct_lpi() {
            direct_lpi.cpu_off(cpu, |_| ()).map_err(DriverError::DirectLpi)?;
        }
        Ok(self.gic.cpu_off(cpu, registers).map_err(DriverError::Gic)?)
    }
}

/// Resends all events that target the CPU if its redistributor lost pending LPIs. A spurious
/// handler run is better than a lost message.
pub(crate) fn answer_loss<P: GicPlatform>(
    its: &Its<P>,
    cpu: Cpu,
    pending: PendingLpis,
) -> Result<(), ItsError> {
    if pending == PendingLpis::Kept {
        return Ok(());
    }
    match its.resend(cpu) {
        // If the ITS can't reach the CPU, none of the ITS's events target the CPU.
        Ok(_) | Err(ItsError::NotReachable(..)) => Ok(()),
        Err(error) => Err(error),
    }
}
