//! Converts the CPU interface state to the hardware's virtual CPU interface: `ICH_VMCR_EL2` and the
//! active priorities.

use super::CpuInterface;
use super::active_priorities::ActivePriorities;
use gic_arch::Priority;
use gic_arch::ich::Vmcr;

impl CpuInterface {
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
