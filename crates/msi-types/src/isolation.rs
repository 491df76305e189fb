//! Isolation of a device from interrupts and memory that are not its own: a parent's answers.

use core::fmt;

/// The mechanism that keeps a device from ringing others' interrupts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum IsolatingMechanism {
    /// An ITS translates (DeviceID, EventID): a device reaches only what its own interrupt
    /// translation table holds. The grain is the DeviceID, so all functions that share one are one
    /// group.
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

/// Reason for which a device can trigger others' interrupts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum NotIsolated {
    /// The doorbell takes any INTID from any bus master.
    SharedDoorbell(&'static str),
    /// The doorbell shares a page with registers that reprogram the controller.
    DoorbellPageHoldsControls(&'static str),
    /// It is not known what else lies in the doorbell's page, which the device can reach through
    /// its IOMMU.
    DoorbellPageUnknown,
    /// No controller serves this requester.
    NoController,
}

impl fmt::Display for NotIsolated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SharedDoorbell(name) => {
                write!(f, "any bus master may ring any interrupt at {name}")
            }
            Self::DoorbellPageHoldsControls(name) => {
                write!(f, "the page of {name} also holds the controller's own registers")
            }
            Self::DoorbellPageUnknown => {
                f.write_str("it is not known what else lies in the page of the doorbell")
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
    /// In bytes.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Size4K => 0x1000,
            Self::Size16K => 0x4000,
            Self::Size64K => 0x1_0000,
        }
    }

    /// The page in which an address lies.
    pub const fn page(self, address: u64) -> u64 {
        address & !(self.bytes() - 1)
    }

    /// Returns the offset of an address in its page.
    pub const fn offset(self, address: u64) -> u64 {
        address & (self.bytes() - 1)
    }
}

/// Other contents of a doorbell's page, as
/// [`MsiParent::doorbell_page`](crate::MsiParent::doorbell_page) reports them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DoorbellPage {
    /// Nothing that a device could harm (an ITS's translation frame).
    Alone,
    /// Registers that reprogram this controller (a distributor's or a redistributor's control
    /// frame).
    HoldsControls(&'static str),
    /// The controller does not say.
    Unknown,
}

/// A parent's answer to "is this device kept from ringing others' interrupts?". The proof of it is
/// [`InterruptIsolated`](crate::InterruptIsolated).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Isolation {
    /// Yes, by this mechanism.
    Isolated(IsolatingMechanism),
    /// No, and this is why.
    NotIsolated(NotIsolated),
}

impl Isolation {
    /// Returns the mechanism that isolates the device.
    ///
    /// # Errors
    /// The reason for which nothing does.
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

/// A parent's answer to "is this device kept from memory that is not its own?". The proof of it is
/// [`DmaIsolated`](crate::DmaIsolated).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DmaIsolation {
    /// Yes: an IOMMU translates what it accesses.
    Isolated,
    /// No, and this is why.
    NotIsolated(NotDmaIsolated),
}

/// Reason for which a device can access memory that is not its own, controllers' registers
/// included.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum NotDmaIsolated {
    /// No IOMMU is on the device's path, or none that serves it.
    NoIommu,
    /// Its IOMMU passes its accesses untranslated.
    Identity,
}

impl fmt::Display for NotDmaIsolated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoIommu => "no IOMMU translates its accesses, so that it reaches all memory",
            Self::Identity => {
                "its IOMMU passes its accesses untranslated, so that it reaches all memory"
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
    fn page_and_offset_together_are_the_address() {
        for granule in [Granule::Size4K, Granule::Size16K, Granule::Size64K] {
            for address in [0, 0x0809_0040, 0xffff_ffff_ffff_ffff] {
                assert_eq!(granule.page(address) + granule.offset(address), address);
                assert!(granule.page(address).is_multiple_of(granule.bytes()));
            }
        }
    }
}
