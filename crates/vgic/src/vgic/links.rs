//! Links between virtual and physical interrupts, for hypervisors.

use crate::vgic::Vgic;
use crate::wired::{LinkError, PhysicalInterrupts};
use alloc::sync::Arc;
use gic_arch::IntId;
use msi_types::Line;

/// Error from [`Vgic::serve_physical`] if a [`PhysicalInterrupts`] is already registered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the GIC's physical interrupts are already served")]
pub struct PhysicalTaken;

impl Vgic {
    /// Registers the hypervisor's access to the physical interrupts to which virtual interrupts are
    /// [linked](Self::link).
    ///
    /// # Errors
    /// [`PhysicalTaken`] if a [`PhysicalInterrupts`] is already registered.
    pub fn serve_physical(
        &self,
        physical: Arc<dyn PhysicalInterrupts>,
    ) -> Result<(), PhysicalTaken> {
        self.wired.serve_physical(physical).map_err(|_| PhysicalTaken)
    }

    /// Links a virtual PPI or SPI to a physical interrupt, so that the physical interrupt is
    /// deactivated when the guest deactivates the virtual interrupt.
    ///
    /// If the virtual interrupt is in a list register whose `HW` bit is set, the hardware
    /// deactivates the physical interrupt. Links are for the hypervisor's timer, and for devices
    /// assigned to a guest.
    ///
    /// The hypervisor must acknowledge the physical interrupt, drop its priority and leave it
    /// active (EOImode 1). The hypervisor must then drive `line` high, or
    /// [pulse](msi_types::SetLine::pulse) the line if the interrupt is edge-triggered. The
    /// hypervisor doesn't have to drive the line low: if the physical input is still high after the
    /// deactivation, the physical interrupt fires again. A
    /// [`LineObserver`](msi_types::LineObserver) isn't notified of linked interrupts.
    ///
    /// If the physical input falls before the guest has acknowledged the interrupt, the hypervisor
    /// isn't notified, so the model [reads the level](PhysicalInterrupts::level) before the
    /// interrupt is signaled, after an exit in which the guest did not acknowledge it, and when the
    /// guest reads whether it is pending. If the input has fallen, the virtual interrupt is no
    /// longer pending, and the model deactivates the physical interrupt.
    ///
    /// If the guest makes the interrupt pending or active only by register writes, that state
    /// doesn't affect the physical interrupt. A system reset keeps links, and deactivates each
    /// physical interrupt that was active on behalf of the guest. [Saved
    /// states](crate::saved_state) don't contain links: the destination must link its own physical
    /// interrupts and drive the levels of their lines, and the source must [unlink](Self::unlink)
    /// its own physical interrupts.
    ///
    /// # Errors
    /// [`LinkError`] if the machine doesn't have this line, `physical` is not a PPI or SPI, or no
    /// [`PhysicalInterrupts`] is registered.
    pub fn link(&self, line: Line, physical: IntId) -> Result<(), LinkError> {
        self.wired.link(line, Some(physical))
    }

    /// Removes a link. If the physical interrupt was active on behalf of the guest, it is
    /// deactivated, but the state of the virtual interrupt doesn't change. If a vCPU has the
    /// virtual interrupt in a list register, that vCPU is kicked, but until it has exited, its
    /// guest may still deactivate the physical interrupt.
    ///
    /// # Errors
    /// [`LinkError`] if the machine doesn't have this line, or no [`PhysicalInterrupts`] is
    /// registered. Removing a link that does not exist is not an error.
    pub fn unlink(&self, line: Line) -> Result<(), LinkError> {
        self.wired.link(line, None)
    }

    /// Returns `true` if a line's physical interrupt is active on behalf of the guest. A hypervisor
    /// that moves vCPUs between CPUs must call this method while the vCPU is outside the guest.
    ///
    /// A linked PPI is active on a single CPU. When the hypervisor unloads the vCPU from a CPU, it
    /// must deactivate the PPI there regardless of this result, because another vCPU may have just
    /// ended the interrupt. When the hypervisor loads the vCPU on a CPU, it must first direct
    /// [`PhysicalInterrupts::deactivate`] to that CPU. The hypervisor then makes the PPI active on
    /// that CPU if this method returns `true`, calls the method again, and deactivates the PPI if
    /// the result is now `false`.
    pub fn is_physical_active(&self, line: Line) -> bool {
        self.wired.is_physical_active(line)
    }
}
