//! CPU hotplug, and suspend and resume of all interrupt controllers, for systems that lose all
//! state except RAM.
//!
//! Turning a CPU on or off involves the GIC, every ITS, direct LPIs and the interrupt core; the
//! order of these steps ensures that no interrupt is lost.

use crate::error::{
    CpuError, DriverError, ResumeError, SavedGic, Stopped, SuspendError, Suspended,
};
use crate::irqchip::Irqchip;
use crate::msi::MsiController;
use crate::root::RootGic;
use alloc::boxed::Box;
use doorbell_fallible::try_box;
use gic_driver::cpu_interface::EoiMode;
use gic_driver::gic::{self, SuspendRoom};
use gic_driver::gicv2::{SuspendRoomV2, SuspendedV2};
use gic_driver::lpi::PendingLpis;
use gic_driver::{Block, GicError, GicPlatform, Its, ItsError, SystemRegisters};
use irq_domain::Stranded;
use msi_types::{Cpu, MsiError};

/// Memory for the GIC's saved state. The memory is allocated in advance, because interrupts are
/// masked while the state is saved.
enum Room {
    V3(SuspendRoom),
    V2(SuspendRoomV2, Box<[Option<SuspendedV2>; 1]>),
}

impl<P: GicPlatform + 'static, E: EoiMode> Irqchip<P, E> {
    /// Stops every controller and saves the state that would be lost without power. This must be
    /// the kernel's last step before it asks firmware to suspend the system. It must be called on
    /// the last CPU that is on, `cpu`; the other CPUs must have called [`cpu_off`](Self::cpu_off),
    /// and devices must have stopped sending messages. No task may still be using a controller. The
    /// call masks interrupts while it stops the controllers, and afterwards no interrupt is
    /// signaled to the CPU.
    ///
    /// | step | reason for the order |
    /// |---|---|
    /// | every ITS finishes its commands, writes its caches to memory and drops messages | this requires redistributors that are awake |
    /// | direct LPIs are no longer invalidated or made pending | both use the redistributors' registers |
    /// | the GIC writes pending LPIs to memory where it can, and is saved and stopped | everything else has stopped |
    ///
    /// Message-based SPIs and GICv2m frames have no state other than their SPIs. The driver of a
    /// controller inside a host bridge notes the messages that have arrived, and writes the
    /// controller again after the GIC, as the driver of a MIP does.
    ///
    /// Pending interrupts are handled after [`resume`](Self::resume). Messages sent while the
    /// system is suspended are lost, unless the device's own mask bit holds them back.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// Any [`SuspendError`]. All controllers keep working, except for the controllers that
    /// [`SuspendError::NotUndone`] reports.
    pub fn suspend(
        &self,
        cpu: Cpu,
        registers: &impl SystemRegisters,
    ) -> Result<Suspended, SuspendError> {
        if let Some(on) = self.cpus().find(|other| *other != cpu && self.gic.is_on(*other)) {
            return Err(SuspendError::CpuIsOn(on));
        }
        if !self.gic.is_on(cpu) {
            return Err(SuspendError::Refused(GicError::UnknownCpu(cpu)));
        }
        let room = Room::new(&self.gic).map_err(SuspendError::Refused)?;
        let state = self.platform.irq_save();
        let result = self.suspend_masked(cpu, registers, room);
        self.platform.irq_restore(state);
        result
    }

    /// Restores every controller after power returns, including controllers that have kept their
    /// state. Must be called on the CPU that suspended, before it unmasks interrupts or accesses a
    /// device. Afterwards the other CPUs must call [`cpu_on`](Self::cpu_on), and bus drivers must
    /// restore their devices ([`MsiDevice::restore`](irq_domain::MsiDevice::restore)).
    ///
    /// Controllers are restored in the reverse order of [`suspend`](Self::suspend): the GIC,
    /// controllers inside host bridges and MIPs, direct LPIs, ITSes. If the redistributor couldn't
    /// write its pending LPIs to memory, every event that may have been pending is resent, so a
    /// handler may run once without a message from its device.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// Any [`ResumeError`]. After [`ResumeError::Controllers`], all controllers except the failed
    /// ones work.
    pub fn resume(
        &self,
        suspended: Suspended,
        registers: &impl SystemRegisters,
    ) -> Result<(), ResumeError> {
        let state = self.platform.irq_save();
        let result = self.resume_masked(suspended, registers);
        self.platform.irq_restore(state);
        result
    }

    fn suspend_masked(
        &self,
        cpu: Cpu,
        registers: &impl SystemRegisters,
        room: Room,
    ) -> Result<Suspended, SuspendError> {
        let mut stopped = Stopped::default();
        if let Err(cause) = self.stop_senders(cpu, &mut stopped) {
            let result = self.restart_senders(cpu, stopped, PendingLpis::Kept);
            return Err(SuspendError::after_undo(cause, result));
        }
        match self.save_gic(cpu, registers, room) {
            Ok(gic) => Ok(Suspended { cpu, stopped, gic }),
            Err((error, saved)) => {
                let result = match saved {
                    Some(gic) => self.resume_masked(Suspended { cpu, stopped, gic }, registers),
                    None => self.restart_senders(cpu, stopped, PendingLpis::Kept),
                };
                Err(SuspendError::after_undo(DriverError::Gic(error), result))
            }
        }
    }

    fn resume_masked(
        &self,
        suspended: Suspended,
        registers: &impl SystemRegisters,
    ) -> Result<(), ResumeError> {
        let pending = match self.restore_gic(&suspended, registers) {
            Ok(pending) => pending,
            Err(error) => return Err(ResumeError::Gic { error, suspended }),
        };
        self.restart_senders(suspended.cpu, suspended.stopped, pending)
    }

    /// Stops all controllers that send LPIs and records them in `stopped`. Lets the drivers of
    /// controllers inside host bridges note what has arrived.
    fn stop_senders(&self, cpu: Cpu, stopped: &mut Stopped) -> Result<(), DriverError> {
        for (_, controller) in self.msi.iter() {
            match controller {
                MsiController::BridgeMsi(bridge) => bridge.suspend(),
                MsiController::Its(its) => {
                    its.suspend().map_err(DriverError::Its)?;
                    stopped.itses += 1;
                }
                // Direct LPIs are stopped below. The others only keep what their drivers know.
                MsiController::DirectLpi(_)
                | MsiController::Mbi(_)
                | MsiController::V2m(_)
                | MsiController::Mip(_) => {}
            }
        }
        if let Some(direct_lpi) = self.msi.direct_lpi() {
            match direct_lpi.cpu_off(cpu, |_| ()) {
                // LPIs are disabled at this CPU, so there's nothing to stop.
                Err(MsiError::NotReachable(..)) => {}
                result => {
                    stopped.direct_lpi = true;
                    result.map_err(DriverError::DirectLpi)?;
                }
            }
        }
        Ok(())
    }

    /// Restarts the controllers in `stopped` and writes those with registers of their own, and
    /// continues after a failure. If pending LPIs were lost, resends them.
    fn restart_senders(
        &self,
        cpu: Cpu,
        stopped: Stopped,
        pending: PendingLpis,
    ) -> Result<(), ResumeError> {
        let (mut first, mut failed) = (None, 0_usize);
        let mut note = |error: DriverError| {
            first.get_or_insert(error);
            failed += 1;
        };
        for (_, controller) in self.msi.iter() {
            match controller {
                MsiController::BridgeMsi(bridge) => bridge.restore(),
                MsiController::Mip(mip) => mip.restore(),
                // The first two are restarted below; the others have no state outside of the GIC.
                MsiController::Its(_)
                | MsiController::DirectLpi(_)
                | MsiController::Mbi(_)
                | MsiController::V2m(_) => {}
            }
        }
        if let Some(direct_lpi) = self.msi.direct_lpi().filter(|_| stopped.direct_lpi)
            && let Err(error) = direct_lpi.cpu_on(cpu, pending)
        {
            note(DriverError::DirectLpi(error));
        }
        for its in self.msi.itses().take(stopped.itses) {
            let resumed = its.resume().and_then(|()| answer_loss(its, cpu, pending));
            if let Err(error) = resumed {
                note(DriverError::Its(error));
            }
        }
        match first {
            None => Ok(()),
            Some(first) => Err(ResumeError::Controllers { first, failed }),
        }
    }

    /// Saves and stops the GIC. If the GIC was stopped before an error occurred, the error contains
    /// the saved state.
    fn save_gic(
        &self,
        cpu: Cpu,
        registers: &impl SystemRegisters,
        room: Room,
    ) -> Result<SavedGic, (GicError, Option<SavedGic>)> {
        match (&self.gic, room) {
            (RootGic::V3(gic), Room::V3(room)) => {
                let saved =
                    gic.suspend(room, cpu, registers).map_err(gic::SuspendError::into_parts);
                saved.map(SavedGic::V3).map_err(|(error, saved)| (error, saved.map(SavedGic::V3)))
            }
            (RootGic::V2(gic), Room::V2(room, mut place)) => {
                *place = [Some(gic.suspend(room, cpu).map_err(|error| (error, None))?)];
                Ok(SavedGic::V2(place))
            }
            _ => unreachable!("the room was allocated for this GIC"),
        }
    }

    /// Restores the GIC and reports whether pending LPIs survived.
    fn restore_gic(
        &self,
        suspended: &Suspended,
        registers: &impl SystemRegisters,
    ) -> Result<PendingLpis, GicError> {
        match (&self.gic, &suspended.gic) {
            (RootGic::V3(gic), SavedGic::V3(saved)) => Ok(gic.resume(saved, registers)?.lpis),
            (RootGic::V2(gic), SavedGic::V2(place)) => {
                let [Some(saved)] = &**place else { unreachable!("`save_gic` fills the slot") };
                gic.resume(saved);
                Ok(PendingLpis::Kept)
            }
            _ => Err(GicError::UnknownCpu(suspended.cpu)),
        }
    }
}

impl Room {
    fn new<P: GicPlatform>(gic: &RootGic<P>) -> Result<Self, GicError> {
        match gic {
            RootGic::V3(gic) => Ok(Self::V3(gic.suspend_room()?)),
            RootGic::V2(gic) => {
                let place = try_box(None).map_err(|_| GicError::NoMemory(Block::CpuInterface))?;
                Ok(Self::V2(gic.suspend_room()?, place))
            }
        }
    }
}

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
