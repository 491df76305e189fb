//! Converts the CPU interface state to plain data and back.

use super::{CpuInterface, Features};
use crate::config::SecurityView;
use crate::saved_state::{InterfaceState, Problem};
use crate::wired::participation;
use gic_arch::Priority;
use gic_arch::icc::{Ctlr, Igrpen};
use msi_types::explain::Group;

impl CpuInterface {
    pub(crate) fn save(&self) -> InterfaceState {
        let [ap0r, ap1r] = self.active_priorities();
        InterfaceState {
            ctlr: self.control().into_bits(),
            pmr: self.mask.get(),
            bpr0: self.binary_point[0],
            bpr1: self.binary_point[1],
            igrpen0: self.takes(Group::Zero),
            igrpen1: self.takes(Group::One),
            ap0r,
            ap1r,
        }
    }

    /// Creates an interface with these features from a saved state.
    pub(crate) fn restored(features: Features, saved: &InterfaceState) -> Result<Self, Problem> {
        let mut interface = Self::new(features);
        interface.set_binary_point(Group::Zero, saved.bpr0);
        interface.set_binary_point(Group::One, saved.bpr1);
        interface.set_control(Ctlr::from(saved.ctlr));
        Problem::unless_same("ICC_CTLR_EL1", saved.ctlr, interface.control().into_bits())?;
        Problem::unless(
            interface.binary_point[0] == saved.bpr0,
            "binary point of Group 0",
            saved.bpr0,
        )?;
        Problem::unless(
            interface.binary_point[1] == saved.bpr1,
            "binary point of Group 1",
            saved.bpr1,
        )?;
        interface.mask = Priority::new(saved.pmr).truncated(features.priority_bits.into());
        Problem::unless(interface.mask.get() == saved.pmr, "priority mask", saved.pmr)?;
        for (group, words) in [(Group::Zero, saved.ap0r), (Group::One, saved.ap1r)] {
            for (index, word) in (0..).zip(words) {
                interface.set_active_word(group, index, word);
                let restored = interface.active_priorities()[group as usize][index as usize];
                Problem::unless(restored == word, "active priorities", word)?;
            }
        }
        interface.set_takes(Group::Zero, Igrpen::new().with_enable(saved.igrpen0));
        interface.set_takes(Group::One, Igrpen::new().with_enable(saved.igrpen1));
        interface.check_security()?;
        Ok(interface)
    }

    /// In the Non-secure view, checks that the state only uses Group 1 and the lower half of the
    /// priorities.
    fn check_security(&self) -> Result<(), Problem> {
        if self.features.security == SecurityView::Single {
            return Ok(());
        }
        let initial = Self::new(self.features);
        Problem::unless(initial.mask <= self.mask, "priority mask", self.mask.get())?;
        let [point, ..] = self.binary_point;
        Problem::unless(initial.binary_point[0] == point, "binary point of Group 0", point)?;
        Problem::unless(!self.takes(Group::Zero), "enable of Group 0", true)?;
        let [secure, _] = self.active_priorities();
        let found = secure.into_iter().find(|word| *word != 0);
        Problem::unless(found.is_none(), "active priorities of Group 0", found.unwrap_or(0))
    }

    /// Returns the groups enabled at this interface, as bits of [`participation`].
    pub(crate) fn participation(&self) -> u32 {
        let groups = [Group::Zero, Group::One].into_iter().filter(|group| self.takes(*group));
        groups.fold(0, |bits, group| bits | participation::GROUP[group as usize])
    }
}
