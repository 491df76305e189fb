//! Lists the interrupts that arrive while the vCPU is in guest mode.

use super::InGuest;
use gic_arch::ich::ListRegister;

impl InGuest<'_> {
    /// Stops kicks until the vCPU [lists arrivals](Self::list_arrivals) or [exits](Self::exit), one
    /// of which must follow. For a hypervisor that handles physical interrupts without an exit.
    #[inline]
    pub fn returned(&mut self) {
        self.0.0.own.wakeup.returned();
    }

    /// Moves the interrupts that have arrived since the entry into the list registers, so that the
    /// guest can continue after a kick without an exit. `empty` is `ICH_ELRSR_EL2`. If the method
    /// returns `true`, the caller must load the list registers of [`interface`](Self::interface);
    /// all other registers are unchanged, and the next interrupt kicks the vCPU again. The caller
    /// must forget earlier kicks before the call, and look for new ones after it.
    ///
    /// Returns `false` if the vCPU must [exit](Self::exit): the guest has not ended all interrupts
    /// in list registers, or the new ones need other changes to the interface, e.g. because they do
    /// not fit.
    pub fn list_arrivals(&mut self, empty: u32) -> bool {
        let Self(vcpu) = self;
        let used = (1_u32 << vcpu.0.list_registers.used) - 1;
        if empty & used != used {
            return false;
        }
        // The guest has ended all listed interrupts.
        vcpu.fold_each(|_, _| ListRegister::new());
        if vcpu.0.wakeup.folded_to_enter(&vcpu.0.own.wakeup) {
            vcpu.0.gic.resume_recalled();
        }
        vcpu.fill_again()
    }
}
