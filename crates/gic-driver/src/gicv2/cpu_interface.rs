//! The memory-mapped CPU interface.

use crate::cpu_interface::{Combined, EoiMode, Split};
use crate::{GicError, Mmio, MmioExt};
use core::marker::PhantomData;
use gic_arch::gicc::{self, Ctlr, Iar};
use gic_arch::{IntId, IntIdClass, Priority};

/// The CPU interface of the CPU that uses it. A cheap handle. May be used in any context on its CPU.
#[derive(Debug)]
pub struct CpuInterfaceV2<'a, M, E = Combined> {
    mmio: &'a M,
    mode: PhantomData<E>,
}

impl<M, E> Clone for CpuInterfaceV2<'_, M, E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M, E> Copy for CpuInterfaceV2<'_, M, E> {}

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

/// An interrupt that was ended and not deactivated.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "the interrupt is not delivered again until it is deactivated"]
pub struct ActiveV2(Iar);

impl ActiveV2 {
    /// Which interrupt.
    pub fn intid(&self) -> IntId {
        IntId::new(self.0.intid().into())
    }
}

/// The state that a CPU interface loses without power, the EOI mode among it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SavedInterfaceV2 {
    control: Ctlr,
    mask: u32,
    binary_point: u32,
}

impl<'a, M: Mmio, E> CpuInterfaceV2<'a, M, E> {
    pub(super) const fn new(mmio: &'a M) -> Self {
        Self { mmio, mode: PhantomData }
    }

    pub(super) fn save(self) -> SavedInterfaceV2 {
        SavedInterfaceV2 {
            control: self.mmio.read(gicc::CTLR),
            mask: self.mmio.read(gicc::PMR),
            binary_point: self.mmio.read(gicc::BPR),
        }
    }

    /// Interrupts that somebody else left active do not count as running any more.
    pub(super) fn restore(self, saved: SavedInterfaceV2) {
        for register in gicc::APR.iter() {
            self.mmio.write(register, 0);
        }
        self.mmio.write(gicc::PMR, saved.mask);
        self.mmio.write(gicc::BPR, saved.binary_point);
        self.mmio.write(gicc::CTLR, saved.control);
    }

    pub(super) fn disable(self) {
        let control = self.mmio.read(gicc::CTLR);
        self.mmio.write(gicc::CTLR, control.with_enable_grp0(false));
    }

    /// Takes the most urgent pending interrupt, which becomes active. `None` if nothing is to be signalled (any more).
    pub fn acknowledge(&self) -> Option<AcknowledgedV2> {
        let taken = AcknowledgedV2(self.mmio.read(gicc::IAR));
        // What the sender of an SGI stored before it is visible to the handler.
        self.mmio.read_barrier();
        (taken.intid().class() != IntIdClass::Special).then_some(taken)
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

impl<M: Mmio, E: EoiMode> CpuInterfaceV2<'_, M, E> {
    /// On: everything more urgent than `mask`, preemption at every priority. What firmware chose
    /// for the bypass signals stays.
    pub(super) fn enable(self, mask: Priority) -> Result<(), GicError> {
        let control = self.mmio.read(gicc::CTLR).with_eoi_mode_s(E::SPLIT).with_fiq_en(false);
        let control = control.with_enable_grp0(true);
        self.restore(SavedInterfaceV2 { control, mask: u32::from(mask.get()), binary_point: 0 });
        if self.mmio.read(gicc::CTLR).eoi_mode_s() != E::SPLIT {
            self.disable();
            return Err(GicError::NoSplitEnd("GICC_CTLR.EOImode stays 0"));
        }
        Ok(())
    }
}

impl<M: Mmio> CpuInterfaceV2<'_, M> {
    /// Ends an interrupt: drops the running priority and deactivates it.
    #[expect(clippy::needless_pass_by_value, reason = "an interrupt is ended once")]
    pub fn end(&self, interrupt: AcknowledgedV2) {
        self.mmio.write(gicc::EOIR, interrupt.0);
    }
}

impl<M: Mmio> CpuInterfaceV2<'_, M, Split> {
    /// Ends an interrupt: drops the running priority. It stays active.
    #[expect(clippy::needless_pass_by_value, reason = "an interrupt is ended once")]
    pub fn end(&self, interrupt: AcknowledgedV2) -> ActiveV2 {
        self.mmio.write(gicc::EOIR, interrupt.0);
        ActiveV2(interrupt.0)
    }

    /// Deactivates an interrupt: it can be delivered again.
    #[expect(clippy::needless_pass_by_value, reason = "an interrupt is deactivated once")]
    pub fn deactivate(&self, interrupt: ActiveV2) {
        self.mmio.write(gicc::DIR, interrupt.0);
    }
}
