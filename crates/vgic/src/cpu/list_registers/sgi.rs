//! SGIs that the guest sends: its vCPU need not leave for them.

use super::InGuest;
use crate::cpu::system_registers::Undefined;
use crate::wired::Group;
use gic_arch::icc::{self, Sgi, SysRegEncoding};

impl InGuest {
    /// Writes one of `ICC_SGI<n>R_EL1` and `ICC_ASGI1R_EL1` on behalf of the guest, whose access
    /// trapped and which goes on at once. What is in list registers stays there. A vCPU that sends
    /// itself an SGI is kicked, as it would be by another.
    ///
    /// # Errors
    /// [`Undefined`]: it is another register, to be written after the [exit](Self::exit)
    /// ([`ListRegisterVcpu::write_sysreg`](super::ListRegisterVcpu::write_sysreg)).
    pub fn write_sgi(&self, register: SysRegEncoding, value: u64) -> Result<(), Undefined> {
        const GROUP_ZERO: [SysRegEncoding; 2] = [icc::SGI0R.encoding(), icc::ASGI1R.encoding()];
        let group = match register {
            register if register == icc::SGI1R.encoding() => Group::One,
            register if GROUP_ZERO.contains(&register) => Group::Zero,
            _ => return Err(Undefined(register)),
        };
        if let Some(vcpu) = &self.vcpu {
            vcpu.0[0].send(Sgi::from(value), group);
        }
        Ok(())
    }
}
