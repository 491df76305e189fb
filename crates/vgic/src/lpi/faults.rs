//! Recording of mistakes that the LPI core finds when it uses what the guest's registers say. Each
//! fault names the register that led there.

use crate::events::{Events, FaultDetail, FaultReason, GuestFault, RegisterFrame};
use crate::memory::MemoryFault;
use alloc::boxed::Box;
use alloc::sync::Arc;

/// The faults, and the places of the registers.
pub(crate) struct LpiFaults {
    events: Arc<Events>,
    /// By vCPU: the guest physical address of its redistributor's frames.
    redistributors: Box<[u64]>,
}

impl LpiFaults {
    /// Of redistributors at these addresses, by vCPU.
    pub(crate) const fn new(events: Arc<Events>, redistributors: Box<[u64]>) -> Self {
        Self { events, redistributors }
    }

    /// Records that an LPI table to which a register points is not in memory.
    pub(super) fn unreadable(&self, vcpu: u32, register: u32, fault: MemoryFault) {
        let at = (self.redistributor(vcpu), register);
        let detail = FaultDetail::Memory(fault.address);
        self.events.record(GuestFault::new(FaultReason::LpiTable, at, detail));
    }

    /// Records that the heap has no memory for what a redistributor's register asked for.
    pub(super) fn starved_redistributor(&self, vcpu: u32, register: u32) {
        self.starved((self.redistributor(vcpu), register));
    }

    /// Records that the heap has no memory for what a register asked for.
    pub(super) fn starved(&self, at: (RegisterFrame, u32)) {
        self.events.record(GuestFault::new(FaultReason::OutOfMemory, at, FaultDetail::None));
    }

    fn redistributor(&self, vcpu: u32) -> RegisterFrame {
        RegisterFrame::Redistributor(self.redistributors.get(vcpu as usize).copied().unwrap_or(0))
    }
}
