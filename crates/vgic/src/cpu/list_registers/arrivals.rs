//! Lists the interrupts that arrive while the vCPU is in guest mode.

use super::InGuest;
use gic_arch::Priority;
use gic_arch::ich::{ListRegister, Vmcr};

impl InGuest<'_> {
    /// Stops kicks until the vCPU [lists new interrupts](Self::list_arrivals) or
    /// [exits](Self::exit). One of these must follow before the guest runs again, because new
    /// interrupts do not kick the vCPU until then. Intended for hypervisors that handle physical
    /// interrupts before the exit. Other vCPUs may already be waiting for the exit, so the handlers
    /// must not wait for other vCPUs.
    #[inline]
    pub fn returned(&mut self) {
        self.0.0.own.wakeup.returned();
    }

    /// Moves the interrupts that have arrived since the entry into the list registers, so that the
    /// guest can continue after a kick without an exit. `vmcr` is `ICH_VMCR_EL2`, and `empty` is
    /// `ICH_ELRSR_EL2`. The maintenance interrupt must not be asserted.
    ///
    /// If the method returns `true`, the caller must load the list registers of
    /// [`interface`](Self::interface); all other registers are unchanged, and the next interrupt
    /// kicks the vCPU again. The caller must forget earlier kicks before the call, and look for new
    /// ones after it. At the exit, it must empty all list registers that were loaded since the
    /// entry.
    ///
    /// Returns `false` if the vCPU must [exit](Self::exit): list registers are not empty, the guest
    /// has changed `ICH_VMCR_EL2` or was entered in a handler, or the new interrupts need other
    /// changes to the interface, e.g. because they do not fit. The list registers of the interface
    /// are then unchanged or empty.
    pub fn list_arrivals(&mut self, vmcr: Vmcr, empty: u32) -> bool {
        let Self(vcpu) = self;
        let lists = &vcpu.0.list_registers;
        let used = (1_u32 << lists.used) - 1;
        // An exit updates the model's active priorities. If none was active, they are up to date
        // whenever the guest runs no handler.
        let was_idle = vcpu.0.interface.running() == Priority::IDLE;
        if empty & used != used || lists.interface.vmcr != vmcr || !was_idle {
            return false;
        }
        vcpu.fold_each(|_, _| ListRegister::new());
        if vcpu.0.wakeup.folded_to_enter(&vcpu.0.own.wakeup) {
            vcpu.0.gic.resume_recalled();
        }
        vcpu.fill_again()
    }
}
