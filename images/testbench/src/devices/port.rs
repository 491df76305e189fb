//! PCI Express ports. On a hot-plug port, every write to Slot Control is a command, whose
//! completion raises an interrupt. A root port also reports errors, which the suite injects.

use crate::driver::Driver;
use crate::report::{Outcome, Verdict, tell};
use alloc::sync::Arc;
use doorbell_facts::TestbenchFact;
use image_rt::pci::Function;
use irq_domain::pci::ConfigSpace;

const COMMAND: u16 = 0x04;
const SIGNAL_ERRORS: u16 = 1 << 8;
const BRIDGE_CONTROL: u16 = 0x3e;
const FORWARD_ERRORS: u16 = 1 << 1;

const PCI_EXPRESS: u8 = 0x10;
const DEVICE_CONTROL: u16 = 0x08;
const REPORT_NON_FATAL: u16 = 1 << 1;
const SLOT_CONTROL: u16 = 0x18;
const SLOT_STATUS: u16 = 0x1a;
/// Command Completed Interrupt Enable, Hot-Plug Interrupt Enable.
const ENABLES: u16 = 0x30;

/// Advanced Error Reporting.
const ERROR_REPORTING: u16 = 0x0001;
const UNCORRECTABLE_STATUS: u16 = 0x04;
const ROOT_COMMAND: u16 = 0x2c;
const ROOT_STATUS: u16 = 0x30;
const INTERRUPT_WHEN_NON_FATAL: u32 = 1 << 1;

/// A PCI Express port. Message 0 reports its hot-plug events.
pub(crate) struct Port {
    config: Arc<dyn ConfigSpace>,
    capability: u16,
    /// Offset of the capability that reports errors through message 1, if the port has it.
    errors: Option<u16>,
}

impl Port {
    /// Creates the driver of a port with one message.
    pub(crate) fn new(function: &Function) -> Self {
        let capability = function.capability(PCI_EXPRESS).expect("a port is PCI Express");
        Self { config: function.config.clone(), capability, errors: None }
    }

    /// Creates the driver of a root port with two messages.
    pub(crate) fn with_errors(function: &Function) -> Self {
        let errors = function.extended_capability(ERROR_REPORTING);
        Self {
            errors: Some(errors.expect("the port has Advanced Error Reporting")),
            ..Self::new(function)
        }
    }

    fn complete_a_command(&self) {
        let register = self.capability + SLOT_CONTROL;
        let control = self.config.read16(register) & !ENABLES;
        self.config.write16(register, control);
        // Clear only bits that are set. If other bits are written, QEMU's port treats the write as
        // a mistake and restores the status.
        let status = self.config.read16(self.capability + SLOT_STATUS);
        self.config.write16(self.capability + SLOT_STATUS, status);
        self.config.write16(register, control | ENABLES);
    }

    /// Asks the suite to inject an error at this port. The port signals an error only if all
    /// earlier ones were cleared.
    fn ask_for_an_error(&self, errors: u16) {
        self.config.write32(errors + UNCORRECTABLE_STATUS, u32::MAX);
        self.config.write32(errors + ROOT_STATUS, u32::MAX);
        tell(TestbenchFact::WantsError { port: "hp".into() });
    }
}

impl Driver for Port {
    fn vectors(&self) -> u16 {
        if self.errors.is_some() { 2 } else { 1 }
    }

    fn prompt(&self, slot: u16) -> bool {
        slot == 0
    }

    fn start(&self) -> Outcome {
        if let Some(errors) = self.errors {
            let set =
                |register, bits| self.config.write16(register, self.config.read16(register) | bits);
            set(COMMAND, SIGNAL_ERRORS);
            set(BRIDGE_CONTROL, FORWARD_ERRORS);
            set(self.capability + DEVICE_CONTROL, REPORT_NON_FATAL);
            self.config.write32(errors + ROOT_COMMAND, INTERRUPT_WHEN_NON_FATAL);
        }
        Ok(())
    }

    fn fire(&self, slot: u16) -> Result<bool, Verdict> {
        match (slot, self.errors) {
            (0, _) => self.complete_a_command(),
            (_, Some(errors)) => self.ask_for_an_error(errors),
            (_, None) => return Ok(false),
        }
        Ok(true)
    }
}
