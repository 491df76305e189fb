//! The guest's view of the interface through `ICC_*` registers.

use super::CpuInterface;
use super::active_priorities::ActivePriorities;
use crate::config::SecurityView;
use crate::wired::Group;
use gic_arch::Priority;
use gic_arch::icc::{Ctlr, Igrpen};

impl CpuInterface {
    /// Returns `ICC_PMR_EL1` as the guest reads it.
    pub(crate) fn mask_view(&self) -> u8 {
        match self.features.security {
            SecurityView::Single => self.mask.get(),
            SecurityView::NonSecure => self.mask.non_secure_view().get(),
        }
    }

    /// Writes `ICC_PMR_EL1`.
    pub(crate) fn set_mask(&mut self, written: u8) {
        let mask = match self.features.security {
            SecurityView::Single => Priority::new(written),
            SecurityView::NonSecure => Priority::from_non_secure_view(written),
        };
        self.mask = mask.truncated(self.features.priority_bits.into());
    }

    /// Returns `ICC_RPR_EL1` as the guest reads it.
    pub(crate) fn running_view(&self) -> u8 {
        match (self.features.security, self.running()) {
            (SecurityView::Single, running) | (_, running @ Priority::IDLE) => running.get(),
            (SecurityView::NonSecure, running) => running.non_secure_view().get(),
        }
    }

    /// Returns `ICC_BPR<n>_EL1`. With `CBPR` set, Group 1's register reads as the value of Group
    /// 0's register plus one.
    pub(crate) fn binary_point(&self, group: Group) -> u8 {
        match group {
            Group::One if self.common_binary_point => (self.binary_point[0] + 1).min(7),
            Group::Zero | Group::One => self.binary_point[group.index()],
        }
    }

    /// Writes `ICC_BPR<n>_EL1`. With `CBPR` set, writes to Group 1's register are ignored.
    pub(crate) fn set_binary_point(&mut self, group: Group, written: u8) {
        if group == Group::Zero || !self.common_binary_point {
            let smallest = self.features.smallest_binary_point(group);
            self.binary_point[group.index()] = (written & 7).max(smallest);
            self.update_group_masks();
        }
    }

    pub(crate) fn control(&self) -> Ctlr {
        Ctlr::new()
            .with_cbpr(self.common_binary_point)
            .with_eoi_mode(self.split_eoi)
            .with_pri_bits_minus_one(self.features.priority_bits - 1)
            .with_id_bits_code(self.features.id_bits_code)
            .with_a3v(true)
            .with_rss(true)
            .with_ext_range(self.features.extended_range)
    }

    /// Writes `ICC_CTLR_EL1`. With two security states, this is the Non-secure `CBPR`. If set, the
    /// guest's group uses Group 0's binary point, even though the guest can't see that register.
    pub(crate) fn set_control(&mut self, written: Ctlr) {
        self.common_binary_point = written.cbpr();
        self.split_eoi = written.eoi_mode();
        self.update_group_masks();
    }

    /// Returns `ICC_AP<n>R<index>_EL1`.
    pub(crate) fn active_word(&self, group: Group, index: u32) -> u32 {
        let [word, ..] = [self.active[group.index()].bits() >> (32 * index)];
        #[expect(clippy::cast_possible_truncation, reason = "the register contains 32 of the bits")]
        let word = word as u32;
        word
    }

    /// Writes `ICC_AP<n>R<index>_EL1`. The bits of unimplemented or Secure priorities stay clear.
    pub(crate) fn set_active_word(&mut self, group: Group, index: u32, written: u32) {
        let levels = 1u32 << self.features.preemption_bits();
        let all = u128::MAX >> (128 - levels);
        let allowed = match self.features.security {
            SecurityView::Single => all,
            SecurityView::NonSecure => all & !(all >> (levels / 2)),
        };
        let shift = 32 * index;
        let active = &mut self.active[group.index()];
        let other_words = active.bits() & !(u128::from(u32::MAX) << shift);
        *active = ActivePriorities::new(other_words | ((u128::from(written) << shift) & allowed));
    }

    pub(crate) fn set_takes(&mut self, group: Group, enable: Igrpen) {
        self.enabled[group.index()] = enable.enable();
    }
}
