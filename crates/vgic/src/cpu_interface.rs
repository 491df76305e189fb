//! A PE's CPU interface (IHI 0069 §4.8, §12.2): priority mask, binary points, active priorities and
//! the preemption rules, with the guest's view through `ICC_*` registers and the hardware's, as in
//! `ICH_VMCR_EL2`. The interface is plain per-vCPU state, and doesn't track pending interrupts.

mod active_priorities;
mod published;
mod saved;

use crate::config::{SecurityView, VgicConfig};
use crate::frames::registers::low_byte;
use active_priorities::ActivePriorities;
use gic_arch::Priority;
use gic_arch::icc::{Ctlr, Igrpen};
use gic_arch::ich::Vmcr;
use msi_types::explain::Group;

/// Features that the CPU interface implements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Features {
    pub(crate) security: SecurityView,
    /// Number of priority bits, 4 to 8.
    pub(crate) priority_bits: u8,
    /// `ICC_CTLR_EL1.IDbits`: 0 for 16, 1 for 24.
    pub(crate) id_bits_code: u8,
    /// `ICC_CTLR_EL1.ExtRange`.
    pub(crate) extended_range: bool,
}

impl Features {
    /// Returns the features of a machine's CPU interfaces.
    pub(crate) fn of(config: &VgicConfig) -> Self {
        Self {
            security: config.security,
            priority_bits: config.priority_bits,
            id_bits_code: u8::from(config.id_bits() > 16),
            extended_range: config.extended_spis > 0 || config.extended_ppis > 0,
        }
    }

    /// Returns the width of a group priority in bits. At least one bit is always subpriority.
    fn preemption_bits(self) -> u8 {
        self.priority_bits.min(7)
    }

    /// Returns the minimum binary point for a group.
    fn smallest_binary_point(self, group: Group) -> u8 {
        let smallest = 7 - self.preemption_bits();
        match group {
            Group::Zero => smallest,
            Group::One => smallest + 1,
        }
    }

    /// Returns the number of active-priority registers per group.
    pub(crate) fn active_priority_registers(self) -> usize {
        1 << self.preemption_bits().saturating_sub(5)
    }
}

/// State of a CPU interface.
#[derive(Clone, Debug)]
pub(crate) struct CpuInterface {
    features: Features,
    /// `ICC_PMR_EL1` in the hardware's representation.
    mask: Priority,
    binary_point: [u8; 2],
    /// `ICC_CTLR_EL1.CBPR`.
    common_binary_point: bool,
    /// `ICC_CTLR_EL1.EOImode`.
    split_eoi: bool,
    active: [ActivePriorities; 2],
    /// `ICC_IGRPEN<n>_EL1`.
    enabled: [bool; 2],
    /// Masks of the priority bits that determine preemption, by group. Derived from the binary
    /// points.
    group_masks: [u8; 2],
    /// Shift from the number of a bit in `ICC_AP<n>R_EL1` to the priority.
    level_shift: u32,
}

impl CpuInterface {
    /// Creates an interface in its reset state. With two security states, firmware leaves the guest
    /// only the lower half of the priorities, all of them masked.
    pub(crate) fn new(features: Features) -> Self {
        let mut interface = Self {
            features,
            mask: match features.security {
                SecurityView::Single => Priority::HIGHEST,
                SecurityView::NonSecure => Priority::from_non_secure_view(0),
            },
            binary_point: [Group::Zero, Group::One]
                .map(|group| features.smallest_binary_point(group)),
            common_binary_point: false,
            split_eoi: false,
            active: [ActivePriorities::new(0); 2],
            enabled: [false; 2],
            group_masks: [0; 2],
            level_shift: 8 - u32::from(features.preemption_bits()),
        };
        interface.update_group_masks();
        interface
    }

    /// Marks the group priority of an acknowledged interrupt, which must preempt, as active.
    #[inline]
    pub(crate) fn activate(&mut self, priority: Priority, group: Group) {
        let level = u32::from(self.group_priority(priority, group).get()) >> self.level_shift;
        self.active[group as usize].insert_first(low_byte(level));
    }

    /// Drops the running priority. If the running interrupt isn't in this group, does nothing and
    /// returns `false`.
    pub(crate) fn drop_priority(&mut self, group: Group) -> bool {
        let [zero, one] = self.active.map(ActivePriorities::first);
        let runs = match group {
            Group::Zero => zero <= one && zero != ActivePriorities::NONE,
            Group::One => one < zero,
        };
        if !runs {
            return false;
        }
        self.active[group as usize].remove_first();
        true
    }

    /// Returns `true` if the interface would signal an interrupt at this priority now, i.e. if it
    /// passes the mask and its group priority is higher than the running priority.
    pub(crate) fn signals(&self, priority: Priority, group: Group) -> bool {
        self.takes(group)
            && priority.is_more_urgent_than(self.mask)
            && self.preempts(priority, group)
    }

    fn preempts(&self, priority: Priority, group: Group) -> bool {
        match self.running() {
            Priority::IDLE => true,
            running => {
                let running = self.group_priority(running, group);
                self.group_priority(priority, group).is_more_urgent_than(running)
            }
        }
    }

    /// Returns the features that the interface implements.
    pub(crate) fn features(&self) -> Features {
        self.features
    }

    /// Returns the group's priority limit. [`signals`](Self::signals) returns `true` exactly for
    /// interrupts whose priority is higher.
    #[inline]
    pub(crate) fn limit(&self, group: Group) -> Priority {
        match (self.takes(group), self.running()) {
            (false, _) => Priority::HIGHEST,
            (true, Priority::IDLE) => self.mask,
            (true, running) => self.mask.min(self.group_priority(running, group)),
        }
    }

    /// Returns `true` if the group is enabled at this interface (`ICC_IGRPEN<n>_EL1`).
    pub(crate) fn takes(&self, group: Group) -> bool {
        self.enabled[group as usize]
    }

    /// Returns `ICC_CTLR_EL1.EOImode`. Returns `true` if an EOI only drops the priority.
    pub(crate) fn splits_eoi(&self) -> bool {
        self.split_eoi
    }

    /// Returns the highest active group priority, or [`Priority::IDLE`].
    #[inline]
    pub(crate) fn running(&self) -> Priority {
        match self.active[0].first().min(self.active[1].first()) {
            ActivePriorities::NONE => Priority::IDLE,
            level => Priority::new(low_byte(u32::from(level) << self.level_shift)),
        }
    }

    /// Returns the part of a priority that determines preemption.
    #[inline]
    fn group_priority(&self, priority: Priority, group: Group) -> Priority {
        Priority::new(priority.get() & self.group_masks[group as usize])
    }

    /// Recomputes `group_masks`. Must be called after a change of a binary point. A binary point of
    /// N selects bits 7:N+1 for Group 0, and bits 7:N for Group 1 unless Group 0's binary point
    /// is used for both.
    fn update_group_masks(&mut self) {
        let [zero, one] = self.binary_point;
        let points = [zero + 1, if self.common_binary_point { zero + 1 } else { one }];
        self.group_masks = points.map(|point| (0xffu16 << point).to_le_bytes()[0]);
    }

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
            Group::Zero | Group::One => self.binary_point[group as usize],
        }
    }

    /// Writes `ICC_BPR<n>_EL1`. With `CBPR` set, writes to Group 1's register are ignored.
    pub(crate) fn set_binary_point(&mut self, group: Group, written: u8) {
        if group == Group::Zero || !self.common_binary_point {
            let smallest = self.features.smallest_binary_point(group);
            self.binary_point[group as usize] = (written & 7).max(smallest);
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
        let [word, ..] = [self.active[group as usize].bits() >> (32 * index)];
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
        let active = &mut self.active[group as usize];
        let other_words = active.bits() & !(u128::from(u32::MAX) << shift);
        *active = ActivePriorities::new(other_words | ((u128::from(written) << shift) & allowed));
    }

    pub(crate) fn set_takes(&mut self, group: Group, enable: Igrpen) {
        self.enabled[group as usize] = enable.enable();
    }

    /// Returns `ICH_VMCR_EL2`.
    pub(crate) fn vmcr(&self) -> Vmcr {
        Vmcr::new()
            .with_veng0(self.enabled[0])
            .with_veng1(self.enabled[1])
            .with_v_fiq_en(true)
            .with_vcbpr(self.common_binary_point)
            .with_veoim(self.split_eoi)
            .with_vbpr0(self.binary_point[0])
            .with_vbpr1(self.binary_point[1])
            .with_vpmr(self.mask.get())
    }

    /// Returns `ICH_AP<n>R<m>_EL2`, by group and index.
    pub(crate) fn active_priorities(&self) -> [[u32; 4]; 2] {
        #[expect(clippy::cast_possible_truncation, reason = "each word contains 32 of the bits")]
        self.active
            .map(|active| core::array::from_fn(|index| (active.bits() >> (32 * index)) as u32))
    }

    /// Loads the state that the guest left in the hardware. Ignores registers that the CPU does not
    /// implement.
    pub(crate) fn load(&mut self, vmcr: Vmcr, active: [[u32; 4]; 2]) {
        self.enabled = [vmcr.veng0(), vmcr.veng1()];
        self.common_binary_point = vmcr.vcbpr();
        self.split_eoi = vmcr.veoim();
        self.binary_point = [vmcr.vbpr0(), vmcr.vbpr1()];
        self.update_group_masks();
        self.mask = Priority::new(vmcr.vpmr());
        let implemented = self.features.active_priority_registers();
        self.active = active.map(|words| {
            let words = words.iter().take(implemented).rev();
            let bits = words.fold(0, |bits: u128, word| bits << 32 | u128::from(*word));
            ActivePriorities::new(bits)
        });
    }
}

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests;
