//! Identifiers. Each kind has its own type, because confusing them is a classic mistake in
//! interrupt code.
//!
//! `Display` writes only the number, in its usual base; the surrounding text names the kind
//! ("DeviceID 0x12", "CPU 3"). `gic_arch`'s `IntId` and `Lpi` write their class themselves ("LPI
//! 8192"), because the class is part of what an INTID identifies. `LowerHex` and `UpperHex` always
//! write only the number.

use core::fmt;

/// Defines a transparent identifier over `u32`.
macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $format:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize), serde(transparent))]
        #[repr(transparent)]
        pub struct $name(u32);

        impl $name {
            /// Creates the identifier with this number.
            pub const fn new(number: u32) -> Self {
                Self(number)
            }

            /// Returns the number of this identifier.
            pub const fn get(self) -> u32 {
                self.0
            }

            /// Returns the identifier as an index. `usize` has at least 32 bits on every target of
            /// this library.
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "(", $format, ")"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }

        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }

        impl fmt::UpperHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::UpperHex::fmt(&self.0, f)
            }
        }

        impl From<u32> for $name {
            fn from(number: u32) -> Self {
                Self(number)
            }
        }

        impl From<$name> for u32 {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    };
}

identifier!(
    /// Sender of a message, as its *bus* identifies it: on PCI, the 16-bit requester ID (bus 15:8,
    /// device 7:3, function 2:0) within one host bridge; for a platform device, the sideband ID
    /// that firmware describes.
    ///
    /// A requester ID is meaningless to an interrupt controller until the bus's mapping (`msi-map`,
    /// IORT) has translated it to a [`DeviceId`].
    RequesterId, "{:#06x}"
);

identifier!(
    /// Sender of a message, as an ITS identifies it: the DeviceID that accompanies the write to
    /// `GITS_TRANSLATER`. Up to 32 bits (`GITS_TYPER.Devbits`).
    DeviceId, "{:#x}"
);

identifier!(
    /// One of a device's messages, as an ITS identifies it: the data of the write. Up to 32 bits
    /// (`GITS_TYPER.ID_bits`).
    EventId, "{:#x}"
);

identifier!(
    /// A global system interrupt: the number by which a virtual machine monitor and its interrupt
    /// back end identify an input. GSIs are sparse, and are never INTIDs.
    Gsi, "{}"
);

identifier!(
    /// A logical CPU in the platform's own dense numbering, in which the boot CPU is usually 0.
    /// Never an affinity.
    Cpu, "{}"
);

identifier!(
    /// An interrupt as the root controller acknowledges it (hwirq): an INTID on a GIC, a vector on
    /// x86.
    #[doc(alias = "hwirq")]
    HwIrq, "{}"
);

/// A sender without an identity, for doorbells that do not use a DeviceID: `GICR_SETLPIR`,
/// `GICD_SETSPI_NSR`, GICv2m. Any device that can write to such a doorbell can trigger its
/// interrupts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct NoIdentity;

impl RequesterId {
    /// Returns the requester ID of a PCI function. Bits of `device` and `function` above the widths
    /// of their fields are ignored.
    pub const fn pci(bus: u8, device: u8, function: u8) -> Self {
        Self(((bus as u32) << 8) | (((device & 0x1f) as u32) << 3) | (function & 7) as u32)
    }

    /// Returns the bus number of a PCI requester ID.
    pub const fn pci_bus(self) -> u8 {
        self.0.to_le_bytes()[1]
    }

    /// Returns the device number of a PCI requester ID.
    pub const fn pci_device(self) -> u8 {
        (self.0.to_le_bytes()[0] >> 3) & 0x1f
    }

    /// Returns the function number of a PCI requester ID.
    pub const fn pci_function(self) -> u8 {
        self.0.to_le_bytes()[0] & 7
    }
}

impl HwIrq {
    /// Returns the vector with this number plus `offset`, or `None` past the end of the number
    /// space.
    pub const fn checked_add(self, offset: u32) -> Option<Self> {
        match self.0.checked_add(offset) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::format;

    #[test]
    fn pci_requester_id_round_trips() {
        for raw in 0..=0xffff {
            let id = RequesterId::new(raw);
            assert_eq!(RequesterId::pci(id.pci_bus(), id.pci_device(), id.pci_function()), id);
        }
    }

    #[test]
    fn debug_output_names_the_kind_of_identifier() {
        assert_eq!(format!("{:?}", DeviceId::new(0x12)), "DeviceId(0x12)");
        assert_eq!(format!("{:?}", Gsi::new(12)), "Gsi(12)");
        assert_eq!(format!("{}", RequesterId::pci(1, 0, 0)), "0x0100");
        assert_eq!(format!("{:04x} {:#X}", EventId::new(0xab), HwIrq::new(0xab)), "00ab 0xAB");
    }
}
