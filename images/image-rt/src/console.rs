//! The console: the PL011 at `virt`'s address. Usable in any context.

use crate::cpu;
use arm_pl011_uart::{Interrupts, PL011Registers, Uart, UniqueMmioPointer};
use core::fmt::{self, Write};
use core::ptr::NonNull;
use spin::Mutex;

const PL011: *mut PL011Registers = 0x0900_0000 as *mut PL011Registers;

static CONSOLE: Mutex<Option<Uart<'static>>> = Mutex::new(None);

/// Takes the UART. Once.
pub fn init() {
    // SAFETY: the PL011's registers are mapped as device memory by the start code, and this is the
    // only user.
    let uart = NonNull::new(PL011)
        .map(|registers| Uart::new(unsafe { UniqueMmioPointer::new(registers) }));
    *CONSOLE.lock() = uart;
}

#[doc(hidden)]
pub fn print(arguments: fmt::Arguments<'_>) {
    let state = cpu::irq_save();
    if let Some(uart) = &mut *CONSOLE.lock() {
        // The UART never refuses.
        let _ = uart.write_fmt(arguments);
    }
    cpu::irq_restore(state);
}

/// Returns a byte of input, if there is one.
pub fn read() -> Option<u8> {
    let state = cpu::irq_save();
    let byte = CONSOLE.lock().as_mut().and_then(|uart| uart.read_word().ok().flatten());
    cpu::irq_restore(state);
    byte
}

/// Has input raise the UART's interrupt, until it is read.
pub fn enable_input_interrupt() {
    let state = cpu::irq_save();
    if let Some(uart) = &mut *CONSOLE.lock() {
        uart.set_interrupt_masks(Interrupts::RXI | Interrupts::RTI);
    }
    cpu::irq_restore(state);
}

/// Opens the console by force: its holder will not go on. For the panic handler.
pub fn break_lock() {
    // SAFETY: its holder was interrupted for good; a line may be torn.
    unsafe { CONSOLE.force_unlock() };
}

/// Prints to the console.
#[macro_export]
macro_rules! print {
    ($($arguments:tt)*) => { $crate::console::print(format_args!($($arguments)*)) };
}

/// Prints a line to the console.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($arguments:tt)*) => {
        $crate::console::print(format_args!("{}\n", format_args!($($arguments)*)))
    };
}
