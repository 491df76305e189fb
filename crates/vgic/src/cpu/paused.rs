//! Pauses vCPUs. While a vCPU is paused, its CPU interface belongs to the shared half, which can
//! save and restore it. Invariant: a CPU interface is either in its vCPU, which may run, or in the
//! shared half.

use crate::cpu::vcpu::Vcpu;
use crate::cpu_interface::CpuInterface;
use core::fmt;
use msi_types::Cpu;

/// A paused vCPU, which resumes when this value is dropped. The vCPU's thread calls
/// [`Vcpu::pause`] or [`ListRegisterVcpu::pause`](crate::ListRegisterVcpu::pause), and keeps this
/// value until the machine has been [saved](crate::Vgic::save) or
/// [restored](crate::Vgic::restore) by any thread.
///
/// A paused vCPU can't run, because this value borrows it. It is kicked like any other vCPU, once
/// if it is asleep.
///
/// Resuming waits for a save or restore in progress, so dropping this value may block.
#[must_use = "the vCPU resumes when this value is dropped"]
pub struct Paused<'a>(&'a mut Vcpu);

impl Vcpu {
    /// Pauses the vCPU until the returned value is dropped. Once all vCPUs of a machine are paused,
    /// any thread may [save](crate::Vgic::save) or [restore](crate::Vgic::restore) the machine.
    ///
    /// Takes constant time, and doesn't wait for other vCPUs.
    pub fn pause(&mut self) -> Paused<'_> {
        // A vCPU whose guard was leaked has already handed over its interface.
        let reset = CpuInterface::new(self.interface.features());
        let interface = core::mem::replace(&mut self.interface, reset);
        if let Some(place) = self.gic.paused.lock().get_mut(self.cpu.index()) {
            place.get_or_insert(interface);
        }
        // A paused vCPU does not do deferred work, and may have been kicked for it.
        self.wakeup.pass_work_on();
        Paused(self)
    }
}

impl Paused<'_> {
    /// Returns the vCPU's number.
    pub fn cpu(&self) -> Cpu {
        self.0.cpu()
    }

    /// Resumes the vCPU. Equivalent to dropping this value.
    pub fn resume(self) {}
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        let Self(vcpu) = self;
        let interface = vcpu.gic.paused.lock().get_mut(vcpu.cpu.index()).and_then(Option::take);
        if let Some(interface) = interface {
            vcpu.change_interface(|own| *own = interface);
        }
        vcpu.note_active();
    }
}

impl fmt::Debug for Paused<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Paused").field(&self.cpu()).finish()
    }
}
