//! The memory-mapped CPU interface.

use crate::cpu_interface::{Acknowledged, Active, CombinedEoi, EoiMode, GicCpuInterface, SplitEoi};
use crate::{GicError, Mmio, MmioExt};
use core::marker::PhantomData;
use gic_arch::gicc::{self, Ctlr, Iar};
use gic_arch::{IntId, IntIdClass, Priority};

/// Handle to the calling CPU's interface. Creating a handle is cheap, and its operations may be
/// called in any context.
#[derive(Debug)]
pub struct CpuInterfaceV2<'a, M, E = CombinedEoi> {
    mmio: &'a M,
    mode: PhantomData<E>,
}

impl<M, E> Clone for CpuInterfaceV2<'_, M, E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M, E> Copy for CpuInterfaceV2<'_, M, E> {}

/// CPU interface state that is lost on power-down, including the EOI mode.
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

    /// Restores the state. Clears the active priorities so that interrupts left active by other
    /// software can't block others.
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

    /// Acknowledges the highest-priority pending interrupt and makes it active. Returns `None` if
    /// no interrupt can be acknowledged, e.g. because it is no longer pending.
    pub fn acknowledge(&self) -> Option<Acknowledged> {
        let taken = self.mmio.read(gicc::IAR);
        // An SGI's handler must see the stores that the sender made before it sent the SGI.
        self.mmio.read_barrier();
        Acknowledged::new(IntId::new(taken.intid().into()), taken.cpu_id())
    }

    /// Sets the priority mask. Only interrupts with a higher priority than the mask are signaled.
    pub fn set_mask(&self, mask: Priority) {
        self.mmio.write(gicc::PMR, u32::from(mask.get()));
    }

    /// Returns the priority mask.
    pub fn mask(&self) -> Priority {
        Priority::new(self.mmio.read(gicc::PMR).to_le_bytes()[0])
    }

    /// Returns the running priority (the highest one among active interrupts), or
    /// [`Priority::IDLE`] if none is active.
    pub fn running_priority(&self) -> Priority {
        Priority::new(self.mmio.read(gicc::RPR).to_le_bytes()[0])
    }

    /// Returns the highest-priority pending interrupt without acknowledging it.
    pub fn highest_pending(&self) -> Option<IntId> {
        let intid = IntId::new(self.mmio.read(gicc::HPPIR).intid().into());
        (intid.class() != IntIdClass::Special).then_some(intid)
    }
}

impl<M: Mmio, E: EoiMode> CpuInterfaceV2<'_, M, E> {
    /// Enables the interface for interrupts with a higher priority than `mask`, with preemption at
    /// every priority. The bypass bits of `GICC_CTLR` keep the values that firmware set.
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

impl<M: Mmio, E: EoiMode> CpuInterfaceV2<'_, M, E> {
    /// Ends an interrupt: drops the running priority and, with [`CombinedEoi`], deactivates it.
    pub fn end(&self, interrupt: Acknowledged) -> E::Ended {
        let active = interrupt.ended();
        self.mmio.write(gicc::EOIR, value_of(&active));
        E::ended(active)
    }
}

impl<M: Mmio> CpuInterfaceV2<'_, M, SplitEoi> {
    /// Deactivates an interrupt, so that it can be delivered again.
    #[expect(clippy::needless_pass_by_value, reason = "an interrupt must be deactivated only once")]
    pub fn deactivate(&self, interrupt: Active) {
        self.mmio.write(gicc::DIR, value_of(&interrupt));
    }
}

impl<M: Mmio, E: EoiMode> GicCpuInterface for CpuInterfaceV2<'_, M, E> {
    type Mode = E;

    fn acknowledge(&self) -> Option<Acknowledged> {
        self.acknowledge()
    }

    fn end(&self, interrupt: Acknowledged) -> E::Ended {
        self.end(interrupt)
    }

    fn deactivate(&self, ended: E::Ended) {
        if let Some(active) = E::active(ended) {
            self.mmio.write(gicc::DIR, value_of(&active));
        }
    }

    fn set_mask(&self, mask: Priority) {
        self.set_mask(mask);
    }

    fn mask(&self) -> Priority {
        self.mask()
    }

    fn running_priority(&self) -> Priority {
        self.running_priority()
    }

    fn highest_pending(&self) -> Option<IntId> {
        self.highest_pending()
    }
}

/// Returns the value that was read from `GICC_IAR` for the interrupt. GICv2 INTIDs have ten bits.
fn value_of(interrupt: &Active) -> Iar {
    let intid = u16::try_from(interrupt.intid().get()).unwrap_or(u16::MAX) & 0x3ff;
    Iar::new().with_intid(intid).with_cpu_id(interrupt.sender())
}
