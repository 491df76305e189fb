//! CPU interface system registers, `ICC_*` (IHI 0069 §12.2).

use crate::config::SecurityView;
use crate::cpu::vcpu::Vcpu;
use crate::frames::registers::{low_byte, low_word};
use core::ops::ControlFlow;
use gic_arch::icc::{self, Ctlr, Igrpen, IntIdValue, Sgi, Sre, SysRegEncoding};
use gic_arch::{IntId, Lpi};
use msi_types::explain::Group;

/// Error for an access to a system register that doesn't exist in this direction, or isn't visible
/// to the guest. Such an access causes an Undefined Instruction exception (or a trap to EL3, for
/// Group 0 in the Non-secure view).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the guest has no system register {:#06x} for this access", .0.packed())]
pub struct Undefined(pub SysRegEncoding);

/// Defines constants that can be matched.
macro_rules! encodings {
    ($($register:ident)*) => { $(const $register: SysRegEncoding = icc::$register.encoding();)* };
}
encodings!(PMR IAR0 EOIR0 HPPIR0 BPR0 DIR RPR SGI1R ASGI1R SGI0R IAR1 EOIR1 HPPIR1 BPR1 CTLR SRE);
encodings!(IGRPEN0 IGRPEN1 AP0R0 AP0R1 AP0R2 AP0R3 AP1R0 AP1R1 AP1R2 AP1R3);

impl Vcpu {
    /// Reads a system register (`MRS`) on behalf of the guest. Reading `ICC_IAR<n>_EL1`
    /// acknowledges an interrupt.
    ///
    /// # Errors
    /// [`Undefined`] if the caller must inject an exception into the guest.
    #[inline]
    pub fn read_sysreg(&mut self, register: SysRegEncoding) -> Result<u64, Undefined> {
        // Guests read this register for every interrupt.
        if register == IAR1 {
            return Ok(self.read_iar1());
        }
        self.read_any(register)
    }

    #[inline(never)]
    fn read_any(&mut self, register: SysRegEncoding) -> Result<u64, Undefined> {
        self.check_visible(register)?;
        Ok(match register {
            PMR => self.interface.mask_view().into(),
            IAR0 => acknowledge(self, Group::Zero),
            HPPIR0 => highest(self, Group::Zero),
            HPPIR1 => highest(self, Group::One),
            BPR0 => self.interface.binary_point(Group::Zero).into(),
            BPR1 => self.interface.binary_point(Group::One).into(),
            RPR => self.interface.running_view().into(),
            CTLR => self.interface.control().into_bits(),
            SRE => Sre::new().with_sre(true).with_dfb(true).with_dib(true).into_bits(),
            IGRPEN0 => enable(self, Group::Zero),
            IGRPEN1 => enable(self, Group::One),
            _ => {
                let (group, index) = self.active_priorities(register)?;
                self.interface.active_word(group, index).into()
            }
        })
    }

    #[inline(never)]
    fn read_iar1(&mut self) -> u64 {
        match self.acknowledge_first() {
            ControlFlow::Break(taken) => taken.map_or(IntId::SPURIOUS, Lpi::intid).get().into(),
            ControlFlow::Continue(()) => acknowledge(self, Group::One),
        }
    }

    /// Writes a system register (`MSR`) on behalf of the guest.
    ///
    /// # Errors
    /// [`Undefined`] if the caller must inject an exception into the guest.
    #[inline]
    pub fn write_sysreg(&mut self, register: SysRegEncoding, value: u64) -> Result<(), Undefined> {
        // Guests write this register for every interrupt.
        if register == EOIR1 {
            self.write_eoir1(value);
            return Ok(());
        }
        self.write_any(register, value)
    }

    #[inline(never)]
    fn write_eoir1(&mut self, value: u64) {
        if intid(value).get() >= Lpi::FIRST.get() {
            self.end_lpi(Group::One);
        } else {
            self.end(Group::One, intid(value));
        }
    }

    #[inline(never)]
    fn write_any(&mut self, register: SysRegEncoding, value: u64) -> Result<(), Undefined> {
        match register {
            // Guests that mask interrupts by priority, and those that send SGIs, write these often.
            PMR => self.set_mask(byte(value)),
            SGI1R => self.send(Sgi::from(value), Group::One),
            _ => return self.write_other(register, value),
        }
        Ok(())
    }

    #[inline(never)]
    fn write_other(&mut self, register: SysRegEncoding, value: u64) -> Result<(), Undefined> {
        self.check_visible(register)?;
        match register {
            EOIR0 => self.end(Group::Zero, intid(value)),
            DIR => self.deactivate(intid(value)),
            SGI0R | ASGI1R => self.send(Sgi::from(value), Group::Zero),
            SRE => {}
            IGRPEN0 => self.enable_group(Group::Zero, Igrpen::from(value)),
            IGRPEN1 => self.enable_group(Group::One, Igrpen::from(value)),
            BPR0 => self.change_interface(|it| it.set_binary_point(Group::Zero, byte(value))),
            BPR1 => self.change_interface(|it| it.set_binary_point(Group::One, byte(value))),
            CTLR => self.change_interface(|it| it.set_control(Ctlr::from(value))),
            _ => {
                let (group, index) = self.active_priorities(register)?;
                self.change_interface(|it| it.set_active_word(group, index, low_word(value)));
            }
        }
        Ok(())
    }

    /// Returns an error if the register belongs to Group 0, and the guest's view doesn't include
    /// that group.
    fn check_visible(&self, register: SysRegEncoding) -> Result<(), Undefined> {
        match (self.interface.features().security, register) {
            (
                SecurityView::NonSecure,
                IAR0 | EOIR0 | HPPIR0 | BPR0 | IGRPEN0 | AP0R0 | AP0R1 | AP0R2 | AP0R3,
            ) => Err(Undefined(register)),
            _ => Ok(()),
        }
    }

    /// Returns the group and the number of an implemented active priorities register.
    fn active_priorities(&self, register: SysRegEncoding) -> Result<(Group, u32), Undefined> {
        let implemented = self.interface.features().active_priority_registers();
        let zero = [AP0R0, AP0R1, AP0R2, AP0R3].map(|of| (of, Group::Zero));
        let one = [AP1R0, AP1R1, AP1R2, AP1R3].map(|of| (of, Group::One));
        let numbered = (0..).zip(zero).take(implemented).chain((0..).zip(one).take(implemented));
        let found = { numbered }.find(|(_, (of, _))| *of == register);
        found.map(|(index, (_, group))| (group, index)).ok_or(Undefined(register))
    }
}

#[inline(never)]
fn acknowledge(vcpu: &mut Vcpu, group: Group) -> u64 {
    IntIdValue::of(vcpu.acknowledge(group).unwrap_or(IntId::SPURIOUS)).into_bits()
}

fn highest(vcpu: &mut Vcpu, group: Group) -> u64 {
    IntIdValue::of(vcpu.highest(group).unwrap_or(IntId::SPURIOUS)).into_bits()
}

fn enable(vcpu: &Vcpu, group: Group) -> u64 {
    Igrpen::new().with_enable(vcpu.interface.takes(group)).into_bits()
}

fn intid(value: u64) -> IntId {
    IntIdValue::from(value).intid()
}

/// Returns a register's low byte. The other bits are RES0.
const fn byte(value: u64) -> u8 {
    low_byte(low_word(value))
}
