//! Can a device ring an interrupt that is not its own?

use core::fmt;

/// The mechanism that keeps a device from ringing others' interrupts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum IsolatingMechanism {
    /// An ITS translates (DeviceID, EventID): a device reaches only what its own interrupt translation table
    /// holds. The grain is the DeviceID, so all functions that share one are one group.
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

/// Proof that a device's path isolates it. Passthrough and guest IMS ask for this value.
///
/// It is made where the mechanism is driven and cannot be altered afterwards: whoever calls
/// [`Isolated::by`] vouches that the hardware on this device's path enforces the mechanism.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Isolated {
    by: IsolatingMechanism,
}

impl Isolated {
    /// Vouches for `mechanism` on a device's path. For implementations of [`MsiParent`](crate::MsiParent) that
    /// drive that mechanism, nobody else.
    pub const fn by(mechanism: IsolatingMechanism) -> Self {
        Self { by: mechanism }
    }

    /// What isolates the device.
    pub const fn mechanism(self) -> IsolatingMechanism {
        self.by
    }
}

/// Why a device's path does not isolate it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum NotIsolated {
    /// The doorbell takes any INTID from any bus master.
    SharedDoorbell(&'static str),
    /// The doorbell shares a page with registers that reprogram the controller.
    DoorbellPageHoldsControls(&'static str),
    /// It is not known what else lies in the doorbell's page, which the device can reach through its IOMMU.
    DoorbellPageUnknown,
    /// The device's IOMMU lets it write anywhere, the controllers' own registers included.
    Unconfined,
    /// No controller serves this requester.
    NoController,
}

impl fmt::Display for NotIsolated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SharedDoorbell(name) => write!(f, "any bus master may ring any interrupt at {name}"),
            Self::DoorbellPageHoldsControls(name) => {
                write!(f, "the page of {name} also holds the controller's own registers")
            }
            Self::DoorbellPageUnknown => {
                f.write_str("it is not known what else lies in the page of the doorbell")
            }
            Self::Unconfined => {
                f.write_str("its IOMMU lets it write anywhere, also to the controller's own registers")
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

    /// Where in its page an address lies.
    pub const fn offset(self, address: u64) -> u64 {
        address & (self.bytes() - 1)
    }
}

/// What shares a page with a doorbell. Which pages: [`MsiParent::doorbell_page`](crate::MsiParent::doorbell_page).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DoorbellPage {
    /// Nothing that a device could harm (an ITS's translation frame).
    Alone,
    /// Registers that reprogram this controller (a distributor's or a redistributor's control frame).
    HoldsControls(&'static str),
    /// The controller does not say.
    Unknown,
}

/// The answer to "is this device isolated?".
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Isolation {
    /// Yes, and this is the proof.
    Isolated(Isolated),
    /// No, and this is why.
    NotIsolated(NotIsolated),
}

impl Isolation {
    /// The proof, for those who need one.
    ///
    /// # Errors
    /// Why there is none.
    pub const fn proof(self) -> Result<Isolated, NotIsolated> {
        match self {
            Self::Isolated(proof) => Ok(proof),
            Self::NotIsolated(reason) => Err(reason),
        }
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Isolated(proof) => write!(f, "isolated by {}", proof.mechanism()),
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
