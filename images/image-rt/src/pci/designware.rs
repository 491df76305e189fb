//! Configuration space behind a DesignWare host bridge, whose address translation unit turns
//! accesses to a window into configuration requests (i.MX 8M Plus Reference Manual, "PCIe port
//! logic", `IATU_VIEWPORT_OFF` and the registers that follow).

use crate::lock::IrqMutex;
use gic_firmware::Region;
use irq_domain::pci::{EcamWindow, MappedRegion};
use msi_types::pci::PciWindow;

const VIEWPORT: u64 = 0x900;
const TYPE: u64 = 0x904;
const CONTROL: u64 = 0x908;
const BASE: u64 = 0x90c;
const LIMIT: u64 = 0x914;
const TARGET: u64 = 0x918;
const MEMORY: u32 = 0;
/// Configuration requests to the bus directly below the bridge.
const CONFIGURATION: u32 = 4;
const ENABLED: u32 = 1 << 31;
const FUNCTION: u64 = 0x1000;
/// Bytes of configuration space per bus.
const BUS: u64 = 256 * FUNCTION;

/// The configuration spaces of the bridge and of the functions directly below it, laid out as in
/// ECAM.
pub(super) struct DesignWare {
    bridge: MappedRegion,
    window: MappedRegion,
    region: Region,
    lock: IrqMutex<()>,
}

impl DesignWare {
    /// Takes over the outbound windows of a bridge: window 0 turns accesses to `region`, which
    /// `window` accesses, into configuration requests, and each further one serves one of these
    /// memory windows. Leaves the inbound windows alone.
    ///
    /// Panics if the bridge has fewer windows.
    pub(super) fn new(
        bridge: MappedRegion,
        window: MappedRegion,
        region: Region,
        memory: impl Iterator<Item = PciWindow>,
    ) -> Self {
        let new = Self { bridge, window, region, lock: IrqMutex::new(()) };
        for (viewport, memory) in (1..).zip(memory) {
            new.translate(viewport, MEMORY, memory.cpu(), memory.bus_base());
        }
        new
    }

    fn translate(&self, viewport: u32, kind: u32, from: Region, to: u64) {
        let last = from.base() + (from.size() - 1);
        assert!(from.base() >> 32 == last >> 32, "a window of the host bridge crosses 4 GiB");
        let write =
            |register, value: u64| EcamWindow::write32(&self.bridge, register, value as u32);
        write(VIEWPORT, viewport.into());
        let selected = EcamWindow::read32(&self.bridge, VIEWPORT);
        assert!(selected == viewport, "the host bridge cannot translate window {viewport}");
        write(BASE, from.base());
        write(BASE + 4, from.base() >> 32);
        write(LIMIT, last);
        write(TARGET, to);
        write(TARGET + 4, to >> 32);
        write(TYPE, kind.into());
        write(CONTROL, ENABLED.into());
        // The read returns after the unit was changed.
        EcamWindow::read32(&self.bridge, CONTROL);
    }

    /// Accesses a register, given its offset as in ECAM. Returns `None` where no function can be.
    fn access<T>(&self, at: u64, access: impl Fn(&MappedRegion, u64) -> T) -> Option<T> {
        let [bus, function, register] = [at / BUS, at / FUNCTION % 256, at % FUNCTION];
        match (bus, function) {
            (0, 0) => Some(access(&self.bridge, register)),
            // Only device 0 can be at the other end of the link.
            (1, 0..8) => {
                let target = bus << 24 | function << 16;
                Some(self.lock.with(|()| {
                    self.translate(0, CONFIGURATION, self.region, target);
                    access(&self.window, register)
                }))
            }
            _ => None,
        }
    }
}

impl EcamWindow for DesignWare {
    fn length(&self) -> u64 {
        2 * BUS
    }

    fn read8(&self, at: u64) -> u8 {
        self.access(at, EcamWindow::read8).unwrap_or(u8::MAX)
    }

    fn read16(&self, at: u64) -> u16 {
        self.access(at, EcamWindow::read16).unwrap_or(u16::MAX)
    }

    fn read32(&self, at: u64) -> u32 {
        self.access(at, EcamWindow::read32).unwrap_or(u32::MAX)
    }

    fn write8(&self, at: u64, value: u8) {
        self.access(at, |region, register| region.write8(register, value));
    }

    fn write16(&self, at: u64, value: u16) {
        self.access(at, |region, register| region.write16(register, value));
    }

    fn write32(&self, at: u64, value: u32) {
        self.access(at, |region, register| EcamWindow::write32(region, register, value));
    }
}
