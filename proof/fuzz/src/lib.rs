//! Parts shared by the fuzz targets. These parts convert inputs into data that passes the first
//! checks of the tested code.
#![forbid(unsafe_code)]

pub mod acpi;
pub mod damage;
pub mod description;
pub mod devicetree;
pub mod kvm;
pub mod machine;
mod memory;
