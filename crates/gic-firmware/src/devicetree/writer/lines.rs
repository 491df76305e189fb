//! Writes MSI controllers that raise wired interrupts of the root GIC.

use super::references::{regions, set, set_coherence, set_status, strings};
use super::{LEVEL_HIGH, WriteError, WriteErrorKind, Writer};
use crate::controller::Controller;
use crate::devicetree::interrupt_tree;
use crate::devicetree::interrupt_tree::INTERRUPT_NAMES;
use crate::devicetree::msi_controllers::MIP_OFFSET;
use crate::finding::{NodeId, Region};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use gic_arch::IntId;
use msi_types::Trigger;

/// Flags for an interrupt triggered by a rising edge (`arm,gic.yaml`).
const RISING_EDGE: u32 = 1;

impl Writer<'_> {
    /// Writes the lines of a controller inside a bridge.
    pub(super) fn lines(&mut self, controller: &Controller) -> Result<(), WriteError> {
        let inexpressible = || WriteErrorKind::Inexpressible.of(&controller.id);
        let (phandle, gic) = self.root_gic().ok_or_else(inexpressible)?;
        set(self.node(&gic)?, "phandle", phandle);
        let mut cells = Vec::new();
        for line in &controller.lines {
            let [kind, number] = interrupt_tree::specifier(line.intid).ok_or_else(inexpressible)?;
            let flags = if line.trigger == Trigger::Edge { RISING_EDGE } else { LEVEL_HIGH };
            cells.extend([phandle, kind, number, flags]);
        }
        let of_block = (0..controller.lines.len()).map(|number| format!("msi{number}"));
        let names = if controller.has_shared_line {
            Vec::from([String::from("msi")])
        } else {
            of_block.collect()
        };
        let node = self.node(&controller.id)?;
        set(node, interrupt_tree::EXTENDED, cells);
        set(node, INTERRUPT_NAMES, strings(&names));
        Ok(())
    }

    /// Writes what only a MIP has.
    pub(super) fn mip(&mut self, controller: &Controller) -> Result<(), WriteError> {
        let inexpressible = || WriteErrorKind::Inexpressible.of(&controller.id);
        let (phandle, gic) = self.root_gic().ok_or_else(inexpressible)?;
        set(self.node(&gic)?, "phandle", phandle);
        let (range, message) =
            controller.ranges.first().zip(controller.message.as_ref()).ok_or_else(inexpressible)?;
        let first = range.first().get().checked_sub(message.data).ok_or_else(inexpressible)?;
        let [kind, number] =
            interrupt_tree::specifier(IntId::new(first)).ok_or_else(inexpressible)?;
        let doorbell = Region::new(message.address, 4).ok_or_else(inexpressible)?;
        let registers = controller.registers.as_ref().ok_or_else(inexpressible)?;
        let node = self.node(&controller.id)?;
        set(node, "reg", regions([registers.value, doorbell]));
        set(node, "msi-ranges", [phandle, kind, number, RISING_EDGE, range.count()]);
        set(node, MIP_OFFSET, message.data);
        set_coherence(node, controller.coherence.value);
        set_status(node, controller.status.value);
        Ok(())
    }

    /// Returns the root GIC and its phandle.
    fn root_gic(&self) -> Option<(u32, NodeId)> {
        Some((self.gic_phandle(0)?, (*self.gics.first()?).clone()))
    }
}
