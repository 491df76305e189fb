//! Wired interrupts of PCI functions, INTA to INTD.

use crate::origin::Fact;
use alloc::vec::Vec;
use gic_arch::IntId;
use msi_types::{RequesterId, Trigger};

/// Interrupt pin of a PCI function (PCI Local Bus 3.0 §6.2.4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum IntxPin {
    /// INTA.
    A,
    /// INTB.
    B,
    /// INTC.
    C,
    /// INTD.
    D,
}

impl IntxPin {
    const ALL: [Self; 4] = [Self::A, Self::B, Self::C, Self::D];

    /// Converts the value of a function's Interrupt Pin register, the byte at 0x3d of its
    /// configuration space. Returns `None` if the function uses no pin, or if the value is
    /// reserved.
    pub const fn from_register(register: u8) -> Option<Self> {
        match register {
            1 => Some(Self::A),
            2 => Some(Self::B),
            3 => Some(Self::C),
            4 => Some(Self::D),
            _ => None,
        }
    }

    /// Returns the pin that this pin becomes above a PCI bridge, where `device` is the device
    /// number below the bridge (PCI-to-PCI Bridge 1.2 §9.1).
    #[must_use]
    pub const fn above_bridge(self, device: u8) -> Self {
        Self::ALL[(self as usize + device as usize) % Self::ALL.len()]
    }

    /// Returns the pin's number: 1 for INTA.
    pub const fn number(self) -> u8 {
        self as u8 + 1
    }
}

/// An interrupt wired to the root GIC.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct WiredInterrupt {
    /// The interrupt.
    pub intid: IntId,
    /// Trigger of the interrupt. INTx is level-triggered, and several functions may share it.
    pub trigger: Trigger,
}

/// Routing of the pins of a PCI bus: an `interrupt-map` (Devicetree Specification §2.4.3), or
/// ACPI's `_PRT` (ACPI 6.5 §6.2.13).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct IntxRouting {
    /// Mask of the address bits that are compared.
    pub address_mask: u32,
    /// Mask of the pin number bits that are compared.
    pub pin_mask: u32,
    /// Routes in firmware's order; the first route that matches is used.
    pub routes: Vec<Fact<IntxRoute>>,
}

/// One route of an [`IntxRouting`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct IntxRoute {
    /// Address of the function on the routed bus: bus number in bits 23 to 16, device in bits 15 to
    /// 11, function in bits 10 to 8 (IEEE 1275 PCI binding §2.2.1.1).
    pub address: u32,
    /// Number of the pin: 1 for INTA.
    pub pin: u32,
    /// Interrupt of the root GIC. `None` if the pin is routed to another controller.
    pub interrupt: Option<WiredInterrupt>,
}

/// Reason why a function's pin is not connected to an interrupt of the GIC.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoIntx {
    /// The description has no routing for the host bridge, because firmware states none or states
    /// it in AML only.
    #[error("the interrupt pins of the host bridge have no routing")]
    NotDescribed,
    /// No route matches the function and pin.
    #[error("firmware routes no interrupt for pin {0:?} of the function")]
    Unmapped(IntxPin),
    /// The interrupt is routed to another controller.
    #[error("pin {0:?} of the function leads to a controller other than the GIC")]
    OtherController(IntxPin),
    /// The caller passed an empty path.
    #[error("the path to the function is empty")]
    EmptyPath,
}

impl IntxRouting {
    /// Creates a routing by device number and pin, the form in which `_PRT` states routes.
    ///
    /// `_PRT` is AML, which this crate does not interpret: under ACPI, the kernel must evaluate it
    /// and pass the routes. The kernel may call [`route`](Self::route) on the returned routing, or
    /// store the routing in [`PciHost::intx`](crate::PciHost::intx). If a `_PRT` entry names no
    /// link device, it states a level-triggered GSI, which equals the INTID on a GIC (ACPI 6.5
    /// §6.2.13, §5.2.12.15). A bridge below the host bridge may have its own `_PRT`, which routes
    /// the functions behind that bridge; the paths of those functions must then end below it.
    pub fn by_device(routes: impl IntoIterator<Item = (u8, IntxPin, WiredInterrupt)>) -> Self {
        const DEVICE: u32 = 0xf800;
        let route = |(device, pin, interrupt): (u8, IntxPin, _)| IntxRoute {
            address: u32::from(device) << 11 & DEVICE,
            pin: pin.number().into(),
            interrupt: Some(interrupt),
        };
        Self {
            address_mask: DEVICE,
            pin_mask: 7,
            routes: routes.into_iter().map(route).map(Fact::stated).collect(),
        }
    }

    /// Returns the interrupt of a function's pin. `path` must have the function first, then each
    /// bridge above it up to the routed bus: a single element for a function on that bus. A
    /// function with an Alternative Routing-ID (ARI) is routed as device 0, because its requester
    /// ID has no device number (PCI Express 4.0 §2.2.8.1).
    ///
    /// Returns [`NoIntx`] if the routing has no interrupt of the GIC for the pin, or if `path` is
    /// empty.
    pub fn route(&self, path: &[RequesterId], pin: IntxPin) -> Result<WiredInterrupt, NoIntx> {
        let (top, below) = path.split_last().ok_or(NoIntx::EmptyPath)?;
        let pin = below.iter().fold(pin, |pin, below| pin.above_bridge(below.pci_device()));
        let address = top.get() << 8 & 0xff_ff00;
        let matches = |route: &&Fact<IntxRoute>| {
            (route.address ^ address) & self.address_mask == 0
                && (route.pin ^ u32::from(pin.number())) & self.pin_mask == 0
        };
        let route = self.routes.iter().find(matches).ok_or(NoIntx::Unmapped(pin))?;
        route.interrupt.ok_or(NoIntx::OtherController(pin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FUNCTION: RequesterId = RequesterId::pci(0, 5, 0);

    fn level(intid: u32) -> WiredInterrupt {
        WiredInterrupt { intid: IntId::new(intid), trigger: Trigger::Level }
    }

    #[test]
    fn a_prt_routes_by_device_and_pin() {
        let routes = [(5, IntxPin::A, level(36)), (5, IntxPin::B, level(37))];
        let bus = IntxRouting::by_device(routes);
        assert_eq!(bus.route(&[FUNCTION], IntxPin::B), Ok(level(37)));
        let other = RequesterId::pci(0, 5, 3);
        assert_eq!(bus.route(&[other], IntxPin::A), Ok(level(36)));
        let refused = bus.route(&[RequesterId::pci(0, 6, 0)], IntxPin::A);
        assert_eq!(refused, Err(NoIntx::Unmapped(IntxPin::A)));
        assert_eq!(bus.route(&[], IntxPin::A), Err(NoIntx::EmptyPath));
    }

    #[test]
    fn each_bridge_swizzles_the_intx_pin() {
        let pins = IntxPin::ALL.map(|pin| (5, pin, level(32 + u32::from(pin.number()))));
        let bus = IntxRouting::by_device(pins);
        let below = |device| RequesterId::pci(2, device, 0);
        // INTD of device 2 behind device 3, which is behind device 5 of the root bus.
        let path = [below(2), RequesterId::pci(1, 3, 0), FUNCTION];
        assert_eq!(bus.route(&path, IntxPin::D), Ok(level(33)));
        assert_eq!(bus.route(&[below(31), FUNCTION], IntxPin::A), Ok(level(36)));
    }

    #[test]
    fn interrupt_pin_register_encodes_four_pins() {
        let pins: Vec<_> = (0..=255).filter_map(IntxPin::from_register).collect();
        assert_eq!(pins, IntxPin::ALL);
    }
}
