//! The physical bus: who claims which addresses, and where messages go.

use gic_firmware::Region;

/// Two claims on the same addresses.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{second} at {second_region} overlaps {first} at {first_region}")]
pub struct Overlap {
    /// Who was there first.
    pub first: String,
    /// Where.
    pub first_region: Region,
    /// Who came.
    pub second: String,
    /// Where.
    pub second_region: Region,
}
