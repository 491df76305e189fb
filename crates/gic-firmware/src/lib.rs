//! Determines from a devicetree or ACPI tables which interrupt controllers a machine has, which
//! devices signal through them, and with which DeviceID.
//!
//! A [`Description`] looks the same for ACPI and devicetree. Every [`Fact`] in it records its
//! [`Origin`]. The reader lists the defects that it notices in [`Description::findings`];
//! [`lint::check`] adds the defects that only a check of the whole machine can find.
//! [`Description::route`] translates a requester ID to a controller and a DeviceID.
//!
//! | firmware | read | written |
//! |---|---|---|
//! | devicetree | [`devicetree::parse`] | `devicetree::write` (feature `write`) |
//! | ACPI: MADT, IORT, MCFG | [`acpi::parse`] | `acpi::write` (feature `write`) |
//!
//! Input is not trusted. Reading never panics, and takes time and memory proportional to the input.
//!
//! # Example
//!
//! ```
//! use gic_firmware::{ControllerKind, devicetree};
//! use msi_types::{DeviceId, RequesterId};
//!
//! let blob = include_bytes!("../tests/data/pre-its.dtb");
//! let machine = devicetree::parse(blob)?;
//!
//! // 01:00.0 behind the first host bridge:
//! let route = machine.route(&machine.hosts[0], RequesterId::pci(1, 0, 0)).unwrap();
//! let controller = machine.controller(route.controller).unwrap();
//! assert_eq!(controller.kind, ControllerKind::Its);
//! assert_eq!(controller.id.as_str(), "/intc@30000000/its@30020000");
//! assert_eq!(route.device_id, DeviceId::new(0x100));
//!
//! // This board has a pre-ITS: the address holds the DeviceID.
//! assert_eq!(controller.doorbell(route.device_id), Some(0x5800_0400));
//! assert_eq!(
//!     controller.pre_its.as_ref().unwrap().origin.to_string(),
//!     "/intc@30000000/its@30020000: socionext,synquacer-pre-its"
//! );
//! # Ok::<(), devicetree::DtbError>(())
//! ```
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod acpi;
mod controller;
mod description;
pub mod devicetree;
mod excerpt;
mod finding;
pub mod lint;
mod map_overlap;
mod route;
mod rule;

pub use controller::{Coherence, Controller, ControllerIndex, ControllerKind, IntIdSpan};
pub use controller::{Gic, GicVersion, ParentInterrupt, SecondaryGic};
pub use controller::{IntxPin, IntxRoute, IntxRouting, NoIntx, WiredInterrupt};
pub use description::{
    BusRange, ConfigAccess, CpuNode, Description, Iommu, IommuIndex, IommuReference, IommuRouting,
    MapEntry, MsiRouting, Parent, PciBridge, PciHost, PlatformDevice, Role, StreamEntry, Target,
    WiredUser,
};
pub use finding::Region;
pub use finding::Status;
pub use finding::{Fact, NodeId, Origin};
pub use finding::{Finding, Rule, Severity};
pub use route::{NoRoute, Route, RouteSpan, Via};

/// Types from other packages that this package uses in its public signatures.
pub use gic_arch::{Affinity, IntId};
pub use msi_types::{DeviceId, RequesterId, Trigger};
pub use {gic_arch, msi_types};
