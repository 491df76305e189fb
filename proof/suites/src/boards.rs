//! Independent interpretations of devicetrees, and the findings in Debian's devicetrees.

mod addresses;
pub mod devicetree;
pub mod fields;
pub mod findings;
pub mod recognized;
pub mod registers;
pub mod served;
pub mod sources;
