//! Fills list registers again while the guest stays in guest mode.

use super::InGuest;
use super::fill::Entry;
use gic_arch::ich::ListRegister;

impl InGuest<'_> {
    /// Looks for pending interrupts after a kick, without an [exit](Self::exit). `empty` is
    /// `ICH_ELRSR_EL2`: bit `n` is set if `ICH_LR<n>_EL2` contains no interrupt, and asks for no
    /// maintenance interrupt.
    ///
    /// A vCPU whose maintenance interrupt is asserted must exit instead. Returns `false` if the
    /// vCPU must exit: the guest has not ended the interrupts in its list registers, a change of
    /// theirs must be folded, work is deferred, or other registers than the list registers must
    /// change. Otherwise, the caller must write the first [`used`](Self::used) list registers of
    /// the [interface](Self::interface), and the guest may continue. The next interrupt kicks the
    /// vCPU again.
    pub fn refill(&mut self, empty: u16) -> bool {
        let Self(vcpu) = self;
        let used = (1_u32 << vcpu.0.list_registers.used) - 1;
        if u32::from(empty) & used != used {
            return false;
        }
        // From here on, folded interrupts don't need a kick.
        vcpu.0.own.wakeup.returned();
        if used != 0 {
            vcpu.fold_each(|_, _| ListRegister::new());
        }
        if !vcpu.0.own.wakeup.refill() || vcpu.0.wakeup.has_work() {
            return false;
        }
        let made_for = vcpu.0.list_registers.made_for;
        vcpu.leave(Entry::Again);
        let fits = vcpu.0.list_registers.made_for == made_for;
        if !fits {
            vcpu.fold_as_filled();
        }
        fits
    }

    /// Returns the number of list registers in use, which are the first ones.
    pub fn used(&self) -> usize {
        self.0.0.list_registers.used
    }
}
