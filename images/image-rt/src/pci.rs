//! PCI: configuration space by ECAM, enumeration with bus numbers and base addresses, and functions
//! as message stores.

mod enumerate;
mod function;

pub use enumerate::enumerate;
pub use function::{Bar, Ecam, Function};
