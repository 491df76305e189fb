//! Errors between a device's vectors and their controller.

use crate::{Cpu, DeviceId, EventId, HwIrq, RequesterId};
use core::fmt;

/// Reason for which a controller or a layer refused or failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MsiError {
    /// Not enough free vectors (in the shape asked for).
    #[error("no block of {wanted} vectors is free")]
    NoVectors {
        /// Number of requested vectors.
        wanted: u16,
    },
    /// The device's own share of vectors, fixed when it was attached, is used up.
    #[error("the device was attached for {limit} vectors, {wanted} more do not fit")]
    DeviceFull {
        /// Number of requested vectors.
        wanted: u16,
        /// The limit.
        limit: u32,
    },
    /// The doorbell's address does not fit the endpoint's address register.
    #[error(
        "the doorbell at {address:#x} needs more than the {bits} address bits that the endpoint \
         stores"
    )]
    AddressTooWide {
        /// The doorbell.
        address: u64,
        /// Number of bits that the endpoint can store.
        bits: u8,
    },
    /// The data does not fit the endpoint's data register.
    #[error("message data {data:#x} needs more than the {bits} data bits that the endpoint stores")]
    DataTooWide {
        /// The data.
        data: u32,
        /// Number of bits that the endpoint can store.
        bits: u8,
    },
    /// The endpoint cannot change its message without a moment in which it is half old, half new.
    #[error("the endpoint cannot change its message in one store and cannot be masked")]
    WouldTear,
    /// Aligned groups are not offered here.
    #[error("this controller has no contiguous vector groups")]
    NoGroups,
    /// Messages make interrupts pending here, and cannot deassert them.
    #[error("this controller has no level-triggered messages")]
    NoLevels,
    /// The CPU is unknown to the controller, off line, or not ready for this kind of interrupt.
    #[error("CPU {0} cannot take this interrupt: {1}")]
    NotReachable(Cpu, &'static str),
    /// The bus's mapping gives this requester no DeviceID at this controller.
    #[error("requester {0} has no mapping to this controller")]
    NoRoute(RequesterId),
    /// The DeviceID is beyond what the controller's tables can hold.
    #[error("DeviceID {id} does not fit the controller's {bits} DeviceID bits")]
    DeviceIdOutOfRange {
        /// The DeviceID.
        id: DeviceId,
        /// Number of bits that the controller takes.
        bits: u8,
    },
    /// The device is attached with other needs already.
    #[error("DeviceID {0} is attached already, for fewer vectors")]
    AlreadyAttached(DeviceId),
    /// The vector is not one that this controller handed out.
    #[error("vector {0} does not belong to this controller")]
    UnknownVector(HwIrq),
    /// The vector has an owner: another driver, or a controller that allocates it for messages.
    #[error("vector {0} is in use already")]
    InUse(HwIrq),
    /// The IOMMU in front of the device does not lead to the doorbell.
    #[error(
        "the IOMMU does not let requester {device} reach the doorbell at {address:#x}: {reason}"
    )]
    Unmapped {
        /// The device.
        device: RequesterId,
        /// The doorbell.
        address: u64,
        /// Reason of the refusal.
        reason: &'static str,
    },
    /// A bus or bridge between the device and the controller spoils what it sends.
    #[error("{level} cannot pass requester {device} on: {reason}")]
    Bus {
        /// The level.
        level: &'static str,
        /// The device.
        device: RequesterId,
        /// Reason of the refusal.
        reason: &'static str,
    },
    /// The platform gave no memory.
    #[error("no memory for {0}")]
    NoMemory(&'static str),
    /// The hardware failed, and said or did not say why.
    #[error("{0}")]
    Controller(ControllerFault),
}

/// A fault of a controller, with the object and the operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ControllerFault {
    /// Kind of the controller, as firmware names it (`"its"`).
    pub kind: &'static str,
    /// Its physical base address.
    pub base: u64,
    /// Operation that failed (`"MAPTI"`).
    pub operation: &'static str,
    /// For which device, if for one.
    pub device: Option<DeviceId>,
    /// For which event, if for one.
    pub event: Option<EventId>,
    /// Reason of the failure (`"timeout"`, `"queue stalled"`).
    pub reason: &'static str,
}

impl fmt::Display for ControllerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{:x}, {}", self.kind, self.base, self.operation)?;
        if let Some(device) = self.device {
            write!(f, " device {device}")?;
        }
        if let Some(event) = self.event {
            write!(f, " event {event}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::string::ToString;

    #[test]
    fn controller_fault_names_the_object() {
        let fault = ControllerFault {
            kind: "its",
            base: 0x808_0000,
            operation: "MAPTI",
            device: Some(DeviceId::new(0x12)),
            event: Some(EventId::new(9)),
            reason: "queue stalled",
        };
        assert_eq!(
            MsiError::Controller(fault).to_string(),
            "its@8080000, MAPTI device 0x12 event 0x9: queue stalled"
        );
    }
}
