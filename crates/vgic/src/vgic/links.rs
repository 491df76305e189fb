//! Links between virtual and physical interrupts, for hypervisors.

use crate::vgic::Vgic;
use crate::wired::{LinkError, PhysicalInterrupts};
use alloc::sync::Arc;
use gic_arch::IntId;
use msi_types::Line;

/// The error of [`Vgic::serve_physical`] when a [`PhysicalInterrupts`] is already registered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the GIC's physical interrupts are already served")]
pub struct PhysicalTaken;

impl Vgic {
    /// Registers the hypervisor's access to the physical interrupts to which virtual ones are
    /// [linked](Self::link).
    ///
    /// # Errors
    /// [`PhysicalTaken`] if one has been registered before.
    pub fn serve_physical(
        &self,
        physical: Arc<dyn PhysicalInterrupts>,
    ) -> Result<(), PhysicalTaken> {
        self.wired.serve_physical(physical).map_err(|_| PhysicalTaken)
    }

    /// Links a virtual PPI or SPI to a physical interrupt, so that the physical interrupt is
    /// deactivated when the guest deactivates the virtual one.
    ///
    /// If the virtual interrupt is in a list register, the hardware does this. Links serve the
    /// hypervisor's timer and devices that are assigned to one guest.
    ///
    /// The hypervisor must acknowledge the physical interrupt, drop its priority and leave it
    /// active (EOImode 1). It must then drive `line` high, or [pulse](msi_types::SetLine::pulse) it
    /// for an edge. It need not drive the line low: a physical input that is still high after the
    /// deactivation fires again. A [`LineObserver`](msi_types::LineObserver) is not notified of
    /// linked interrupts.
    ///
    /// The hypervisor is not notified of a physical input that falls before the guest has
    /// acknowledged the interrupt, so the model [asks](PhysicalInterrupts::level) for its level:
    /// before the interrupt is signaled, after an exit in which the guest did not acknowledge it,
    /// and when the guest reads whether it is pending. If the input has fallen, the interrupt is no
    /// longer pending and the physical one is deactivated.
    ///
    /// If the guest makes the interrupt pending or active only by register writes, that state is
    /// not linked. A system reset keeps links, and deactivates each physical interrupt that was
    /// active on behalf of the guest. [Saved states](crate::saved_state) contain no links: the
    /// destination must link its own physical interrupts and drive the levels of their lines, and
    /// the source must [unlink](Self::unlink) its own.
    ///
    /// # Errors
    /// [`LinkError`] if the machine has no such line, `physical` is not a PPI or SPI, or no
    /// [`PhysicalInterrupts`] is registered.
    pub fn link(&self, line: Line, physical: IntId) -> Result<(), LinkError> {
        self.wired.link(line, Some(physical))
    }

    /// Removes a link. If the physical interrupt was active on behalf of the guest, it is
    /// deactivated; the state of the virtual one does not change. If a vCPU has the virtual
    /// interrupt in a list register, that vCPU is kicked, but until it has exited, its guest may
    /// still deactivate the physical interrupt.
    ///
    /// # Errors
    /// [`LinkError`] if the machine has no such line, or no [`PhysicalInterrupts`] is registered.
    /// Removing a link that does not exist is not an error.
    pub fn unlink(&self, line: Line) -> Result<(), LinkError> {
        self.wired.link(line, None)
    }

    /// Returns `true` if a line's physical interrupt is active on behalf of the guest. For a
    /// hypervisor that moves a vCPU between CPUs; it must call this while the vCPU is outside the
    /// guest.
    ///
    /// A linked PPI is active on a single CPU. When the hypervisor unloads the vCPU from a CPU, it
    /// must deactivate the PPI there regardless of this result, because another vCPU may have just
    /// ended it. When it loads the vCPU on a CPU, it must first direct
    /// [`PhysicalInterrupts::deactivate`] to that CPU. It then makes the PPI active there if this
    /// method returns `true`, calls the method again, and deactivates the PPI if the result is now
    /// `false`.
    pub fn is_physical_active(&self, line: Line) -> bool {
        self.wired.is_physical_active(line)
    }
}
