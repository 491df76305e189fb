//! Common parts of the fuzz targets: inputs turned into something that gets past the first check.
#![forbid(unsafe_code)]

pub mod acpi;
pub mod description;
pub mod devicetree;
pub mod guest;
pub mod kvm;
pub mod machine;
mod memory;
