//! QEMU's `virt`. A guest's machine has the same devices at the same addresses.

use crate::board::{Board, Parts};
use crate::devicetree::{CLOCK, doubles, node, property};
use crate::flash::{self, FLASH};
use crate::{uart, virtio};
use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use core::ops::Range;
use dtoolkit::model::DeviceTreeNode;
use el2_vm::{Devices, Guest, Memory};
use vgic::AccessWidth;

pub(crate) static BOARD: Board = Board {
    ram: 0x4000_0000,
    intx: Some([35, 36, 37, 38]),
    has_flash: true,
    uart: &uart::PL011,
    devices: |parts| Box::new(Virt(parts)),
    nodes: || Vec::from([rtc()]),
};

/// Address of the PL031, a clock that all guests may read.
const RTC: Range<u64> = 0x0901_0000..0x0901_1000;

/// A guest's devices.
struct Virt(Parts);

impl Devices for Virt {
    fn page(&self, page: u64) -> Option<(u64, Memory)> {
        let Parts { uart, flash, pci } = &self.0;
        if FLASH.contains(&page) {
            let empty = || Some(flash::empty_page());
            let shown = flash.as_ref().map_or_else(empty, |it| it.page(page));
            return Some((shown?, Memory::Rom));
        }
        if RTC.contains(&page) {
            return Some((page, Memory::ReadOnlyDevice));
        }
        let physical = uart.page(page).or_else(|| {
            let pci = pci.as_ref()?;
            let is_smmu = pci.smmu.as_ref().is_some_and(|smmu| smmu.registers.contains(&page));
            if is_smmu { Some(page) } else { pci.page(page) }
        });
        Some((physical?, Memory::Device))
    }

    fn read(&self, guest: &Guest, address: u64, width: AccessWidth) -> Option<u64> {
        let Parts { uart, flash, pci } = &self.0;
        uart.read(guest.vgic(), address)
            .or_else(|| virtio::read(address))
            .or_else(|| flash.as_ref()?.read(address, width))
            .or_else(|| pci.as_ref()?.read(address, width))
    }

    fn write(&self, guest: &Guest, address: u64, width: AccessWidth, value: u64) -> Option<()> {
        let Parts { uart, flash, pci } = &self.0;
        uart.write(guest.vgic(), address, value)
            .or_else(|| virtio::write(address))
            // A guest must not set the clock, which others also read.
            .or_else(|| RTC.contains(&address).then_some(()))
            .or_else(|| {
                let unmap = || guest.unmap([FLASH].into_iter());
                flash.as_ref()?.write(address, width, value, unmap)
            })
            .or_else(|| pci.as_ref()?.write(guest, address, width, value))
    }

    fn name(&self, address: u64) -> Option<&'static str> {
        if self.0.uart.contains(address) {
            return Some("UART");
        }
        self.0.pci.is_some().then_some("PCI")
    }

    fn poll(&self) {
        if let Some(pci) = &self.0.pci {
            pci.take_messages();
        }
    }

    fn stop(&self) {
        if let Some(pci) = &self.0.pci {
            pci.stop();
        }
    }
}

/// Describes the PL031 without its interrupt, because a guest can't set an alarm.
fn rtc() -> DeviceTreeNode {
    node(
        format!("pl031@{:x}", RTC.start),
        [
            property("compatible", &["arm,pl031", "arm,primecell"] as &[&str]),
            property("reg", doubles(&[RTC.start, RTC.end - RTC.start])),
            property("clocks", CLOCK),
            property("clock-names", "apb_pclk"),
        ],
    )
}
