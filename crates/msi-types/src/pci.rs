//! The parts of PCI that drivers and device models share: the MSI and MSI-X capabilities, the
//! identity under which a function sends, and host bridge resources.
//!
//! Sources: PCI Local Bus 3.0 §6.8, PCI Express Base §7.7.

mod gate;
pub mod msi;
pub mod msix;
mod requester;
mod window;

pub use gate::MsiGate;
pub use requester::PciRequester;
pub use window::{BusRange, PciSpace, PciWindow};

/// Maximum number of entries in an MSI-X table.
pub const MSIX_MAX_VECTORS: u16 = 2048;
