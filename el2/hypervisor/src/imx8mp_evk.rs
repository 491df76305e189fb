//! QEMU's model of the i.MX 8M Plus's evaluation kit. A guest's machine has the console's UART and
//! no other device of the board: the GIC's MSI controllers are at `virt`'s addresses, where the
//! board has nothing that a guest may access.

use crate::board::Board;
use crate::devicetree::{node, property};
use crate::uart::{self, Uart};
use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use dtoolkit::model::DeviceTreeNode;
use el2_vm::{Devices, Guest, Memory};
use vgic::AccessWidth;

pub(crate) static BOARD: Board = Board {
    ram: 0x4000_0000,
    intx: None,
    has_flash: false,
    uart: &uart::IMX8MP,
    devices: |parts| Box::new(Evk(parts.uart)),
    nodes: || Vec::from([aliases()]),
};

/// A guest's devices.
struct Evk(Uart);

impl Devices for Evk {
    fn page(&self, page: u64) -> Option<(u64, Memory)> {
        Some((self.0.page(page)?, Memory::Device))
    }

    fn read(&self, guest: &Guest, address: u64, _: AccessWidth) -> Option<u64> {
        self.0.read(guest.vgic(), address)
    }

    fn write(&self, guest: &Guest, address: u64, _: AccessWidth, value: u64) -> Option<()> {
        self.0.write(guest.vgic(), address, value)
    }

    fn stop(&self) {}
}

/// Numbers the console, which Linux's driver requires.
fn aliases() -> DeviceTreeNode {
    let path = format!("/serial@{:x}", uart::IMX8MP.registers.start);
    node("aliases", [property("serial0", path.as_str())])
}
