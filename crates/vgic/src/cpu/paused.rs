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

impl<'a> Paused<'a> {
    pub(super) fn new(vcpu: &'a mut Vcpu) -> Self {
        // A vCPU whose guard was leaked has already handed over its interface.
        let reset = CpuInterface::new(vcpu.interface.features());
        let interface = core::mem::replace(&mut vcpu.interface, reset);
        if let Some(place) = vcpu.gic.paused.lock().get_mut(vcpu.cpu.index()) {
            place.get_or_insert(interface);
        }
        // A paused vCPU does not do deferred work, and may have been kicked for it.
        vcpu.wakeup.pass_work_on();
        Self(vcpu)
    }

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
        vcpu.list_registers.note_active(vcpu.gic.wired(), vcpu.cpu);
    }
}

impl fmt::Debug for Paused<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Paused").field(&self.cpu()).finish()
    }
}
