//! Attaches redistributors to their tables: assigns pending tables, verifies tables already in use,
//! and detaches.

use super::tables::{Contents, PendingTable, PriorUse, TableOrigin};
use super::{
    AdoptionRefused, Attached, Collected, LpiError, LpiMessages, Lpis, PendingLpis, StaleAt,
};
use crate::redistributor::{
    LpiClearing, LpiTables, NegotiatedTables, PendingContents, Redistributor, is_coherent,
};
use crate::{Block, Coherence, GicError, GicPlatform, Observed, Table};
use gic_arch::Lpi;
use gic_arch::gicr::{Pendbaser, Propbaser};
use gic_arch::lpi::PENDING_TABLE_RESERVED;

impl<P: GicPlatform> Lpis<P> {
    /// Assigns a redistributor its tables and enables LPIs there. The redistributor must be awake,
    /// but it may have lost its state while its CPU was off. No-op if its LPIs are still enabled
    /// with these tables. Afterwards, the sender (an ITS or direct LPIs) must invalidate all
    /// configurations cached at the redistributor. Must not be called concurrently for two
    /// redistributors.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// [`LpiError::NotSupported`] if the redistributor has no LPIs; [`LpiError::AlreadyEnabled`] if
    /// its LPIs are enabled with unexpected tables; [`GicError::TimedOut`] if `RWP` stays set.
    pub fn attach(&self, redistributor: &Redistributor<P::Mmio>) -> Result<Attached, GicError> {
        if !redistributor.typer().plpis() {
            return Err(
                LpiError::NotSupported(Block::Redistributor(redistributor.address())).into()
            );
        }
        let mut table = self
            .remove_pending(redistributor.address())
            .ok_or_else(|| Self::not_taken_over(redistributor))?;
        let result = if redistributor.lpis_enabled() {
            self.keep(redistributor, &mut table)
        } else {
            self.start(redistributor, &mut table)
        };
        if result.is_ok() {
            table.prior_use = PriorUse::Yes;
        }
        let tables = table.tables;
        self.insert_pending(table);
        Ok(Attached { tables, pending: result? })
    }

    /// Returns the error for a redistributor without a table. Such a redistributor used a table
    /// outside reserved memory when `self` was created.
    fn not_taken_over(redistributor: &Redistributor<P::Mmio>) -> GicError {
        let (_, pending) = redistributor.lpi_bases();
        let reason = AdoptionRefused::PendingNotReserved { address: pending.address() };
        let block = Block::Redistributor(redistributor.address());
        LpiError::AlreadyEnabled { block, reason }.into()
    }

    /// Keeps the tables of a redistributor whose LPIs are already enabled, if the redistributor
    /// uses the tables that the driver expects.
    fn keep(
        &self,
        redistributor: &Redistributor<P::Mmio>,
        table: &mut PendingTable,
    ) -> Result<PendingLpis, GicError> {
        self.verify(redistributor, table)?;
        if table.origin == TableOrigin::Adopted && table.prior_use == PriorUse::No {
            let block = Block::Redistributor(redistributor.address());
            self.note_stale(redistributor)
                .map_err(|reason| LpiError::AlreadyEnabled { block, reason })?;
            let (config, pending) = redistributor.lpi_bases();
            table.tables = self.adopted_coherence(config, pending);
            self.note_coherence(table.tables.config);
        }
        Ok(PendingLpis::Kept)
    }

    /// Records a redistributor at which LPIs may be pending for a previous kernel. Direct LPIs can
    /// be cleared through the redistributor's registers at any time. An ITS, however, needs an
    /// event for each LPI that it clears, so with an ITS the function fails if LPIs have already
    /// been allocated.
    fn note_stale(&self, redistributor: &Redistributor<P::Mmio>) -> Result<(), AdoptionRefused> {
        let at = StaleAt {
            address: redistributor.address(),
            processor_number: redistributor.processor_number(),
        };
        let messages = self.messages.with(&*self.platform, |messages| *messages);
        self.allocator.with(&*self.platform, |allocator| {
            if messages == Some(LpiMessages::Direct) {
                allocator.note_stale(at);
                return Ok(());
            }
            allocator.add_stale(at).map_err(|_| AdoptionRefused::LpisInUse)
        })
    }

    fn forget_stale(&self, address: u64) {
        self.allocator.with(&*self.platform, |allocator| allocator.forget_stale(address));
    }

    fn adopted_coherence(&self, config: Propbaser, pending: Pendbaser) -> NegotiatedTables {
        let of = |coherent: bool| {
            let allowed = self.access == crate::TableAccess::Negotiate;
            if coherent && allowed { Coherence::Coherent } else { Coherence::NonCoherent }
        };
        NegotiatedTables {
            config: of(is_coherent(config.shareability(), config.inner_cache())),
            pending: of(is_coherent(pending.shareability(), pending.inner_cache())),
        }
    }

    /// Checks that a redistributor with LPIs enabled uses the tables that the driver expects.
    fn verify(
        &self,
        redistributor: &Redistributor<P::Mmio>,
        table: &PendingTable,
    ) -> Result<(), GicError> {
        let block = Block::Redistributor(redistributor.address());
        match self.unexpected(redistributor, table.table.address) {
            Some(reason) => Err(LpiError::AlreadyEnabled { block, reason }.into()),
            None => Ok(()),
        }
    }

    /// Returns the table that a redistributor uses instead of the driver's, if there is one.
    pub(crate) fn foreign_table(
        &self,
        redistributor: &Redistributor<P::Mmio>,
    ) -> Option<AdoptionRefused> {
        let at = redistributor.address();
        let pending = self.pending.with(&*self.platform, |tables| {
            tables.iter().find(|table| table.redistributor == at).map(|table| table.table.address)
        });
        self.unexpected(redistributor, pending?)
    }

    fn unexpected(
        &self,
        redistributor: &Redistributor<P::Mmio>,
        pending_table: u64,
    ) -> Option<AdoptionRefused> {
        let (config, pending) = redistributor.lpi_bases();
        let (found, expected) = (config.address(), self.config.table().address);
        if found != expected {
            return Some(AdoptionRefused::OtherConfigTable { found, expected });
        }
        let (found, expected) = (pending.address(), pending_table);
        (found != expected).then_some(AdoptionRefused::OtherPendingTable { found, expected })
    }

    /// Programs a redistributor's tables and enables LPIs there. LPIs must be disabled at the
    /// redistributor.
    fn start(
        &self,
        redistributor: &Redistributor<P::Mmio>,
        table: &mut PendingTable,
    ) -> Result<PendingLpis, GicError> {
        if table.contents == Contents::Undefined {
            clear(&*self.platform, &table.table);
        }
        let (contents, fate) = match (table.contents, table.prior_use) {
            (Contents::Flushed, _) => (PendingContents::Pending, PendingLpis::Kept),
            (Contents::Undefined, PriorUse::Yes) => (PendingContents::Zero, PendingLpis::Lost),
            (Contents::Zero, _) | (Contents::Undefined, PriorUse::No) => {
                (PendingContents::Zero, PendingLpis::Kept)
            }
        };
        table.tables = redistributor.program_lpi_tables(
            &*self.platform,
            &LpiTables::new(self.config.table().address, table.table.address, self.id_bits)
                .with_contents(contents)
                .with_access(self.access),
        )?;
        self.note_coherence(table.tables.config);
        if contents == PendingContents::Zero {
            self.forget_stale(redistributor.address());
        }
        redistributor.start_lpis();
        table.contents = Contents::Undefined;
        Ok(fate)
    }

    /// Disables LPIs at a redistributor if the implementation allows it, so that its pending LPIs
    /// are preserved in its table. Must be called before its CPU or the whole system loses power.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// Returns [`PendingLpis::Lost`] if LPIs stay enabled, or if the redistributor lost power: in
    /// the latter case, LPIs are already disabled and the contents of the pending table are
    /// undefined.
    ///
    /// # Errors
    /// [`GicError::TimedOut`] if `RWP` stays set.
    pub fn detach(&self, redistributor: &Redistributor<P::Mmio>) -> Result<PendingLpis, GicError> {
        let Some(mut table) = self.remove_pending(redistributor.address()) else {
            return Ok(PendingLpis::Kept);
        };
        if table.prior_use == PriorUse::No {
            self.insert_pending(table);
            return Ok(PendingLpis::Kept);
        }
        let flushed = self.flush(redistributor);
        if flushed == Ok(true) {
            table.contents = Contents::Flushed;
        }
        // Even with LPIs disabled, the contents are undefined if the redistributor lost power
        // before it wrote its table.
        let lost = table.contents == Contents::Undefined;
        self.insert_pending(table);
        flushed.map(|_| if lost { PendingLpis::Lost } else { PendingLpis::Kept })
    }

    /// Makes a redistributor write its pending table. Returns `false` if the redistributor did not
    /// write it.
    fn flush(&self, redistributor: &Redistributor<P::Mmio>) -> Result<bool, GicError> {
        let possible = redistributor.lpis_enabled() && redistributor.can_disable_lpis();
        Ok(possible && redistributor.disable_lpis(&*self.platform)? == LpiClearing::Cleared)
    }

    /// Calls `found` with each LPI that was pending at a redistributor when it was
    /// [detached](Self::detach), and clears the redistributor's pending table, so that these LPIs
    /// do not become pending there again.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// Returns [`Collected::Unknown`], and does not call `found`, if the table was not written
    /// back, or if the platform [can't read](GicPlatform::observe) the data that the redistributor
    /// wrote. The table then counts as [lost](PendingLpis::Lost), and its LPIs do not become
    /// pending again.
    pub fn collect_pending(
        &self,
        redistributor: &Redistributor<P::Mmio>,
        mut found: impl FnMut(Lpi),
    ) -> Collected {
        let Some(mut table) = self.remove_pending(redistributor.address()) else {
            return Collected::All;
        };
        let answer = match table.contents {
            Contents::Zero => Collected::All,
            Contents::Undefined => Collected::Unknown,
            Contents::Flushed => empty(&*self.platform, &mut table, |lpi| {
                if self.check(lpi).is_ok() {
                    found(lpi);
                }
            }),
        };
        self.insert_pending(table);
        answer
    }

    fn remove_pending(&self, redistributor: u64) -> Option<PendingTable> {
        self.pending.with(&*self.platform, |tables| {
            let index = tables.iter().position(|table| table.redistributor == redistributor)?;
            Some(tables.swap_remove(index))
        })
    }

    /// Inserts a table. The insertion does not allocate with the lock held, because the list has
    /// room for all redistributors.
    fn insert_pending(&self, table: PendingTable) {
        self.pending.with(&*self.platform, |tables| tables.push(table));
    }
}

/// Reports the LPIs in a table that was written back, and clears the table.
fn empty<P: GicPlatform>(
    platform: &P,
    table: &mut PendingTable,
    mut found: impl FnMut(Lpi),
) -> Collected {
    let PendingTable { table, contents, tables, .. } = table;
    // If the platform can't read the table, treat the contents as undefined so that its LPIs don't
    // become pending again.
    *contents = Contents::Undefined;
    let lpis = PENDING_TABLE_RESERVED.min(table.bytes)..table.bytes;
    if platform.observe(table, lpis.clone(), tables.pending) == Observed::No {
        return Collected::Unknown;
    }
    for offset in lpis {
        let byte = platform.load8(table, offset);
        for bit in (0..8).filter(|bit| byte & 1 << bit != 0) {
            if let Some(lpi) = lpi_at(offset, bit) {
                found(lpi);
            }
        }
    }
    clear(platform, table);
    *contents = Contents::Zero;
    Collected::All
}

/// Returns the LPI for this pending-table bit.
fn lpi_at(offset: u64, bit: u32) -> Option<Lpi> {
    let intid = u32::try_from(offset.checked_mul(8)?).ok()?.checked_add(bit)?;
    Lpi::try_from(intid).ok()
}

fn clear<P: GicPlatform>(platform: &P, table: &Table) {
    for offset in (0..table.bytes).step_by(8) {
        platform.store64(table, offset, 0);
    }
    platform.publish(table, 0..table.bytes, Coherence::NonCoherent);
}
