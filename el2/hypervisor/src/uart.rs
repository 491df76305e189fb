//! A guest's UART: the machine's, if the guest runs alone, or an emulated PL011.

use crate::devicetree::{CLOCK, LEVEL_HIGH, SPI, doubles, node, property};
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

/// A kind of UART, and its place in a machine.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) registers: Range<u64>,
    intid: u32,
    compatible: &'static [&'static str],
    clocks: &'static [&'static str],
}

/// The PL011 of `virt`. An emulated one has the same place.
pub(crate) static PL011: Model = Model {
    registers: 0x0900_0000..0x0900_1000,
    intid: 33,
    compatible: &["arm,pl011", "arm,primecell"],
    clocks: &["uartclk", "apb_pclk"],
};
/// The console of the i.MX 8M Plus's evaluation kit.
pub(crate) static IMX8MP: Model = Model {
    registers: 0x3089_0000..0x3089_1000,
    intid: 59,
    compatible: &["fsl,imx8mp-uart", "fsl,imx6q-uart"],
    clocks: &["ipg", "per"],
};

/// A guest's UART.
#[derive(Clone)]
pub(crate) struct Uart {
    model: &'static Model,
    /// The emulated UART, or `None` if the guest has the machine's UART.
    emulated: Option<Arc<Pl011>>,
}

impl Uart {
    /// Returns the machine's UART.
    pub(crate) const fn own(model: &'static Model) -> Self {
        Self { model, emulated: None }
    }

    /// Creates an emulated UART of a guest.
    pub(crate) fn emulated(guest: usize) -> Self {
        Self { model: &PL011, emulated: Some(Arc::new(Pl011::new(guest, PL011.intid))) }
    }

    /// Returns the INTID of the machine's UART, if the guest has it.
    pub(crate) fn linked(&self) -> Option<u32> {
        self.emulated.is_none().then_some(self.model.intid)
    }

    pub(crate) fn contains(&self, address: u64) -> bool {
        self.model.registers.contains(&address)
    }

    /// Returns the page of the machine's UART, if the guest has it there.
    pub(crate) fn page(&self, page: u64) -> Option<u64> {
        (self.emulated.is_none() && self.contains(page)).then_some(page)
    }

    /// Reads from the emulated UART, if it has the address.
    pub(crate) fn read(&self, vgic: &Vgic, address: u64) -> Option<u64> {
        let uart = self.emulated.as_ref().filter(|_| self.contains(address))?;
        Some(uart.read(vgic, address - self.model.registers.start))
    }

    /// Writes to the emulated UART, if it has the address.
    pub(crate) fn write(&self, vgic: &Vgic, address: u64, value: u64) -> Option<()> {
        let uart = self.emulated.as_ref().filter(|_| self.contains(address))?;
        uart.write(vgic, address - self.model.registers.start, value);
        Some(())
    }

    /// Describes the UART.
    pub(crate) fn node(&self) -> DeviceTreeNode {
        let Model { registers, intid, compatible, clocks } = self.model;
        node(
            format!("serial@{:x}", registers.start),
            [
                property("compatible", *compatible),
                property("reg", doubles(&[registers.start, registers.end - registers.start])),
                property("interrupts", [SPI, intid - 32, LEVEL_HIGH]),
                property("clocks", [CLOCK, CLOCK]),
                property("clock-names", *clocks),
            ],
        )
    }
}

/// Passes the machine's input to every guest, if the guests have emulated UARTs.
pub(crate) fn serve(machine: &Model, uarts: &[Uart]) {
    let emulated: Vec<_> = uarts.iter().filter_map(|uart| uart.emulated.clone()).collect();
    if emulated.is_empty() {
        return;
    }
    console::enable_input_interrupt();
    let request = WiredRequest::new(HwIrq::new(machine.intid), Trigger::Level, "uart");
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
