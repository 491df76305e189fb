//! A device's vector as the source of an interrupt.

use super::Domain;
use crate::error::MoveError;
use crate::host::Host;
use crate::irq::descriptor::{Descriptor, IrqSource};
use crate::name::Name;
use crate::number::Irq;
use crate::runtime::Runtime;
use alloc::vec::Vec;
use core::fmt;
use doorbell_fallible::Shared;
use msi_types::{Cpu, HwIrq, Pending};

/// A slot of a device's domain.
pub(super) struct SlotSource {
    pub(super) domain: Shared<Domain>,
    pub(super) slot: u16,
}

impl IrqSource for SlotSource {
    fn mask(&self, hwirq: HwIrq) {
        self.domain.mask(self.slot, hwirq);
    }

    fn unmask(&self, hwirq: HwIrq) {
        self.domain.unmask(self.slot, hwirq);
    }

    fn set_pending(&self, hwirq: HwIrq, pending: Pending) {
        self.domain.parent().set_pending(hwirq, pending);
    }

    fn is_pending(&self, hwirq: HwIrq) -> Option<bool> {
        self.domain.is_pending(self.slot, hwirq)
    }

    fn slot(&self) -> (&Name, u16) {
        (&self.domain.name, self.slot)
    }

    fn relocate(
        &self,
        runtime: &Runtime,
        descriptor: &Descriptor,
        to: Cpu,
        list: Option<&mut Vec<Irq>>,
    ) -> Result<(), MoveError> {
        self.domain.relocate(runtime, (descriptor, self.slot), to, list)
    }

    fn settled_target(&self, host: &dyn Host, descriptor: &Descriptor) -> Cpu {
        self.domain.settled_target(host, descriptor)
    }

    fn describe(&self, host: &dyn Host, hwirq: HwIrq, out: &mut dyn fmt::Write) -> fmt::Result {
        self.domain.describe(host, self.slot, hwirq, out)
    }
}
