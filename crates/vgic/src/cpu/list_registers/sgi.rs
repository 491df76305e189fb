//! SGIs sent by a guest that stays in guest mode.

use super::InGuest;
use crate::cpu::system_registers::Undefined;
use gic_arch::icc::{self, Sgi, SysRegEncoding};
use msi_types::explain::Group;

impl InGuest<'_> {
    /// Writes `ICC_SGI0R_EL1`, `ICC_SGI1R_EL1` or `ICC_ASGI1R_EL1` on behalf of the guest, after a
    /// trapped access. The guest can resume immediately, because the write doesn't fold the list
    /// registers. If a vCPU sends itself an SGI, it is kicked as if another vCPU had sent it.
    ///
    /// # Errors
    /// [`Undefined`] for any other register. The caller must write it after the [exit](Self::exit),
    /// using [`ListRegisterVcpu::write_sysreg`](super::ListRegisterVcpu::write_sysreg).
    pub fn write_sgi(&self, register: SysRegEncoding, value: u64) -> Result<(), Undefined> {
        const GROUP_ZERO: [SysRegEncoding; 2] = [icc::SGI0R.encoding(), icc::ASGI1R.encoding()];
        let group = match register {
            register if register == icc::SGI1R.encoding() => Group::One,
            register if GROUP_ZERO.contains(&register) => Group::Zero,
            _ => return Err(Undefined(register)),
        };
        self.0.0.send(Sgi::from(value), group);
        Ok(())
    }
}
