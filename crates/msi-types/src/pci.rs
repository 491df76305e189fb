//! The parts of PCI that drivers and device models share: the MSI and MSI-X capabilities, the
//! identity under which a function sends, and host bridge resources.
//!
//! Sources: PCI Local Bus 3.0 §6.8, PCI Express Base §7.7.

mod host_bridge;
pub mod msi;
pub mod msix;
mod requester;

pub use host_bridge::{BusRange, MsiGate, PciSpace, PciWindow};
pub use requester::PciRequester;

/// Maximum number of entries in an MSI-X table.
pub const MSIX_MAX_VECTORS: u16 = 2048;
