//! Parts shared by the fuzz targets. They turn inputs into something that passes the first checks.
#![forbid(unsafe_code)]

pub mod acpi;
pub mod description;
pub mod devicetree;
pub mod guest;
pub mod kvm;
pub mod machine;
mod memory;
