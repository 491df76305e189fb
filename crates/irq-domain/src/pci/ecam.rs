//! Enhanced Configuration Access Mechanism: memory-mapped configuration space, 4 KiB for each
//! function (PCI Express Base §7.2.2).

use super::{AccessContext, ConfigSpace, EcamWindow};
use alloc::sync::Arc;
use msi_types::RequesterId;
use msi_types::pci::BusRange;

/// Size in bytes of a function's configuration space. A power of two.
const FUNCTION: u64 = 0x1000;

/// A host bridge's ECAM window.
///
/// ```no_run
/// use core::ptr::NonNull;
/// use irq_domain::pci::{ConfigSpace, Ecam, MappedRegion};
/// use msi_types::RequesterId;
/// use msi_types::pci::BusRange;
/// use std::sync::Arc;
///
/// /// Returns the vendor ID of function 01:00.0. The kernel has mapped the window at `base`.
/// fn vendor(base: NonNull<u8>) -> Option<u16> {
///     // SAFETY: 1 MiB for each bus is mapped as device memory, permanently and for nothing else.
///     let window = unsafe { MappedRegion::new(base, 256 << 20) };
///     let ecam = Ecam::new(Arc::new(window), BusRange::ALL);
///     Some(ecam.function(RequesterId::pci(1, 0, 0))?.read16(0))
/// }
/// ```
#[derive(Clone)]
pub struct Ecam {
    window: Arc<dyn EcamWindow>,
    buses: BusRange,
}

impl Ecam {
    /// Creates an accessor for the configuration space of `buses`. The window starts with the first
    /// of these buses. Buses beyond the window's length are treated as empty.
    pub fn new(window: Arc<dyn EcamWindow>, buses: BusRange) -> Self {
        Self { window, buses }
    }

    /// Returns the bus numbers behind the host bridge.
    pub fn buses(&self) -> BusRange {
        self.buses
    }

    /// Returns the configuration space at `address`, even if no function is present at that
    /// address. Returns `None` outside the bus range or the window.
    pub fn function(&self, address: RequesterId) -> Option<EcamFunction> {
        let bus = u8::try_from(address.get() >> 8).ok().filter(|bus| self.buses.contains(*bus))?;
        let place = (u64::from(bus - self.buses.first) << 8) | u64::from(address.get() & 0xff);
        let base = place * FUNCTION;
        let inside = base + FUNCTION <= self.window.length();
        inside.then(|| EcamFunction { window: self.window.clone(), base })
    }
}

msi_types::debug_by!(Ecam as "Ecam", |it| {buses: it.buses});

/// One function's configuration space in an [`Ecam`] window: 4096 bytes, accessible in any context.
/// Accesses that are misaligned or beyond the 4096 bytes are refused: reads return all ones, and
/// writes are dropped.
#[derive(Clone)]
pub struct EcamFunction {
    window: Arc<dyn EcamWindow>,
    base: u64,
}

impl EcamFunction {
    /// Returns a register's offset in the window, or `None` if it is misaligned or beyond the
    /// function's 4096 bytes.
    fn at<T>(&self, offset: u16) -> Option<u64> {
        let (offset, width) = (u64::from(offset), size_of::<T>() as u64);
        let valid = offset.is_multiple_of(width) && offset < FUNCTION;
        valid.then_some(self.base + offset)
    }
}

impl ConfigSpace for EcamFunction {
    fn read8(&self, offset: u16) -> u8 {
        self.at::<u8>(offset).map_or(u8::MAX, |at| self.window.read8(at))
    }

    fn read16(&self, offset: u16) -> u16 {
        self.at::<u16>(offset).map_or(u16::MAX, |at| self.window.read16(at))
    }

    fn read32(&self, offset: u16) -> u32 {
        self.at::<u32>(offset).map_or(u32::MAX, |at| self.window.read32(at))
    }

    fn write8(&self, offset: u16, value: u8) {
        if let Some(at) = self.at::<u8>(offset) {
            self.window.write8(at, value);
        }
    }

    fn write16(&self, offset: u16, value: u16) {
        if let Some(at) = self.at::<u16>(offset) {
            self.window.write16(at, value);
        }
    }

    fn write32(&self, offset: u16, value: u32) {
        if let Some(at) = self.at::<u32>(offset) {
            self.window.write32(at, value);
        }
    }

    fn context(&self) -> AccessContext {
        AccessContext::Any
    }
}

msi_types::debug_by!(EcamFunction as "EcamFunction", |it| {base: it.base});
