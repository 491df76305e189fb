//! Writes system registers.

/// Writes each value to the register.
macro_rules! write_registers {
    ($($name:literal: $value:expr),* $(,)?) => {
        $(asm!(
            concat!("msr ", $name, ", {}"),
            in(reg) $value,
            options(nostack, preserves_flags),
        );)*
    };
}

pub(crate) use write_registers;
