//! LPI table registers, `GICR_PROPBASER` and `GICR_PENDBASER`, and the LPI enable bit,
//! `GICR_CTLR.EnableLPIs` (IHI 0069 §5.1, §12.11).

use super::Redistributor;
use crate::{Coherence, GicError, Mmio, MmioExt, Platform};
use gic_arch::gicr::{self, Ctlr, Pendbaser, Propbaser};
use gic_arch::{Cacheability, OuterCacheability, Shareability};

/// Contents of a pending table, as declared to the redistributor in `GICR_PENDBASER.PTZ`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PendingContents {
    /// The table is all zero, so the redistributor does not read it.
    Zero,
    /// The table may contain pending LPIs, so the redistributor reads it.
    Pending,
}

/// Coherence of the redistributors' memory accesses, according to firmware.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum TableAccess {
    /// Firmware does not describe the coherence. The driver requests shareable, cacheable accesses
    /// and reads back the attributes that the hardware supports.
    #[default]
    Negotiate,
    /// Accesses are not coherent with CPU caches (`dma-noncoherent`), regardless of the attributes
    /// that read back.
    NonCoherent,
}

/// A redistributor's tables, by physical address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LpiTables {
    /// The configuration table, 4 KiB aligned, below 2^52.
    pub(crate) config: u64,
    /// INTID bits that both tables cover.
    pub(crate) id_bits: u8,
    /// The pending table, 64 KiB aligned, below 2^52.
    pub(crate) pending: u64,
    pub(crate) contents: PendingContents,
    pub(crate) access: TableAccess,
}

impl LpiTables {
    /// Describes tables at these addresses that cover `id_bits` INTID bits. By default, no LPI is
    /// pending, and access attributes are negotiated.
    pub const fn new(config: u64, pending: u64, id_bits: u8) -> Self {
        Self {
            config,
            id_bits,
            pending,
            contents: PendingContents::Zero,
            access: TableAccess::Negotiate,
        }
    }

    msi_types::setters! {
        /// Sets the contents of the pending table.
        with_contents: contents: PendingContents,
        /// Sets the coherence according to firmware.
        with_access: access: TableAccess,
    }
}

/// Coherence of the redistributor's accesses to its tables.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NegotiatedTables {
    /// The configuration table.
    pub config: Coherence,
    /// The pending table.
    pub pending: Coherence,
}

/// Result of trying to clear `EnableLPIs`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LpiClearing {
    /// `EnableLPIs` is clear: pending LPIs are in the pending table, and the base registers may be
    /// written.
    Cleared,
    /// The implementation keeps `EnableLPIs` set until reset.
    Stuck,
}

impl<M: Mmio> Redistributor<M> {
    /// Returns `true` if LPIs are enabled.
    pub fn lpis_enabled(&self) -> bool {
        self.frame.mmio.read(gicr::CTLR).enable_lpis()
    }

    /// Returns `true` if the implementation lets software disable LPIs again (`GICR_CTLR.CES`).
    pub fn can_disable_lpis(&self) -> bool {
        self.frame.mmio.read(gicr::CTLR).ces()
    }

    /// Returns the base registers, which hold the table addresses.
    pub fn lpi_bases(&self) -> (Propbaser, Pendbaser) {
        (self.frame.mmio.read(gicr::PROPBASER), self.frame.mmio.read(gicr::PENDBASER))
    }

    /// Programs the redistributor's tables. LPIs must be disabled, and the contents must have been
    /// published as for [`Coherence::NonCoherent`]. Callers then call
    /// [`start_lpis`](Self::start_lpis).
    ///
    /// Memory attributes are negotiated: the driver requests Inner Shareable, write-back accesses.
    /// If the shareability reads back as zero, accesses are not coherent with CPU caches. In that
    /// case, the driver requests non-cacheable accesses, because cacheable, non-shareable ones
    /// might hit stale lines in the redistributor's own cache.
    ///
    /// # Errors
    /// [`GicError::TimedOut`] if `RWP` stays set. The registers must not be written in this state,
    /// and are left unchanged.
    pub fn program_lpi_tables<P: Platform>(
        &self,
        platform: &P,
        tables: &LpiTables,
    ) -> Result<NegotiatedTables, GicError> {
        self.frame.wait_for_rwp(platform)?;
        Ok(NegotiatedTables {
            config: self.program_config(tables),
            pending: self.program_pending(tables),
        })
    }

    /// Enables LPIs with the programmed tables.
    pub fn start_lpis(&self) {
        self.write_enable_lpis(true);
        // A device write may be acknowledged before it arrives (Arm ARM, Device memory: Early Write
        // Acknowledgment), so a DSB is not enough. Read the register back, because the read
        // returns only after the write has arrived. The caller may then post an ITS command that
        // targets the redistributor, and this command must not overtake the write.
        let _ = self.lpis_enabled();
    }

    /// Disables LPIs, if the implementation supports it. After [`LpiClearing::Cleared`], pending
    /// LPIs have been written to the pending table.
    ///
    /// # Errors
    /// [`GicError::TimedOut`] if `RWP` stays set.
    pub fn disable_lpis<P: Platform>(&self, platform: &P) -> Result<LpiClearing, GicError> {
        if self.lpis_enabled() {
            self.write_enable_lpis(false);
            self.frame.wait_for_rwp(platform)?;
        }
        Ok(if self.lpis_enabled() { LpiClearing::Stuck } else { LpiClearing::Cleared })
    }

    fn write_enable_lpis(&self, enable: bool) {
        let control: Ctlr = self.frame.mmio.read(gicr::CTLR);
        self.frame.mmio.write(gicr::CTLR, control.with_enable_lpis(enable));
    }

    fn program_config(&self, tables: &LpiTables) -> Coherence {
        let wanted = Propbaser::new()
            .with_id_bits_minus_one(tables.id_bits.saturating_sub(1))
            .with_address(tables.config)
            .with_outer_cache(OuterCacheability::SameAsInner);
        if tables.access == TableAccess::Negotiate {
            let cached = wanted
                .with_inner_cache(Cacheability::ReadWriteAllocateWriteBack)
                .with_shareability(Shareability::Inner);
            self.frame.mmio.write(gicr::PROPBASER, cached);
            let got = self.frame.mmio.read(gicr::PROPBASER);
            if is_coherent(got.shareability(), got.inner_cache()) {
                return Coherence::Coherent;
            }
        }
        let uncached = wanted
            .with_inner_cache(Cacheability::NonCacheable)
            .with_shareability(Shareability::Non);
        self.frame.mmio.write(gicr::PROPBASER, uncached);
        Coherence::NonCoherent
    }

    fn program_pending(&self, tables: &LpiTables) -> Coherence {
        let wanted = Pendbaser::new()
            .with_address(tables.pending)
            .with_outer_cache(OuterCacheability::SameAsInner)
            .with_pending_table_zero(tables.contents == PendingContents::Zero);
        if tables.access == TableAccess::Negotiate {
            let cached = wanted
                .with_inner_cache(Cacheability::ReadWriteAllocateWriteBack)
                .with_shareability(Shareability::Inner);
            self.frame.mmio.write(gicr::PENDBASER, cached);
            let got = self.frame.mmio.read(gicr::PENDBASER);
            if is_coherent(got.shareability(), got.inner_cache()) {
                return Coherence::Coherent;
            }
        }
        let uncached = wanted
            .with_inner_cache(Cacheability::NonCacheable)
            .with_shareability(Shareability::Non);
        self.frame.mmio.write(gicr::PENDBASER, uncached);
        Coherence::NonCoherent
    }
}

/// Returns `true` if accesses with these attributes are coherent with CPU caches.
pub(crate) fn is_coherent(shareability: Shareability, inner: Cacheability) -> bool {
    matches!(shareability, Shareability::Inner | Shareability::Outer) && inner.is_cacheable()
}
