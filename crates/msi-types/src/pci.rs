//! Parts of PCI that drivers and device models share: the MSI and MSI-X capabilities, the identity
//! of a function, and the resources of a host bridge.
//!
//! Source: PCI Local Bus 3.0 §6.8, PCI Express Base §7.7.

pub mod msi;
pub mod msix;
mod requester;
mod window;

pub use requester::PciRequester;
pub use window::{BusRange, PciSpace, PciWindow};

/// Maximum number of vectors of a function's MSI capability.
pub const MSI_MAX_VECTORS: u16 = 32;
/// Maximum number of entries of a function's MSI-X table.
pub const MSIX_MAX_VECTORS: u16 = 2048;
