//! Reads and writes system registers by the names that the assembler knows.

/// Reads a system register. Only registers whose reads have no side effect may be read.
macro_rules! read_register {
    ($($name:tt)*) => {{
        let value: u64;
        // SAFETY: reading this register has no side effect.
        unsafe {
            core::arch::asm!(
                concat!("mrs {}, ", $($name)*),
                out(reg) value,
                options(nostack, preserves_flags),
            );
        }
        value
    }};
}

/// Writes each value to the register.
macro_rules! write_registers {
    ($($name:literal: $value:expr),* $(,)?) => {
        $(core::arch::asm!(
            concat!("msr ", $name, ", {}"),
            in(reg) $value,
            options(nostack, preserves_flags),
        );)*
    };
}

pub(crate) use {read_register, write_registers};
