//! Registers that each exit stores, and the effects of emulated instructions on them.

use crate::debug::Debug;
use crate::id_registers;
use crate::syndrome::{self, ByteOrder, DeviceAccess, RegisterAccess, advanced};
use crate::sysreg::{read_register, write_registers};
use core::arch::asm;
use vgic::{AccessWidth, ListRegisterVcpu, Progress};

/// Registers that an exit stores and an entry loads; see `vectors.rs`. Also contains the state of
/// the vCPU that only traps change.
#[derive(Debug)]
#[repr(C, align(16))]
pub struct Context {
    /// General-purpose registers x0 to x30.
    pub registers: [u64; 31],
    /// Address at which the guest continues.
    pub pc: u64,
    /// The guest's PSTATE, in `SPSR_EL2` format.
    pub pstate: u64,
    /// Breakpoints, watchpoints and single step.
    pub(crate) debug: Debug,
}

/// PSTATE for EL1 with its own stack pointer and all exceptions masked.
pub(crate) const EL1H_MASKED: u64 = 0x3c5;

/// PSTATE.M: EL1, unless the vCPU executes AArch32 instructions.
const EL1: u64 = 1 << 2;

impl Context {
    /// Returns the state of a starting vCPU. Both the Linux boot protocol and PSCI pass an argument
    /// in x0.
    pub(crate) fn starting(entry: u64, argument: u64) -> Self {
        let mut registers = [0; 31];
        registers[0] = argument;
        Self { registers, pc: entry, pstate: EL1H_MASKED, debug: Debug::reset() }
    }

    /// Returns a general-purpose register; register 31 is the zero register.
    #[inline]
    pub fn register(&self, number: usize) -> u64 {
        self.registers.get(number).copied().unwrap_or(0)
    }

    /// Sets a general-purpose register; writes to register 31 are ignored.
    #[inline]
    pub fn set_register(&mut self, number: usize, value: u64) {
        if let Some(register) = self.registers.get_mut(number) {
            *register = value;
        }
    }

    /// Returns the value that a store writes to a little-endian device.
    #[inline]
    pub fn stored(&self, access: DeviceAccess) -> u64 {
        self.byte_order().convert(self.register(access.register), access.width)
    }

    /// Sets the register of a load, where `value` is the value of a little-endian device.
    #[inline]
    pub fn load(&mut self, access: DeviceAccess, value: u64) {
        let DeviceAccess { width, register, extension, .. } = access;
        let value = self.byte_order().convert(value, width);
        self.set_register(register, extension.apply(value, width));
    }

    /// Emulates a load or store by `read` or `write`, which return `None` if nothing is at the
    /// address. The guest continues after the instruction, or repeats an unfinished store. Returns
    /// `None` if nothing is there.
    pub fn emulate_access(
        &mut self,
        access: DeviceAccess,
        read: impl FnOnce(u64, AccessWidth) -> Option<u64>,
        write: impl FnOnce(u64, AccessWidth, u64) -> Option<Progress>,
    ) -> Option<Progress> {
        let DeviceAccess { address, width, is_write, .. } = access;
        let progress = if is_write {
            write(address, width, self.stored(access))?
        } else {
            self.load(access, read(address, width)?);
            Progress::Done
        };
        if progress == Progress::Done {
            self.skip_instruction();
        }
        Some(progress)
    }

    /// Emulates an access to a debug, ID or CPU interface register, after which the guest
    /// continues. Returns `None` for all other registers, which are undefined, such as those of the
    /// performance monitors, which the ID registers do not show.
    pub fn emulate_register(
        &mut self,
        access: RegisterAccess,
        vcpu: &mut ListRegisterVcpu,
    ) -> Option<()> {
        let RegisterAccess { encoding, register, is_read } = access;
        let value = self.register(register);
        match (access.is_debugging(), is_read) {
            (true, true) => self.set_register(register, self.debug.read(access)?),
            (true, false) => self.debug.write(access, value)?,
            (false, true) => {
                let id = id_registers::read(encoding);
                self.set_register(register, id.or_else(|| vcpu.read_sysreg(encoding).ok())?);
            }
            (false, false) => vcpu.write_sysreg(encoding, value).ok()?,
        }
        self.skip_instruction();
        Some(())
    }

    /// Returns `true` if the instruction that trapped has four bytes, does not change PSTATE, and
    /// accesses little-endian memory.
    #[inline]
    pub fn is_simple(&self) -> bool {
        syndrome::is_simple(self.pstate, read_register!("sctlr_el1"))
    }

    /// Continues after a [simple](Self::is_simple) instruction.
    #[inline]
    pub fn skip_word(&mut self) {
        self.pc = self.pc.wrapping_add(4);
    }

    /// Continues after the instruction that trapped, as if it had been executed.
    pub fn skip_instruction(&mut self) {
        if syndrome::is_simple(self.pstate, 0) {
            return self.skip_word();
        }
        (self.pc, self.pstate) = advanced(self.pc, self.pstate, read_register!("esr_el2"));
    }

    /// Returns the order of the bytes in the guest's loads and stores.
    #[inline]
    fn byte_order(&self) -> ByteOrder {
        ByteOrder::of(self.pstate, read_register!("sctlr_el1"))
    }

    /// Returns a base register; register 31 is the stack pointer.
    pub fn base(&self, number: usize) -> u64 {
        match self.registers.get(number) {
            Some(register) => *register,
            None if self.uses_sp_el1() => read_register!("sp_el1"),
            None => read_register!("sp_el0"),
        }
    }

    /// Sets a base register; register 31 is the stack pointer.
    pub fn set_base(&mut self, number: usize, value: u64) {
        let stack = self.uses_sp_el1();
        match self.registers.get_mut(number) {
            Some(register) => *register = value,
            // SAFETY: the stack pointers of EL1 and EL0 belong to the guest.
            None if stack => unsafe {
                write_registers! { "sp_el1": value }
            },
            // SAFETY: as above.
            None => unsafe {
                write_registers! { "sp_el0": value }
            },
        }
    }

    const fn is_at_el0(&self) -> bool {
        self.pstate & EL1 == 0
    }

    /// Returns `true` if the guest executes A64 instructions.
    pub const fn is_a64(&self) -> bool {
        self.pstate & 1 << 4 == 0
    }

    /// Returns `true` if PSTATE.M is EL1h.
    const fn uses_sp_el1(&self) -> bool {
        self.pstate & 0b1_1111 == 0b0_0101
    }

    /// Translates a guest virtual address to a guest physical address, as the guest's tables do for
    /// a load. Returns `None` if the guest's tables do not map it.
    pub fn translate(&self, address: u64) -> Option<u64> {
        const FAILED: u64 = 1;
        const ADDRESS: u64 = (1 << 52) - (1 << 12);
        let of_guest = read_register!("par_el1");
        // SAFETY: changes only `PAR_EL1`, which belongs to the guest and is restored below. The
        // walk cannot abort, because stage 2 restricts it to RAM (`HCR_EL2.PTW`).
        unsafe {
            if self.is_at_el0() {
                asm!("at s1e0r, {}", "isb", in(reg) address, options(nostack, preserves_flags));
            } else {
                asm!("at s1e1r, {}", "isb", in(reg) address, options(nostack, preserves_flags));
            }
        }
        let found = read_register!("par_el1");
        // SAFETY: as above.
        unsafe {
            write_registers! { "par_el1": of_guest }
        }
        (found & FAILED == 0).then_some(found & ADDRESS | address & 0xfff)
    }
}
