//! Addresses and interrupts in a guest's machine: the same as on `virt`.

use core::ops::Range;
use gic_arch::IntId;

/// Address of a guest's RAM.
pub(crate) const RAM: u64 = 0x4000_0000;
/// Address and SPI of `virt`'s PL011. Each guest has a PL011 at this address.
pub(crate) const UART: Range<u64> = 0x0900_0000..0x0900_1000;
pub(crate) const UART_SPI: u32 = 33;
/// Address of `virt`'s PL031, a clock that all guests may read.
pub(crate) const RTC: Range<u64> = 0x0901_0000..0x0901_1000;
/// INTIDs to which `virt` routes the interrupt pins of its PCI functions.
pub(crate) const INTX: [u32; 4] = [35, 36, 37, 38];

/// Returns the INTID of a pin (1 for INTA) of a device on a guest's bus, as on `virt`.
pub(crate) const fn intx(device: u8, pin: u8) -> u32 {
    INTX[(device as usize + pin as usize + 3) % INTX.len()]
}

/// PPIs of a guest's timers, as in the Base System Architecture (DEN 0094).
pub(crate) const VIRTUAL_TIMER: IntId = IntId::ppi(11).expect("16 PPIs exist");
pub(crate) const PHYSICAL_TIMER: IntId = IntId::ppi(14).expect("16 PPIs exist");
pub(crate) const TIMERS: [IntId; 2] = [VIRTUAL_TIMER, PHYSICAL_TIMER];

/// The part of `virt`'s RAM that the hypervisor uses.
pub(crate) const MACHINE_RAM: Range<u64> = 0x4000_0000..0xc000_0000;

/// Addresses of `virt`'s 32 virtio-mmio transports.
pub(crate) const VIRTIO: Range<u64> = 0x0a00_0000..0x0a00_4000;

/// Kind of a guest's UART.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Uart {
    /// The guest has the machine's UART.
    Own,
    /// The guest has an emulated UART, which shares the machine's.
    Shared,
}
