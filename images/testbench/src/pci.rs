//! PCI: configuration space by ECAM, enumeration with bus numbers and base addresses, and functions as message stores.

mod enumerate;
mod function;

pub(crate) use enumerate::enumerate;
pub(crate) use function::{Bar, Ecam, Function};
