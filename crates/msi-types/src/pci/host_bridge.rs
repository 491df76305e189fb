//! A host bridge: its bus numbers, its address windows, and the bits outside of its MSI controller
//! that let messages pass.

use crate::Region;
use core::fmt;

/// An inclusive range of bus numbers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BusRange {
    /// Number of the root bus.
    pub first: u8,
    /// The highest bus number.
    pub last: u8,
}

impl BusRange {
    /// All 256 bus numbers.
    pub const ALL: Self = Self { first: 0, last: 0xff };

    /// Returns the range of buses, starting at bus 0, whose configuration space fits in an ECAM
    /// region. The range has at least one bus.
    pub const fn of_ecam(ecam: Region) -> Self {
        let buses = ecam.size() >> 20;
        let last = if buses == 0 { 0 } else { buses - 1 };
        Self { first: 0, last: if last > 0xff { 0xff } else { last.to_le_bytes()[0] } }
    }

    /// Returns `true` if the range contains `bus`.
    pub const fn contains(self, bus: u8) -> bool {
        self.first <= bus && bus <= self.last
    }
}

/// Address space of a [`PciWindow`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PciSpace {
    /// I/O ports.
    Io,
    /// Memory at 32-bit bus addresses.
    Memory32,
    /// Memory at 64-bit bus addresses.
    Memory64,
}

/// A window of a host bridge: a range of CPU addresses whose accesses the bridge forwards to the
/// bus. Neither the CPU addresses nor the bus addresses wrap.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PciWindow {
    space: PciSpace,
    prefetchable: bool,
    bus_base: u64,
    cpu: Region,
}

impl PciWindow {
    /// Creates a window that maps `cpu` to bus addresses starting at `bus_base`. Returns `None` if
    /// the bus addresses would wrap.
    pub const fn new(space: PciSpace, cpu: Region, bus_base: u64) -> Option<Self> {
        match Region::new(bus_base, cpu.size()) {
            Some(_) => Some(Self { space, prefetchable: false, bus_base, cpu }),
            None => None,
        }
    }

    /// Creates a window whose CPU and bus addresses are the same.
    pub const fn identity(space: PciSpace, cpu: Region) -> Self {
        Self { space, prefetchable: false, bus_base: cpu.base(), cpu }
    }

    /// Marks reads from the window as free of side effects.
    #[must_use]
    pub const fn prefetchable(self) -> Self {
        Self { prefetchable: true, ..self }
    }

    /// Returns the address space on the bus.
    pub const fn space(self) -> PciSpace {
        self.space
    }

    /// Returns `true` if reads from the window have no side effects.
    pub const fn is_prefetchable(self) -> bool {
        self.prefetchable
    }

    /// Returns the first bus address of the window.
    pub const fn bus_base(self) -> u64 {
        self.bus_base
    }

    /// Returns the CPU physical addresses of the window.
    pub const fn cpu(self) -> Region {
        self.cpu
    }

    /// Returns the CPU physical address of a bus address, or `None` outside of the window.
    pub const fn to_cpu(self, bus: u64) -> Option<u64> {
        match bus.checked_sub(self.bus_base) {
            Some(offset) if offset < self.cpu.size() => Some(self.cpu.base() + offset),
            _ => None,
        }
    }
}

/// Bits outside of the registers of an MSI controller inside a host bridge. While one of them is
/// clear, no message interrupts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub enum MsiGate {
    /// MSI Enable in the MSI capability of the bridge's root port, although the port itself sends
    /// no messages.
    RootPort,
    /// Bits of a 32-bit register in the logic around the bridge.
    Register {
        /// Physical address of the register.
        address: u64,
        /// The bits, all of which must be set.
        bits: u32,
    },
}

impl fmt::Display for MsiGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RootPort => f.write_str("MSI Enable of the root port"),
            Self::Register { address, bits } => write!(f, "{bits:#x} in the register {address:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_that_wraps_the_bus_address_space_is_refused() {
        let cpu = Region::new(0x1000, 0x2000).unwrap();
        assert!(PciWindow::new(PciSpace::Memory64, cpu, u64::MAX - 0xfff).is_none());
        let last = PciWindow::new(PciSpace::Memory64, cpu, u64::MAX - 0x1fff).unwrap();
        assert_eq!((last.bus_base(), last.cpu()), (0xffff_ffff_ffff_e000, cpu));
    }
}
