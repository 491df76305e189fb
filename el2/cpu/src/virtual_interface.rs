//! The CPU's virtual interface, `ICH_*_EL2` (IHI 0069 §12.4), loaded before a guest entry, and
//! stored and disabled after the exit.

use crate::sysreg::{read_register, write_registers};
use core::arch::asm;
use gic_arch::ich::{Hcr, ListRegister, Vmcr, Vtr};
use vgic::{MAX_LIST_REGISTERS, VirtualInterface};

/// Numbers of registers that this CPU implements.
#[derive(Clone, Copy, Debug)]
pub struct Hardware {
    /// `ICH_VTR_EL2`.
    pub vtr: Vtr,
    lists: usize,
    /// Number of active priorities registers per group.
    priorities: usize,
}

macro_rules! write_register {
    ($name:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: the register exists (see `Hardware`), and affects only the guest.
        unsafe {
            write_registers! { $name: value }
        }
    }};
}

/// Defines functions that read and write one of several registers by its index, which must be below
/// the number that the CPU implements. Other indices read as zero, and writes to them are ignored.
macro_rules! indexed {
    ($read:ident, $write:ident: $($index:literal => $name:literal),* $(,)?) => {
        fn $read(index: usize) -> u64 {
            match index {
                $($index => read_register!($name),)*
                _ => 0,
            }
        }

        fn $write(index: usize, value: u64) {
            match index {
                $($index => write_register!($name, value),)*
                _ => {}
            }
        }
    };
}

indexed! {
    read_priorities_0, write_priorities_0:
    0 => "S3_4_C12_C8_0", 1 => "S3_4_C12_C8_1", 2 => "S3_4_C12_C8_2", 3 => "S3_4_C12_C8_3",
}

indexed! {
    read_priorities_1, write_priorities_1:
    0 => "S3_4_C12_C9_0", 1 => "S3_4_C12_C9_1", 2 => "S3_4_C12_C9_2", 3 => "S3_4_C12_C9_3",
}

indexed! {
    read_list, write_list:
    0 => "S3_4_C12_C12_0", 1 => "S3_4_C12_C12_1", 2 => "S3_4_C12_C12_2", 3 => "S3_4_C12_C12_3",
    4 => "S3_4_C12_C12_4", 5 => "S3_4_C12_C12_5", 6 => "S3_4_C12_C12_6", 7 => "S3_4_C12_C12_7",
    8 => "S3_4_C12_C13_0", 9 => "S3_4_C12_C13_1", 10 => "S3_4_C12_C13_2", 11 => "S3_4_C12_C13_3",
    12 => "S3_4_C12_C13_4", 13 => "S3_4_C12_C13_5", 14 => "S3_4_C12_C13_6", 15 => "S3_4_C12_C13_7",
}

impl Hardware {
    /// Reads the numbers from this CPU.
    pub fn here() -> Self {
        let vtr = Vtr::from(read_register!("S3_4_C12_C11_1"));
        Self {
            vtr,
            lists: (usize::from(vtr.list_regs_minus_one()) + 1).min(MAX_LIST_REGISTERS),
            priorities: (1 << (vtr.pre_bits_minus_one() + 1).saturating_sub(5)).min(4),
        }
    }

    /// Empties the list registers. The list registers' contents are unknown after reset.
    pub(crate) fn clear(self) {
        (0..self.lists).for_each(|index| write_list(index, 0));
    }

    /// Loads the interface's content for the guest. Returns the number of list registers in use,
    /// which have the lowest indices; all other list registers are empty.
    #[inline]
    pub fn load(self, interface: &VirtualInterface) -> usize {
        write_register!("S3_4_C12_C11_7", interface.vmcr.into());
        let [zero, one] = &interface.active_priorities;
        write_priorities_0(0, zero[0].into());
        write_priorities_1(0, one[0].into());
        // Every CPU has the first register of each group. A loop would select it by index at each
        // entry.
        for index in 1..self.priorities {
            write_priorities_0(index, zero[index].into());
            write_priorities_1(index, one[index].into());
        }
        let used = self.load_list(interface);
        write_register!("S3_4_C12_C11_0", interface.hcr.into());
        used
    }

    /// Loads the list registers in use. Returns their number.
    #[inline]
    pub fn load_list(self, interface: &VirtualInterface) -> usize {
        let in_use = |register: &&ListRegister| **register != ListRegister::new();
        let registers = interface.list.iter().take(self.lists).take_while(in_use);
        registers.enumerate().map(|(index, it)| write_list(index, (*it).into())).count()
    }

    /// Loads the list register with this index, and returns how many list registers are in use, if
    /// `used` were before.
    #[inline]
    pub fn load_one(self, interface: &VirtualInterface, index: usize, used: usize) -> usize {
        write_list(index, interface.list[index].into());
        used.max(index + 1)
    }

    /// Returns `ICH_VMCR_EL2`, which the guest may have changed.
    #[inline]
    pub fn vmcr(self) -> Vmcr {
        Vmcr::from(read_register!("S3_4_C12_C11_7"))
    }

    /// Returns a bitmap of the empty list registers (`ICH_ELRSR_EL2`).
    #[inline]
    pub fn empty(self) -> u32 {
        read_register!("S3_4_C12_C11_5") as u32
    }

    /// Returns `true` if the maintenance interrupt is asserted.
    #[inline]
    pub fn needs_maintenance(self) -> bool {
        read_register!("S3_4_C12_C11_2") != 0
    }

    /// Stores the contents of the first `used` list registers, empties them, and disables the
    /// interface, which deasserts its maintenance interrupt.
    #[inline]
    pub fn store(self, used: usize, left: &mut VirtualInterface) {
        left.hcr = Hcr::from(read_register!("S3_4_C12_C11_0"));
        left.vmcr = self.vmcr();
        let [zero, one] = &mut left.active_priorities;
        (zero[0], one[0]) = (read_priorities_0(0) as u32, read_priorities_1(0) as u32);
        for index in 1..self.priorities {
            zero[index] = read_priorities_0(index) as u32;
            one[index] = read_priorities_1(index) as u32;
        }
        for (index, register) in left.list.iter_mut().enumerate().take(used.min(self.lists)) {
            *register = ListRegister::from(read_list(index));
            write_list(index, 0);
        }
        write_register!("S3_4_C12_C11_0", 0);
        // SAFETY: a barrier.
        unsafe { asm!("isb", options(nostack, preserves_flags)) };
    }
}
