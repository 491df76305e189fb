//! Settings in a function's configuration space that decide about its messages.

use msi_types::pci::msix::BarOffset;

/// Fixed properties of an MSI-X capability: registers that the guest reads to find the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MsixLayout {
    /// Offset of the next capability in configuration space, or 0.
    pub next: u8,
    /// BAR of the table, and its offset there.
    pub table: BarOffset,
    /// BAR of the pending bits, and their offset there.
    pub pending: BarOffset,
}

impl MsixLayout {
    /// Returns the layout with the table at the start of BAR 0, directly followed by the pending
    /// bits.
    pub(crate) fn of(vectors: u16) -> Self {
        // An entry has two quadwords.
        let pending = BarOffset::new().with_offset_in_qwords(2 * u32::from(vectors));
        Self { next: 0, table: BarOffset::new(), pending }
    }
}

/// Bus Master Enable, bit 2 of the Command register.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum BusMaster {
    /// The function must not send requests, hence no messages.
    Disabled,
    /// The function may send messages.
    #[default]
    Enabled,
}
