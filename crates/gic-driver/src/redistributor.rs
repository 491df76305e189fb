//! The redistributors, `GICR_*` (IHI 0069 §12.10, §12.11): a CPU's private interrupts, its power
//! state, its LPI tables (`GICR_PROPBASER`, `GICR_PENDBASER`; §5.1) and their enable bit
//! (`GICR_CTLR.EnableLPIs`), and invalidations. Needs no heap.
//!
//! Invalidations at one redistributor (`GICR_INVLPIR`, `GICR_INVALLR`, `GICR_SYNCR`) are
//! serialized. A write of `GICR_INVLPIR` or `GICR_INVALLR` while `GICR_SYNCR.Busy` is 1 is
//! CONSTRAINED UNPREDICTABLE (IHI 0069, `GICR_INVLPIR`): the redistributor may ignore it. The
//! driver therefore invalidates in the following steps, on any CPU and in any context:
//!
//! 1. Take the lock and read `Busy`. If it is 0, every invalidation written so far is complete, so
//!    write the caller's next invalidation.
//! 2. Release the lock, and repeat step 1 until the caller's last invalidation is complete.
//!
//! Interrupts are only masked during step 1, so a handler that interrupts a waiter can invalidate
//! too.

mod discovery;
mod residency;

pub use discovery::{
    RedistributorRegion, RedistributorWalk, find_redistributor, walk_redistributors,
};
pub(crate) use residency::VpeTables;

use crate::frame::{BlockDefaults, Fields, Frame, PrivateState};
use crate::{
    Block, Coherence, GicError, Group, Interrupt, Mmio, MmioExt, Platform, SecurityView, TimedOut,
    wait_until,
};
use core::iter::Peekable;
use doorbell_fallible::lock::IrqLock;
use gic_arch::gicr::{self, Ctlr, Pendbaser, Propbaser, Typer};
use gic_arch::{
    Affinity, Cacheability, Iidr, IntId, IntIdClass, Lpi, OuterCacheability, Priority, Shareability,
};

/// Initial state of a CPU's private interrupts after [`Redistributor::init`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PrivateConfig {
    /// Priority of every interrupt, in the security view's scale.
    pub(crate) priority: Priority,
    /// The security view that [`Distributor::new`](crate::Distributor::new) detected.
    pub(crate) view: SecurityView,
}

impl PrivateConfig {
    /// Creates a configuration that assigns this priority to all interrupts, for this security
    /// view.
    pub const fn new(priority: Priority, view: SecurityView) -> Self {
        Self { priority, view }
    }
}

/// A redistributor. All operations take `&self` and may be called on any CPU.
#[derive(Debug)]
pub struct Redistributor<M> {
    frame: Frame<M>,
    address: u64,
    typer: Typer,
    /// `true` if `GICR_WAKER` may be used.
    waker: bool,
    invalidations: Invalidations,
    /// VLPI_base frame, if present and mapped.
    vlpi_frame: Option<M>,
}

impl<M: Mmio> Redistributor<M> {
    /// Creates the driver for a redistributor. `mmio` maps its RD_base and SGI_base frames (128
    /// KiB) at physical `address`. Only reads registers.
    ///
    /// # Errors
    /// [`GicError::WrongRevision`] if the frame does not belong to a GICv3 or GICv4.
    pub fn new(mmio: M, address: u64) -> Result<Self, GicError> {
        let frame = Frame::probe(mmio, Block::Redistributor(address))?;
        let typer = frame.mmio.read(gicr::TYPER);
        let invalidations = Invalidations::default();
        Ok(Self { frame, address, typer, waker: true, invalidations, vlpi_frame: None })
    }

    /// Makes the driver leave `GICR_WAKER` alone, because firmware woke the redistributor
    /// ([`WakerUnusable`](crate::errata::Erratum::WakerUnusable)).
    pub(crate) fn leave_waker(&mut self) {
        self.waker = false;
    }

    /// Wakes the redistributor so that it forwards interrupts to its CPU. Must be called before the
    /// CPU interface is enabled and before any other register of the redistributor is used. No-op
    /// if Secure firmware owns `GICR_WAKER` (it then reads as zero), because firmware has already
    /// woken the redistributor.
    ///
    /// # Errors
    /// [`GicError::TimedOut`] if `ChildrenAsleep` stays set.
    pub fn wake<P: Platform>(&self, platform: &P) -> Result<(), GicError> {
        if !self.waker {
            return Ok(());
        }
        let waker = self.frame.mmio.read(gicr::WAKER);
        self.frame.mmio.write(gicr::WAKER, waker.with_processor_sleep(false));
        self.frame.wait(platform, "ChildrenAsleep = 0", || {
            !self.frame.mmio.read(gicr::WAKER).children_asleep()
        })
    }

    /// Puts the redistributor to sleep, as the last step before its CPU loses power. The CPU
    /// interface must already be disabled. No-op if Secure firmware owns `GICR_WAKER`.
    ///
    /// # Errors
    /// [`GicError::TimedOut`] if `ChildrenAsleep` stays clear.
    pub fn sleep<P: Platform>(&self, platform: &P) -> Result<(), GicError> {
        if !self.waker {
            return Ok(());
        }
        let waker = self.frame.mmio.read(gicr::WAKER);
        self.frame.mmio.write(gicr::WAKER, waker.with_processor_sleep(true));
        if !self.frame.mmio.read(gicr::WAKER).processor_sleep() {
            return Ok(());
        }
        self.frame.wait(platform, "ChildrenAsleep = 1", || {
            self.frame.mmio.read(gicr::WAKER).children_asleep()
        })
    }

    /// Returns `true` if `GICR_WAKER.ProcessorSleep` is 1, so the redistributor does not forward
    /// interrupts to its CPU. Returns `false` if the driver must not access `GICR_WAKER`
    /// ([`leave_waker`](Self::leave_waker)).
    pub(crate) fn is_asleep(&self) -> bool {
        self.waker && self.frame.mmio.read(gicr::WAKER).processor_sleep()
    }

    /// Brings the CPU's private interrupts to a known state: PPIs are disabled, SGIs are enabled,
    /// and all private interrupts are inactive, not pending, of the same priority and in the view's
    /// own group. The redistributor must be awake.
    ///
    /// # Errors
    /// [`GicError::TimedOut`] if `RWP` stays set.
    pub fn init<P: Platform>(&self, platform: &P, config: PrivateConfig) -> Result<(), GicError> {
        let (group, group_modifier) = match config.view.own_group() {
            Group::SecureOne => (0, u32::MAX),
            Group::One | Group::Zero => (u32::MAX, 0),
        };
        let defaults = BlockDefaults { priority: config.priority.get(), group, group_modifier };
        for block in self.blocks() {
            self.frame.reset_block(&Fields::PRIVATE, block, defaults);
        }
        self.frame.wait_for_rwp(platform)?;
        for sgi in 0..IntId::SGI_COUNT {
            Interrupt::new(&self.frame, &Fields::PRIVATE, IntId::new(sgi)).enable();
        }
        Ok(())
    }

    /// Restores the state that [`save`](Self::save) read, after the redistributor has lost it. The
    /// redistributor must be awake.
    ///
    /// # Errors
    /// [`GicError::TimedOut`] if `RWP` stays set.
    pub fn restore<P: Platform>(&self, platform: &P, saved: &PrivateState) -> Result<(), GicError> {
        for block in self.blocks() {
            self.frame.disable_block(&Fields::PRIVATE, block);
        }
        self.frame.wait_for_rwp(platform)?;
        for (block, saved) in self.blocks().zip(&saved.blocks) {
            self.frame.restore_block(&Fields::PRIVATE, block, saved);
            self.frame.restore_enables(&Fields::PRIVATE, block, saved);
        }
        Ok(())
    }

    /// Reads the state of the CPU's private interrupts. The state of LPIs is not included, because
    /// it is kept in the LPI tables.
    pub fn save(&self) -> PrivateState {
        let mut saved = PrivateState::default();
        for (block, saved) in self.blocks().zip(&mut saved.blocks) {
            *saved = self.frame.save_block(&Fields::PRIVATE, block);
        }
        saved
    }

    /// Returns a handle to one of this redistributor's interrupts.
    ///
    /// # Errors
    /// [`GicError::NoSuchInterrupt`] if `intid` is not an SGI, PPI or extended PPI, or is not
    /// implemented.
    pub fn interrupt(&self, intid: IntId) -> Result<Interrupt<'_, M>, GicError> {
        let implemented = match intid.class() {
            IntIdClass::Sgi | IntIdClass::Ppi => true,
            IntIdClass::ExtendedPpi => {
                intid.get() - IntId::EXTENDED_PPI_BASE < self.typer.extended_ppi_count()
            }
            _ => false,
        };
        if implemented {
            Ok(Interrupt::new(&self.frame, &Fields::PRIVATE, intid))
        } else {
            Err(GicError::NoSuchInterrupt { block: self.frame.block, intid })
        }
    }

    /// Returns `true` if the redistributor has registers that invalidate LPIs, with or without an
    /// ITS (IHI 0069 §12.11: `GICR_TYPER.DirectLPI`, `GICR_CTLR.IR`). If the registers don't exist,
    /// their offsets must not be accessed.
    pub(crate) fn can_invalidate(&self) -> bool {
        self.typer.direct_lpi() || self.frame.mmio.read(gicr::CTLR).ir()
    }

    /// Executes the invalidations in `wanted` and waits until the last one is complete. The
    /// redistributor must be awake, and must [support invalidations](Self::can_invalidate).
    ///
    /// Context: any.
    ///
    /// Fails if the redistributor does not respond in time, or has not since an earlier call.
    pub(crate) fn invalidate<P: Platform>(
        &self,
        platform: &P,
        wanted: impl Iterator<Item = Invalidation>,
    ) -> Result<(), TimedOut> {
        self.invalidations.run(platform, &self.frame.mmio, wanted)
    }

    /// Returns the affinity of the redistributor's CPU.
    pub fn affinity(&self) -> Affinity {
        self.typer.affinity()
    }

    /// Returns the physical address of RD_base.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Returns the processor number, by which ITS commands refer to the redistributor if
    /// `GITS_TYPER.PTA` is 0.
    pub fn processor_number(&self) -> u16 {
        self.typer.processor_number()
    }

    /// Returns `GICR_TYPER`, which describes implemented features.
    pub fn typer(&self) -> Typer {
        self.typer
    }

    /// Returns the implementer and revision, by which [errata](crate::errata) are matched.
    pub fn iidr(&self) -> Iidr {
        self.frame.mmio.read(gicr::IIDR)
    }

    /// Returns the mapped frames.
    pub fn mmio(&self) -> &M {
        &self.frame.mmio
    }

    /// Returns the blocks of SGIs and PPIs, and of the implemented extended PPIs.
    fn blocks(&self) -> impl Iterator<Item = u32> + use<M> {
        0..1 + self.typer.extended_ppi_count() / 32
    }

    /// Returns `true` if LPIs are enabled.
    pub fn lpis_enabled(&self) -> bool {
        self.frame.mmio.read(gicr::CTLR).enable_lpis()
    }

    /// Returns `true` if the implementation lets software disable LPIs again (`GICR_CTLR.CES`).
    pub fn can_disable_lpis(&self) -> bool {
        self.frame.mmio.read(gicr::CTLR).ces()
    }

    /// Returns the base registers, which hold the table addresses.
    pub(crate) fn lpi_bases(&self) -> (Propbaser, Pendbaser) {
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

/// Returns `true` if accesses with these attributes are coherent with CPU caches.
pub(crate) fn is_coherent(shareability: Shareability, inner: Cacheability) -> bool {
    matches!(shareability, Shareability::Inner | Shareability::Outer) && inner.is_cacheable()
}

const WAIT: &str = "SYNCR.Busy = 0";

/// Scope of an invalidation, i.e. the configurations that the redistributor must reread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Invalidation {
    /// The configuration of one LPI (`GICR_INVLPIR`).
    One(Lpi),
    /// The configurations of all LPIs (`GICR_INVALLR`).
    All,
}

/// A redistributor's invalidations.
#[derive(Debug, Default)]
struct Invalidations(IrqLock<Progress>);

#[derive(Debug, Default)]
struct Progress {
    /// Number of invalidations written.
    written: u64,
    /// Number of completed invalidations, i.e. invalidations that were written before `Busy` was
    /// last read as 0.
    complete: u64,
    /// Set if a wait for an invalidation timed out and `Busy` has been 1 ever since.
    stuck: bool,
}

impl Invalidations {
    /// Implements [`Redistributor::invalidate`](Redistributor::invalidate).
    ///
    /// Context: any.
    ///
    /// One bound from the platform's clock covers all invalidations, including waits for those of
    /// other CPUs. If an earlier wait for this redistributor timed out, the call fails immediately
    /// unless `Busy` is 0 again.
    fn run<P: Platform>(
        &self,
        platform: &P,
        mmio: &impl Mmio,
        wanted: impl Iterator<Item = Invalidation>,
    ) -> Result<(), TimedOut> {
        let Self(progress) = self;
        let mut run = InvalidationRun { wanted: wanted.peekable(), own: 0 };
        let mut stuck = false;
        let before = progress.with(platform, |progress| progress.complete);
        let result = wait_until(platform, WAIT, || {
            progress.with(platform, |progress| {
                let done = run.step(progress, mmio);
                stuck = !done && progress.stuck;
                done || stuck
            })
        });
        if stuck {
            return Err(TimedOut(WAIT));
        }
        result.inspect_err(|_| {
            // If invalidations of other CPUs completed during this wait, the redistributor still
            // works.
            progress.with(platform, |progress| progress.stuck = progress.complete == before);
        })
    }
}

impl Progress {
    /// Reads `Busy` and updates the progress. Returns `true` if `Busy` is 0.
    fn is_idle(&mut self, mmio: &impl Mmio) -> bool {
        let idle = !mmio.read(gicr::SYNCR).busy();
        if idle {
            self.complete = self.written;
            self.stuck = false;
        }
        idle
    }
}

/// One caller's invalidations.
struct InvalidationRun<I: Iterator<Item = Invalidation>> {
    wanted: Peekable<I>,
    /// Sequence number of the last invalidation that the caller wrote.
    own: u64,
}

impl<I: Iterator<Item = Invalidation>> InvalidationRun<I> {
    /// Writes as many of the remaining invalidations as possible without waiting. Returns `true` if
    /// all invalidations are complete.
    fn step(&mut self, progress: &mut Progress, mmio: &impl Mmio) -> bool {
        while progress.is_idle(mmio) {
            let Some(next) = self.wanted.next() else { return true };
            match next {
                // For physical LPIs, all fields except `pINTID` are zero.
                Invalidation::One(lpi) => mmio.write(gicr::INVLPIR, lpi.get().into()),
                Invalidation::All => mmio.write(gicr::INVALLR, 0),
            }
            progress.written += 1;
            self.own = progress.written;
        }
        self.wanted.peek().is_none() && self.own <= progress.complete
    }
}
