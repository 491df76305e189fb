//! A guest's UART: the machine's, if the guest runs alone, or an emulated PL011.

use crate::devicetree::{self, CLOCK, LEVEL_HIGH, SPI, doubles, property};
use crate::pl011::Pl011;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;
use core::ops::Range;
use dtoolkit::model::DeviceTreeNode;
use el2_vm::{guests, irqchip};
use image_rt::console;
use irq_domain::WiredRequest;
use msi_types::{HwIrq, Trigger};
use vgic::Vgic;

/// Registers of the PL011. An emulated one has the same place.
const REGISTERS: Range<u64> = 0x0900_0000..0x0900_1000;
const INTID: u32 = 33;

/// A guest's UART.
#[derive(Clone)]
pub(crate) struct Uart {
    /// The emulated UART, or `None` if the guest has the machine's UART.
    emulated: Option<Arc<Pl011>>,
}

impl Uart {
    /// Returns the machine's UART.
    pub(crate) const fn own() -> Self {
        Self { emulated: None }
    }

    /// Creates an emulated UART of a guest.
    pub(crate) fn emulated(guest: usize) -> Self {
        Self { emulated: Some(Arc::new(Pl011::new(guest, INTID))) }
    }

    /// Returns the INTID of the machine's UART, if the guest has it.
    pub(crate) fn linked(&self) -> Option<u32> {
        self.emulated.is_none().then_some(INTID)
    }

    /// Returns the page of the machine's UART, if the guest has it there.
    pub(crate) fn page(&self, page: u64) -> Option<u64> {
        (self.emulated.is_none() && REGISTERS.contains(&page)).then_some(page)
    }

    /// Reads from the emulated UART, if it has the address.
    pub(crate) fn read(&self, vgic: &Vgic, address: u64) -> Option<u64> {
        let uart = self.emulated.as_ref().filter(|_| REGISTERS.contains(&address))?;
        Some(uart.read(vgic, address - REGISTERS.start))
    }

    /// Writes to the emulated UART, if it has the address.
    pub(crate) fn write(&self, vgic: &Vgic, address: u64, value: u64) -> Option<()> {
        let uart = self.emulated.as_ref().filter(|_| REGISTERS.contains(&address))?;
        uart.write(vgic, address - REGISTERS.start, value);
        Some(())
    }
}

/// Describes the UART.
pub(crate) fn node() -> DeviceTreeNode {
    devicetree::node(
        format!("serial@{:x}", REGISTERS.start),
        [
            property("compatible", &["arm,pl011", "arm,primecell"] as &[&str]),
            property("reg", doubles(&[REGISTERS.start, REGISTERS.end - REGISTERS.start])),
            property("interrupts", [SPI, INTID - 32, LEVEL_HIGH]),
            property("clocks", [CLOCK, CLOCK]),
            property("clock-names", &["uartclk", "apb_pclk"] as &[&str]),
        ],
    )
}

/// Passes the machine's input to every guest, if the guests have emulated UARTs.
pub(crate) fn serve(uarts: &[Uart]) {
    let emulated: Vec<_> = uarts.iter().filter_map(|uart| uart.emulated.clone()).collect();
    if emulated.is_empty() {
        return;
    }
    console::enable_input_interrupt();
    let request = WiredRequest::new(HwIrq::new(INTID), Trigger::Level, "uart");
    let handle = irqchip::get().interrupts().request_wired(request, move |_| {
        while let Some(byte) = console::read() {
            for (guest, uart) in guests().iter().zip(&emulated) {
                uart.type_in(guest.vgic(), byte);
            }
        }
    });
    // Leak the handle, because the UART stays in use.
    mem::forget(handle.expect("the UART's interrupt could not be requested"));
}
