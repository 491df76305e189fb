//! Who rings what: interrupt controllers, DeviceIDs and MSI routes from firmware.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod controller;
mod description;
pub mod devicetree;
mod finding;
mod gic;
mod origin;
mod requester;
mod route;

pub use controller::{Controller, ControllerIndex, ControllerKind, IntIdSpan};
pub use description::{Coherence, Cpu, Description, Region, Status};
pub use finding::{Finding, Rule, Severity};
pub use gic::{Gic, GicVersion};
pub use origin::{Fact, NodeId, Origin};
pub use requester::{BusRange, ConfigSpace, MapEntry, MsiRouting, Parent, PciHost, PlatformDevice, Target};
pub use route::{NoRoute, Route, RouteSpan, Via};
