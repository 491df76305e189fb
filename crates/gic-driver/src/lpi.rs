//! LPIs: the tables in memory that configure them, and their allocation to owners (IHI 0069 §5.1).
//!
//! All redistributors share one configuration table, but each has its own pending table. This
//! module is shared by the drivers for ITSes and for direct LPIs, which are called *senders* here
//! because messages to them make LPIs pending. The module publishes changed configuration bytes,
//! but redistributors may still have old bytes cached. The sender must invalidate cached bytes,
//! because ITSes and direct LPIs use different mechanisms for this.
//!
//! A configuration byte is changed with its lock held, and is then published to redistributors that
//! don't snoop caches. Neighboring bytes use different locks, because a device's LPIs are
//! consecutive and often target different CPUs.

mod allocator;
mod attachment;
mod tables;

pub use crate::error::{AdoptionRefused, LpiError, LpiMessages};
pub use allocator::LpiRange;
pub(crate) use allocator::StaleAt;

use crate::platform::ADDRESS_BITS;
use crate::redistributor::{NegotiatedTables, Redistributor, TableAccess};
use crate::{Alignment, Block, Coherence, GicError, GicPlatform};
use alloc::sync::Arc;
use alloc::vec::Vec;
use allocator::{LpiAllocator, Stale};
use core::num::NonZeroU32;
use core::ops::Range;
use core::sync::atomic::{AtomicU8, Ordering};
use doorbell_fallible::lock::IrqLock;
use gic_arch::lpi::{Config, MIN_ID_BITS, config_offset, config_table_bytes};
use gic_arch::{Lpi, Priority, gicd};
use tables::{ConfigTable, PendingTable};

/// Default number of INTID bits: 57344 LPIs, using 56 KiB plus 8 KiB per CPU.
pub const DEFAULT_ID_BITS: u8 = 16;
/// Maximum number of INTID bits that a CPU interface can acknowledge.
pub const MAX_ID_BITS: u8 = 24;

/// LPI configuration for a GIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LpiConfig {
    pub(crate) id_bits: Option<u8>,
    pub(crate) priority: Priority,
    pub(crate) access: TableAccess,
    pub(crate) address_bits: u8,
}

impl LpiConfig {
    /// Creates a configuration with LPIs of this priority, [`DEFAULT_ID_BITS`], negotiated
    /// accesses, and tables at any address.
    pub const fn new(priority: Priority) -> Self {
        Self { id_bits: None, priority, access: TableAccess::Negotiate, address_bits: ADDRESS_BITS }
    }

    msi_types::setters! {
        /// Sets the maximum number of INTID bits (14 to 24); `None` for [`DEFAULT_ID_BITS`]. The
        /// hardware may support fewer.
        with_id_bits: id_bits: Option<u8>,
        /// Sets the priority for newly allocated LPIs. With two security states, this is a
        /// Non-secure priority.
        with_priority: priority: Priority,
        /// Sets the coherence of the redistributors' memory accesses, according to firmware.
        with_access: access: TableAccess,
        /// Sets the physical address bits for table memory, at most 52. Must be fewer if the
        /// redistributors can't reach all memory
        /// ([`Erratum::TablesBelow4GiB`](crate::errata::Erratum::TablesBelow4GiB)).
        with_address_bits: address_bits: u8,
    }
}

/// Fate of the LPIs that were pending when a redistributor lost its state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PendingLpis {
    /// Nothing was lost: LPIs that were pending are pending again.
    Kept,
    /// The pending state is lost. The sender must resend every LPI that may have been pending at
    /// the redistributor.
    Lost,
}

/// Result of [`Lpis::collect_pending`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Collected {
    /// All LPIs that were pending at the redistributor were reported.
    All,
    /// The driver can't determine which LPIs were pending at the redistributor.
    Unknown,
}

/// Result of [`Lpis::attach`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Attached {
    /// Coherence of the redistributor's accesses to its tables.
    pub tables: NegotiatedTables,
    /// Fate of the LPIs that were pending at the redistributor before it was attached.
    pub pending: PendingLpis,
}

/// A GIC's LPIs. Operations take `&self`; locking is internal. Unless documented otherwise, they
/// may be called in any context.
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
    /// Sets up the tables for a GIC's redistributors: one configuration table, and a pending table
    /// per redistributor. Must be called once, on the boot CPU.
    ///
    /// Context: task; may sleep.
    ///
    /// LPIs that are already enabled are disabled if the implementation guarantees that this works
    /// (`GICR_CTLR.CES`). Otherwise, if the platform [reserved](GicPlatform::adopt_table) the
    /// tables in use, the driver adopts them: it disables all LPIs in the adopted configuration
    /// table, and the sender must invalidate their cached configurations. If the tables are not
    /// reserved, the driver still tries to disable LPIs.
    ///
    /// # Errors
    /// [`LpiError::NotSupported`], [`LpiError::SecureView`] or [`LpiError::TooFewIdBits`] if LPIs
    /// cannot be used; [`LpiError::NoMemory`] or [`LpiError::Misplaced`] if the platform has no
    /// suitable memory; [`LpiError::AlreadyEnabled`] if LPIs can be neither disabled nor adopted;
    /// [`GicError::TimedOut`] if `RWP` stays set.
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
        // On failure, dropping `new` releases the tables allocated so far.
        tables::provide_pending(&*new.platform, new.pending.get_mut(), redistributors, bits)?;
        Ok(new)
    }

    /// Allocates LPIs, disabled and with the default priority. `align` applies to the first INTID.
    /// Redistributors may have a previous owner's configuration cached, so the sender must
    /// invalidate it when it maps the LPIs.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`LpiError::Blocks`] if no suitable block of LPIs is free.
    pub fn allocate(&self, count: NonZeroU32, align: Alignment) -> Result<LpiRange, LpiError> {
        self.allocate_within(count, align, 0..u32::MAX)
    }

    /// Allocates LPIs like [`allocate`](Self::allocate), but only from `intids`. Senders need this
    /// for devices whose message data is too narrow for all INTIDs.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`LpiError::Blocks`] if no suitable block of LPIs is free.
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

    /// Disables and frees LPIs. Callers must already have stopped all messages that make these LPIs
    /// pending.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`LpiError::Blocks`] if one of the LPIs is not allocated. On error, nothing is freed.
    pub fn free(&self, range: LpiRange) -> Result<(), LpiError> {
        let (first, count) = range.into_parts();
        self.allocator.with(&*self.platform, |allocator| {
            allocator.blocks.free(first.get(), count)?;
            // Reset the configuration while the allocator's lock is held; otherwise, the LPI might
            // already belong to its next owner.
            self.reset_config(first, count);
            Ok(())
        })
    }

    /// Returns the number of INTID bits that the tables cover, 14 to 24.
    pub fn id_bits(&self) -> u8 {
        self.id_bits
    }

    /// Returns the number of LPIs. The first LPI has INTID 8192.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Returns the number of free LPIs.
    pub fn available(&self) -> u32 {
        self.allocator.with(&*self.platform, |allocator| allocator.blocks.available())
    }

    /// Returns `true` if an LPI among these INTIDs is free.
    pub(crate) fn has_free_within(&self, intids: Range<u32>) -> bool {
        self.allocator.with(&*self.platform, |allocator| allocator.blocks.has_free_within(intids))
    }

    /// Returns `true` if the tables were adopted from firmware or a previous kernel. If so,
    /// redistributors may have the previous kernel's configurations cached, and the sender must
    /// invalidate all of them.
    pub fn were_adopted(&self) -> bool {
        self.config.is_adopted()
    }

    /// Returns the `index`-th redistributor at which LPIs may be pending for a previous kernel.
    pub(crate) fn stale_at(&self, index: usize) -> Option<StaleAt> {
        self.allocator.with(&*self.platform, |allocator| allocator.stale_at(index))
    }

    /// Returns `true` if none of these LPIs can be pending for a previous kernel at any
    /// redistributor.
    pub(crate) fn are_clear(&self, range: &LpiRange) -> bool {
        self.allocator.with(&*self.platform, |allocator| allocator.are_clear(range))
    }

    /// Records that LPIs were cleared at all redistributors of [`stale_at`](Self::stale_at). The
    /// LPIs must be allocated: while an LPI is allocated, no such redistributor is added.
    pub(crate) fn note_cleared(&self, range: &LpiRange) {
        self.allocator.with(&*self.platform, |allocator| allocator.note_cleared(range));
    }

    /// Claims the LPIs for a message mechanism. Several ITSes can share the LPIs; the driver for
    /// direct LPIs needs all of them to itself.
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

    /// Withdraws the claim of the driver for direct LPIs.
    pub(crate) fn unclaim(&self) {
        self.messages.with(&*self.platform, |messages| *messages = None);
    }

    fn check(&self, lpi: Lpi) -> Result<(), LpiError> {
        if lpi.index() < self.count { Ok(()) } else { Err(LpiError::NoSuchLpi(lpi)) }
    }

    /// Enables an LPI, keeping its priority, and publishes its configuration. Redistributors may
    /// keep using the old configuration until the sender invalidates it.
    ///
    /// # Errors
    /// [`LpiError::NoSuchLpi`] if the tables do not cover the LPI.
    pub fn enable(&self, lpi: Lpi) -> Result<(), LpiError> {
        self.update_config(lpi, |config| config.with_enable(true))
    }

    /// Disables an LPI, keeping its priority. Otherwise like [`enable`](Self::enable).
    ///
    /// # Errors
    /// [`LpiError::NoSuchLpi`] if the tables do not cover the LPI.
    pub fn disable(&self, lpi: Lpi) -> Result<(), LpiError> {
        self.update_config(lpi, |config| config.with_enable(false))
    }

    /// Sets an LPI's priority (the two low bits are ignored). Otherwise like
    /// [`enable`](Self::enable).
    ///
    /// # Errors
    /// [`LpiError::NoSuchLpi`] if the tables do not cover the LPI.
    pub fn set_priority(&self, lpi: Lpi, priority: Priority) -> Result<(), LpiError> {
        self.update_config(lpi, |config| config.with_priority(priority))
    }

    /// Returns an LPI's configuration as a redistributor would read it now.
    ///
    /// # Errors
    /// [`LpiError::NoSuchLpi`] if the tables do not cover the LPI.
    pub fn config(&self, lpi: Lpi) -> Result<Config, LpiError> {
        self.check(lpi)?;
        // The lock is held, so the byte has also been published.
        let byte = self.config_locks.of(lpi).with(&*self.platform, |()| {
            self.platform.load8(self.config.table(), config_offset(lpi))
        });
        Ok(Config::from(byte))
    }

    /// Returns whether the attached redistributors read the configuration table coherently. The
    /// result is non-coherent if one of the redistributors is, or if none has been attached yet.
    pub fn coherence(&self) -> Coherence {
        self.coherence.get()
    }

    /// Returns a newly allocated LPI's configuration: disabled, with the default priority.
    pub(crate) fn initial_config(&self) -> Config {
        Config::new().with_priority(self.priority)
    }

    fn update_config(
        &self,
        lpi: Lpi,
        change: impl FnOnce(Config) -> Config,
    ) -> Result<(), LpiError> {
        self.check(lpi)?;
        self.config_locks.of(lpi).with(&*self.platform, |()| {
            let old = Config::from(self.platform.load8(self.config.table(), config_offset(lpi)));
            self.store_config(lpi, change(old).with_res1(true));
        });
        Ok(())
    }

    fn store_config(&self, lpi: Lpi, config: Config) {
        let offset = config_offset(lpi);
        self.platform.store8(self.config.table(), offset, config.into());
        self.platform.publish(self.config.table(), offset..offset + 1, self.coherence());
    }

    /// Resets LPI configurations. The LPIs must be in the allocator's range.
    fn reset_config(&self, first: Lpi, count: NonZeroU32) {
        let start = config_offset(first);
        let end = start + u64::from(count.get());
        for (offset, lock) in (start..end).zip(self.config_locks.from(first)) {
            lock.with(&*self.platform, |()| {
                self.platform.store8(self.config.table(), offset, self.initial_config().into());
            });
        }
        self.platform.publish(self.config.table(), start..end, self.coherence());
    }

    /// Records whether another redistributor reads the configuration table coherently.
    fn note_coherence(&self, found: Coherence) {
        match found {
            Coherence::Coherent => self.coherence.note_coherent(),
            Coherence::NonCoherent => {
                let before = self.coherence.note_non_coherent();
                // A lock holder may still be using the old coherence, so wait for each lock. Stores
                // made before this point are cleaned below, and later stores clean their own bytes.
                self.config_locks.all().for_each(|lock| lock.with(&*self.platform, |()| ()));
                if before == Coherence::Coherent {
                    // Bytes stored until now were only published for coherent redistributors.
                    let table = self.config.table();
                    self.platform.publish(table, 0..table.bytes, Coherence::NonCoherent);
                }
            }
        }
    }
}

impl<P: GicPlatform> Drop for Lpis<P> {
    /// Frees pending tables that were never used, and frees the configuration table if no pending
    /// table was ever used. Used tables are leaked, because redistributors read them until reset.
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

/// Whether redistributors may use adopted tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Adoption {
    None,
    Possible,
}

/// Allocates the LPI allocator and the list of pending tables, for this many LPIs and
/// redistributors.
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
            Stale::new(lpis, redistributors).map_err(|_| none("record of adopted LPIs", bits))?,
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

/// Returns the number of LPIs that both the distributor and tables with `id_bits` bits support.
fn lpi_count(typer: gicd::Typer, id_bits: u8) -> u32 {
    let count = config_table_bytes(id_bits).min(typer.lpi_count());
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// No redistributor has been attached yet, so writes to the table are cleaned to the point of
/// coherency.
const UNKNOWN: u8 = 0;
/// All attached redistributors are coherent.
const COHERENT: u8 = 1;
/// At least one attached redistributor is not coherent.
const NON_COHERENT: u8 = 2;

/// Common coherence of all attached redistributors, which is non-coherent if at least one of them
/// is.
#[derive(Debug)]
struct AttachedCoherence(AtomicU8);

impl AttachedCoherence {
    const fn new() -> Self {
        Self(AtomicU8::new(UNKNOWN))
    }

    /// Returns the common coherence, which is non-coherent until the first redistributor is
    /// recorded.
    fn get(&self) -> Coherence {
        Self::decode(self.0.load(Ordering::SeqCst))
    }

    fn note_coherent(&self) {
        // The exchange only succeeds for the first redistributor; for later ones, the state does
        // not change.
        let _ = self.0.compare_exchange(UNKNOWN, COHERENT, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Records a non-coherent redistributor and returns the previous state.
    fn note_non_coherent(&self) -> Coherence {
        Self::decode(self.0.swap(NON_COHERENT, Ordering::SeqCst))
    }

    const fn decode(state: u8) -> Coherence {
        if state == COHERENT { Coherence::Coherent } else { Coherence::NonCoherent }
    }
}

/// Number of locks that all configuration bytes share.
const LOCKS: usize = 32;

/// Locks for configuration bytes. The LPI at index n uses the lock n modulo [`LOCKS`].
#[derive(Debug, Default)]
struct ConfigLocks([ConfigLock; LOCKS]);

/// A lock in its own cache line, so that CPUs using different locks don't contend.
#[derive(Debug, Default)]
#[repr(align(64))]
struct ConfigLock(IrqLock<()>);

impl ConfigLocks {
    fn of(&self, lpi: Lpi) -> &IrqLock<()> {
        &self.0[lpi.index() as usize % LOCKS].0
    }

    fn all(&self) -> impl Iterator<Item = &IrqLock<()>> {
        self.0.iter().map(|lock| &lock.0)
    }

    /// Returns the locks for consecutive LPIs, starting at `first`.
    fn from(&self, first: Lpi) -> impl Iterator<Item = &IrqLock<()>> {
        self.0.iter().cycle().skip(first.index() as usize % LOCKS).map(|lock| &lock.0)
    }
}
