//! Virtual PCI bus messages, with parsers and emitters.
//!
//! Neither end trusts the other. A parser ignores bytes after the last field, because the ring
//! rounds lengths up to a multiple of 8. Every count and number in a message is validated before it
//! is used. Layouts follow Linux's `drivers/pci/controller/pci-hyperv.c` and OpenVMM's
//! `vpci_protocol`.
//!
//! | direction | packet | type |
//! |---|---|---|
//! | guest to host | in-band | [`Request`] |
//! | host to guest | in-band | [`Notice`] |
//! | host to guest | completion of a request | [`reply`] |

mod bytes;
mod error;
mod interrupt;
mod notice;
pub mod reply;
mod request;
mod resources;
mod retarget;
mod slot;
mod version;

pub use error::ProtocolError;
pub use interrupt::{
    Delivery, InterruptDescriptor, InterruptForm, MAX_GROUP, MAX_PROCESSORS, Processors,
    TranslatedInterrupt,
};
pub use notice::{DeviceDescription, Notice, Relations, RelationsForm};
pub use reply::Status;
pub use request::{PowerState, Request};
pub use resources::{AssignedResources, ResourcesForm};
pub use retarget::{DeviceKey, HIGHEST_PROCESSOR, RETARGET_INTERRUPT, Retarget, RetargetInput};
pub use slot::Slot;
pub use version::Version;

use bytes::{Codec, Reader, Writer};

/// Number of base address registers in a function.
pub const BARS: usize = 6;

/// Number of slots on a bus: 32 devices with 8 functions each.
pub const SLOTS: usize = 256;

/// Length in bytes of the longest message that either end sends: a bus relations notice for a full
/// bus.
pub const MAX_MESSAGE: usize = Relations::message_length(RelationsForm::V2, SLOTS);

/// Message type numbers. All of them start at `0x42490000` ("BI").
mod kind {
    pub(super) const BUS_RELATIONS: u32 = 0x4249_0000;
    pub(super) const QUERY_BUS_RELATIONS: u32 = 0x4249_0001;
    pub(super) const INVALIDATE_DEVICE: u32 = 0x4249_0002;
    pub(super) const INVALIDATE_BUS: u32 = 0x4249_0003;
    pub(super) const POWER_STATE_CHANGE: u32 = 0x4249_0004;
    pub(super) const QUERY_RESOURCES: u32 = 0x4249_0005;
    pub(super) const D0_ENTRY: u32 = 0x4249_0007;
    pub(super) const D0_EXIT: u32 = 0x4249_0008;
    pub(super) const EJECT: u32 = 0x4249_000b;
    pub(super) const EJECTION_COMPLETE: u32 = 0x4249_000f;
    pub(super) const RESOURCES_ASSIGNED: u32 = 0x4249_0010;
    pub(super) const RESOURCES_RELEASED: u32 = 0x4249_0011;
    pub(super) const QUERY_PROTOCOL_VERSION: u32 = 0x4249_0013;
    pub(super) const DELETE_INTERRUPT: u32 = 0x4249_0015;
    pub(super) const RESOURCES_ASSIGNED2: u32 = 0x4249_0016;
    pub(super) const CREATE_INTERRUPT2: u32 = 0x4249_0017;
    pub(super) const DELETE_INTERRUPT2: u32 = 0x4249_0018;
    pub(super) const BUS_RELATIONS2: u32 = 0x4249_0019;
    pub(super) const RESOURCES_ASSIGNED3: u32 = 0x4249_001a;
    pub(super) const CREATE_INTERRUPT3: u32 = 0x4249_001b;
}
