//! Facts about QEMU's boards that no test can read from the description.

use gic_driver::PhysicalRegion;
use gic_firmware::Description;
use msi_types::HwIrq;

/// A board: the source of a wired interrupt, and an interrupt without a source.
#[derive(Debug)]
pub(crate) struct Board {
    /// The console's registers.
    pub(crate) uart: PhysicalRegion,
    /// The console's interrupt.
    pub(crate) uart_spi: HwIrq,
    /// Offset of the register that enables the console's interrupts.
    pub(crate) uart_enable: u32,
    /// Values of this register: one that enables no interrupt, and one that keeps the line asserted
    /// when a character was sent.
    pub(crate) quiet: u32,
    pub(crate) when_sent: u32,
    /// An SPI that no device uses.
    pub(crate) free_spi: HwIrq,
}

/// QEMU's `virt`, with a PL011.
const VIRT: Board = Board {
    uart: PhysicalRegion { base: 0x0900_0000, bytes: 0x1000 },
    uart_spi: HwIrq::new(33),
    uart_enable: 0x38,
    quiet: 0,
    when_sent: 1 << 5,
    free_spi: HwIrq::new(250),
};

/// The i.MX 8M Plus's evaluation kit, whose console is the second UART.
const IMX8MP_EVK: Board = Board {
    uart: PhysicalRegion { base: 0x3089_0000, bytes: 0x1000 },
    uart_spi: HwIrq::new(59),
    uart_enable: 0x80,
    quiet: 1,
    when_sent: 1 << 13 | 1,
    free_spi: HwIrq::new(187),
};

impl Board {
    /// Returns the board that firmware describes.
    pub(crate) fn of(description: &Description) -> &'static Self {
        let is_imx8mp = description.compatible.iter().any(|name| name == "fsl,imx8mp");
        if is_imx8mp { &IMX8MP_EVK } else { &VIRT }
    }
}
