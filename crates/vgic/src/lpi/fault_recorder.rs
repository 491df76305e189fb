//! Records faults that the LPI core finds when it uses the guest's register values. Each fault
//! identifies the register that caused it.

use crate::monitor::MemoryFault;
use crate::monitor::events::{EventLog, FaultDetail, FaultReason, GuestFault, RegisterFrame};
use alloc::boxed::Box;
use alloc::sync::Arc;

/// Fault recorder that knows the addresses of the registers.
pub(crate) struct LpiFaults {
    events: Arc<EventLog>,
    /// Guest physical addresses of the redistributor frames, indexed by vCPU.
    redistributors: Box<[u64]>,
}

impl LpiFaults {
    /// Creates a recorder for redistributors at these addresses, indexed by vCPU.
    pub(crate) const fn new(events: Arc<EventLog>, redistributors: Box<[u64]>) -> Self {
        Self { events, redistributors }
    }

    /// Records that an LPI table is not in guest memory, and the register that points to the table.
    pub(super) fn unreadable(&self, vcpu: u32, register: u32, fault: MemoryFault) {
        let at = (self.redistributor(vcpu), register);
        let detail = FaultDetail::Memory(fault.address);
        self.events.record(GuestFault::new(FaultReason::LpiTable, at, detail));
    }

    /// Records that a request made by a redistributor register write failed for lack of heap
    /// memory.
    pub(super) fn starved_redistributor(&self, vcpu: u32, register: u32) {
        self.starved((self.redistributor(vcpu), register));
    }

    /// Records that a request made by a register write failed for lack of heap memory.
    ///
    pub(super) fn starved(&self, at: (RegisterFrame, u32)) {
        self.events.record(GuestFault::new(FaultReason::OutOfMemory, at, FaultDetail::None));
    }

    fn redistributor(&self, vcpu: u32) -> RegisterFrame {
        RegisterFrame::Redistributor(self.redistributors.get(vcpu as usize).copied().unwrap_or(0))
    }
}
