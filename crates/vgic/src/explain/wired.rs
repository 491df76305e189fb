//! Explanations of SGIs, PPIs and SPIs.

use super::{Arrival, Passed, note, note_all};
use crate::vgic::Vgic;
use crate::wired::Group;
use crate::wired::interrupt::InterruptWord;
use gic_arch::{IntId, IntIdClass};
use msi_types::explain::{Explanation, Fact, Obstacle};
use msi_types::{Cpu, HwIrq, Level};

impl Vgic {
    /// Follows an interrupt from its input. `asked` is the vCPU that the caller expects to be
    /// interrupted. If it is `None`, follows an SPI to the vCPU to which it is routed.
    pub(super) fn explain_wired(
        &self,
        asked: Option<Cpu>,
        intid: IntId,
        explanation: &mut Explanation,
    ) -> Passed {
        let state = self.visible(asked, intid)?;
        note(explanation, Fact::Input(HwIrq::new(intid.get())));
        if is_driven(intid, state) && state.line() {
            note(explanation, Fact::Line(Level::High));
        }
        self.explain_state(asked, intid, is_driven(intid, state), explanation)
    }

    /// Follows an SPI that a message makes pending.
    pub(super) fn explain_message_spi(
        &self,
        intid: IntId,
        explanation: &mut Explanation,
    ) -> Passed {
        self.explain_state(None, intid, false, explanation)
    }

    fn visible(&self, asked: Option<Cpu>, intid: IntId) -> Result<InterruptWord, Obstacle> {
        let interrupt = HwIrq::new(intid.get());
        self.wired
            .visible(asked.unwrap_or_default(), intid)
            .ok_or(Obstacle::NoSuchInterrupt { interrupt })
    }

    /// Follows an interrupt from its configuration to the target. `is_driven` is `true` if the
    /// interrupt is pending while its line is high.
    fn explain_state(
        &self,
        asked: Option<Cpu>,
        intid: IntId,
        is_driven: bool,
        explanation: &mut Explanation,
    ) -> Passed {
        let state = self.visible(asked, intid)?;
        let (interrupt, group) = (HwIrq::new(intid.get()), Group::of(state));
        if !state.enabled() {
            return Err(Obstacle::Disabled { interrupt });
        }
        // No PE accepts a misplaced 1-of-N interrupt, so explain why the requested vCPU does not.
        let is_homeless = self.wired.is_misplaced(state);
        let target = asked.filter(|_| is_homeless).or(state.target());
        let interface = self.interface(target.or(asked).unwrap_or_default());
        if group == Group::Zero && !interface.takes(group) && interface.takes(Group::One) {
            return Err(Obstacle::WrongGroup { interrupt, group: group.into() });
        }
        note(explanation, Fact::Enabled(interface.view(state.priority())));
        if state.active() && !state.listed() {
            return Err(Obstacle::Active { interrupt, cpu: state.taker() });
        }
        if !state.pending() {
            let lost = is_driven && self.wired.lost_pulse() == Some(intid);
            note_all(explanation, lost.then_some(Fact::PulseLost(interrupt)));
            return Err(match (is_driven, state.line()) {
                (true, _) => Obstacle::LineLow,
                (false, true) => Obstacle::NoEdge { interrupt },
                (false, false) => Obstacle::NotPending { interrupt },
            });
        }
        note(explanation, Fact::Pending(interrupt));
        let Some(cpu) = target else {
            let affinity = self.wired.route(intid).into_bits();
            return Err(Obstacle::NoTarget { affinity });
        };
        if let Some(asked) = asked.filter(|asked| *asked != cpu) {
            return Err(Obstacle::OtherTarget { interrupt, cpu: asked, target: cpu });
        }
        let (priority, is_listed) = (state.priority(), state.listed());
        self.explain_arrival(&Arrival { interrupt, cpu, group, priority, is_listed }, explanation)
    }
}

/// Returns `true` if the interrupt is pending while its line is high. A level-sensitive SPI that a
/// message has driven high is pending regardless of its line.
fn is_driven(intid: IntId, state: InterruptWord) -> bool {
    intid.class() != IntIdClass::Sgi && !state.edge() && !state.message()
}
