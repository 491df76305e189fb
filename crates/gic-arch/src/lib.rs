//! Register, command and table definitions for the Arm Generic Interrupt Controller, versions 3 and
//! 3.1, including its Interrupt Translation Service (ITS). The crate also covers the CPU interface
//! of a GICv2 ([`gicc`]).
//!
//! The crate contains types but no algorithms. Drivers and device models share the types, so each
//! offset and field is defined only once. A driver uses [`Reg`] constants to address a register. A
//! model uses the same constants (or a frame's `REGISTERS` table) to decode an access.
//!
//! Unless stated otherwise, the source is Arm IHI 0069 (GIC architecture specification) and the
//! register pages of Arm DDI 0601.
//!
//! # Example
//!
//! ```
//! use gic_arch::its::{Command, CollectionId};
//! use gic_arch::{IntId, gicd, gits};
//! use msi_types::{DeviceId, EventId};
//!
//! // Locate the enable bit of SPI 42 in the distributor.
//! let bit = gicd::ISENABLER.locate(IntId::new(42)).unwrap();
//! assert_eq!((bit.register().offset(), bit.shift()), (0x104, 10));
//!
//! // Encode and decode an ITS command.
//! let command = Command::Mapti {
//!     device: DeviceId::new(0x12),
//!     event: EventId::new(9),
//!     intid: 8200,
//!     collection: CollectionId::new(3),
//! };
//! assert_eq!(Command::decode(command.encode()), Ok(command));
//!
//! // Decode a register value.
//! let typer = gits::Typer::from(0x1f_0001_efb1);
//! assert_eq!((typer.event_id_bits(), typer.device_id_bits()), (16, 16));
//! assert_eq!(typer.itt_entry_bytes(), 12);
//! ```
#![no_std]
#![forbid(unsafe_code)]

mod affinity;
pub mod gicc;
pub mod gicd;
pub mod gicr;
pub mod gits;
pub mod icc;
pub mod ich;
mod id_registers;
mod intid;
pub mod its;
pub mod lpi;
mod memory_attributes;
mod per_intid;
mod priority;
mod reg;
pub mod v2m;

pub use affinity::Affinity;
pub use id_registers::{ArchRevision, Iidr, Pidr2, id};
pub use intid::{IntId, IntIdClass, Lpi, NotAnLpi, SgiId};
pub use memory_attributes::{Cacheability, OuterCacheability, Shareability};
pub use msi_types;
pub use per_intid::{IntIdField, IntIdLocation, IntIdRange};
pub use priority::Priority;
pub use reg::{
    Access, AccessKind, RawRegister, ReadOnly, ReadWrite, Readable, Reg, RegArray, RegisterInfo,
    RegisterValue, Writable, WriteOnly,
};
