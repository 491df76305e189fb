//! The half of the model owned by a vCPU's thread: the CPU interface, either emulated in software
//! or backed by list registers.

pub(crate) mod list_registers;
pub(crate) mod listed;
pub(crate) mod paused;
pub(crate) mod system_registers;
pub(crate) mod vcpu;

use gic_arch::ich::Vtr;
use list_registers::{ListRegisterVcpu, RefusedVcpu};
use paused::Paused;
use vcpu::Vcpu;

impl Vcpu {
    /// Pauses the vCPU until the returned value is dropped. Once all vCPUs of a machine are paused,
    /// any thread may [save](crate::Vgic::save) or [restore](crate::Vgic::restore) the machine.
    ///
    /// Takes constant time, and doesn't wait for other vCPUs.
    pub fn pause(&mut self) -> Paused<'_> {
        Paused::new(self)
    }

    /// Prepares the vCPU to run its guest on CPUs with the virtual interface that `vtr`
    /// (`ICH_VTR_EL2`) describes.
    ///
    /// # Errors
    /// [`RefusedVcpu`], which returns the vCPU, if the guest would see a different CPU interface
    /// than the one configured for the machine.
    #[expect(clippy::result_large_err, reason = "the error contains the vCPU, as `Ok` does")]
    pub fn with_list_registers(self, vtr: Vtr) -> Result<ListRegisterVcpu, RefusedVcpu> {
        ListRegisterVcpu::new(self, vtr)
    }
}
