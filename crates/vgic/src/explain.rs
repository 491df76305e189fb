//! Explanations of why an interrupt does not arrive, read while the machine runs.
//!
//! An explanation reads the guest's registers and tables, the interrupt's state, and the state that
//! the target vCPU published of its CPU interface. It has no side effects, and holds each lock only
//! for a few accesses. Its parts may have been read at different times.

mod input;
mod lpi;

use crate::cpu_interface::{CpuInterface, Features};
use crate::vgic::Vgic;
use crate::wired::interrupt::InterruptWord;
use gic_arch::{IntId, IntIdClass, Lpi, Priority};
use msi_types::explain::Group;
use msi_types::explain::{Explanation, Fact, Obstacle, Unexamined};
use msi_types::{Cpu, DeviceId, EventId, HwIrq, Level};

/// Result of following an interrupt: `Ok` if it was followed to its end, and otherwise an obstacle
/// that hides what is behind it. Other obstacles are recorded ([`Explainer::hinder`]).
pub(crate) type Passed = Result<(), Obstacle>;

/// An interrupt at its target vCPU.
struct Arrival {
    interrupt: HwIrq,
    is_pending: bool,
    cpu: Cpu,
    group: Group,
    /// Priority in the view of the CPU interface.
    priority: Priority,
    /// `true` if the pending state was moved to a list register.
    is_listed: bool,
}

/// An explanation in the making.
pub(crate) struct Explainer<'a> {
    gic: &'a Vgic,
    explanation: Explanation,
}

impl Explainer<'_> {
    /// Follows an event of the ITS with this index from the ITS's doorbell.
    pub(crate) fn explain_its(&mut self, its: usize, device: DeviceId, event: EventId) -> Passed {
        let (index, all) = (its, &self.gic.its);
        let Some(its) = all.get(index) else {
            return Err(Obstacle::NoIts { index: truncated(index), count: truncated(all.len()) });
        };
        self.note(Fact::Doorbell(its.doorbell()));
        self.explain_event(its, device, event)
    }

    /// Follows an interrupt of this vCPU.
    pub(crate) fn explain_interrupt(&mut self, cpu: Cpu, intid: IntId) -> Passed {
        if cpu.index() >= self.gic.config.cpus.len() {
            return Err(Obstacle::NoSuchInterrupt { interrupt: HwIrq::new(intid.get()) });
        }
        match Lpi::try_from(intid) {
            Ok(lpi) => self.explain_lpi(cpu, lpi),
            Err(_) => self.explain_wired(Some(cpu), intid),
        }
    }

    /// Follows an interrupt through its target's redistributor and CPU interface.
    fn explain_arrival(&mut self, arrival: &Arrival) -> Passed {
        let Arrival { interrupt, cpu, group, .. } = *arrival;
        let private = self.gic.wired.private(cpu).ok_or(Obstacle::NoSuchInterrupt { interrupt })?;
        if private.is_awake() {
            self.note(Fact::Target(cpu, self.gic.wakeup.target_state(cpu)));
        } else {
            self.note(Fact::Routed(cpu));
            self.hinder(Obstacle::Asleep { cpu });
        }
        if !self.gic.wired.forwards(group) {
            let ctlr = self.gic.distributor().control();
            self.hinder(Obstacle::GroupDisabled { group, ctlr });
        }
        let interface = self.interface(cpu);
        for obstacle in interface.obstacles(cpu, group, arrival.priority).into_iter().flatten() {
            self.hinder(obstacle);
            if matches!(obstacle, Obstacle::PriorityNotHigher { .. })
                && let Some(grouping) = interface.grouping(group, arrival.priority)
            {
                self.note(grouping);
            }
        }
        if arrival.is_listed {
            self.hinder(Obstacle::Listed { interrupt, cpu });
        }
        if self.explanation.obstacle().is_none() {
            let fact = if arrival.is_pending { Fact::Signaled } else { Fact::WouldSignal };
            self.note(fact(cpu));
        }
        self.explanation = self.explanation.with_unexamined(Unexamined::ExceptionMask);
        Ok(())
    }

    /// Returns a vCPU's CPU interface as the vCPU last published it.
    fn interface(&self, cpu: Cpu) -> CpuInterface {
        let features = Features::of(&self.gic.config);
        self.gic.wired.private(cpu).map_or_else(
            || CpuInterface::new(features),
            |private| CpuInterface::published(features, &private.interface),
        )
    }

    fn note(&mut self, fact: Fact) {
        self.explanation.note(fact);
    }

    /// Records an obstacle behind which the interrupt can be followed further.
    fn hinder(&mut self, obstacle: Obstacle) {
        self.explanation.hinder(obstacle);
    }

    /// Follows an interrupt from its input. `asked` is the vCPU that the caller expects to be
    /// interrupted. If it is `None`, follows an SPI to the vCPU to which it is routed.
    fn explain_wired(&mut self, asked: Option<Cpu>, intid: IntId) -> Passed {
        let state = self.visible(asked, intid)?;
        self.note(Fact::Input(HwIrq::new(intid.get())));
        if is_driven(intid, state) {
            self.note(Fact::Line(if state.line() { Level::High } else { Level::Low }));
        }
        self.explain_state(asked, intid, is_driven(intid, state))
    }

    /// Follows an SPI that a message makes pending.
    fn explain_message_spi(&mut self, intid: IntId) -> Passed {
        self.explain_state(None, intid, false)
    }

    fn visible(&self, asked: Option<Cpu>, intid: IntId) -> Result<InterruptWord, Obstacle> {
        let state = self.gic.wired.visible(asked.unwrap_or_default(), intid);
        state.ok_or(Obstacle::NoSuchInterrupt { interrupt: HwIrq::new(intid.get()) })
    }

    /// Follows an interrupt from its configuration to the target. `is_driven` is `true` if the
    /// interrupt is pending while its line is high.
    fn explain_state(&mut self, asked: Option<Cpu>, intid: IntId, is_driven: bool) -> Passed {
        let state = self.visible(asked, intid)?;
        let (interrupt, group) = (HwIrq::new(intid.get()), state.group());
        if !state.enabled() {
            self.hinder(Obstacle::Disabled { interrupt });
        }
        // No PE accepts a misplaced 1-of-N interrupt, so explain why the requested vCPU does not.
        let is_homeless = self.gic.wired.is_misplaced(state);
        let target = asked.filter(|_| is_homeless).or(state.target());
        let interface = self.interface(target.or(asked).unwrap_or_default());
        if group == Group::Zero && !interface.takes(group) && interface.takes(Group::One) {
            return Err(Obstacle::WrongGroup { interrupt, group });
        }
        if state.enabled() {
            self.note(Fact::Enabled(interface.view(state.priority())));
        }
        if state.active() && !state.listed() {
            return Err(Obstacle::Active { interrupt, cpu: state.taker() });
        }
        let is_pending = state.pending();
        if is_pending {
            self.note(Fact::Pending(interrupt));
        } else if is_driven && self.gic.wired.lost_pulse() == Some(intid) {
            self.hinder(Obstacle::PulseLost { interrupt });
        } else if !is_driven && state.line() {
            self.hinder(Obstacle::NoEdge { interrupt });
        } else {
            self.note(Fact::NotPending(interrupt));
        }
        let Some(cpu) = target else {
            let affinity = self.gic.wired.route(intid).into_bits();
            return Err(Obstacle::NoTarget { affinity });
        };
        if let Some(asked) = asked.filter(|asked| *asked != cpu) {
            return Err(Obstacle::OtherTarget { interrupt, cpu: asked, target: cpu });
        }
        let (priority, is_listed) = (state.priority(), state.listed());
        let arrival = Arrival { interrupt, is_pending, cpu, group, priority, is_listed };
        self.explain_arrival(&arrival)
    }
}

/// Returns the explanation with the facts that `follow` adds and the obstacle that it returns.
pub(crate) fn explained<'a>(
    gic: &'a Vgic,
    follow: impl FnOnce(&mut Explainer<'a>) -> Passed,
) -> Explanation {
    let mut explainer = Explainer { gic, explanation: Explanation::new() };
    match follow(&mut explainer) {
        Ok(()) => explainer.explanation,
        Err(obstacle) => explainer.explanation.with_obstacle(obstacle),
    }
}

fn truncated(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// Returns `true` if the interrupt is pending while its line is high. A level-sensitive SPI that a
/// message has driven high is pending regardless of its line.
fn is_driven(intid: IntId, state: InterruptWord) -> bool {
    intid.class() != IntIdClass::Sgi && !state.edge() && !state.message()
}
