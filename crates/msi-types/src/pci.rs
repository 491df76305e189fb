//! PCI's MSI and MSI-X capabilities, the stores of a function's messages, for drivers and device
//! models alike.
//!
//! Source: PCI Local Bus 3.0 §6.8, PCI Express Base §7.7.

pub mod msi;
pub mod msix;

/// A function's MSI can offer at most this many vectors.
pub const MSI_MAX_VECTORS: u16 = 32;
/// A function's MSI-X table has at most this many entries.
pub const MSIX_MAX_VECTORS: u16 = 2048;
