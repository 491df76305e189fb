//! Virtual interrupts that are linked to physical ones, for hypervisors.

use crate::vgic::Vgic;
use crate::wired::{LinkError, PhysicalInterrupts};
use alloc::sync::Arc;
use gic_arch::IntId;
use msi_types::Line;

/// Somebody serves physical interrupts already.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("physical interrupts are served already")]
pub struct PhysicalTaken;

impl Vgic {
    /// Registers who serves the physical interrupts that virtual ones are [linked](Self::link) to.
    ///
    /// # Errors
    /// [`PhysicalTaken`] from the second call on.
    pub fn serve_physical(
        &self,
        physical: Arc<dyn PhysicalInterrupts>,
    ) -> Result<(), PhysicalTaken> {
        self.wired.serve_physical(physical).map_err(|_| PhysicalTaken)
    }

    /// Links a virtual PPI or SPI to a physical interrupt: when the guest deactivates the first,
    /// the second is deactivated. The hardware does so where it is in a list register. For a
    /// hypervisor's timer and for devices that a guest has to itself.
    ///
    /// The hypervisor takes the physical interrupt, drops its priority and leaves it active
    /// (EOImode 1). It then drives `line` high, or [pulses](msi_types::SetLine::pulse) it for an
    /// edge. It need not drive the line low: a physical input that is still high after the
    /// deactivation fires again. A [`LineObserver`](msi_types::LineObserver) is not notified of
    /// linked interrupts.
    ///
    /// The hypervisor is not notified of a physical input that falls before the guest has
    /// acknowledged the interrupt, so the model [asks](PhysicalInterrupts::level) for its level:
    /// before the interrupt is signalled, after an exit in which the guest did not acknowledge it,
    /// and when the guest reads whether it is pending. If the input has fallen, the interrupt is no
    /// longer pending and the physical one is deactivated.
    ///
    /// A pending or active state that the guest makes by registers alone is not linked. A system
    /// reset keeps links; each physical interrupt that was active on behalf of the guest is
    /// deactivated. [Saved states](crate::saved_state) contain no links: the destination links its
    /// own and drives their levels, the source [unlinks](Self::unlink).
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn link(&self, line: Line, physical: IntId) -> Result<(), LinkError> {
        self.wired.link(line, Some(physical))
    }

    /// Ends a link. If the physical interrupt was active on behalf of the guest, it is deactivated;
    /// the virtual one stays as it is. A vCPU that has it in a list register is kicked: until it
    /// has exited, its guest may still deactivate the physical one.
    ///
    /// # Errors
    /// [`LinkError`]; not where there was no link.
    pub fn unlink(&self, line: Line) -> Result<(), LinkError> {
        self.wired.link(line, None)
    }

    /// Is a line's physical interrupt active on behalf of the guest? For a hypervisor that runs a
    /// vCPU now on one CPU, now on another, and asks outside of the guest.
    ///
    /// A linked PPI is active at one CPU. When the vCPU goes off a CPU, the hypervisor deactivates
    /// it there by itself, whatever this says: another vCPU may have just ended it. When the vCPU
    /// comes onto a CPU, the hypervisor first has [`PhysicalInterrupts::deactivate`] reach that
    /// CPU. It makes the PPI active there if this is true. Then it asks again, and deactivates it
    /// if this has become false.
    pub fn is_physical_active(&self, line: Line) -> bool {
        self.wired.is_physical_active(line)
    }
}
