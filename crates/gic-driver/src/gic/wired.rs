//! Wired interrupts, addressed by INTID: SPIs and extended SPIs at the distributor; SGIs, PPIs and
//! extended PPIs at the calling CPU's redistributor.
//!
//! Also explains how far an interrupt gets through the distributor, the target's redistributor and
//! its CPU interface.

use super::Gic;
use crate::claims::{Moving, PRIVATE, nth};
use crate::cpu_interface::InterfaceState;
use crate::lpi::AdoptionRefused;
use crate::{GicError, GicPlatform, Group, Interrupt, Route, SecurityView, SystemRegisters};
use core::num::NonZeroU16;
use gic_arch::{Affinity, IntId, Lpi, Priority, icc};
use msi_types::explain::{
    self, Explanation, Fact, Obstacle, TableRegister, TargetState, Unexamined,
};
use msi_types::{ControllerFault, Cpu, HwIrq, MsiError, Pending, Trigger, WiredParent};

/// Private interrupts are SGIs, PPIs and extended PPIs. An operation on a private interrupt affects
/// the calling CPU's instance: each CPU masks and unmasks its own instance and sets its trigger. A
/// claim on a private interrupt covers all CPUs. A private interrupt cannot be moved to another
/// CPU.
impl<P: GicPlatform> WiredParent for Gic<P> {
    fn claim(&self, first: HwIrq, count: NonZeroU16) -> Result<(), MsiError> {
        for offset in 0..count.get() {
            self.wired(nth(first, offset)?.hwirq())?;
        }
        self.claims.with(&*self.platform, |claims| claims.claim_all(first, count))?;
        let prepare = |offset| {
            let intid = nth(first, offset)?;
            // Private interrupts were set up when their CPU was turned on. The security view may
            // not be able to configure a shared interrupt.
            if intid.is_private() {
                return Ok(());
            }
            let taken = self.wired(intid.hwirq())?.take(self.priorities.wired);
            taken.map_err(|_| MsiError::UnknownVector(intid.hwirq()))
        };
        let prepared = (0..count.get()).try_for_each(prepare);
        prepared.inspect_err(|_| disclaim(self, first, count))
    }

    fn release(&self, first: HwIrq, count: NonZeroU16) {
        for offset in 0..count.get() {
            if let Ok(intid) = nth(first, offset)
                && let Ok(interrupt) = self.wired(intid.hwirq())
            {
                // Ignore a timeout: the disable has been requested, and the caller is releasing the
                // interrupt.
                let _ = interrupt.disable(&*self.platform);
                interrupt.set_pending(Pending::Clear);
            }
        }
        disclaim(self, first, count);
    }

    fn set_trigger(&self, hwirq: HwIrq, trigger: Trigger) -> Result<(), MsiError> {
        let interrupt = self.wired(hwirq)?;
        interrupt
            .set_trigger(&*self.platform, trigger)
            .map_err(|error| fault(self, "set trigger", error))
    }

    fn set_target(&self, hwirq: HwIrq, cpu: Cpu) -> Result<(), MsiError> {
        if IntId::from(hwirq).is_private() {
            return Err(MsiError::NotReachable(cpu, PRIVATE));
        }
        let affinity =
            self.affinity(cpu).ok_or(MsiError::NotReachable(cpu, "the GIC does not know it"))?;
        if !self.is_on(cpu) {
            return Err(MsiError::NotReachable(cpu, "it is off"));
        }
        reroute(self, &self.wired(hwirq)?, cpu, affinity)
    }

    fn mask(&self, hwirq: HwIrq) {
        if let Ok(interrupt) = self.wired(hwirq) {
            self.moves.with(&*self.platform, |moves| {
                // An interrupt that is being moved is already disabled. Record the request so that
                // the interrupt stays disabled when the move ends.
                let _ = moves.note(interrupt.intid(), false);
                interrupt.request_disable();
            });
            // Ignore a timeout, because `mask` can't return an error and the disable has been
            // requested.
            let _ = interrupt.wait_for_rwp(&*self.platform);
        }
    }

    fn unmask(&self, hwirq: HwIrq) {
        if let Ok(interrupt) = self.wired(hwirq) {
            self.moves.with(&*self.platform, |moves| {
                if moves.note(interrupt.intid(), true).is_ok() {
                    interrupt.enable();
                }
            });
        }
    }

    fn set_pending(&self, hwirq: HwIrq, pending: Pending) {
        if let Ok(interrupt) = self.wired(hwirq) {
            let intid = IntId::from(hwirq);
            if pending == Pending::Clear && !intid.is_private() {
                self.distributor.clear_message(intid);
            }
            interrupt.set_pending(pending);
        }
    }

    fn is_pending(&self, hwirq: HwIrq) -> bool {
        self.wired(hwirq).is_ok_and(|interrupt| interrupt.is_pending())
    }

    fn has_private(&self, hwirq: HwIrq) -> bool {
        IntId::from(hwirq).is_private() && self.wired(hwirq).is_ok()
    }

    fn explain(&self, hwirq: HwIrq) -> Explanation {
        let stopped = Explanation::stopped;
        let Ok(interrupt) = self.wired(hwirq) else {
            return stopped(Obstacle::NoSuchInterrupt { interrupt: hwirq });
        };
        let cpu = self.platform.cpu();
        if interrupt.intid().is_private() && !self.is_on(cpu) {
            return stopped(Obstacle::Offline { cpu });
        }
        let mut state = explain_state(&interrupt, self.distributor.view());
        if state.is_idle()
            && let Some(other) = self.unclaimed_pending()
        {
            state = state.with_fact(Fact::OtherPending(other.hwirq()));
        }
        state.merge(match self.distributor.route(interrupt.intid()) {
            _ if IntId::from(hwirq).is_private() => self.explain_target(cpu),
            Ok(Route::To(affinity)) => {
                let target = self.cpus().find(|cpu| self.affinity(*cpu) == Some(affinity));
                let missing = Obstacle::NoTarget { affinity: affinity.mpidr() };
                target.map_or(stopped(missing), |cpu| self.explain_target(cpu))
            }
            Ok(Route::AnyParticipating) | Err(_) => {
                Explanation::new().with_obstacles(&[self.withheld()])
            }
        })
    }
}

/// Changes the route of a shared interrupt. On return, the old CPU no longer receives the
/// interrupt.
///
/// `GICD_CTLR.RWP` tracks a disable, but not a write of `GICD_IROUTER` (IHI 0069 §12.9.4). An
/// interrupt that is enabled while its route changes may still be forwarded along the old
/// route. The driver therefore disables the interrupt during the change, as Linux does.
fn reroute<P: GicPlatform>(
    gic: &Gic<P>,
    interrupt: &Interrupt<'_, P::Mmio>,
    cpu: Cpu,
    affinity: Affinity,
) -> Result<(), MsiError> {
    let intid = interrupt.intid();
    let begun = gic.moves.with(&*gic.platform, |moves| {
        let enabled = interrupt.is_enabled();
        moves.begin(intid, enabled)?;
        if enabled {
            interrupt.request_disable();
        }
        Ok(())
    });
    begun.map_err(|Moving| MsiError::NotReachable(cpu, "the interrupt is already being moved"))?;
    let result = interrupt
        .wait_for_rwp(&*gic.platform)
        .map_err(|error| fault(gic, "set target", error))
        .and_then(|()| write_route(gic, intid, cpu, affinity));
    gic.moves.with(&*gic.platform, |moves| {
        if moves.end(intid) {
            interrupt.enable();
        }
    });
    result
}

/// Writes the route. The interrupt must be disabled, and the disable must have taken effect. If
/// the route does not read back, the distributor can't reach the requested affinity, and the
/// old route is restored.
fn write_route<P: GicPlatform>(
    gic: &Gic<P>,
    intid: IntId,
    cpu: Cpu,
    affinity: Affinity,
) -> Result<(), MsiError> {
    let write = |route| {
        let written = gic.distributor.set_route(intid, route);
        written.and_then(|()| gic.distributor.route(intid))
    };
    let unknown = |_| MsiError::UnknownVector(intid.hwirq());
    let old = gic.distributor.route(intid).map_err(unknown)?;
    if write(Route::To(affinity)).map_err(unknown)? != Route::To(affinity) {
        write(old).map_err(unknown)?;
        return Err(MsiError::NotReachable(cpu, "the distributor does not accept this route"));
    }
    Ok(())
}

fn disclaim<P: GicPlatform>(gic: &Gic<P>, first: HwIrq, count: NonZeroU16) {
    gic.claims.with(&*gic.platform, |claims| claims.release_all(first, count.get()));
}

fn fault<P: GicPlatform>(gic: &Gic<P>, operation: &'static str, error: GicError) -> MsiError {
    let reason = match error {
        GicError::TimedOut { what, .. } => what,
        GicError::StillEnabled(_) => "the interrupt is enabled",
        GicError::FixedTrigger(intid) if intid.is_private() => PRIVATE,
        GicError::FixedTrigger(_) => "the hardware fixes the trigger",
        _ => "refused",
    };
    MsiError::Controller(ControllerFault {
        kind: "gicv3",
        base: gic.distributor.address(),
        operation,
        device: None,
        event: None,
        reason,
    })
}

impl<P: GicPlatform> Gic<P> {
    /// Explains whether the interface of the calling CPU, `cpu`, signals an interrupt with this
    /// priority. Checks the group, the priority mask, the running priority and, if `registers`
    /// [can read it](SystemRegisters::irqs_masked), the CPU's exception mask.
    ///
    /// Context: any.
    pub fn explain_interface<S: SystemRegisters>(
        &self,
        (cpu, registers): (Cpu, &S),
        interrupt: HwIrq,
        priority: Priority,
    ) -> Explanation {
        let interface = self.cpu_interface(registers);
        let state = InterfaceState {
            group: group_name(self.distributor.view().own_group()),
            is_enabled: registers.read(icc::IGRPEN1).enable(),
            mask: interface.mask(),
            running: interface.running_priority(),
            highest_pending: interface.highest_pending(),
            irqs_masked: registers.irqs_masked(),
            binary_point: registers.read(icc::BPR1).to_le_bytes()[0],
        };
        state.explain(cpu, interrupt, priority)
    }

    /// Explains how far a pending LPI that targets `cpu` gets.
    ///
    /// Context: task; may sleep.
    pub(crate) fn explain_lpi(&self, lpi: Lpi, cpu: Cpu) -> Explanation {
        let stopped = Explanation::stopped;
        let on = self.redistributor_frames(cpu).ok().filter(|_| self.is_on(cpu));
        let Some(redistributor) = on else { return stopped(Obstacle::Offline { cpu }) };
        let found = self.explain_target(cpu).with_unexamined(Unexamined::TableCaches);
        let is_on = redistributor.lpis_enabled();
        let foreign = || self.lpis.as_ref().ok()?.foreign_table(redistributor);
        let obstacle = match foreign() {
            _ if !is_on => Some(Obstacle::LpisDisabled { cpu }),
            table => table.and_then(|table| other_table(table, cpu)),
        };
        let found = found.with_obstacles(&[obstacle]);
        let interrupt = lpi.intid().hwirq();
        let bits = redistributor.lpi_bases().0.id_bits_minus_one() + 1;
        let config = self.lpis.as_ref().ok().and_then(|lpis| lpis.config(lpi).ok());
        let Some(config) = config.filter(|_| !is_on || lpi.get() >> bits.min(31) == 0) else {
            return found.with_obstacle(Obstacle::BeyondTable { interrupt, bits });
        };
        if config.enable() {
            found.with_fact(Fact::Enabled(config.priority().get()))
        } else {
            found.with_obstacle(Obstacle::Disabled { interrupt })
        }
    }

    /// Returns a pending SPI that no driver has claimed.
    fn unclaimed_pending(&self) -> Option<IntId> {
        let spis = (32..1020).map(IntId::new);
        let is_pending =
            |intid: &IntId| self.distributor.interrupt(*intid).is_ok_and(|spi| spi.is_pending());
        spis.filter(is_pending).find(|intid| {
            let is_claimed = self.claims.with(&*self.platform, |claims| claims.has(*intid));
            !is_claimed
        })
    }

    fn explain_target(&self, cpu: Cpu) -> Explanation {
        let stopped = Explanation::stopped;
        let on = self.redistributor_frames(cpu).ok().filter(|_| self.is_on(cpu));
        let Some(redistributor) = on else { return stopped(Obstacle::Offline { cpu }) };
        let asleep = redistributor.is_asleep().then_some(Obstacle::Asleep { cpu });
        let target = match asleep {
            Some(_) => Fact::Routed(cpu),
            None => Fact::Target(cpu, TargetState::Awake),
        };
        Explanation::new().with_fact(target).with_obstacles(&[asleep, self.withheld()])
    }

    /// Returns an obstacle if the distributor does not forward the driver's group.
    fn withheld(&self) -> Option<Obstacle> {
        let group = group_name(self.distributor.view().own_group());
        let ctlr = self.distributor.withheld_group()?;
        Some(Obstacle::GroupDisabled { group, ctlr: ctlr.into() })
    }
}

/// Explains an interrupt's state, as read from the register frame that holds it.
fn explain_state<M: crate::Mmio>(interrupt: &Interrupt<'_, M>, view: SecurityView) -> Explanation {
    let hwirq = interrupt.intid().hwirq();
    let foreign = interrupt.group(view).filter(|group| *group != view.own_group());
    let wrong = |group| Obstacle::WrongGroup { interrupt: hwirq, group: group_name(group) };
    interrupt.explain().with_obstacles(&[foreign.map(wrong)])
}

/// Returns the obstacle for a table register that does not name the driver's table.
const fn other_table(table: AdoptionRefused, cpu: Cpu) -> Option<Obstacle> {
    let (register, found, expected) = match table {
        AdoptionRefused::OtherConfigTable { found, expected } => {
            (TableRegister::Propbaser(cpu), found, expected)
        }
        AdoptionRefused::OtherPendingTable { found, expected } => {
            (TableRegister::Pendbaser(cpu), found, expected)
        }
        _ => return None,
    };
    Some(Obstacle::OtherTable { register, found, expected })
}

/// Converts a group to its number in `ICC_IGRPEN<n>_EL1`. Secure Group 1 is Group 1.
const fn group_name(group: Group) -> explain::Group {
    match group {
        Group::Zero => explain::Group::Zero,
        Group::One | Group::SecureOne => explain::Group::One,
    }
}
