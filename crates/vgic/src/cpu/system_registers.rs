//! CPU interface system registers, `ICC_*` (IHI 0069 §12.2): a table of encodings and handlers.

use crate::config::SecurityView;
use crate::cpu::vcpu::Vcpu;
use crate::frames::registers::{low_byte, low_word};
use core::ops::ControlFlow;
use gic_arch::icc::{self, Ctlr, Igrpen, IntIdValue, Sgi, Sre, SysRegEncoding};
use gic_arch::{IntId, Lpi};
use msi_types::explain::Group;

/// `MRS` handler.
type Read = fn(&mut Vcpu) -> Result<u64, Undefined>;
/// `MSR` handler.
type Write = fn(&mut Vcpu, u64) -> Result<(), Undefined>;

/// System register with its handlers.
struct SystemRegister {
    encoding: SysRegEncoding,
    read: Read,
    write: Write,
}

/// Error for an access to a system register that doesn't exist in this direction, or isn't visible
/// to the guest. Such an access causes an Undefined Instruction exception (or a trap to EL3, for
/// Group 0 in the Non-secure view).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the guest has no system register {:#06x} for this access", .0.packed())]
pub struct Undefined(pub SysRegEncoding);

impl Vcpu {
    /// Reads a system register (`MRS`) on behalf of the guest. Reading `ICC_IAR<n>_EL1`
    /// acknowledges an interrupt.
    ///
    /// # Errors
    /// [`Undefined`] if the caller must inject an exception into the guest.
    #[inline]
    pub fn read_sysreg(&mut self, register: SysRegEncoding) -> Result<u64, Undefined> {
        // Guests read this register for every interrupt, so skip the table.
        if register == icc::IAR1.encoding() {
            return Ok(self.read_iar1());
        }
        self.read_any(register)
    }

    #[inline(never)]
    fn read_any(&mut self, register: SysRegEncoding) -> Result<u64, Undefined> {
        (find(register).ok_or(Undefined(register))?.read)(self)
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
        // Fast path: guests write this register for every interrupt, so skip the table.
        if register == icc::EOIR1.encoding() {
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
        // Guests that mask interrupts by priority write this register often.
        if register == icc::PMR.encoding() {
            self.set_mask(byte(value));
            return Ok(());
        }
        (find(register).ok_or(Undefined(register))?.write)(self, value)
    }
}

fn find(encoding: SysRegEncoding) -> Option<&'static SystemRegister> {
    let at = REGISTERS.binary_search_by_key(&encoding, |register| register.encoding).ok()?;
    REGISTERS.get(at)
}

/// Defines a register: `register!(REGISTER, read, write)`. Use `undefined` for a direction that
/// doesn't exist.
macro_rules! register {
    ($register:ident, undefined, $write:expr) => {
        SystemRegister {
            encoding: icc::$register.encoding(),
            read: |_| Err(Undefined(icc::$register.encoding())),
            write: $write,
        }
    };
    ($register:ident, $read:expr, undefined) => {
        SystemRegister {
            encoding: icc::$register.encoding(),
            read: $read,
            write: |_, _| Err(Undefined(icc::$register.encoding())),
        }
    };
    ($register:ident, $read:expr, $write:expr) => {
        SystemRegister { encoding: icc::$register.encoding(), read: $read, write: $write }
    };
}

/// Defines a group's active-priority register `$index`.
macro_rules! active_priorities {
    ($register:ident, $group:expr, $index:literal) => {
        register!(
            $register,
            |v| {
                v.exists(icc::$register.encoding(), $group, $index)?;
                Ok(v.interface.active_word($group, $index).into())
            },
            |v, value| {
                v.exists(icc::$register.encoding(), $group, $index)?;
                v.change_interface(|interface| {
                    interface.set_active_word($group, $index, low_word(value));
                });
                Ok(())
            }
        )
    };
}

/// Registers, sorted by encoding.
static REGISTERS: &[SystemRegister] = &[
    register!(PMR, |v| Ok(v.interface.mask_view().into()), |v, value| {
        v.set_mask(byte(value));
        Ok(())
    }),
    register!(
        IAR0,
        |v| v.in_group_zero(icc::IAR0.encoding(), |v| acknowledge(v, Group::Zero)),
        undefined
    ),
    register!(EOIR0, undefined, |v, value| {
        v.in_group_zero(icc::EOIR0.encoding(), |v| v.end(Group::Zero, intid(value)))
    }),
    register!(
        HPPIR0,
        |v| v.in_group_zero(icc::HPPIR0.encoding(), |v| highest(v, Group::Zero)),
        undefined
    ),
    register!(
        BPR0,
        |v| v.in_group_zero(icc::BPR0.encoding(), |v| v.interface.binary_point(Group::Zero).into()),
        |v, value| {
            v.in_group_zero(icc::BPR0.encoding(), |v| {
                v.change_interface(|interface| {
                    interface.set_binary_point(Group::Zero, byte(value));
                });
            })
        }
    ),
    active_priorities!(AP0R0, Group::Zero, 0),
    active_priorities!(AP0R1, Group::Zero, 1),
    active_priorities!(AP0R2, Group::Zero, 2),
    active_priorities!(AP0R3, Group::Zero, 3),
    active_priorities!(AP1R0, Group::One, 0),
    active_priorities!(AP1R1, Group::One, 1),
    active_priorities!(AP1R2, Group::One, 2),
    active_priorities!(AP1R3, Group::One, 3),
    register!(DIR, undefined, |v, value| {
        v.deactivate(intid(value));
        Ok(())
    }),
    register!(RPR, |v| Ok(v.interface.running_view().into()), undefined),
    register!(SGI1R, undefined, |v, value| {
        v.send(Sgi::from(value), Group::One);
        Ok(())
    }),
    register!(ASGI1R, undefined, |v, value| {
        v.send(Sgi::from(value), Group::Zero);
        Ok(())
    }),
    register!(SGI0R, undefined, |v, value| {
        v.send(Sgi::from(value), Group::Zero);
        Ok(())
    }),
    register!(IAR1, |v| Ok(acknowledge(v, Group::One)), undefined),
    register!(EOIR1, undefined, |v, value| {
        v.end(Group::One, intid(value));
        Ok(())
    }),
    register!(HPPIR1, |v| Ok(highest(v, Group::One)), undefined),
    register!(BPR1, |v| Ok(v.interface.binary_point(Group::One).into()), |v, value| {
        v.change_interface(|interface| interface.set_binary_point(Group::One, byte(value)));
        Ok(())
    }),
    register!(CTLR, |v| Ok(v.interface.control().into_bits()), |v, value| {
        v.change_interface(|interface| interface.set_control(Ctlr::from(value)));
        Ok(())
    }),
    register!(
        SRE,
        |_| Ok(Sre::new().with_sre(true).with_dfb(true).with_dib(true).into_bits()),
        |_, _| Ok(())
    ),
    register!(
        IGRPEN0,
        |v| v.in_group_zero(icc::IGRPEN0.encoding(), |v| enable(v, Group::Zero)),
        |v, value| {
            v.in_group_zero(icc::IGRPEN0.encoding(), |v| {
                v.enable_group(Group::Zero, Igrpen::from(value));
            })
        }
    ),
    register!(IGRPEN1, |v| Ok(enable(v, Group::One)), |v, value| {
        v.enable_group(Group::One, Igrpen::from(value));
        Ok(())
    }),
];

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

impl Vcpu {
    /// Runs `body` if the guest has the Group 0 registers. These registers don't exist on the
    /// Non-secure side.
    fn in_group_zero<T>(
        &mut self,
        encoding: SysRegEncoding,
        body: impl FnOnce(&mut Self) -> T,
    ) -> Result<T, Undefined> {
        match self.interface.features().security {
            SecurityView::Single => Ok(body(self)),
            SecurityView::NonSecure => Err(Undefined(encoding)),
        }
    }

    /// Checks that the group has an active-priority register `index`.
    fn exists(
        &self,
        encoding: SysRegEncoding,
        group: Group,
        index: usize,
    ) -> Result<(), Undefined> {
        let features = self.interface.features();
        let visible = group == Group::One || features.security == SecurityView::Single;
        if visible && index < features.active_priority_registers() {
            Ok(())
        } else {
            Err(Undefined(encoding))
        }
    }
}

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_register_table_lists_each_register_once() {
        let mut expected: std::vec::Vec<_> =
            icc::REGISTERS.iter().map(|(_, encoding)| *encoding).collect();
        expected.sort_unstable();
        let found: std::vec::Vec<_> = REGISTERS.iter().map(|register| register.encoding).collect();
        assert_eq!(found, expected);
    }
    extern crate std;
}
