//! The memory-mapped CPU interface.

use crate::{Mmio, MmioExt};
use gic_arch::gicc::{self, Iar};
use gic_arch::{IntId, IntIdClass, Priority};

/// The CPU interface of the CPU that uses it. A cheap handle. May be used in any context on its CPU.
#[derive(Debug)]
pub struct CpuInterfaceV2<'a, M> {
    mmio: &'a M,
}

impl<M> Clone for CpuInterfaceV2<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for CpuInterfaceV2<'_, M> {}

/// An interrupt that this CPU acknowledged and has not ended. Ended in reverse order of acknowledgement, on the same
/// CPU.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "the running priority stays raised until the interrupt is ended"]
pub struct AcknowledgedV2(Iar);

impl AcknowledgedV2 {
    /// Which interrupt.
    pub fn intid(&self) -> IntId {
        IntId::new(self.0.intid().into())
    }

    /// Of an SGI: the number of the CPU interface that sent it.
    pub fn sender(&self) -> u8 {
        self.0.cpu_id()
    }
}

impl<'a, M: Mmio> CpuInterfaceV2<'a, M> {
    pub(super) const fn new(mmio: &'a M) -> Self {
        Self { mmio }
    }

    /// On: everything more urgent than `mask`, preemption at every priority, ending deactivates. What firmware chose
    /// for the bypass signals stays.
    pub(super) fn enable(self, mask: Priority) {
        for register in gicc::APR.iter() {
            self.mmio.write(register, 0);
        }
        self.mmio.write(gicc::PMR, u32::from(mask.get()));
        self.mmio.write(gicc::BPR, 0);
        let control = self.mmio.read(gicc::CTLR).with_eoi_mode_s(false).with_fiq_en(false);
        self.mmio.write(gicc::CTLR, control.with_enable_grp0(true));
    }

    pub(super) fn disable(self) {
        let control = self.mmio.read(gicc::CTLR);
        self.mmio.write(gicc::CTLR, control.with_enable_grp0(false));
    }

    /// Takes the most urgent pending interrupt, which becomes active. `None` if nothing is to be signalled (any more).
    pub fn acknowledge(&self) -> Option<AcknowledgedV2> {
        let taken = AcknowledgedV2(self.mmio.read(gicc::IAR));
        (taken.intid().class() != IntIdClass::Special).then_some(taken)
    }

    /// Ends an interrupt: drops the running priority and deactivates it.
    #[expect(clippy::needless_pass_by_value, reason = "an interrupt is ended once")]
    pub fn end(&self, interrupt: AcknowledgedV2) {
        self.mmio.write(gicc::EOIR, interrupt.0);
    }

    /// Sets the priority mask: only interrupts more urgent than it are signalled.
    pub fn set_mask(&self, mask: Priority) {
        self.mmio.write(gicc::PMR, u32::from(mask.get()));
    }

    /// The priority mask.
    pub fn mask(&self) -> Priority {
        Priority::new(self.mmio.read(gicc::PMR).to_le_bytes()[0])
    }

    /// The running priority: that of the most urgent active interrupt, [`Priority::IDLE`] without one.
    pub fn running_priority(&self) -> Priority {
        Priority::new(self.mmio.read(gicc::RPR).to_le_bytes()[0])
    }

    /// The most urgent pending interrupt, without taking it.
    pub fn highest_pending(&self) -> Option<IntId> {
        let intid = IntId::new(self.mmio.read(gicc::HPPIR).intid().into());
        (intid.class() != IntIdClass::Special).then_some(intid)
    }
}
