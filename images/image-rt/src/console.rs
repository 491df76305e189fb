//! Console on the PL011 of `virt`, or on the second UART of an i.MX 8M Plus. May be used in any
//! context.

use crate::cpu;
use arm_pl011_uart::{Interrupts, PL011Registers, Uart, UniqueMmioPointer};
use core::fmt::{self, Write};
use core::ptr::NonNull;
use spin::Mutex;

const PL011: *mut PL011Registers = 0x0900_0000 as *mut PL011Registers;
/// The console of the i.MX 8M Plus's evaluation kit.
const IMX_UART2: *mut u32 = 0x3089_0000 as *mut u32;

static CONSOLE: Mutex<Option<Port>> = Mutex::new(None);

enum Port {
    Pl011(Uart<'static>),
    Imx,
}

impl Port {
    fn imx() -> Self {
        // Enable the UART; leave reset, and enable both directions, with characters of 8 bits.
        Self::write_imx(0x80, 1);
        Self::write_imx(0x84, 1 << 14 | 1 << 5 | 1 << 2 | 1 << 1 | 1);
        Self::Imx
    }

    /// Reads a register of the i.MX UART.
    fn read_imx(offset: usize) -> u32 {
        // SAFETY: as in `write_imx`.
        unsafe { IMX_UART2.byte_add(offset).read_volatile() }
    }

    /// Writes a register of the i.MX UART (i.MX 8M Plus Reference Manual, "UART").
    fn write_imx(offset: usize, value: u32) {
        // SAFETY: the start code mapped the registers as device memory, and the only user holds the
        // console's lock.
        unsafe { IMX_UART2.byte_add(offset).write_volatile(value) };
    }
}

impl Write for Port {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        match self {
            Self::Pl011(uart) => uart.write_str(text),
            Self::Imx => {
                const SENT: u32 = 1 << 3;
                for byte in text.bytes() {
                    Self::write_imx(0x40, byte.into());
                    while Self::read_imx(0x98) & SENT == 0 {}
                }
                Ok(())
            }
        }
    }
}

/// Initializes the UART. Must be called once.
pub fn init(is_imx8mp: bool) {
    *CONSOLE.lock() = if is_imx8mp {
        Some(Port::imx())
    } else {
        // SAFETY: the start code mapped the PL011's registers as device memory, and this is their
        // only user.
        NonNull::new(PL011)
            .map(|registers| Port::Pl011(Uart::new(unsafe { UniqueMmioPointer::new(registers) })))
    };
}

/// Calls `f` with the console, if there is one, while interrupts are masked.
fn with<T>(f: impl FnOnce(&mut Port) -> Option<T>) -> Option<T> {
    let state = cpu::irq_save();
    let result = CONSOLE.lock().as_mut().and_then(f);
    cpu::irq_restore(state);
    result
}

#[doc(hidden)]
pub fn print(arguments: fmt::Arguments<'_>) {
    // Writing to the UART cannot fail.
    with(|port| port.write_fmt(arguments).ok());
}

/// Returns a byte of input, if one is available.
pub fn read() -> Option<u8> {
    const RECEIVED: u32 = 1 << 15;
    with(|port| match port {
        Port::Pl011(uart) => uart.read_word().ok().flatten(),
        Port::Imx => Some(Port::read_imx(0)).filter(|word| word & RECEIVED != 0).map(|it| it as u8),
    })
}

/// Makes the UART raise its interrupt while input is available.
pub fn enable_input_interrupt() {
    const ENABLED: u32 = 1;
    const WHEN_RECEIVED: u32 = 1 << 9;
    with(|port| {
        match port {
            Port::Pl011(uart) => uart.set_interrupt_masks(Interrupts::RXI | Interrupts::RTI),
            Port::Imx => Port::write_imx(0x80, ENABLED | WHEN_RECEIVED),
        }
        Some(())
    });
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
