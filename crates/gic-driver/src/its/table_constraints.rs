//! Constraints on an ITS's tables: each lies within the address bits that the ITS can drive.

use crate::platform::{GicPlatform, Table, TableLayout};
use crate::platform::{NoTable, allocate_table};

/// Limits on the location of an ITS's memory, apart from the register or command that names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TableConstraints {
    /// The ITS's NUMA node.
    pub(crate) node: Option<u32>,
    /// Physical address bits that the ITS can drive.
    pub(crate) address_bits: u8,
}

impl TableConstraints {
    /// Allocates `bytes` of table memory whose address fits a field of `address_bits` bits.
    ///
    /// Context: task; may sleep.
    pub(crate) fn allocate<P: GicPlatform>(
        self,
        platform: &P,
        bytes: u64,
        align: u64,
        address_bits: u8,
    ) -> Result<Table, NoTable> {
        let address_bits = self.address_bits.min(address_bits);
        allocate_table(
            platform,
            TableLayout::new(bytes, align).with_address_bits(address_bits).with_node(self.node),
        )
    }
}
