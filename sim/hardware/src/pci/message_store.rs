//! The device side of MSI and MSI-X, which decides whether a message is sent or held back by a
//! mask.

use crate::bus::AccessWidth;
use crate::pci::config_bytes::ConfigBytes;
use msi_types::MsiMessage;
use msi_types::pci::{msi, msix};

/// Number of address bits in an MSI capability.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddressWidth {
    /// 32 bits.
    Bits32,
    /// 64 bits.
    Bits64,
}

/// The parameters of a message store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreConfig {
    /// An MSI capability with 2^`log2_vectors` vectors (at most 32).
    Msi {
        /// Base-2 logarithm of the number of vectors, 0 to 5.
        log2_vectors: u8,
        /// Width of the message address.
        address: AddressWidth,
        /// Support for mask bits and pending bits.
        masking: msi_types::Masking,
    },
    /// MSI-X.
    Msix {
        /// Number of table entries: 1 to 2048.
        vectors: u16,
        /// The BAR that holds the table.
        table_bar: u8,
        /// The BAR that holds the pending bits.
        pba_bar: u8,
    },
    /// The function has no message store, so it can't interrupt.
    None,
}

impl StoreConfig {
    /// Returns the number of messages that the store holds or can derive.
    pub const fn vectors(self) -> u16 {
        match self {
            Self::Msi { log2_vectors, .. } => 1 << if log2_vectors > 5 { 5 } else { log2_vectors },
            Self::Msix { vectors, .. } => vectors,
            Self::None => 0,
        }
    }
}

/// The result of asking a message store to send a message.
pub(super) enum SignalAction {
    /// The function must send the message.
    Send(MsiMessage),
    /// A mask holds the message back.
    Held,
    /// The function must not send the message.
    Off,
}

/// An MSI capability, whose registers are in configuration space.
pub(super) struct MsiCapability {
    at: u16,
    layout: msi::Layout,
    /// Pending messages. The guest sees them if the capability has pending bits.
    pending: u32,
}

impl MsiCapability {
    pub(super) fn add(
        config: &mut ConfigBytes,
        shape: (u8, AddressWidth, msi_types::Masking),
    ) -> Self {
        let (log2_vectors, address, masking) = shape;
        let control = msi::Control::new()
            .with_multiple_message_capable(log2_vectors.min(5))
            .with_address_64(address == AddressWidth::Bits64)
            .with_per_vector_masking(masking == msi_types::Masking::PerVector);
        let layout = msi::Layout::new(control);
        let at = config.add_capability(msi::CAPABILITY_ID, layout.length());
        config.store(at + msi::CONTROL, AccessWidth::Half, u32::from(u16::from(control)));
        let writable = msi::Control::new().with_enable(true).with_multiple_message_enable(7);
        config.allow(at + msi::CONTROL, AccessWidth::Half, u32::from(u16::from(writable)));
        config.allow(at + msi::ADDRESS_LOW, AccessWidth::Word, !3);
        config.allow(at + layout.data(), AccessWidth::Half, 0xffff);
        if let Some(high) = layout.address_high() {
            config.allow(at + high, AccessWidth::Word, u32::MAX);
        }
        if let Some(mask) = layout.mask() {
            let vectors = 1u64 << log2_vectors.min(5);
            let implemented = u32::try_from((1u64 << vectors) - 1).unwrap_or(u32::MAX);
            config.allow(at + mask, AccessWidth::Word, implemented);
        }
        Self { at, layout, pending: 0 }
    }

    /// Signals vector `index`.
    pub(super) fn signal(&mut self, config: &mut ConfigBytes, index: u16) -> SignalAction {
        let control = self.control(config);
        if !control.enable() {
            return SignalAction::Off;
        }
        let index = msi::vector_data(0, control.multiple_message_enable(), index);
        if !config.is_bus_master() || self.mask(config) & 1 << index != 0 {
            self.set_pending(config, self.pending | 1 << index);
            return SignalAction::Held;
        }
        SignalAction::Send(self.message(config, index))
    }

    /// Returns the messages that a software write released. The function must be a bus master.
    pub(super) fn release(&mut self, config: &mut ConfigBytes) -> Vec<MsiMessage> {
        let ready = self.pending & !self.mask(config);
        if ready == 0 || !self.control(config).enable() {
            return Vec::new();
        }
        self.set_pending(config, self.pending & !ready);
        (0..32)
            .filter(|index| ready & 1 << index != 0)
            .map(|index| self.message(config, index))
            .collect()
    }

    fn control(&self, config: &ConfigBytes) -> msi::Control {
        msi::Control::from(config.load16(self.at + msi::CONTROL))
    }

    fn message(&self, config: &ConfigBytes, index: u32) -> MsiMessage {
        let word = |offset: u16| config.load(self.at + offset, AccessWidth::Word);
        let high = self.layout.address_high().map_or(0, word);
        let base = u32::from(config.load16(self.at + self.layout.data()));
        let log2 = self.control(config).multiple_message_enable();
        let index = u16::try_from(index).unwrap_or(0);
        MsiMessage {
            address: u64::from(high) << 32 | u64::from(word(msi::ADDRESS_LOW)),
            data: msi::vector_data(base, log2, index),
        }
    }

    fn mask(&self, config: &ConfigBytes) -> u32 {
        self.layout.mask().map_or(0, |offset| config.load(self.at + offset, AccessWidth::Word))
    }

    fn set_pending(&mut self, config: &mut ConfigBytes, pending: u32) {
        self.pending = pending;
        if let Some(offset) = self.layout.pending() {
            config.store(self.at + offset, AccessWidth::Word, pending);
        }
    }
}

/// An MSI-X capability with its table and pending bits.
pub(super) struct MsixCapability {
    at: u16,
    table: Vec<[u32; 4]>,
    pending: Vec<u64>,
}

impl MsixCapability {
    pub(super) fn add(
        config: &mut ConfigBytes,
        vectors: u16,
        table: msix::BarOffset,
        pba: msix::BarOffset,
    ) -> Self {
        let at = config.add_capability(msix::CAPABILITY_ID, msix::LENGTH);
        let control = msix::Control::new().with_table_size_minus_one(vectors.saturating_sub(1));
        config.store(at + msix::CONTROL, AccessWidth::Half, u32::from(u16::from(control)));
        let writable = msix::Control::new().with_enable(true).with_function_mask(true);
        config.allow(at + msix::CONTROL, AccessWidth::Half, u32::from(u16::from(writable)));
        config.store(at + msix::TABLE, AccessWidth::Word, table.into());
        config.store(at + msix::PBA, AccessWidth::Word, pba.into());
        let entry = [0, 0, 0, msix::VectorControl::new().with_masked(true).into()];
        let table = vec![entry; usize::from(vectors)];
        Self { at, table, pending: vec![0; usize::from(vectors).div_ceil(64)] }
    }

    /// Signals vector `index`.
    pub(super) fn signal(&mut self, config: &ConfigBytes, index: u16) -> SignalAction {
        let control = self.control(config);
        let Some(entry) = self.table.get(usize::from(index)) else { return SignalAction::Off };
        if !control.enable() {
            return SignalAction::Off;
        }
        if !config.is_bus_master() || control.function_mask() || masked(entry) {
            if let Some(word) = self.pending.get_mut(usize::from(index) / 64) {
                *word |= 1 << (index % 64);
            }
            return SignalAction::Held;
        }
        SignalAction::Send(message(entry))
    }

    /// Returns the messages that a software write released. The function must be a bus master.
    pub(super) fn release(&mut self, config: &ConfigBytes) -> Vec<MsiMessage> {
        let control = self.control(config);
        if !control.enable()
            || control.function_mask()
            || self.pending.iter().all(|word| *word == 0)
        {
            return Vec::new();
        }
        let mut ready = Vec::new();
        for (index, entry) in self.table.iter().enumerate().filter(|(_, entry)| !masked(entry)) {
            let (word, bit) = (&mut self.pending[index / 64], 1 << (index % 64));
            if *word & bit != 0 {
                *word &= !bit;
                ready.push(message(entry));
            }
        }
        ready
    }

    /// Performs a software write of an aligned word in the table.
    pub(super) fn write_table(&mut self, offset: u64, value: u32) {
        if let Some(word) = self.word(offset) {
            // Address bits 1:0 and the reserved bits in Vector Control read as zero.
            *word = match offset % msix::ENTRY_SIZE {
                msix::ENTRY_ADDRESS_LOW => value & !3,
                msix::ENTRY_CONTROL => value & 1,
                _ => value,
            };
        }
    }

    /// Performs a software read of an aligned word in the table.
    pub(super) fn read_table(&mut self, offset: u64) -> u32 {
        self.word(offset).map_or(0, |word| *word)
    }

    /// Performs a software read of an aligned word in the pending bits.
    pub(super) fn read_pending(&self, offset: u64) -> u32 {
        let word =
            usize::try_from(offset / 8).ok().and_then(|word| self.pending.get(word)).copied();
        let halves = word.unwrap_or(0).to_le_bytes();
        let half =
            if offset.is_multiple_of(8) { halves.first_chunk() } else { halves.last_chunk() };
        half.map_or(0, |half: &[u8; 4]| u32::from_le_bytes(*half))
    }

    /// Returns the size of the table in bytes.
    pub(super) fn table_bytes(&self) -> u64 {
        u64::try_from(self.table.len()).unwrap_or(0) * msix::ENTRY_SIZE
    }

    fn word(&mut self, offset: u64) -> Option<&mut u32> {
        let entry = self.table.get_mut(usize::try_from(offset / msix::ENTRY_SIZE).ok()?)?;
        entry.get_mut(usize::try_from(offset % msix::ENTRY_SIZE / 4).ok()?)
    }

    fn control(&self, config: &ConfigBytes) -> msix::Control {
        msix::Control::from(config.load16(self.at + msix::CONTROL))
    }
}

fn masked(entry: &[u32; 4]) -> bool {
    msix::VectorControl::from(entry[3]).masked()
}

fn message(entry: &[u32; 4]) -> MsiMessage {
    MsiMessage { address: u64::from(entry[1]) << 32 | u64::from(entry[0]), data: entry[2] }
}
