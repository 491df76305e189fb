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
            Self::NoController => f.write_str("no controller serves this requester"),
        }
    }
}

/// The answer to "is this device isolated?".
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Isolation {
    /// Yes, and this is the proof.
    Isolated(Isolated),
    /// No, and this is why.
    NotIsolated(NotIsolated),
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Isolated(proof) => write!(f, "isolated by {}", proof.mechanism()),
            Self::NotIsolated(reason) => write!(f, "not isolated: {reason}"),
        }
    }
}
