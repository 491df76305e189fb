//! Console on `virt`'s PL011. May be used in any context.

use crate::cpu;
use arm_pl011_uart::{Interrupts, PL011Registers, Uart, UniqueMmioPointer};
use core::fmt::{self, Write};
use core::ptr::NonNull;
use spin::Mutex;

const PL011: *mut PL011Registers = 0x0900_0000 as *mut PL011Registers;

static CONSOLE: Mutex<Option<Uart<'static>>> = Mutex::new(None);

/// Initializes the UART. Must be called once.
pub fn init() {
    // SAFETY: the start code mapped the PL011's registers as device memory, and this is their only
    // user.
    let uart = NonNull::new(PL011)
        .map(|registers| Uart::new(unsafe { UniqueMmioPointer::new(registers) }));
    *CONSOLE.lock() = uart;
}

#[doc(hidden)]
pub fn print(arguments: fmt::Arguments<'_>) {
    let state = cpu::irq_save();
    if let Some(uart) = &mut *CONSOLE.lock() {
        // Writing to the UART cannot fail.
        let _ = uart.write_fmt(arguments);
    }
    cpu::irq_restore(state);
}

/// Returns a byte of input, if one is available.
pub fn read() -> Option<u8> {
    let state = cpu::irq_save();
    let byte = CONSOLE.lock().as_mut().and_then(|uart| uart.read_word().ok().flatten());
    cpu::irq_restore(state);
    byte
}

/// Returns `true` if a byte of input waits although its interrupt has been cleared. The UART raises
/// no other one for it, so this is the state of a driver that clears the interrupt before it reads.
pub fn has_silent_input() -> bool {
    let state = cpu::irq_save();
    let is_silent = CONSOLE.lock().as_ref().is_some_and(|uart| {
        let raised = uart.raw_interrupt_status();
        !uart.is_rx_fifo_empty() && !raised.intersects(Interrupts::RXI | Interrupts::RTI)
    });
    cpu::irq_restore(state);
    is_silent
}

/// Makes the UART raise its interrupt while input is available.
pub fn enable_input_interrupt() {
    let state = cpu::irq_save();
    if let Some(uart) = &mut *CONSOLE.lock() {
        uart.set_interrupt_masks(Interrupts::RXI | Interrupts::RTI);
    }
    cpu::irq_restore(state);
}

/// Unlocks the console even though its holder has not released it. Only the panic handler may call
/// this function, because the holder of the lock must not continue.
pub fn break_lock() {
    // SAFETY: the holder was interrupted and does not continue. A line may be torn.
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
