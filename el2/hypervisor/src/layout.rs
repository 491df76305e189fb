//! Addresses and interrupts of a guest's machine, which are those of `virt`.

use core::ops::Range;
use gic_arch::IntId;

/// The PL011 of `virt`, and its SPI; each guest has one there.
pub(crate) const UART: Range<u64> = 0x0900_0000..0x0900_1000;
pub(crate) const UART_SPI: u32 = 33;
/// The virtual timer's PPI, as in the Base System Architecture (DEN 0094).
pub(crate) const VIRTUAL_TIMER: IntId = IntId::ppi(11).expect("there are 16");

/// The guest's UART.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Uart {
    /// The machine's.
    Own,
    /// A part of it.
    Shared,
}
