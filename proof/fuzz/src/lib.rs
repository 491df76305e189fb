//! Common parts of the fuzz targets, which turn inputs into something that passes the first check.
#![forbid(unsafe_code)]

pub mod acpi;
pub mod description;
pub mod devicetree;
pub mod guest;
pub mod kvm;
pub mod machine;
mod memory;
