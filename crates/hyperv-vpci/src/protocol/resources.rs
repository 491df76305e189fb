//! Resources that a guest assigns to a function.

use super::{BARS, Codec, ProtocolError, Slot};

/// Length of one memory resource in bytes.
const RESOURCE: usize = 20;

/// Maximum number of interrupts in one assignment: 500 resources minus the base address registers.
const MAX_INTERRUPTS: u32 = 494;

/// Form of an assignment, which determines the length of each interrupt in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ResourcesForm {
    /// 16 bytes for each interrupt. OpenVMM's client uses this form under all versions.
    V1,
    /// 72 bytes for each interrupt. Linux and this crate's guests use this form.
    V2,
    /// 80 bytes for each interrupt.
    V3,
}

impl ResourcesForm {
    const fn interrupt_length(self) -> usize {
        match self {
            Self::V1 => 16,
            Self::V2 => 72,
            Self::V3 => 80,
        }
    }
}

/// An assignment of resources to a function. Memory resources are ignored, because the guest itself
/// programs the base address registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AssignedResources {
    /// The function.
    pub slot: Slot,
    /// Form of the message.
    pub form: ResourcesForm,
    /// Number of interrupts requested by the assignment. 0 for guests that request interrupts
    /// individually.
    pub interrupts: u32,
}

impl AssignedResources {
    /// Creates an assignment with no interrupts.
    pub const fn new(slot: Slot, form: ResourcesForm) -> Self {
        Self { slot, form, interrupts: 0 }
    }

    /// Passes a completion's fields. A completion contains only the requested descriptors.
    pub(super) fn through(self, by: &mut impl Codec) -> Result<Self, ProtocolError> {
        let slot = self.slot.through(by)?;
        by.reserved(BARS * RESOURCE)?;
        let interrupts = by.u32(self.interrupts)?;
        by.reserved(4)?;
        if interrupts > MAX_INTERRUPTS {
            return Err(ProtocolError::BadCount { count: interrupts, limit: MAX_INTERRUPTS });
        }
        (0..interrupts).try_for_each(|_| by.reserved(self.form.interrupt_length()))?;
        Ok(Self { slot, interrupts, ..self })
    }

    /// Passes a request's fields. A request without interrupts still ends with one empty
    /// descriptor: Linux, FreeBSD and OpenVMM's client reserve room for it, and no known guest
    /// sends less.
    pub(super) fn through_request(self, by: &mut impl Codec) -> Result<Self, ProtocolError> {
        let assigned = self.through(by)?;
        by.padding(if assigned.interrupts == 0 { self.form.interrupt_length() } else { 0 })?;
        Ok(assigned)
    }
}
