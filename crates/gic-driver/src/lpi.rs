//! LPIs: their tables in memory, and who owns which (IHI 0069 §5.1).
//!
//! One configuration table serves all redistributors, each has a pending table of its own. Shared
//! by whatever makes LPIs pending, an ITS or Direct LPI. A configuration byte that changes is
//! published here, but redistributors may have cached the old one. Invalidation is the sender's
//! business, because only the sender has the means.

mod allocator;
mod attachment;
mod coherence;
mod config_locks;
mod configuration;
mod range;
mod stale;
mod tables;

pub use crate::error::{AdoptionRefused, LpiError, LpiMessages};
pub use range::LpiRange;

use crate::platform::ADDRESS_BITS;
use crate::redistributor::{NegotiatedTables, Redistributor, TableAccess};
use crate::{Alignment, Block, GicError, GicPlatform};
use alloc::sync::Arc;
use alloc::vec::Vec;
use doorbell_lock::IrqLock;
pub(crate) use stale::StaleAt;

use allocator::LpiAllocator;
use coherence::AttachedCoherence;
use config_locks::ConfigLocks;
use core::num::NonZeroU32;
use core::ops::Range;
use gic_arch::lpi::{MIN_ID_BITS, config_table_bytes};
use gic_arch::{Lpi, Priority, gicd};
use stale::Stale;
use tables::{ConfigTable, PendingTable};

/// INTID bits that are used where the caller chooses none: 57344 LPIs, for 56 KiB and 8 KiB for
/// each CPU.
pub const DEFAULT_ID_BITS: u8 = 16;
/// INTID bits beyond which no CPU interface acknowledges.
pub const MAX_ID_BITS: u8 = 24;

/// Choices for LPIs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LpiConfig {
    /// At most this many INTID bits (14 to 24); `None` for [`DEFAULT_ID_BITS`]. The hardware may
    /// have fewer.
    pub id_bits: Option<u8>,
    /// Priority of a new LPI. With two security states, a Non-secure one.
    pub priority: Priority,
    /// Coherence of the redistributors' accesses to memory, as firmware states it.
    pub access: TableAccess,
    /// Physical address bits of the tables' memory, at most 52: fewer where the redistributors
    /// reach less ([`Erratum::TablesBelow4GiB`](crate::errata::Erratum::TablesBelow4GiB)).
    pub address_bits: u8,
}

impl LpiConfig {
    /// LPIs of this priority, with [`DEFAULT_ID_BITS`], negotiated accesses and tables anywhere.
    pub const fn new(priority: Priority) -> Self {
        Self { id_bits: None, priority, access: TableAccess::Negotiate, address_bits: ADDRESS_BITS }
    }

    msi_types::setters! {
        with_id_bits: id_bits: Option<u8>,
        with_priority: priority: Priority,
        with_access: access: TableAccess,
        with_address_bits: address_bits: u8,
    }
}

/// The fate of LPIs that were pending at a redistributor when it lost its state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PendingLpis {
    /// Nothing was lost: they are pending again, or there were none.
    Kept,
    /// They are lost. Their sender makes them pending anew.
    Lost,
}

/// The result of [`Lpis::collect_pending`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Collected {
    /// Everything that was pending there.
    All,
    /// It is not known what was pending there.
    Unknown,
}

/// The result of [`Lpis::attach`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attached {
    /// The redistributor's accesses to its tables.
    pub tables: NegotiatedTables,
    /// The fate of LPIs that were pending there before.
    pub pending: PendingLpis,
}

/// The LPIs of one GIC. Locks inside: operations take `&self`, and may run in any context unless
/// they say "task".
#[derive(Debug)]
pub struct Lpis<P: GicPlatform> {
    platform: Arc<P>,
    id_bits: u8,
    count: u32,
    priority: Priority,
    access: TableAccess,
    config: ConfigTable,
    coherence: AttachedCoherence,
    allocator: IrqLock<LpiAllocator>,
    config_locks: ConfigLocks,
    pending: IrqLock<Vec<PendingTable>>,
    messages: IrqLock<Option<LpiMessages>>,
}

impl<P: GicPlatform> Lpis<P> {
    /// Sets up the tables for the redistributors of one GIC: the configuration table, and the
    /// pending table of each redistributor. Must be called once, on the boot CPU.
    ///
    /// Context: task; may sleep.
    ///
    /// LPIs that are already enabled are disabled if the implementation guarantees that this works
    /// (`GICR_CTLR.CES`). Otherwise the tables in use are taken over, if the platform
    /// [reserved](GicPlatform::adopt_table) them: all LPIs become disabled, and the sender must
    /// invalidate them. Otherwise disabling is tried nevertheless.
    ///
    /// # Errors
    /// [`LpiError::NotSupported`], [`LpiError::TooFewIdBits`], [`LpiError::NoMemory`],
    /// [`LpiError::Misplaced`], [`LpiError::AlreadyEnabled`]; [`GicError::TimedOut`].
    pub fn new<'a>(
        platform: Arc<P>,
        distributor: &crate::Distributor<P::Mmio>,
        redistributors: impl Iterator<Item = &'a Redistributor<P::Mmio>> + Clone,
        config: LpiConfig,
    ) -> Result<Self, GicError>
    where
        P::Mmio: 'a,
    {
        let typer = distributor.typer();
        if typer.lpi_count() == 0 {
            return Err(LpiError::NotSupported(Block::Distributor(distributor.address())).into());
        }
        if distributor.view() == crate::SecurityView::Secure {
            return Err(LpiError::SecureView.into());
        }
        let wanted =
            config.id_bits.unwrap_or(DEFAULT_ID_BITS).min(typer.id_bits()).min(MAX_ID_BITS);
        let adopted = tables::adopt_config(&*platform, typer, redistributors.clone())?;
        let id_bits = adopted.as_ref().map_or(wanted, |adopted| wanted.min(adopted.id_bits));
        if id_bits < MIN_ID_BITS {
            return Err(LpiError::TooFewIdBits { bits: id_bits }.into());
        }
        let count = lpi_count(typer, id_bits);
        let adoption = if adopted.is_some() { Adoption::Possible } else { Adoption::None };
        let (allocator, pending) = bookkeeping(count, redistributors.clone().count(), adoption)?;
        let table = match adopted {
            Some(adopted) => adopted.table,
            None => tables::allocate_config(&*platform, id_bits, config.address_bits)?,
        };
        let mut new = Self {
            id_bits,
            count,
            priority: config.priority,
            access: config.access,
            config: table,
            coherence: AttachedCoherence::new(),
            allocator: IrqLock::new(allocator),
            config_locks: ConfigLocks::default(),
            pending: IrqLock::new(pending),
            messages: IrqLock::new(None),
            platform,
        };
        let bits = (id_bits, config.address_bits);
        // Tables that were allocated before a failure are released when `new` is dropped.
        tables::provide_pending(&*new.platform, new.pending.get_mut(), redistributors, bits)?;
        Ok(new)
    }

    /// Allocates LPIs, which are disabled and have the default priority. Their first INTID is
    /// aligned. Redistributors may have cached a previous owner's configuration, so the sender must
    /// invalidate it when it maps them.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`LpiError::Blocks`].
    pub fn allocate(&self, count: NonZeroU32, align: Alignment) -> Result<LpiRange, LpiError> {
        self.allocate_within(count, align, 0..u32::MAX)
    }

    /// Like [`allocate`](Self::allocate), but only among certain INTIDs, for senders whose message
    /// is the INTID and is narrower than INTIDs.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`LpiError::Blocks`].
    pub fn allocate_within(
        &self,
        count: NonZeroU32,
        align: Alignment,
        intids: Range<u32>,
    ) -> Result<LpiRange, LpiError> {
        let range = self
            .allocator
            .with(&*self.platform, |allocator| allocator.allocate(count, align, intids))?;
        self.reset_config(range.first(), range.count());
        Ok(range)
    }

    /// Frees LPIs, and disables them. Callers must have stopped all messages that make them
    /// pending.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`LpiError::Blocks`] if they are not all allocated: nothing is freed then.
    pub fn free(&self, range: LpiRange) -> Result<(), LpiError> {
        let (first, count) = range.into_parts();
        self.allocator.with(&*self.platform, |allocator| {
            allocator.free(first, count)?;
            // Under the lock: the next owner must not find its configuration reset.
            self.reset_config(first, count);
            Ok(())
        })
    }

    /// INTID bits that the tables cover: 14 to 24.
    pub fn id_bits(&self) -> u8 {
        self.id_bits
    }

    /// Number of LPIs, from 8192 on.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Number of free LPIs.
    pub fn available(&self) -> u32 {
        self.allocator.with(&*self.platform, |allocator| allocator.available())
    }

    /// Is an LPI among these INTIDs free?
    pub fn has_free_within(&self, intids: Range<u32>) -> bool {
        self.allocator.with(&*self.platform, |allocator| allocator.has_free_within(intids))
    }

    /// Were the tables taken over from firmware or a previous kernel? Then redistributors may have
    /// cached configurations of a previous kernel: the sender invalidates them all.
    pub fn were_adopted(&self) -> bool {
        self.config.is_adopted()
    }

    /// The redistributor number `index` at which LPIs may be pending for a previous kernel.
    pub(crate) fn stale_at(&self, index: usize) -> Option<StaleAt> {
        self.allocator.with(&*self.platform, |allocator| allocator.stale_at(index))
    }

    /// Is none of these LPIs pending for a previous kernel, at any redistributor?
    pub(crate) fn are_clear(&self, range: &LpiRange) -> bool {
        self.allocator.with(&*self.platform, |allocator| allocator.are_clear(range))
    }

    /// States that LPIs were cleared at all redistributors of [`stale_at`](Self::stale_at). They
    /// are allocated, so that none was added meanwhile.
    pub(crate) fn note_cleared(&self, range: &LpiRange) {
        self.allocator.with(&*self.platform, |allocator| allocator.note_cleared(range));
    }

    /// States which messages make LPIs pending. ITSes share them with each other; direct LPIs are
    /// not shared.
    pub(crate) fn claim(&self, wanted: LpiMessages) -> Result<(), LpiError> {
        self.messages.with(&*self.platform, |messages| match *messages {
            Some(LpiMessages::Translated) if wanted == LpiMessages::Translated => Ok(()),
            Some(by) => Err(LpiError::Claimed { by }),
            None => {
                *messages = Some(wanted);
                Ok(())
            }
        })
    }

    /// Takes a claim of direct LPIs back.
    pub(crate) fn unclaim(&self) {
        self.messages.with(&*self.platform, |messages| *messages = None);
    }

    fn check(&self, lpi: Lpi) -> Result<(), LpiError> {
        if lpi.index() < self.count { Ok(()) } else { Err(LpiError::NoSuchLpi(lpi)) }
    }
}

impl<P: GicPlatform> Drop for Lpis<P> {
    /// Frees the pending tables that no redistributor ever used, and the configuration table if no
    /// pending table was ever used. Tables in use are leaked, because a redistributor reads them
    /// until reset.
    fn drop(&mut self) {
        let mut in_use = false;
        for table in self.pending.get_mut().drain(..) {
            match table.take_unused() {
                Some(unused) => self.platform.release_table(unused),
                None => in_use = true,
            }
        }
        if !in_use && let Some(table) = self.config.take_unused() {
            self.platform.release_table(table);
        }
    }
}

/// Can tables of redistributors be taken over?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Adoption {
    None,
    Possible,
}

/// Memory for what is known of so many LPIs and redistributors.
fn bookkeeping(
    lpis: u32,
    redistributors: usize,
    adoption: Adoption,
) -> Result<(LpiAllocator, Vec<PendingTable>), LpiError> {
    let none = |table, bytes: usize| LpiError::NoMemory { table, bytes: bytes as u64 };
    let bits = lpis.div_ceil(8) as usize;
    let stale = match adoption {
        Adoption::None => None,
        Adoption::Possible => Some(
            Stale::new(lpis, redistributors)
                .map_err(|_| none("record of LPIs taken over", bits))?,
        ),
    };
    let allocator = LpiAllocator::new(lpis, stale).map_err(|_| none("LPI allocator", bits))?;
    let mut pending = Vec::new();
    let bytes = redistributors.saturating_mul(size_of::<PendingTable>());
    pending
        .try_reserve_exact(redistributors)
        .map_err(|_| none("list of LPI pending tables", bytes))?;
    Ok((allocator, pending))
}

/// Number of LPIs that both the distributor and tables for `id_bits` bits have.
fn lpi_count(typer: gicd::Typer, id_bits: u8) -> u32 {
    let count = config_table_bytes(id_bits).min(typer.lpi_count());
    u32::try_from(count).unwrap_or(u32::MAX)
}
