//! QEMU's `virt`. A guest's machine has the same devices at the same addresses.

use crate::devicetree::{CLOCK, doubles, node, property};
use crate::flash::{BANK, FLASH, Flash};
use crate::fw_cfg::{FwCfg, REGISTERS};
use crate::uart::{self, Uart};
use crate::virtio;
use alloc::format;
use core::ops::Range;
use dtoolkit::model::DeviceTreeNode;
use el2_passthrough::Pci;
use el2_vm::{Devices, Guest, Memory};
use vgic::AccessWidth;

/// Address of a guest's RAM.
pub(crate) const RAM: u64 = 0x4000_0000;
/// INTIDs of the pins of device 0 on a guest's PCI bus.
pub(crate) const INTX: [u32; 4] = [35, 36, 37, 38];

/// Address of the PL031, a clock that all guests may read.
const RTC: Range<u64> = 0x0901_0000..0x0901_1000;
/// Address of the PL061, whose pin 3 is the power button. All guests may read it. The devicetree
/// does not describe it, because a guest can't enable its interrupt.
const GPIO: Range<u64> = 0x0903_0000..0x0903_1000;

/// A guest's devices.
pub(crate) struct Virt {
    pub(crate) uart: Uart,
    pub(crate) flash: Flash,
    pub(crate) fw_cfg: FwCfg,
    pub(crate) pci: Option<Pci>,
}

/// Returns `true` if all guests may read the machine's device at an address.
fn is_shared(address: u64) -> bool {
    RTC.contains(&address) || GPIO.contains(&address)
}

impl Devices for Virt {
    fn page(&self, page: u64) -> Option<(u64, Memory)> {
        let Self { uart, flash, pci, .. } = self;
        if FLASH.contains(&page) {
            return Some((flash.page(page)?, Memory::Rom));
        }
        if is_shared(page) {
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
        let Self { uart, flash, fw_cfg, pci } = self;
        uart.read(guest.vgic(), address)
            .or_else(|| virtio::read(address))
            .or_else(|| fw_cfg.read(guest.vgic(), address, width))
            .or_else(|| flash.read(address, width))
            .or_else(|| pci.as_ref()?.read(address, width))
    }

    fn write(&self, guest: &Guest, address: u64, width: AccessWidth, value: u64) -> Option<()> {
        let Self { uart, flash, fw_cfg, pci } = self;
        uart.write(guest.vgic(), address, value)
            .or_else(|| virtio::write(address))
            .or_else(|| fw_cfg.write(address, width, value))
            // A guest must not change devices that others also read.
            .or_else(|| is_shared(address).then_some(()))
            .or_else(|| flash.write(address, width, value, || guest.unmap([FLASH].into_iter())))
            .or_else(|| pci.as_ref()?.write(guest, address, width, value))
    }

    fn poll(&self) {
        if let Some(pci) = &self.pci {
            pci.take_messages();
        }
    }

    fn stop(&self) {
        if let Some(pci) = &self.pci {
            pci.stop();
        }
    }
}

/// Describes the devices that every guest has at the same place.
pub(crate) fn nodes() -> [DeviceTreeNode; 4] {
    [uart::node(), flash(), rtc(), fw_cfg()]
}

fn flash() -> DeviceTreeNode {
    node(
        format!("flash@{:x}", FLASH.start),
        [
            property("compatible", "cfi-flash"),
            property("reg", doubles(&[FLASH.start, BANK, FLASH.start + BANK, BANK])),
            property("bank-width", 4_u32),
        ],
    )
}

fn fw_cfg() -> DeviceTreeNode {
    node(
        format!("fw-cfg@{:x}", REGISTERS.start),
        [
            property("compatible", "qemu,fw-cfg-mmio"),
            property("reg", doubles(&[REGISTERS.start, REGISTERS.end - REGISTERS.start])),
        ],
    )
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
