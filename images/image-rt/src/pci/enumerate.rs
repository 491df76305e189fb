//! Finding every function, depth first, and giving each its bus numbers and addresses.

use super::function::{Bar, Ecam, Function};
use alloc::vec::Vec;
use core::ops::Range;
use gic_firmware::Region;
use irq_domain::pci::ConfigSpace;
use msi_types::RequesterId;

const VENDOR: u16 = 0x00;
const DEVICE: u16 = 0x02;
const COMMAND: u16 = 0x04;
const HEADER_TYPE: u16 = 0x0e;
const BAR0: u16 = 0x10;
const PRIMARY_BUS: u16 = 0x18;
const SECONDARY_BUS: u16 = 0x19;
const SUBORDINATE_BUS: u16 = 0x1a;
const MEMORY_BASE: u16 = 0x20;
const MEMORY_LIMIT: u16 = 0x22;
const PREFETCHABLE: u16 = 0x24;
const PCI_EXPRESS: u8 = 0x10;
/// Device/port type of a bridge from PCI Express to conventional PCI.
const TO_CONVENTIONAL: u16 = 7;
const BRIDGE_WINDOW: u64 = 0x10_0000;

/// Every function behind a host bridge. Memory regions are given addresses from `window`, 32 bits.
pub fn enumerate(ecam: Region, window: Range<u64>) -> Vec<Function> {
    let mut walk =
        Walk { ecam, next: window.start, end: window.end, last_bus: 0, found: Vec::new() };
    walk.bus(0, None);
    walk.found
}

struct Walk {
    ecam: Region,
    next: u64,
    end: u64,
    last_bus: u8,
    found: Vec<Function>,
}

impl Walk {
    /// `alias`: the requester ID of everything on this bus at the host bridge, if not its own.
    fn bus(&mut self, bus: u8, alias: Option<RequesterId>) {
        for device in 0..32 {
            let mut functions = 1;
            let mut number = 0;
            while number < functions {
                if let Some(config) = self.probe(bus, device, number) {
                    if config.read8(HEADER_TYPE) & 0x80 != 0 {
                        functions = 8;
                    }
                    self.function(config, RequesterId::pci(bus, device, number), alias);
                }
                number += 1;
            }
        }
    }

    fn probe(&self, bus: u8, device: u8, function: u8) -> Option<Ecam> {
        let offset = u64::from(bus) << 20 | u64::from(device) << 15 | u64::from(function) << 12;
        let config = (offset < self.ecam.size()).then(|| Ecam(self.ecam.base() + offset))?;
        (config.read16(VENDOR) != 0xffff).then_some(config)
    }

    fn function(&mut self, config: Ecam, address: RequesterId, alias: Option<RequesterId>) {
        let bridge = config.read8(HEADER_TYPE) & 0x7f == 1;
        let found = Function {
            address,
            requester: alias.unwrap_or(address),
            vendor: config.read16(VENDOR),
            device: config.read16(DEVICE),
            config,
            bars: self.bars(config, if bridge { 2 } else { 6 }),
        };
        found.enable();
        let conventional = is_to_conventional(&found);
        self.found.push(found);
        if bridge {
            self.bridge(config, address, alias, conventional);
        }
    }

    fn bridge(
        &mut self,
        config: Ecam,
        address: RequesterId,
        alias: Option<RequesterId>,
        conventional: bool,
    ) {
        self.last_bus += 1;
        let secondary = self.last_bus;
        config.write8(PRIMARY_BUS, address.pci_bus());
        config.write8(SECONDARY_BUS, secondary);
        config.write8(SUBORDINATE_BUS, 0xff);
        // An empty prefetchable window: everything goes into the other one.
        config.write32(PREFETCHABLE, 0x0000_fff0);
        let begin = self.align(BRIDGE_WINDOW);
        // Before a device on the far side is asked, its messages' way must be open.
        let behind = if conventional { Some(RequesterId::pci(secondary, 0, 0)) } else { alias };
        self.bus(secondary, behind);
        let end = self.align(BRIDGE_WINDOW);
        let (base, limit) = if end > begin { (begin, end - 1) } else { (0xfff0_0000, 0) };
        config.write16(MEMORY_BASE, (base >> 16) as u16 & 0xfff0);
        config.write16(MEMORY_LIMIT, (limit >> 16) as u16 & 0xfff0);
        config.write8(SUBORDINATE_BUS, self.last_bus);
    }

    fn bars(&mut self, config: Ecam, count: u16) -> [Option<Bar>; 6] {
        let command = config.read16(COMMAND);
        config.write16(COMMAND, command & !3);
        let mut bars = [None; 6];
        let mut index = 0;
        while index < count {
            let register = BAR0 + 4 * index;
            let old = config.read32(register);
            let wide = old & 0x7 == 0x4;
            if old & 1 == 0 {
                bars[usize::from(index)] = self.bar(config, register, wide);
            }
            index += if wide { 2 } else { 1 };
        }
        bars
    }

    /// Sizes a memory region by what its register keeps of all ones, and places it.
    fn bar(&mut self, config: Ecam, register: u16, wide: bool) -> Option<Bar> {
        config.write32(register, u32::MAX);
        let mut kept = u64::from(config.read32(register) & !0xf);
        if wide {
            config.write32(register + 4, u32::MAX);
            kept |= u64::from(config.read32(register + 4)) << 32;
        } else {
            kept |= 0xffff_ffff << 32;
        }
        let length = (!kept).wrapping_add(1);
        if kept == 0 || kept as u32 == 0 && !wide {
            return None;
        }
        let address = self.align(length.max(0x1000));
        self.next = address + length;
        assert!(self.next <= self.end, "PCI memory is exhausted");
        config.write32(register, address as u32);
        if wide {
            config.write32(register + 4, 0);
        }
        Some(Bar { address, length })
    }

    fn align(&mut self, to: u64) -> u64 {
        self.next = self.next.next_multiple_of(to);
        self.next
    }
}

fn is_to_conventional(function: &Function) -> bool {
    function
        .capability(PCI_EXPRESS)
        .is_some_and(|offset| function.config.read16(offset + 2) >> 4 & 0xf == TO_CONVENTIONAL)
}
