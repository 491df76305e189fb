//! A parent's answers about a device's isolation from the interrupts and memory of others.

use core::fmt;

/// The mechanism that prevents a device from triggering other devices' interrupts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum IsolatingMechanism {
    /// An ITS translates (DeviceID, EventID): a device can trigger only the interrupts in its own
    /// interrupt translation table. The granularity is the DeviceID, so functions that share a
    /// DeviceID are not isolated from each other.
    Its,
    /// An interrupt remapping unit checks the requester against its table entry.
    InterruptRemapping,
}

impl fmt::Display for IsolatingMechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Its => "ITS (per DeviceID)",
            Self::InterruptRemapping => "interrupt remapping",
        })
    }
}

/// The reason why a device can trigger other devices' interrupts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum NotIsolated {
    /// The doorbell accepts any INTID from any bus master.
    SharedDoorbell(&'static str),
    /// The doorbell shares a page with registers that reprogram the controller.
    DoorbellPageHoldsControls(&'static str),
    /// The other contents of the doorbell's page are unknown, and the device can reach the page
    /// through its IOMMU.
    DoorbellPageUnknown,
    /// No controller serves this requester.
    NoController,
}

impl fmt::Display for NotIsolated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SharedDoorbell(name) => {
                write!(f, "any bus master can trigger any interrupt at {name}")
            }
            Self::DoorbellPageHoldsControls(name) => {
                write!(f, "the page of {name} also holds the controller's own registers")
            }
            Self::DoorbellPageUnknown => {
                f.write_str("the other contents of the doorbell's page are unknown")
            }
            Self::NoController => f.write_str("no controller serves this requester"),
        }
    }
}

/// The size of an IOMMU's pages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Granule {
    /// 4 KiB.
    Size4K,
    /// 16 KiB.
    Size16K,
    /// 64 KiB.
    Size64K,
}

impl Granule {
    /// Returns the size in bytes.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Size4K => 0x1000,
            Self::Size16K => 0x4000,
            Self::Size64K => 0x1_0000,
        }
    }

    /// Returns the base address of the page that contains `address`.
    pub const fn page(self, address: u64) -> u64 {
        address & !(self.bytes() - 1)
    }

    /// Returns the offset of `address` in its page.
    pub const fn offset(self, address: u64) -> u64 {
        address & (self.bytes() - 1)
    }
}

/// Other contents of a doorbell's page, as
/// [`MsiParent::doorbell_page`](crate::MsiParent::doorbell_page) reports them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DoorbellPage {
    /// The page contains no other registers that a device could misuse (an ITS's translation
    /// frame).
    Alone,
    /// The page contains registers that reprogram this controller (a distributor's or a
    /// redistributor's control frame).
    HoldsControls(&'static str),
    /// No page contains the doorbell: the host bridge itself takes the writes, before an IOMMU
    /// translates them.
    InBridge,
    /// The controller does not report the contents.
    Unknown,
}

/// A parent's answer to "Can this device trigger other devices' interrupts?". The proof of
/// isolation is [`InterruptIsolated`](crate::InterruptIsolated).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Isolation {
    /// The device cannot, because of this mechanism.
    Isolated(IsolatingMechanism),
    /// The device is not isolated, for this reason.
    NotIsolated(NotIsolated),
}

impl Isolation {
    /// Returns the mechanism that isolates the device.
    ///
    /// # Errors
    /// Returns the reason why the device is not isolated.
    pub const fn mechanism(self) -> Result<IsolatingMechanism, NotIsolated> {
        match self {
            Self::Isolated(mechanism) => Ok(mechanism),
            Self::NotIsolated(reason) => Err(reason),
        }
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Isolated(mechanism) => write!(f, "isolated by {mechanism}"),
            Self::NotIsolated(reason) => write!(f, "not isolated: {reason}"),
        }
    }
}

/// A parent's answer to "Can this device access memory that does not belong to it?". The proof of
/// isolation is [`DmaIsolated`](crate::DmaIsolated).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DmaIsolation {
    /// The device cannot, because an IOMMU translates its accesses.
    Isolated,
    /// The device is not isolated, for this reason.
    NotIsolated(NotDmaIsolated),
}

/// The reason why a device can access memory that does not belong to it, including the registers of
/// controllers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum NotDmaIsolated {
    /// No IOMMU on the device's path serves the device.
    NoIommu,
    /// The device's IOMMU passes its accesses through untranslated.
    Identity,
}

impl fmt::Display for NotDmaIsolated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoIommu => "no IOMMU translates its accesses, so it can reach all memory",
            Self::Identity => {
                "its IOMMU passes its accesses through untranslated, so it can reach all memory"
            }
        })
    }
}

impl fmt::Display for DmaIsolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Isolated => f.write_str("isolated by its IOMMU"),
            Self::NotIsolated(reason) => write!(f, "not isolated: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_plus_the_offset_equals_the_address() {
        for granule in [Granule::Size4K, Granule::Size16K, Granule::Size64K] {
            for address in [0, 0x0809_0040, 0xffff_ffff_ffff_ffff] {
                assert_eq!(granule.page(address) + granule.offset(address), address);
                assert!(granule.page(address).is_multiple_of(granule.bytes()));
            }
        }
    }
}
