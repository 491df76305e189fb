//! The guest's LPI tables (IHI 0069 §5.1): configuration bytes and pending bits, accessed within
//! the bounds set by the guest's registers and the distributor.

use super::config::MAX_ID_BITS;
use crate::monitor::{GuestMemory, MemoryFault};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;
use doorbell_fallible::{OutOfMemory, try_boxed_slice};
use gic_arch::lpi::{self, Config, PENDING_TABLE_RESERVED};
use gic_arch::{Lpi, gicr};

/// Addresses of a redistributor's tables while its LPIs are enabled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LpiTables {
    config: u64,
    pending: u64,
    /// Number of INTID bits in `GICR_PROPBASER`, limited to the distributor's number of INTID bits.
    id_bits: u8,
}

impl LpiTables {
    pub(crate) fn new(
        propbaser: gicr::Propbaser,
        pendbaser: gicr::Pendbaser,
        distributor_id_bits: u8,
    ) -> Self {
        Self {
            config: propbaser.address(),
            pending: pendbaser.address(),
            id_bits: propbaser.id_bits().min(distributor_id_bits),
        }
    }

    /// Returns `true` if the guest enabled LPIs without programming `GICR_PROPBASER`.
    pub(super) const fn is_absent(&self) -> bool {
        self.config == 0 && self.id_bits < lpi::MIN_ID_BITS
    }

    /// Returns `true` if the LPI is within the tables.
    pub(super) fn covers(&self, lpi: Lpi) -> bool {
        lpi.get() < self.end()
    }

    /// Returns the first INTID beyond the tables.
    pub(super) fn end(&self) -> u32 {
        1 << self.id_bits.min(MAX_ID_BITS)
    }

    /// Returns the pending table's address range, which is empty if the table has no LPIs.
    pub(super) fn pending_range(&self) -> Range<u64> {
        self.pending..self.pending + lpi::pending_table_bytes(self.id_bits)
    }

    /// Reads an LPI's configuration byte. The LPI must be within the tables.
    pub(super) fn config(&self, lpi: Lpi, memory: &dyn GuestMemory) -> Result<Config, MemoryFault> {
        let mut byte = [0];
        memory.read(self.config + lpi::config_offset(lpi), &mut byte)?;
        Ok(Config::from_bits(byte[0]))
    }

    /// Reads the configuration bytes starting at this LPI index. Leaves bytes beyond the end of the
    /// table unchanged.
    pub(super) fn read_configs(
        &self,
        first: u32,
        bytes: &mut [u8],
        memory: &dyn GuestMemory,
    ) -> Result<(), MemoryFault> {
        let lpis = self.end().saturating_sub(Lpi::FIRST.get());
        let within = usize::try_from(lpis.saturating_sub(first)).unwrap_or(0).min(bytes.len());
        if within == 0 {
            return Ok(());
        }
        memory.read(self.config + u64::from(first), &mut bytes[..within])
    }

    /// Resizes an image to fit this pending table, and clears it. On error, the image is unchanged.
    pub(super) fn fit(&self, image: &mut PendingBits) -> Result<(), OutOfMemory> {
        let bytes = lpi::pending_table_bytes(self.id_bits).saturating_sub(PENDING_TABLE_RESERVED);
        let bytes = usize::try_from(bytes).unwrap_or(0);
        image.bytes.try_reserve_exact(bytes.saturating_sub(image.bytes.len()))?;
        image.bytes.clear();
        image.bytes.resize(bytes, 0);
        Ok(())
    }

    /// Reads the pending table into an image that [fits](Self::fit).
    pub(super) fn read_pending(
        &self,
        image: &mut PendingBits,
        memory: &dyn GuestMemory,
    ) -> Result<(), MemoryFault> {
        memory.read(self.pending + PENDING_TABLE_RESERVED, &mut image.bytes)
    }

    /// Writes the pending table.
    pub(super) fn write_pending(
        &self,
        bits: &PendingBits,
        memory: &dyn GuestMemory,
    ) -> Result<(), MemoryFault> {
        memory.write(self.pending + PENDING_TABLE_RESERVED, &bits.bytes)
    }
}

/// LPI tables of the redistributors that have LPIs enabled, with buffers for their pending bits.
pub(super) struct EnabledTables {
    /// Indexed by vCPU.
    tables: Box<[Option<LpiTables>]>,
    /// Buffers for the pending table's bits, indexed by vCPU. A buffer is allocated when LPIs are
    /// first enabled. A sweep that enables or disables LPIs owns the buffer while it runs.
    images: Box<[PendingBits]>,
}

impl EnabledTables {
    /// Creates an initial state in which all LPIs are disabled.
    pub(super) fn new(vcpus: u16) -> Result<Self, OutOfMemory> {
        Ok(Self {
            tables: try_boxed_slice((0..vcpus).map(|_| None))?,
            images: try_boxed_slice((0..vcpus).map(|_| PendingBits::default()))?,
        })
    }

    /// Returns the vCPUs.
    pub(super) fn vcpus(&self) -> Range<u32> {
        0..u32::try_from(self.tables.len()).unwrap_or(u32::MAX)
    }

    /// Returns a vCPU's tables, if its LPIs are enabled.
    pub(super) fn get(&self, vcpu: u32) -> Option<LpiTables> {
        self.tables.get(vcpu as usize).copied().flatten()
    }

    /// Returns `true` if the vCPU exists and its LPIs are disabled.
    pub(super) fn is_disabled(&self, vcpu: u32) -> bool {
        matches!(self.tables.get(vcpu as usize), Some(None))
    }

    /// Sets or removes a vCPU's tables.
    pub(super) fn set(&mut self, vcpu: u32, tables: Option<LpiTables>) {
        if let Some(place) = self.tables.get_mut(vcpu as usize) {
            *place = tables;
        }
    }

    /// Finds another vCPU whose LPIs are enabled and whose pending table overlaps this vCPU's
    /// pending table.
    pub(super) fn sharer_of_pending_table(&self, vcpu: u32) -> Option<u32> {
        let own = self.get(vcpu)?.pending_range();
        let mut others = (0..).zip(&self.tables).filter(|(other, _)| *other != vcpu);
        others
            .find(|(_, tables)| {
                tables.is_some_and(|tables| {
                    let range = tables.pending_range();
                    range.start < own.end && own.start < range.end
                })
            })
            .map(|(other, _)| other)
    }

    /// Allocates the buffer for the vCPU's pending bits, to fit these tables.
    pub(super) fn fit_image(&mut self, vcpu: u32, tables: &LpiTables) -> Result<(), OutOfMemory> {
        self.images.get_mut(vcpu as usize).map_or(Ok(()), |image| tables.fit(image))
    }

    /// Takes the buffer for a vCPU's pending bits.
    pub(super) fn take_image(&mut self, vcpu: u32) -> PendingBits {
        self.images.get_mut(vcpu as usize).map(core::mem::take).unwrap_or_default()
    }

    /// Returns the buffer for a vCPU's pending bits to this struct.
    pub(super) fn put_image(&mut self, vcpu: u32, image: PendingBits) {
        if let Some(place) = self.images.get_mut(vcpu as usize) {
            *place = image;
        }
    }
}

/// A pending table's bits, starting at LPI 8192.
#[derive(Default, Debug)]
pub(super) struct PendingBits {
    bytes: Vec<u8>,
}

impl PendingBits {
    fn place(lpi: Lpi) -> (usize, u8) {
        let index = lpi.index();
        ((index / 8) as usize, 1 << (index % 8))
    }

    /// Returns the work of reading or writing the pending table, in entries.
    pub(super) fn transfer_work(&self) -> u32 {
        /// Number of bytes whose transfer takes as long as visiting an entry.
        const BYTES_PER_ENTRY: usize = 16;
        u32::try_from(self.bytes.len() / BYTES_PER_ENTRY).unwrap_or(u32::MAX)
    }

    /// Clears all bits.
    pub(super) fn clear(&mut self) {
        self.bytes.fill(0);
    }

    /// Sets an LPI's bit, if the table covers the LPI.
    pub(super) fn set(&mut self, lpi: Lpi) {
        let (byte, bit) = Self::place(lpi);
        if let Some(byte) = self.bytes.get_mut(byte) {
            *byte |= bit;
        }
    }

    /// Clears an LPI's bit. Returns `true` if the bit was set.
    pub(super) fn take(&mut self, lpi: Lpi) -> bool {
        let (byte, bit) = Self::place(lpi);
        let Some(byte) = self.bytes.get_mut(byte) else {
            return false;
        };
        let was = *byte & bit != 0;
        *byte &= !bit;
        was
    }

    /// Clears the bits below this LPI index.
    pub(super) fn from(mut self, index: u32) -> Self {
        let (byte, bit) = ((index / 8) as usize, index % 8);
        let whole = byte.min(self.bytes.len());
        self.bytes[..whole].fill(0);
        if let Some(partial) = self.bytes.get_mut(byte) {
            *partial &= 0xff << bit;
        }
        self
    }

    /// Returns the first LPI at or after this index whose bit is set.
    pub(super) fn first_from(&self, index: u32) -> Option<Lpi> {
        let (first, bit) = ((index / 8) as usize, index % 8);
        let rest = self.bytes.get(first..)?.iter().zip(index / 8..);
        let (byte, at) = rest
            .map(|(byte, at)| (if at == index / 8 { byte & (0xff << bit) } else { *byte }, at))
            .find(|(byte, _)| *byte != 0)?;
        Lpi::from_index(at * 8 + byte.trailing_zeros())
    }
}
