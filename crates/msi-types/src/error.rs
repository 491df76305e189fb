//! Errors of controllers and layers that allocate and route a device's vectors.

use crate::{Cpu, DeviceId, EventId, HwIrq, RequesterId};
use core::fmt;

/// The reason why a controller or a layer refused a request or failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MsiError {
    /// Not enough vectors of the requested shape are free.
    #[error("no block of {wanted} vectors is free")]
    NoVectors {
        /// Number of requested vectors.
        wanted: u16,
    },
    /// The device has used up the vectors that were reserved for it when it was attached.
    #[error("the device was attached for {limit} vectors; {wanted} more do not fit")]
    DeviceFull {
        /// Number of requested vectors.
        wanted: u16,
        /// Number of vectors that were reserved for the device when it was attached.
        limit: u32,
    },
    /// The doorbell's address does not fit the endpoint's address register.
    #[error(
        "the doorbell at {address:#x} needs more than the {bits} address bits that the endpoint \
         stores"
    )]
    AddressTooWide {
        /// Address of the doorbell.
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
    /// The endpoint could send a torn message, half old and half new, while its message is changed.
    #[error("the endpoint cannot change its message in one store and cannot be masked")]
    WouldTear,
    /// The controller does not support aligned groups.
    #[error("this controller does not support contiguous vector groups")]
    NoGroups,
    /// The controller's messages can make interrupts pending, but cannot deassert them.
    #[error("this controller has no level-triggered messages")]
    NoLevels,
    /// The vector has the target CPU of its line, the wired interrupt by which its controller
    /// signals it and others. The vector alone can neither be moved nor be managed.
    #[error("the vector is signaled by line {0}, whose target CPU it shares with other vectors")]
    SharesLine(HwIrq),
    /// The CPU is unknown to the controller, offline, or not ready for this kind of interrupt.
    #[error("CPU {0} cannot take this interrupt: {1}")]
    NotReachable(Cpu, &'static str),
    /// The bus's mapping does not assign this requester a DeviceID at this controller.
    #[error("requester {0} has no mapping to this controller")]
    NoRoute(RequesterId),
    /// The DeviceID exceeds the range of the controller's tables.
    #[error("DeviceID {id} does not fit the controller's {bits} DeviceID bits")]
    DeviceIdOutOfRange {
        /// The DeviceID.
        id: DeviceId,
        /// Number of DeviceID bits that the controller supports.
        bits: u8,
    },
    /// The device is already attached, with fewer vectors than are now requested.
    #[error("DeviceID {0} is already attached, for fewer vectors")]
    AlreadyAttached(DeviceId),
    /// The controller did not allocate this vector.
    #[error("vector {0} does not belong to this controller")]
    UnknownVector(HwIrq),
    /// The vector already has an owner: another driver, or a controller that allocates it for
    /// messages.
    #[error("vector {0} is already in use")]
    InUse(HwIrq),
    /// The IOMMU in front of the device does not let it reach the doorbell.
    #[error(
        "the IOMMU does not let requester {device} reach the doorbell at {address:#x}: {reason}"
    )]
    Unmapped {
        /// The device.
        device: RequesterId,
        /// Address of the doorbell.
        address: u64,
        /// Reason for the refusal.
        reason: &'static str,
    },
    /// A bus or bridge between the device and the controller cannot forward the device's messages
    /// intact.
    #[error("{level} cannot forward messages of requester {device}: {reason}")]
    Bus {
        /// Name of the level that refuses the device's messages.
        level: &'static str,
        /// The device.
        device: RequesterId,
        /// Reason for the refusal.
        reason: &'static str,
    },
    /// The platform could not allocate memory.
    #[error("no memory for {0}")]
    NoMemory(&'static str),
    /// The hardware failed or did not answer.
    #[error("{0}")]
    Controller(ControllerFault),
}

/// A fault of a controller, with the operation that failed and its object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ControllerFault {
    /// Kind of the controller, as firmware names it (`"its"`).
    pub kind: &'static str,
    /// Physical base address of the controller.
    pub base: u64,
    /// Operation that failed (`"MAPTI"`).
    pub operation: &'static str,
    /// The device that the operation concerned, if any.
    pub device: Option<DeviceId>,
    /// The event that the operation concerned, if any.
    pub event: Option<EventId>,
    /// Reason for the failure (`"timeout"`, `"queue stalled"`).
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
    fn a_controller_fault_names_the_command_device_and_event() {
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
